// The tables: sorting, filtering, and the choice of the runs that the other parts show.

function setUpTables() {
  findAll(".board").forEach((board, index) => {
    makeSortable(find(".runs", board), rankedFirst);
    findAll(".runs tbody tr", board).forEach((row, place) => {
      row.run = DATA.groups[index].runs[place];
      const box = make("input", { type: "checkbox", "aria-label": `show ${DATA.runs[row.run].name}`, onchange: () => toggle(row.run, box.checked) });
      find(".pick", row).append(box);
    });
    find(".tools", board).hidden = false;
    find(".filter", board).addEventListener("input", () => filterTable(board));
    find(".more-columns", board).addEventListener("change", (event) => board.classList.toggle("all-columns", event.target.checked));
    findAll("[data-select]", board).forEach((button) => button.addEventListener("click", () => choose(board, button.dataset.select)));
    filterTable(board);
  });
  const tabs = find("#groups");
  tabs.hidden = DATA.groups.length < 2;
  findAll(".board").forEach((board, index) => tabs.append(make("button", { type: "button", onclick: () => showGroup(index) }, find("h2", board).textContent)));
}

function showGroup(index) {
  state.group = index;
  findAll(".board").forEach((board, place) => (board.hidden = place !== index));
  findAll("#groups button").forEach((button, place) => button.setAttribute("aria-pressed", place === index));
  choose(findAll(".board")[index], "best");
}

/** Runs that are not ranked stay at the end. */
function rankedFirst(a, b) {
  return a.classList.contains("unranked") - b.classList.contains("unranked");
}

/** Shows the rows that contain every word of the filter. */
function filterTable(board) {
  const words = find(".filter", board).value.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = findAll(".runs tbody tr", board);
  rows.forEach((row) => (row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word))));
  const shown = rows.filter((row) => !row.hidden).length;
  find(".shown", board).textContent = shown === rows.length ? `${shown} runs` : `${shown} of ${rows.length} runs`;
}

/** Selects the best runs, all rows that the filter shows, or none. */
function choose(board, which) {
  const runs = DATA.groups[state.group].runs;
  const shown = findAll(".runs tbody tr", board).filter((row) => !row.hidden).map((row) => row.run);
  const ranked = runs.filter((number) => DATA.runs[number].rank !== null);
  const best = (ranked.length ? ranked : runs).slice(0, DATA.selected);
  state.selected = { best, shown, none: [] }[which];
  update();
}

function toggle(number, on) {
  state.selected = on ? [...state.selected, number] : state.selected.filter((each) => each !== number);
  update();
}

/** Checks the boxes of the selected runs, in their colors. */
function markSelected() {
  findAll(".board")[state.group].querySelectorAll(".runs tbody tr").forEach((row) => {
    const box = find(".pick input", row);
    box.checked = state.selected.includes(row.run);
    box.style.setProperty("--color", color(row.run));
  });
}
