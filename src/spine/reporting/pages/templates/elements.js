"use strict";
// Shared by all pages: small functions for elements and numbers, and the box at the pointer.

const find = (selector, root = document) => root.querySelector(selector);
const findAll = (selector, root = document) => [...root.querySelectorAll(selector)];

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

function emptyState(text) {
  return make("p", { class: "empty" }, text);
}
