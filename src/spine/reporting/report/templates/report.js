// Curves, sorting, enlarged pictures and copied commands of a report.

const DATA = JSON.parse(document.getElementById("data").textContent);
const SPLIT_COLORS = { train: COLORS[0], val: COLORS[1] };
const OLD = 600; // seconds after which the page of a running training says how old it is

function drawCurves() {
  const grid = find("#curve-grid");
  clearCharts();
  const all = find("#curve-steps")?.checked;
  const panels = DATA.panels.filter((panel) => all || panel.first);
  grid.replaceChildren(...panels.map((panel) => {
    const keys = panel.first ? panel.lines.map((line) => make("span", { class: "key" }, make("span", { class: "swatch", "--color": lineColor(line) }), line.label)) : [];
    return make("div", { class: "panel" }, make("h3", {}, panel.title, ...keys), make("div", {}));
  }));
  findAll(".panel > div", grid).forEach((target, i) => drawPanel(target, panels[i]));
}

function lineColor(line) {
  return SPLIT_COLORS[line.label] || COLORS[2];
}

function drawPanel(target, { title, lines, whole }) {
  const values = lines.flatMap((line) => line.points[1]).filter((value) => value !== null);
  if (!values.length) return target.append(emptyState("There is no number yet."));
  const log = find("#curve-log").checked && /loss|grad_norm/.test(title) && values.every((value) => value > 0);
  drawChart(target, { title, xLabel: "epoch", whole, log, lines: lines.map((line) => ({ label: line.label, points: line.points, color: lineColor(line) })) });
}

function enlarge(button) {
  find("#viewer img").src = find("img", button).src;
  find("#viewer span").textContent = button.dataset.enlarge;
  find("#viewer").showModal();
}

/** Copies a command. Without permission to use the clipboard, selects it. */
async function copy(button) {
  const code = find("code", button.parentNode);
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "copied";
  } catch {
    getSelection().selectAllChildren(code);
  }
}

function filterKeys(event) {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  findAll("#keys tr").forEach((row) => (row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word))));
}

/** Says how old the page of a running training is, if nothing has written it for long. */
function showAge() {
  const seconds = (Date.now() - new Date(find("time").dateTime)) / 1000;
  if (!find('meta[http-equiv="refresh"]') || seconds < OLD || !find("#age")) return;
  find("#age").textContent = ` This page was written ${Math.round(seconds / 60)} minutes ago.`;
  find("#age").hidden = false;
}

if (find("#curve-grid")) {
  drawCurves();
  for (const box of findAll("#curve-log, #curve-steps")) box.addEventListener("change", drawCurves);
  find("[data-zoom]").addEventListener("click", endZoom);
}
findAll(".sortable").forEach((table) => makeSortable(table));
findAll("[data-enlarge]").forEach((button) => button.addEventListener("click", () => enlarge(button)));
find("#viewer").addEventListener("click", (event) => event.target === find("#viewer") && find("#viewer").close());
findAll(".copy").forEach((button) => {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
});
find("#key-filter")?.addEventListener("input", filterKeys);
find(".matrix")?.addEventListener("pointermove", (event) => (event.target.dataset.tip ? showTip(event, event.target.dataset.tip, []) : hideTip()));
find(".matrix")?.addEventListener("pointerleave", hideTip);
showAge();
