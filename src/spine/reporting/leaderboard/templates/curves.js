// Curves of the selected runs over one another: one panel for each metric.

const STEPS = ["train/loss_step", "train/lr", "train/grad_norm", "train/images_per_s", "train/data_wait"];

function drawCurves() {
  const grid = find("#curve-grid");
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
  const log = find("#curve-log").checked && /loss|grad_norm/.test(name) && all.every(([, y]) => y > 0);
  const [width, height] = [Math.max(chart.clientWidth, 240), 230];
  const area = { left: 52, right: width - 8, top: 8, bottom: height - 34 };
  const longest = Math.max(...all.map(([x]) => x));
  const unit = !timed ? [1, "epoch"] : longest > 7200 ? [3600, "hours"] : longest > 180 ? [60, "minutes"] : [1, "seconds"];
  const start = timed || STEPS.includes(name) ? 0 : Math.min(...all.map(([x]) => x));
  const [low, high] = limits(all.map(([, y]) => y), 0.05, log);
  const x = scale(start / unit[0], (longest > start ? longest : start + 1) / unit[0], area.left, area.right, false);
  const y = scale(low, high, area.bottom, area.top, log);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${name} over ${unit[1]}` });
  const xTicks = ticks(start / unit[0], longest / unit[0], width / 90, false).filter((value) => timed || Number.isInteger(value));
  drawAxes(svg, area, x, y, xTicks, ticks(low, high, 5, log), unit[1]);
  for (const { number, points } of lines) {
    const path = points.map(([a, b], i) => `${i ? "L" : "M"}${x(a / unit[0]).toFixed(1)} ${y(b).toFixed(1)}`).join("");
    const group = make("g", { "data-run": number, stroke: color(number), fill: color(number) });
    group.append(make("path", { class: "line", d: path, "stroke-dasharray": dashes(number) }));
    if (points.length <= 20) for (const [a, b] of points) group.append(make("circle", { cx: x(a / unit[0]), cy: y(b), r: 2.5, stroke: "none" }));
    svg.append(group);
  }
  addCursor(svg, area, lines, x, y, unit, name);
  chart.append(svg);
}

/** Shows the values of all runs at the pointer. */
function addCursor(svg, area, lines, x, y, unit, name) {
  const rule = make("line", { class: "cursor", y1: area.top, y2: area.bottom, visibility: "hidden" });
  const pane = make("rect", { x: area.left, y: area.top, width: area.right - area.left, height: area.bottom - area.top, fill: "transparent" });
  const nearest = (points, pixel) => points.reduce((best, point) => (Math.abs(x(point[0] / unit[0]) - pixel) < Math.abs(x(best[0] / unit[0]) - pixel) ? point : best));
  pane.addEventListener("pointermove", (event) => {
    const pixel = event.clientX - svg.getBoundingClientRect().left;
    const at = nearest(lines.flatMap((line) => line.points), pixel)[0];
    const place = x(at / unit[0]);
    rule.setAttribute("x1", place);
    rule.setAttribute("x2", place);
    rule.setAttribute("visibility", "visible");
    const rising = name === group().metric ? group().maximize : !/loss|NME/.test(name);
    const rows = lines
      .map((line) => [line.number, nearest(line.points, place)])
      .filter(([, point]) => Math.abs(x(point[0] / unit[0]) - place) < 12)
      .sort((a, b) => (rising ? b[1][1] - a[1][1] : a[1][1] - b[1][1]));
    const shown = rows.slice(0, 15).map(([number, point]) => [color(number), DATA.runs[number].label, short(point[1])]);
    if (rows.length > 15) shown.push([null, `${rows.length - 15} more`, ""]);
    showTip(event, unit[1] === "epoch" ? `${name}, epoch ${short(at)}` : `${name} after ${short(at / unit[0])} ${unit[1]}`, shown);
  });
  pane.addEventListener("pointerleave", () => {
    rule.setAttribute("visibility", "hidden");
    hideTip();
  });
  svg.append(rule, pane);
}

/** Writes the legends. A run under the pointer stands out in all charts. */
function drawLegends() {
  for (const legend of findAll("[data-legend]")) {
    const items = state.selected.slice(0, 40).map((number) => {
      const key = make("svg", { viewBox: "0 0 22 10" }, make("line", { x1: 1, x2: 21, y1: 5, y2: 5, stroke: color(number), "stroke-width": 3, "stroke-dasharray": dashes(number) }));
      return make("span", { class: "item", title: DATA.runs[number].name, onpointerenter: () => focusRun(number), onpointerleave: () => focusRun(null) }, key, make("b", {}, DATA.runs[number].label));
    });
    if (state.selected.length > 40) items.push(make("span", { class: "muted" }, `and ${state.selected.length - 40} more`));
    legend.replaceChildren(...items);
  }
}

function focusRun(number) {
  document.body.classList.toggle("focus", number !== null);
  findAll("[data-run]").forEach((each) => each.classList.toggle("faded", number !== null && each.dataset.run !== String(number)));
}

function emptyState(text) {
  return make("p", { class: "empty" }, text);
}
