// Charts of released numbers: lines with their 95 % bands, bars with whiskers, and an alert against what it is held against. Each says what
// is under the pointer or the arrow keys in words below it; the table beside a chart has all of it.

import { compact, h, number, s } from "./dom.js";

const WIDTH = 860;
const SIDES = { left: 58, right: 16, top: 12, bottom: 28 };

/** Round steps from `low` to `high`, about `count` of them. */
export function ticks(low, high, count = 5) {
  const span = high - low || 1;
  const raw = span / count;
  const unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * unit).find((size) => size >= raw) ?? raw;
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step / 1e6; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

/** Values that a chart must hold, with zero among them. */
function extent(points) {
  const all = points.flatMap((p) => [p.value, p.low, p.high]).filter((v) => v !== null && v !== undefined && Number.isFinite(v));
  return [Math.min(0, ...all), Math.max(...all, 0) || 1];
}

const colour = (at) => `s${(at % 8) + 1}`;
const told = (p, unit) => (p.value === null ? "suppressed" : `${number(p.value)} ${unit}${p.low === null || p.high === null ? "" : ` (${number(p.low)} to ${number(p.high)})`}`);

/** Names of series beside their colours. */
const legend = (series) => h("ul", { class: "legend" }, series.map((one, at) => h("li", { class: colour(at) }, h("i", {}), h("span", {}, one.name))));

/**
 * Lines over days with bands. `series` are {name, points: [{day, value|null, low, high}]}, days as `YYYY-MM-DD`.
 * Arrow keys go from day to day.
 */
export function lines({ series, unit, label }) {
  const days = [...new Set(series.flatMap((one) => one.points.map((p) => p.day)))].sort();
  const height = 320;
  const [low, high] = extent(series.flatMap((one) => one.points));
  const stamps = days.map((day) => Date.parse(day));
  const first = stamps[0];
  const width = (stamps[stamps.length - 1] - first) || 1;
  const x = (day) => SIDES.left + ((Date.parse(day) - first) / width) * (WIDTH - SIDES.left - SIDES.right);
  const y = (value) => height - SIDES.bottom - ((value - low) / (high - low)) * (height - SIDES.top - SIDES.bottom);

  const chart = s("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", tabindex: "0", "aria-label": `${label}. Arrow keys go from day to day; the table below has every number.` });
  for (const at of ticks(low, high)) {
    chart.append(s("line", { class: "grid", x1: SIDES.left, x2: WIDTH - SIDES.right, y1: y(at), y2: y(at) }),
      s("text", { x: SIDES.left - 8, y: y(at) + 4, "text-anchor": "end" }, compact(at)));
  }
  const every = Math.max(1, Math.ceil(days.length / 8));
  days.forEach((day, at) => {
    if (at % every === 0) chart.append(s("text", { x: x(day), y: height - 8, "text-anchor": at === 0 ? "start" : "middle" }, day));
  });
  series.forEach((one, at) => {
    const group = s("g", { class: colour(at) });
    // A gap, where a day is missing or suppressed, ends a line.
    for (const run of runs(one.points, days)) {
      const banded = run.filter((p) => p.low !== null && p.high !== null);
      if (banded.length > 1) {
        const edge = [...banded.map((p) => [x(p.day), y(p.high)]), ...banded.reverse().map((p) => [x(p.day), y(p.low)])];
        group.append(s("polygon", { class: "band fill", points: edge.map((p) => p.join(",")).join(" ") }));
      }
      group.append(s("polyline", { class: "line stroke", points: run.map((p) => `${x(p.day)},${y(p.value)}`).join(" ") }));
      for (const p of run) {
        if (p.low !== null && p.high !== null && run.length === 1) group.append(s("line", { class: "bar stroke", x1: x(p.day), x2: x(p.day), y1: y(p.low), y2: y(p.high) }));
        group.append(s("circle", { class: "fill", cx: x(p.day), cy: y(p.value), r: 3 }));
      }
    }
    for (const p of one.points.filter((p) => p.value === null)) group.append(s("circle", { class: "suppressed", cx: x(p.day), cy: y(low), r: 4 }));
    chart.append(group);
  });
  const cursor = s("line", { class: "cursor", y1: SIDES.top, y2: height - SIDES.bottom, visibility: "hidden" });
  chart.append(cursor);
  const tip = h("p", { class: "tip", "aria-live": "polite" }, "95 of 100 bands hold the number that would be there without noise. A dashed circle is a number that is suppressed.");
  let at = -1;
  const point = (next) => {
    at = Math.min(days.length - 1, Math.max(0, next));
    cursor.setAttribute("x1", x(days[at]));
    cursor.setAttribute("x2", x(days[at]));
    cursor.setAttribute("visibility", "visible");
    const here = series.map((one) => [one.name, one.points.find((p) => p.day === days[at])]).filter(([, p]) => p);
    tip.textContent = `${days[at]}: ${here.map(([name, p]) => `${name} ${told(p, unit)}`).join(" · ")}`;
  };
  chart.addEventListener("pointermove", (event) => {
    const box = chart.getBoundingClientRect();
    const here = ((event.clientX - box.left) / box.width) * WIDTH;
    const nearest = days.map((day, index) => [Math.abs(x(day) - here), index]).sort((a, b) => a[0] - b[0])[0];
    if (nearest) point(nearest[1]);
  });
  chart.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") point(at + 1);
    else if (event.key === "ArrowLeft") point(at < 0 ? days.length - 1 : at - 1);
    else return;
    event.preventDefault();
  });
  return h("figure", { class: "figure" }, chart, legend(series), tip);
}

