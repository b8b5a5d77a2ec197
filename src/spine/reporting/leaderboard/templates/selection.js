// The data of the page, and the selected runs.

const DATA = JSON.parse(document.getElementById("data").textContent);
const state = { group: 0, selected: [] }; // numbers of the selected runs, in the order of their selection

const group = () => DATA.groups[state.group];
const selectedRuns = () => state.selected.map((number) => DATA.runs[number]);

/** The color of a selected run. */
function color(number) {
  const place = state.selected.indexOf(number);
  return place < 0 ? "var(--others)" : COLORS[place % COLORS.length];
}

/** The dashes of a selected run: colors repeat after ten runs, with other dashes. */
function dashes(number) {
  return [[], [6, 3], [2, 3], [9, 3, 2, 3]][Math.floor(state.selected.indexOf(number) / COLORS.length) % 4];
}
