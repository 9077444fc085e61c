// Released statistics: the catalogue, one metric as a chart with its error and as a table, and what the number means.

import { download, get, objects, sql } from "./api.js";
import { bars, lines } from "./chart.js";
import { h, number, percent, pick, put, table, trouble } from "./dom.js";

/** Most series drawn at one time; the table has all. */
const DRAWN = 8;
/** Most rows of the table; a download has all. */
const TABLED = 500;
/** Days that are read. */
const PERIODS = [[35, "five weeks"], [91, "a quarter"], [366, "a year"], [0, "all"]];
/** Columns of a released table that are not what it is grouped by. */
const OWN = new Set(["day", "hour", "value", "low", "high", "stddev", "cut", "people_cut", "status", "epsilon", "delta"]);
const SPANS = { day: "a day", week: "a week, from Monday", month: "28 days, from Monday", hour: "an hour" };

/** Double quotes round a name, as SQL has it. */
const quoted = (name) => `"${name.replaceAll('"', '""')}"`;

let catalogue = null;

export async function show({ main, rest, query }) {
  const heading = h("h1", { tabindex: "-1" }, "Statistics");
  put(main, heading, h("p", { class: "soft" }, "Reading the catalogue…"));
  catalogue = (await get("/v1/metrics")).metrics;
  if (!catalogue.length) {
    put(main, heading, h("p", { class: "empty" }, "No metric is defined."));
    return;
  }
  const chosen = catalogue.find((metric) => metric.name === rest[0]) ?? catalogue.find((metric) => metric.windows_released > 0) ?? catalogue[0];
  const body = h("div", {});
  put(main,
    h("div", { class: "head" }, h("div", {}, heading,
      h("p", { class: "soft" }, "Each number has noise in it that hides any one person. It was drawn once, and never changes."))),
    h("div", { class: "columns" }, shelf(chosen), body));
  await metric(body, chosen, query);
}

/** All metrics, to be searched. */
function shelf(chosen) {
  const list = h("nav", { class: "catalogue", "aria-label": "Metrics" });
  const fill = (text) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const found = catalogue.filter((metric) => words.every((word) => `${metric.name} ${metric.title} ${metric.description}`.toLowerCase().includes(word)));
    put(list, found.length ? found.map((metric) => h("a", { href: `#/statistics/${metric.name}`, "aria-current": metric.name === chosen.name ? "true" : null },
      metric.title, h("small", {}, metric.newest_day ? `${metric.windows_released} released, newest ${metric.newest_day}` : "nothing released yet")))
      : h("p", { class: "empty" }, "No metric has these words."));
  };
  fill("");
  return h("div", {},
    h("label", { class: "stacked" }, h("span", { class: "unseen" }, "Find a metric"),
      h("input", { type: "search", placeholder: "Find a metric", oninput: (event) => fill(event.target.value) })),
    list);
}

async function metric(body, chosen, query) {
  put(body, h("div", { class: "panel" }, h("h2", {}, chosen.title), h("p", { class: "soft" }, "Reading…")));
  const days = Number(query.get("days") ?? PERIODS[0][0]);
  const statement = `SELECT * FROM stats.${quoted(chosen.name)} WHERE status = 'released'${since(chosen, days)} ORDER BY day DESC`;
  try {
    // What was suppressed is not fetched, only counted: of a metric with many groups it is most of the rows.
    const [answer, releases] = await Promise.all([
      sql(statement),
      sql(`SELECT day, hour, "rows", suppressed FROM meta.releases WHERE metric = '${chosen.name.replaceAll("'", "''")}'${since(chosen, days)} ORDER BY day`),
    ]);
    const rows = objects(answer);
    const windows = objects(releases);
    if (answer.columns.some((column) => column.name === "hour")) {
      for (const row of [...rows, ...windows]) row.day = `${row.day}T${String(row.hour ?? 0).padStart(2, "0")}:00Z`;
    }
    draw(body, chosen, {
      statement, rows, period: days, query,
      truncated: answer.truncated,
      dimensions: answer.columns.map((column) => column.name).filter((name) => !OWN.has(name)),
      days: [...new Set([...rows.map((row) => row.day), ...windows.map((row) => row.day)])].sort(),
      suppressed: windows.reduce((sum, row) => sum + row.suppressed, 0),
      groups: windows.reduce((sum, row) => sum + row.rows, 0),
    });
  } catch (error) {
    put(body, h("div", { class: "panel" }, h("h2", {}, chosen.title), trouble(error)), meaning(chosen, { rows: [], suppressed: 0 }));
  }
}