/** Stretches of `points` with a value on each of the days that follow each other in `days`. */
function runs(points, days) {
  const by = new Map(points.map((p) => [p.day, p]));
  const found = [[]];
  for (const day of days) {
    const p = by.get(day);
    if (p && p.value !== null) found[found.length - 1].push(p);
    else if (found[found.length - 1].length) found.push([]);
  }
  return found.filter((run) => run.length);
}

/** Bars of one day with whiskers. `points` are {name, value|null, low, high}. */
export function bars({ points, unit, label }) {
  const row = 26;
  const names = 190;
  const height = points.length * row + 30;
  const [low, high] = extent(points);
  const x = (value) => names + ((value - low) / (high - low)) * (WIDTH - names - 90);
  const chart = s("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": `${label}. The table below has every number.` });
  for (const at of ticks(low, high)) {
    chart.append(s("line", { class: "grid", x1: x(at), x2: x(at), y1: 0, y2: height - 24 }),
      s("text", { x: x(at), y: height - 8, "text-anchor": "middle" }, compact(at)));
  }
  points.forEach((p, at) => {
    const middle = at * row + row / 2;
    const group = s("g", { class: "s1" }, s("title", {}, `${p.name}: ${told(p, unit)}`),
      s("text", { class: "name", x: names - 10, y: middle + 4, "text-anchor": "end" }, p.name.length > 28 ? `${p.name.slice(0, 27)}…` : p.name));
    if (p.value === null) {
      group.append(s("text", { x: x(Math.max(0, low)) + 6, y: middle + 4, "font-style": "italic" }, "suppressed: cannot be told from nobody"));
    } else {
      const [from, to] = [x(Math.min(0, p.value)), x(Math.max(0, p.value))];
      group.append(s("rect", { class: "fill", x: from, y: middle - 7, width: Math.max(1, to - from), height: 14, opacity: 0.35 }));
      if (p.low !== null && p.high !== null) {
        group.append(s("line", { class: "bar stroke", x1: x(p.low), x2: x(p.high), y1: middle, y2: middle }),
          ...[p.low, p.high].map((end) => s("line", { class: "bar stroke", x1: x(end), x2: x(end), y1: middle - 4, y2: middle + 4 })));
      }
      group.append(s("circle", { class: "fill", cx: x(p.value), cy: middle, r: 3.5 }),
        s("text", { x: x(Math.max(p.value, p.high ?? p.value)) + 8, y: middle + 4 }, compact(p.value)));
    }
    chart.append(group);
  });
  return h("figure", { class: "figure" }, chart, h("p", { class: "tip" }, "The whisker is the 95 % interval of the noise."));
}

/** What was seen beside the rule's threshold and the baseline, on one line. */
export function against({ observed, threshold, baseline, names }) {
  const known = [["seen", observed, "s1"], ["the rule fires at", threshold, null], [names.baseline, baseline, "s3"]].filter(([, value]) => value !== null && value !== undefined);
  const high = Math.max(...known.map(([, value]) => value)) * 1.08 || 1;
  const x = (value) => 150 + (value / high) * (WIDTH - 240);
  const height = known.length * 30 + 8;
  const chart = s("svg", { class: "chart", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": known.map(([name, value]) => `${name} ${number(value)}`).join(", ") });
  known.forEach(([name, value, kind], at) => {
    const middle = at * 30 + 18;
    chart.append(s("text", { class: "name", x: 140, y: middle + 4, "text-anchor": "end" }, name));
    chart.append(kind
      ? s("g", { class: kind }, s("rect", { class: "fill", x: 150, y: middle - 8, width: Math.max(1.5, x(value) - 150), height: 16, rx: 3, opacity: 0.75 }))
      : s("line", { class: "threshold", x1: x(value), x2: x(value), y1: middle - 12, y2: middle + 12 }));
    chart.append(s("text", { x: x(value) + 8, y: middle + 4 }, number(value)));
  });
  return chart;
}

/** How much of something is used. */
export function meter(used, limit, label) {
  const share = limit > 0 ? Math.min(1, Math.max(0, used / limit)) : 0;
  const kind = share >= 0.95 ? "bad" : share >= 0.75 ? "warn" : "";
  return h("span", { class: "meter", role: "img", "aria-label": `${label}: ${Math.round(share * 100)} % used` },
    s("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none" }, s("rect", { class: `used ${kind}`, x: 0, y: 0, height: 10, width: share * 100 })));
}
