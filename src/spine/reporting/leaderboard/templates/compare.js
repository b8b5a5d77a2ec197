// Differences of configuration, and figures side by side.

const MAX_COMPARED = 12; // columns of the table of configurations

function drawConfiguration() {
  const withConfig = group().runs.filter((number) => DATA.runs[number].config !== null);
  find("#configuration").hidden = !withConfig.length;
  const chosen = [find("#diff-a"), find("#diff-b")].map((select) => select.value);
  const options = (first) => [make("option", { value: "" }, first), ...withConfig.map((number) => make("option", { value: number }, DATA.runs[number].label))];
  find("#diff-a").replaceChildren(...options(`selected runs (${state.selected.length})`));
  find("#diff-b").replaceChildren(...options("each other"));
  [find("#diff-a"), find("#diff-b")].forEach((select, i) => (select.value = withConfig.includes(Number(chosen[i])) && chosen[i] !== "" ? chosen[i] : ""));
  const named = [find("#diff-a").value, find("#diff-b").value].filter((value) => value !== "").map(Number);
  const both = find("#diff-a").value === "" ? [...state.selected, ...named] : named;
  drawDifferences([...new Set(both)].filter((number) => withConfig.includes(number)));
}

/** A table with one row for each key in which runs differ, or for each key, and one column for each run. */
function drawDifferences(numbers) {
  const shown = numbers.slice(0, MAX_COMPARED);
  const configs = shown.map((number) => ({ ...DATA.common, ...DATA.runs[number].config }));
  const keys = [...new Set(configs.flatMap((config) => Object.keys(config)))].sort();
  const differs = (key) => configs.some((config) => config[key] !== configs[0][key]);
  const words = find("#diff-filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = keys.filter((key) => (find("#diff-all").checked || differs(key)) && words.every((word) => key.toLowerCase().includes(word)));
  if (!shown.length) return find("#diff").replaceChildren(emptyState("Select runs in the table, or choose two here."));
  if (!rows.length) return find("#diff").replaceChildren(emptyState(shown.length < 2 ? "Select a second run to see in what they differ." : "These runs have no such differences."));
  const heads = shown.map((number) => make("th", { title: DATA.runs[number].name }, make("span", { class: "swatch", "--color": color(number) }), DATA.runs[number].label));
  const body = rows.map((key) => make("tr", {}, make("td", {}, make("code", {}, key)), ...configs.map((config) =>
    make("td", { class: config[key] !== configs[0][key] ? "changed" : "" }, make("code", {}, config[key] === undefined ? "–" : config[key] === "" ? '""' : config[key])))));
  const table = make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, `${rows.length} of ${keys.length} keys`), ...heads)), make("tbody", {}, ...body));
  const rest = numbers.length > MAX_COMPARED ? emptyState(`The first ${MAX_COMPARED} of ${numbers.length} runs are compared.`) : "";
  find("#diff").replaceChildren(make("div", { class: "scroll" }, table), rest);
}

function drawFigures() {
  const names = [...new Set(group().runs.flatMap((number) => Object.keys(DATA.runs[number].figures)))].sort();
  find("#figures").hidden = !names.length;
  if (!names.includes(state.figure)) state.figure = names[0];
  find("#figure-names").replaceChildren(...names.map((name) =>
    make("button", { type: "button", "aria-pressed": name === state.figure, onclick: () => { state.figure = name; drawFigures(); } }, name.replaceAll("_", " "))));
  const having = state.selected.filter((number) => DATA.runs[number].figures[state.figure]);
  const lacking = state.selected.length - having.length;
  const cards = having.map((number) => {
    const run = DATA.runs[number];
    const picture = make("img", { src: run.figures[state.figure], alt: `${state.figure} of ${run.label}` });
    const caption = make("figcaption", { title: run.name }, make("span", { class: "swatch", "--color": color(number) }), `${run.rank ? `${run.rank}. ` : ""}${run.label}`);
    return make("figure", { "data-run": number }, caption, make("button", { type: "button", title: "enlarge", onclick: () => enlarge(run) }, picture));
  });
  if (lacking) cards.push(emptyState(`${lacking} selected ${lacking === 1 ? "run has" : "runs have"} no such figure in this page, which has those of the best runs.`));
  if (!state.selected.length) cards.push(emptyState("Select runs in the table."));
  find("#figure-grid").replaceChildren(...cards);
}

/** Shows a figure in full size: the file in the run folder if it is still there, else the copy in the page. */
function enlarge(run) {
  const picture = find("#viewer img");
  picture.onerror = () => { picture.onerror = null; picture.src = run.figures[state.figure]; };
  picture.src = run.originals[state.figure];
  find("#viewer span").textContent = `${run.label}: ${state.figure}`;
  find("#viewer").showModal();
}