/** The condition that keeps the newest `days` days of what is released. */
function since(chosen, days) {
  if (!chosen.newest_day || !days) return "";
  const first = new Date(Date.parse(chosen.newest_day.slice(0, 10)) - (days - 1) * 86_400_000);
  return ` AND day >= DATE '${first.toISOString().slice(0, 10)}'`;
}

function draw(body, chosen, read) {
  const { rows, days, dimensions, statement, query } = read;
  const state = {
    how: days.length > 1 ? "time" : "day",
    day: query.get("day") ?? days[days.length - 1],
    only: Object.fromEntries(dimensions.map((name) => [name, query.get(name) ?? ""])),
  };
  const drawn = h("div", {});
  const renew = () => put(drawn, picture(chosen, read, state));
  const controls = h("div", { class: "bar" });
  const control = () => put(controls,
    days.length > 1 ? pick("What is drawn", [["time", "Over time"], ["day", "On one day"]], state.how, (how) => { state.how = how; control(); renew(); }) : null,
    state.how === "day" && days.length > 1
      ? h("label", {}, "Day", h("select", { onchange: (event) => { state.day = event.target.value; renew(); } }, [...days].reverse().map((day) => h("option", { value: day, selected: day === state.day }, day))))
      : null,
    dimensions.map((name) => h("label", {}, name.replaceAll("_", " "), h("select", { onchange: (event) => { state.only[name] = event.target.value; renew(); } },
      h("option", { value: "" }, "each"),
      [...new Set(rows.map((row) => row[name]))].sort().map((value) => h("option", { value, selected: state.only[name] === value }, value))))),
    h("label", {}, "Period", h("select", { onchange: (event) => { location.hash = `#/statistics/${chosen.name}?days=${event.target.value}`; } },
      PERIODS.map(([value, text]) => h("option", { value, selected: value === read.period }, text)))));
  control();
  renew();
  put(body,
    h("div", { class: "panel" },
      h("div", { class: "head" }, h("div", {}, h("h2", {}, chosen.title), h("p", { class: "soft" }, chosen.description)),
        h("div", { class: "bar" },
          h("button", { onclick: (event) => fetched(event.target, statement, "text/csv", `${chosen.name}.csv`) }, "Download CSV"),
          h("button", { onclick: (event) => fetched(event.target, statement, "application/vnd.apache.arrow.stream", `${chosen.name}.arrows`) }, "Arrow"),
          h("a", { class: "button", href: `#/sql?q=${encodeURIComponent(statement)}` }, "Open in SQL"))),
      read.truncated ? h("div", { class: "notice warn" }, h("p", {}, "The answer was cut short: choose a shorter period.")) : null,
      rows.length ? [controls, drawn] : h("p", { class: "empty" }, days.length ? "Every group is suppressed: no noisy number can be told from nobody." : "Nothing is released yet. A day is released when it has closed.")),
    meaning(chosen, read),
    rows.length ? all(chosen, read) : null);
}

async function fetched(button, statement, accept, name) {
  button.disabled = true;
  try {
    await download(statement, accept, name);
  } catch (error) {
    button.closest(".panel").append(trouble(error));
  } finally {
    button.disabled = false;
  }
}

const called = (row, dimensions, fallback) => dimensions.map((name) => row[name]).join(" · ") || fallback;

