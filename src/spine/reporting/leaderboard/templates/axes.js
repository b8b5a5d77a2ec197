// Axes of the trade-offs, which are drawn as SVG.

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
