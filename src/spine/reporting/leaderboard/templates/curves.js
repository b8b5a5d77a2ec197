// Curves of the selected runs over one another: one panel for each metric.

const STEPS = ["train/loss_step", "train/lr", "train/grad_norm", "train/images_per_s", "train/data_wait"];

function drawCurves() {
  const grid = find("#curve-grid");
  clearCharts();
  const names = new Set(state.selected.flatMap((number) => Object.keys(DATA.runs[number].history)));
  const extra = STEPS.filter((name) => names.has(name));
  const main = [...names].filter((name) => !STEPS.includes(name));
  const order = (name) => [group().metric, "val/loss", "train/loss"].indexOf(name);
  main.sort((a, b) => (order(a) < 0) - (order(b) < 0) || order(a) - order(b) || a.localeCompare(b));
  const panels = find("#curve-steps").checked ? [...main, ...extra] : main;
  grid.replaceChildren(...panels.map((name) => {
    const chart = make("div", {});
    return make("div", { class: "panel" }, make("h3", {}, name), chart);
  }));
  if (!panels.length) grid.append(emptyState(state.selected.length ? "The selected runs have no curves yet." : "Select runs in the table."));
  findAll(".panel > div", grid).forEach((chart, i) => drawCurve(chart, panels[i])); // their width is known now
  const timed = selectedRuns().filter((run) => run.secondsPerEpoch !== null).length;
  find("#curve-x").title = `The time is known for ${timed} of ${state.selected.length} selected runs: those that were started once.`;
}

/** The points of a run: [x, y] without missing values, over epochs, or over seconds if `timed`. */
function points(number, name, timed) {
  const run = DATA.runs[number];
  const [xs, ys] = run.history[name] || [[], []];
  if (timed && run.secondsPerEpoch === null) return [];
  const factor = timed ? run.secondsPerEpoch : 1;
  return xs.map((x, i) => [x * factor, ys[i]]).filter(([, y]) => y !== null);
}

function drawCurve(chart, name) {
  const timed = find("#curve-x").value === "time";
  const lines = state.selected.map((number) => ({ number, points: points(number, name, timed) })).filter((line) => line.points.length);
  if (!lines.length) return chart.append(emptyState("The time of these runs is not known."));
  const all = lines.flatMap((line) => line.points);
  const longest = Math.max(...all.map(([x]) => x));
  const [unit, xLabel] = !timed ? [1, "epoch"] : longest > 7200 ? [3600, "hours"] : longest > 180 ? [60, "minutes"] : [1, "seconds"];
  const drawn = drawChart(chart, {
    title: name, xLabel,
    lines: lines.map(({ number, points }) => ({
      label: DATA.runs[number].label, color: color(number), dashes: dashes(number), points: [points.map(([x]) => x / unit), points.map(([, y]) => y)],
    })),
    log: find("#curve-log").checked && /loss|grad_norm/.test(name) && all.every(([, y]) => y > 0),
    whole: !timed && !STEPS.includes(name),
    rising: name === group().metric ? group().maximize : !/loss|NME/.test(name),
  });
  drawn.runs = lines.map((line) => line.number);
}

/** Writes the legends. A run under the pointer stands out in all charts. */
function drawLegends() {
  for (const legend of findAll("[data-legend]")) {
    const items = state.selected.slice(0, 40).map((number) => {
      const key = make("svg", { viewBox: "0 0 22 10" }, make("line", { x1: 1, x2: 21, y1: 5, y2: 5, stroke: color(number), "stroke-width": 3, "stroke-dasharray": dashes(number).join(" ") }));
      return make("span", { class: "item", title: DATA.runs[number].name, onpointerenter: () => focusRun(number), onpointerleave: () => focusRun(null) }, key, make("b", {}, DATA.runs[number].label));
    });
    if (state.selected.length > 40) items.push(make("span", { class: "muted" }, `and ${state.selected.length - 40} more`));
    legend.replaceChildren(...items);
  }
}

function focusRun(number) {
  document.body.classList.toggle("focus", number !== null);
  findAll("[data-run]").forEach((each) => each.classList.toggle("faded", number !== null && each.dataset.run !== String(number)));
  for (const chart of charts) chart.setSeries(number === null ? null : chart.runs.indexOf(number) + 1 || null, { focus: number !== null });
}
