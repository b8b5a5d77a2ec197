// The metric against what a run costs, with the runs that no other run beats in both.

const MAX_LABELS = 20; // with more runs, only selected ones and those on the line have labels

const COSTS = [
  { key: "parameters", title: "parameters", unit: "millions of parameters", factor: 1e-6, more: false },
  { key: "multiply_adds", title: "multiply-adds", unit: "billions of multiply-adds per image", factor: 1e-9, more: false },
  { key: "images_per_s", title: "training speed", unit: "images per second in training", factor: 1, more: true },
];

function drawTradeoffs() {
  const grid = find("#tradeoff-grid");
  const ranked = group().runs.filter((number) => DATA.runs[number].rank !== null);
  const known = (cost) => ranked.filter((number) => DATA.runs[number].costs[cost.key] > 0);
  const shown = COSTS.filter((cost) => known(cost).length);
  find("#tradeoffs").hidden = !ranked.length;
  grid.replaceChildren(...shown.map((cost) => make("div", { class: "panel" }, make("h3", {}, `${group().metric} against ${cost.title}`), make("div", {}))));
  if (!shown.length) grid.append(emptyState("The metrics.json of these runs has no costs. Runs of this version of spine write them."));
  findAll(".panel > div", grid).forEach((chart, i) => drawTradeoff(chart, shown[i], known(shown[i])));
  const devices = new Set(ranked.map((number) => DATA.runs[number].costs.device).filter(Boolean));
  const missing = ranked.length - known(COSTS[2]).length;
  const speed = devices.size > 1 ? "Speeds are only comparable on one device. They were measured on: " : "Speed was measured on: ";
  find("#devices").textContent = devices.size ? `${speed}${[...devices].join("; ")}.${missing ? ` ${missing} runs were too short for a measurement.` : ""}` : "";
}

/** The runs that no other run beats both in the metric and in the cost, from the cheapest on. */
function paretoFront(numbers, cost) {
  const sign = group().maximize ? 1 : -1;
  const price = (number) => DATA.runs[number].costs[cost.key] * (cost.more ? -1 : 1);
  const sorted = [...numbers].sort((a, b) => price(a) - price(b) || sign * (DATA.runs[b].value - DATA.runs[a].value));
  let best = -Infinity;
  return sorted.filter((number) => {
    const value = sign * DATA.runs[number].value;
    if (value <= best) return false;
    best = value;
    return true;
  });
}

function drawTradeoff(chart, cost, numbers) {
  const [width, height] = [Math.max(chart.clientWidth, 240), 320];
  const area = { left: 52, right: width - 12, top: 12, bottom: height - 36 };
  const costs = numbers.map((number) => DATA.runs[number].costs[cost.key] * cost.factor);
  const values = numbers.map((number) => DATA.runs[number].value);
  const [xLimits, yLimits] = [limits(costs, 0.12, true), limits(values, 0.12, false)];
  const x = scale(...xLimits, area.left, area.right, true);
  const y = scale(...yLimits, area.bottom, area.top, false);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": `${group().metric} against ${cost.unit}` });
  drawAxes(svg, area, x, y, ticks(...xLimits, 5, true), ticks(...yLimits, 6, false), `${cost.unit} (logarithmic)`, true);
  const front = paretoFront(numbers, cost);
  const place = (number) => [x(DATA.runs[number].costs[cost.key] * cost.factor), y(DATA.runs[number].value)];
  svg.append(make("path", { class: "front", d: front.map((number, i) => `${i ? "L" : "M"}${place(number).map((p) => p.toFixed(1)).join(" ")}`).join("") }));
  const radius = radiusOf(numbers, cost);
  const isSelected = (number) => state.selected.includes(number);
  const byWeight = [...numbers].sort((a, b) => isSelected(b) - isSelected(a) || front.includes(b) - front.includes(a) || DATA.runs[a].rank - DATA.runs[b].rank);
  for (const number of [...byWeight].reverse()) svg.append(drawPoint(number, place(number), radius(number), front.includes(number)));
  chart.append(svg);
  const labeled = numbers.length > MAX_LABELS ? byWeight.filter((number) => isSelected(number) || front.includes(number)) : byWeight;
  const dot = (number) => ({ number, at: place(number), r: radius(number) });
  placeLabels(svg, area, numbers.map(dot), labeled.map(dot));
}

/** The radius of the point of a run. Its area grows with the parameters, where they are not the cost of the panel. */
function radiusOf(numbers, cost) {
  const parameters = (number) => DATA.runs[number].costs.parameters || 0;
  const [least, most] = [Math.min, Math.max].map((pick) => pick(...numbers.map(parameters)));
  if (cost.key === "parameters" || least === most) return () => 4;
  return (number) => Math.sqrt(9 + 72 * (parameters(number) / most)); // 3 to 9 pixels
}

function drawPoint(number, [cx, cy], radius, onFront) {
  const run = DATA.runs[number];
  const point = make("circle", { cx, cy, r: radius + (state.selected.includes(number) ? 1 : 0), fill: color(number), "data-run": number, stroke: onFront ? "var(--text)" : "var(--card)", "stroke-width": 1 });
  const rows = [[null, group().metric, short(run.value)], ...COSTS.filter((each) => run.costs[each.key]).map((each) => [null, each.unit, short(run.costs[each.key] * each.factor)])];
  point.addEventListener("pointermove", (event) => showTip(event, `${run.rank}. ${run.label}`, rows));
  point.addEventListener("pointerleave", hideTip);
  return point;
}

/** Writes labels beside `points`, the most important first. A label that would cover one of the `dots` or another label is left out. */
function placeLabels(svg, area, dots, points) {
  const taken = dots.map(({ at: [cx, cy], r }) => ({ left: cx - r - 1, right: cx + r + 1, top: cy - r - 1, bottom: cy + r + 1 }));
  const free = (box) => box.left >= area.left && box.right <= area.right + 8 && box.top >= area.top - 8 && box.bottom <= area.bottom
    && !taken.some((other) => box.left < other.right && box.right > other.left && box.top < other.bottom && box.bottom > other.top);
  for (const { number, at: [cx, cy], r } of points) {
    const label = DATA.runs[number].label;
    const text = make("text", { class: "point", "data-run": number }, label.length > 34 ? `${label.slice(0, 33)}…` : label);
    svg.append(text);
    const width = text.getBBox().width;
    const [near, far] = [r + 4, r + 22];
    const spots = [[near, 0], [-near - width, 0], [-width / 2, -near - 5], [-width / 2, near + 5], [near, -12], [near, 12], [-near - width, -12], [-near - width, 12], [10, -far], [10, far], [-10 - width, -far], [-10 - width, far]];
    const spot = spots.find(([dx, dy]) => free({ left: cx + dx, right: cx + dx + width, top: cy + dy - 6, bottom: cy + dy + 6 }));
    if (!spot) {
      text.remove();
      continue;
    }
    const [left, middle] = [cx + spot[0], cy + spot[1]];
    text.setAttribute("x", left);
    text.setAttribute("y", middle + 4);
    taken.push({ left: left - 2, right: left + width + 2, top: middle - 6, bottom: middle + 6 });
    if (Math.abs(spot[1]) === far) svg.append(make("line", { class: "leader", x1: cx, y1: cy, x2: left + (spot[0] < 0 ? width : 0), y2: middle }));
  }
}
