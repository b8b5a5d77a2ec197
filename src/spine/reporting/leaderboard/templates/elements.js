"use strict";
// Shared by the other scripts: the data of the page, the selected runs, and small functions for elements, numbers and axes.

const DATA = JSON.parse(document.getElementById("data").textContent);
const COLORS = ["#2f6fed", "#e4572e", "#14a05a", "#9b5de5", "#d99000", "#00a0c0", "#d6336c", "#8a6a3b", "#6b7c93", "#6ea000"];
const state = { group: 0, selected: [] }; // numbers of the selected runs, in the order of their selection

const find = (selector, root = document) => root.querySelector(selector);
const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];
const group = () => DATA.groups[state.group];
const selectedRuns = () => state.selected.map((number) => DATA.runs[number]);

/** Creates an HTML or SVG element. Texts become text nodes, never HTML. */
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "circle", "text", "rect"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) element.style.setProperty(key, value);
    else if (value !== null && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** The color of a selected run. */
function color(number) {
  const place = state.selected.indexOf(number);
  return place < 0 ? "var(--others)" : COLORS[place % COLORS.length];
}

/** The dashes of a selected run: colors repeat after ten runs, with other dashes. */
function dashes(number) {
  return ["", "6 3", "2 3", "9 3 2 3"][Math.floor(state.selected.indexOf(number) / COLORS.length) % 4];
}

/** A number with four significant digits. */
function short(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  return size >= 1000 ? Math.round(value).toLocaleString("en-US") : String(Number(value.toPrecision(4)));
}

/** A function that writes tick values with equally many decimals. */
function tickFormat(values) {
  const digits = Math.max(0, ...values.map((value) => (String(Number(value.toPrecision(6))).split(".")[1] || "").length));
  return (value) => (Math.abs(value) >= 1e6 || (value !== 0 && Math.abs(value) < 1e-4) ? value.toExponential(0) : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
}

/** Round tick values between two limits: multiples of 1, 2 or 5, or 1, 2, 5 times powers of ten if `log`. */
function ticks(low, high, count, log) {
  const found = [];
  if (log) {
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
      for (const digit of [1, 2, 5]) found.push(digit * 10 ** power);
    const inside = found.filter((value) => value >= low && value <= high);
    const powers = inside.filter((value) => Number.isInteger(Math.round(Math.log10(value) * 1e9) / 1e9));
    if (inside.length < 2) return ticks(low, high, count, false);
    return inside.length > count + 1 && powers.length > 1 ? powers : inside;
  }
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((digit) => digit * power >= rough);
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

/** A function from values to pixels. */
function scale(low, high, start, end, log) {
  const convert = log ? Math.log10 : Number;
  const [a, b] = [convert(low), convert(high)];
  return (value) => start + ((convert(value) - a) / (b - a || 1)) * (end - start);
}

/** The limits of some values, with a margin that is a fraction of their range. */
function limits(values, margin, log) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (log) {
    const extra = Math.max((Math.log10(high) - Math.log10(low)) * margin, 0.06);
    return [low / 10 ** extra, high * 10 ** extra];
  }
  const extra = (high - low) * margin || Math.abs(high) * 0.1 || 1;
  return [low - extra, high + extra];
}

/** Draws grid lines and tick labels of both axes into an SVG element. `area`: left, right, top, bottom in pixels; `log`: of x. */
function drawAxes(svg, area, x, y, xTicks, yTicks, xLabel, log = false) {
  const [xFormat, yFormat] = [log ? short : tickFormat(xTicks), tickFormat(yTicks)];
  for (const value of yTicks) {
    svg.append(make("line", { class: "rule", x1: area.left, x2: area.right, y1: y(value), y2: y(value) }));
    svg.append(make("text", { x: area.left - 6, y: y(value) + 4, "text-anchor": "end" }, yFormat(value)));
  }
  for (const value of xTicks) {
    svg.append(make("line", { class: "rule", x1: x(value), x2: x(value), y1: area.top, y2: area.bottom }));
    svg.append(make("text", { x: x(value), y: area.bottom + 14, "text-anchor": "middle" }, xFormat(value)));
  }
  svg.append(make("line", { class: "axis", x1: area.left, x2: area.right, y1: area.bottom, y2: area.bottom }));
  svg.append(make("text", { x: (area.left + area.right) / 2, y: area.bottom + 29, "text-anchor": "middle" }, xLabel));
}

/** Shows a box with rows of [color, name, value] at the pointer. */
function showTip(event, title, rows) {
  const tip = find("#tip");
  const lines = rows.map(([shade, name, value]) =>
    make("tr", {}, make("td", {}, shade ? make("span", { class: "swatch", "--color": shade }) : ""), make("td", { class: "text" }, name), make("td", { class: "number" }, value)));
  tip.replaceChildren(make("strong", {}, title), make("table", {}, make("tbody", {}, ...lines)));
  tip.hidden = false;
  const [width, height] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = `${event.clientX + 16 + width > innerWidth ? Math.max(4, event.clientX - width - 16) : event.clientX + 16}px`;
  tip.style.top = `${Math.max(4, Math.min(event.clientY + 12, innerHeight - height - 8))}px`;
}

function hideTip() {
  find("#tip").hidden = true;
}