function picture(chosen, { rows, dimensions, days }, state) {
  const kept = rows.filter((row) => dimensions.every((name) => !state.only[name] || row[name] === state.only[name]));
  const free = dimensions.filter((name) => !state.only[name]);
  if (!kept.length) return h("p", { class: "empty" }, "No released row has these values.");
  if (state.how === "day") {
    const points = kept.filter((row) => row.day === state.day).map((row) => ({ ...row, name: called(row, free, chosen.title) }));
    points.sort((a, b) => b.value - a.value);
    if (!points.length) return h("p", { class: "empty" }, "Every group of that day is suppressed.");
    const shown = points.slice(0, 40);
    return [bars({ points: shown, unit: chosen.unit, label: `${chosen.title}, ${state.day}` }), left(points.length - shown.length)];
  }
  const series = new Map();
  for (const row of kept) {
    const name = called(row, free, chosen.title);
    if (!series.has(name)) series.set(name, { name, by: new Map() });
    series.get(name).by.set(row.day, row);
  }
  const mean = (one) => [...one.by.values()].reduce((sum, p) => sum + p.value, 0) / days.length;
  const sorted = [...series.values()].sort((a, b) => mean(b) - mean(a));
  // A day that was released and has no row for this group: suppressed, or left out by the threshold.
  const gap = (day) => ({ day, value: null, low: null, high: null });
  const drawn = sorted.slice(0, DRAWN).map((one) => ({ name: one.name, points: days.map((day) => one.by.get(day) ?? gap(day)) }));
  return [lines({ series: drawn, unit: chosen.unit, label: `${chosen.title}, ${days[0]} to ${days[days.length - 1]}` }), left(sorted.length - DRAWN)];
}

const left = (more) => (more > 0 ? h("p", { class: "soft" }, `${number(more)} more are in the table. Choose a value above to see one of them.`) : null);

/** What a number of this metric is, in plain words. */
function meaning(chosen, { rows, suppressed, groups }) {
  const newest = rows[0];
  return h("details", { class: "panel", open: true }, h("summary", {}, h("strong", {}, "What does this number mean?")),
    h("dl", { class: "facts" },
      h("dt", {}, "Counted"), h("dd", {}, `${chosen.unit}, over ${SPANS[chosen.span] ?? chosen.span}`),
      h("dt", {}, "Grouped by"), h("dd", {}, chosen.dimensions?.length ? chosen.dimensions.join(", ") : "nothing: one number"),
      h("dt", {}, "Bounds"), h("dd", {}, `One person counts in at most ${chosen.groups_per_person} ${chosen.groups_per_person === 1 ? "group" : "groups"}; ${(chosen.bounds ?? []).join("; ")}`),
      newest ? [h("dt", {}, "Cut off by the bounds"), h("dd", {}, newest.cut === null || newest.cut === undefined
        ? "too little to be told from noise, or not measured"
        : `${percent(newest.cut)} at least, on ${newest.day}${newest.people_cut === null || newest.people_cut === undefined ? "" : `, of ${percent(newest.people_cut)} of the people`}`)] : null,
      h("dt", {}, "Interval"), h("dd", {}, "low to high holds what would be there without noise in 95 of 100 releases. It says nothing of what the bounds cut off."),
      h("dt", {}, "Cost"), h("dd", {}, `ε ${number(chosen.epsilon)} at δ ${chosen.delta}, for each person and window (ρ ${number(chosen.rho)})`),
      suppressed ? [h("dt", {}, "Suppressed"), h("dd", {}, `${number(suppressed)} of ${number(groups)} numbers in this period: with their noise they cannot be told from nobody. That is not a zero.`)] : null),
    h("details", {}, h("summary", {}, "The query"), h("pre", { tabindex: "0" }, chosen.sql.trim())));
}

function all(chosen, { rows, dimensions }) {
  const shown = [...rows].sort((a, b) => (a.day < b.day ? 1 : a.day > b.day ? -1 : b.value - a.value)).slice(0, TABLED);
  const columns = [
    { name: "day" }, ...dimensions.map((name) => ({ name, text: name.replaceAll("_", " ") })),
    { name: "value", number: true }, { name: "low", number: true, cell: (row) => row.low ?? "" }, { name: "high", number: true, cell: (row) => row.high ?? "" },
    { name: "stddev", text: "σ", title: "standard deviation of the noise", number: true, cell: (row) => row.stddev ?? "" },
    { name: "epsilon", text: "ε", number: true },
  ];
  return h("div", {}, h("h2", {}, "All numbers"),
    table(`${chosen.title}, newest first${rows.length > shown.length ? `: ${shown.length} of ${number(rows.length)} rows` : ""}`, columns, shown));
}
