// Charts of lines, drawn by uPlot: values at the pointer, zoom by dragging or with two fingers, the same zoom in all charts.

const COLORS = ["#2f6fed", "#e4572e", "#14a05a", "#9b5de5", "#d99000", "#00a0c0", "#d6336c", "#8a6a3b", "#6b7c93", "#6ea000"];
const MAX_DOTS = 20; // lines with more points have no dots
const MAX_TIP_ROWS = 15;
const PAPER_WIDTH = 330; // pixels of a chart that is printed

const charts = []; // those on the page
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/**
 * Draws lines over one x axis into an element. `lines`: [{ label, color, dashes, points: [xs, ys] }].
 * `log`: a logarithmic y axis. `whole`: only whole numbers on the x axis. `rising`: the order of the values at the pointer; null keeps that of the lines.
 */
function drawChart(target, { title, lines, xLabel, log = false, whole = false, rising = null, height = 230 }) {
  const data = uPlot.join(lines.map((line) => line.points));
  const [first, last] = [data[0][0], data[0].at(-1)];
  const ends = first === last ? [first - 0.5, first + 0.5] : [first, last];
  const options = {
    width: Math.max(target.clientWidth, 200), height, legend: { show: false }, focus: { alpha: 0.15 }, padding: [8, 16, 0, 0],
    cursor: { sync: { key: "charts", setSeries: false }, y: false, drag: { setScale: true, x: true }, points: { size: 7 }, hover: { prox: 24, skip: [null, undefined] } },
    scales: { x: { time: false, range: (_, low, high) => (low === high || low === null ? ends : [low, high]) }, y: log ? { distr: 3 } : { range: yRange } },
    axes: [
      { ...axisStyle(), size: 24, label: xLabel, labelSize: 14, labelGap: 0, space: 60, ...(whole ? { incrs: wholeSteps() } : {}) },
      { ...axisStyle(), size: 52, space: 34 },
    ],
    series: [{}, ...lines.map((line) => ({
      label: line.label, stroke: line.color, dash: line.dashes, width: 1.75, spanGaps: true,
      points: { show: line.points[0].length <= MAX_DOTS, size: 5, fill: line.color },
    }))],
    hooks: { ready: [addPointer, addTouch], setCursor: [showValues], setScale: [noteZoom] },
  };
  const chart = new uPlot(options, data, target);
  Object.assign(chart, { heading: title, xLabel, rising, ends, lines });
  chart.root.setAttribute("role", "img");
  chart.root.setAttribute("aria-label", `${title} over ${xLabel}`);
  charts.push(chart);
  return chart;
}

/** Removes all charts from the page. */
function clearCharts() {
  for (const chart of charts.splice(0)) chart.destroy();
  findAll("[data-zoom]").forEach((each) => (each.hidden = true));
}

function axisStyle() {
  const font = '11px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif';
  const rule = { stroke: () => style("--grid"), width: 1 };
  const values = (_, values) => values.map((value) => (value === null ? "" : tickFormat(values.filter((each) => each !== null))(value)));
  return { stroke: () => style("--muted"), font, labelFont: font, grid: rule, ticks: { ...rule, size: 4 }, gap: 3, values };
}

const wholeSteps = () => [1, 10, 100, 1e3, 1e4, 1e5, 1e6].flatMap((power) => [power, 2 * power, 5 * power]);

/** The limits of the y axis: those of the values, with a margin. */
function yRange(_, low, high) {
  if (low === null || high === null) return [0, 1];
  const extra = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low - extra, high + extra];
}

function addPointer(chart) {
  chart.over.addEventListener("pointermove", (event) => (chart.pointer = event));
  chart.over.addEventListener("pointerleave", () => {
    chart.pointer = null;
    hideTip();
  });
}

/** Shows the values of all lines that have a point near the pointer. */
function showValues(chart) {
  if (!chart.pointer) return;
  const rows = [];
  let at = null;
  chart.lines.forEach((line, i) => {
    const index = chart.cursor.idxs?.[i + 1];
    const value = index === null || index === undefined ? null : chart.data[i + 1][index];
    if (value === null || value === undefined) return;
    at ??= chart.data[0][index];
    rows.push([line.color, line.label, value]);
  });
  if (!rows.length) return hideTip();
  if (chart.rising !== null) rows.sort((a, b) => (chart.rising ? b[2] - a[2] : a[2] - b[2]));
  const shown = rows.slice(0, MAX_TIP_ROWS).map(([color, label, value]) => [color, label, short(value)]);
  if (rows.length > MAX_TIP_ROWS) shown.push([null, `${rows.length - MAX_TIP_ROWS} more`, ""]);
  showTip(chart.pointer, `${chart.heading}, ${chart.xLabel} ${short(at)}`, shown);
}

/** One finger moves the pointer, two fingers zoom. Scrolling up and down stays with the page. */
function addTouch(chart) {
  let start = null; // [x of the middle as a value, distance of the fingers, range] of two fingers
  const area = () => chart.over.getBoundingClientRect();
  const fingers = (event) => [...event.touches].map((touch) => touch.clientX - area().left);
  chart.over.style.touchAction = "pan-y";
  chart.over.addEventListener("touchstart", (event) => {
    const [a, b] = fingers(event);
    const { min, max } = chart.scales.x;
    start = b === undefined ? null : { at: chart.posToVal((a + b) / 2, "x"), distance: Math.abs(a - b) || 1, range: max - min };
  }, { passive: true });
  chart.over.addEventListener("touchmove", (event) => {
    const [a, b] = fingers(event);
    if (start === null || b === undefined) {
      chart.pointer = event.touches[0];
      return chart.setCursor({ left: a, top: event.touches[0].clientY - area().top });
    }
    event.preventDefault();
    const range = Math.min((start.range * start.distance) / (Math.abs(a - b) || 1), chart.ends[1] - chart.ends[0]);
    const left = start.at - ((a + b) / 2 / area().width) * range;
    const min = Math.max(chart.ends[0], Math.min(left, chart.ends[1] - range));
    charts.forEach((each) => each.setScale("x", { min, max: min + range }));
  }, { passive: false });
  chart.over.addEventListener("touchend", () => {
    chart.pointer = null;
    hideTip();
  });
}

/** Shows the buttons that end the zoom while there is one. */
function noteZoom(chart, scale) {
  if (scale !== "x" || !chart.ends) return;
  const zoomed = charts.some(({ scales: { x }, ends }) => x.min > ends[0] || x.max < ends[1]);
  findAll("[data-zoom]").forEach((each) => (each.hidden = !zoomed));
}

function endZoom() {
  charts.forEach((chart) => chart.setScale("x", { min: chart.ends[0], max: chart.ends[1] }));
}

function resizeCharts() {
  charts.forEach((chart) => chart.setSize({ width: Math.max(chart.root.parentNode.clientWidth, 200), height: chart.height }));
}

/** On paper, charts are light and narrow. */
function preparePaper(paper) {
  document.documentElement.classList.toggle("paper", paper);
  charts.forEach((chart) => chart.setSize({ width: paper ? PAPER_WIDTH : Math.max(chart.root.parentNode.clientWidth, 200), height: chart.height }));
}

addEventListener("resize", resizeCharts);
addEventListener("beforeprint", () => preparePaper(true));
addEventListener("afterprint", () => preparePaper(false));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.redraw(false, true)));
