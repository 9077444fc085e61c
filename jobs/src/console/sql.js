// SQL: a statement, what it would cost, its answer as a table and a chart, and what was asked before in this tab.

import { download, objects, sql } from "./api.js";
import { bars, lines } from "./chart.js";
import { completion } from "./editor.js";
import { h, number, put, say, table, trouble } from "./dom.js";

/** Rows shown; a download has all. */
const SHOWN = 1000;
/** Statements kept. */
const KEPT = 50;
const EXAMPLES = [
  ["What there is", "SELECT name, title, unit, epsilon, newest_day FROM meta.metrics ORDER BY name"],
  ["A released statistic", "SELECT day, country, value, low, high FROM stats.people_served_daily ORDER BY day DESC, value DESC LIMIT 50"],
  ["A question of your own", "SELECT platform, COUNT(DISTINCT person) AS value, dp_low(COUNT(DISTINCT person)) AS low,\n       dp_high(COUNT(DISTINCT person)) AS high\nFROM private.person_day\nGROUP BY platform ORDER BY value DESC SETTINGS epsilon = 0.1"],
  ["What is left to ask", "SELECT dataset, team, left_rho, more_at FROM meta.allotments"],
];

const isPrivate = (text) => /\bprivate\s*\.|"private"/i.test(text) && !/^\s*explain\b/i.test(text);

/** What was asked in this tab; it is gone when the tab is closed. */
const history = {
  name: (me) => `starling.asked.${me.name}`,
  read(me) {
    try { return JSON.parse(sessionStorage.getItem(this.name(me)) ?? "[]"); } catch { return []; }
  },
  add(me, text) {
    try { sessionStorage.setItem(this.name(me), JSON.stringify([text, ...this.read(me).filter((one) => one !== text)].slice(0, KEPT))); } catch { /* The browser keeps nothing. */ }
  },
};

export async function show({ main, me, query }) {
  const text = h("textarea", { id: "statement", spellcheck: "false", autocomplete: "off", autocapitalize: "none", "aria-label": "SQL statement", placeholder: "SELECT … FROM stats.…" });
  text.value = query.get("q") ?? history.read(me)[0] ?? EXAMPLES[0][1];
  const answer = h("section", { "aria-label": "Answer" });
  const run = h("button", { class: "main" }, "Run ", h("kbd", {}, "Ctrl ↵"));
  const price = h("button", { title: "What a question over private.* would cost. Spends nothing." }, "Price");
  const cancel = h("button", { disabled: true }, "Cancel ", h("kbd", {}, "Esc"));
  const first = h("input", { type: "checkbox", checked: true });
  const before = h("details", { class: "panel" });
  let going = null;

  const busy = (controller) => {
    going = controller;
    cancel.disabled = !controller;
    run.disabled = price.disabled = Boolean(controller);
  };
  const remember = () => put(before, h("summary", {}, "Asked before in this tab"),
    history.read(me).length
      ? h("ul", { class: "list" }, history.read(me).map((one) => h("li", {}, h("button", { class: "plain mono", onclick: () => { text.value = one; text.focus(); } }, one.length > 140 ? `${one.slice(0, 140)}…` : one))))
      : h("p", { class: "soft" }, "Nothing yet."));

  async function ask(statement, how) {
    const controller = new AbortController();
    busy(controller);
    put(answer, h("p", { class: "soft" }, "Running…"));
    const began = performance.now();
    try {
      const told = await sql(statement, { signal: controller.signal });
      how(told, performance.now() - began);
    } catch (error) {
      if (error.name === "AbortError") put(answer, h("div", { class: "notice warn" }, h("p", {}, "Cancelled. A question that was charged before it was cancelled stays charged, and is free when it is asked again.")));
      else {
        put(answer, trouble(error));
        if (error.position) select(text, error.position);
      }
      say("The statement failed.");
    } finally {
      busy(null);
    }
  }
  const shown = (told, took) => {
    history.add(me, text.value);
    remember();
    put(answer, result(told, took, text.value));
    say(`${told.rows.length} rows.`);
  };
  const priced = (statement, go) => ask(`EXPLAIN PRIVACY ${statement}`, (told) => put(answer, cost(told, go)));

  const start = () => {
    const statement = text.value.trim().replace(/;\s*$/, "");
    if (!statement || going) return;
    if (isPrivate(statement) && first.checked && !/^\s*suggest\b/i.test(statement)) priced(statement, () => ask(statement, shown));
    else ask(statement, shown);
  };
  run.addEventListener("click", start);
  price.addEventListener("click", () => priced(text.value.trim().replace(/;\s*$/, ""), null));
  cancel.addEventListener("click", () => going?.abort());
  const keys = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); start(); }
    if (event.key === "Escape" && going) going.abort();
  };
  document.addEventListener("keydown", keys);
  remember();
  put(main,
    h("div", { class: "head" }, h("div", {}, h("h1", { tabindex: "-1" }, "SQL"),
      h("p", { class: "soft" }, h("code", {}, "stats.*"), " is released and free; ", h("code", {}, "meta.*"), " says what there is; ", h("code", {}, "private.*"),
        me.may.schemas.includes("private") ? ` is asked with noise, and team ${me.team} pays.` : ` is not for ${me.way === "local" ? "somebody who has not logged in" : `role ${me.role}`}.`)),
      h("label", {}, "Start from", h("select", { onchange: (event) => { text.value = event.target.value || text.value; event.target.value = ""; text.focus(); } },
        h("option", { value: "" }, "an example"), EXAMPLES.map(([name, value]) => h("option", { value }, name))))),
    h("div", { class: "editor" }, text),
    h("div", { class: "bar" }, run, price, cancel, h("label", {}, first, "Tell me the price of a private question before it is asked")),
    answer, before);
  completion(text, me);
  text.focus();
  return () => {
    document.removeEventListener("keydown", keys);
    going?.abort();
  };
}

function select(text, { line, column }) {
  const lines = text.value.split("\n");
  const at = lines.slice(0, line - 1).reduce((sum, one) => sum + one.length + 1, 0) + Math.max(0, column - 1);
  text.focus();
  text.setSelectionRange(at, at + Math.max(1, (/^\w+/.exec(text.value.slice(at))?.[0] ?? "").length));
}

/** The price, and a button that pays it. */
function cost(told, go) {
  const rows = objects(told);
  const button = go ? h("button", { class: "main", onclick: go }, rows.some((row) => Object.values(row).some((v) => String(v).startsWith("stored"))) ? "Show the stored answer, free" : "Ask, and pay this") : null;
  setTimeout(() => button?.focus(), 0);
  return h("div", { class: "panel" }, h("h2", {}, "What it would cost"),
    h("p", { class: "soft" }, "Nothing is spent yet. The same question asked again, by anybody, gives the same answer and is free."),
    table("Price", told.columns.map((column) => ({ name: column.name })), rows), button ? h("p", {}, button) : null);
}

function result(told, took, statement) {
  const rows = objects(told);
  const shown = rows.slice(0, SHOWN);
  const columns = told.columns.map((column) => ({ name: column.name, number: column.type === "integer" || column.type === "real" }));
  return h("div", {},
    told.notices.map((text) => h("div", { class: "notice" }, h("p", {}, text))),
    chart(told, rows),
    h("div", { class: "head" }, h("p", { class: "soft" }, `${number(rows.length)} ${rows.length === 1 ? "row" : "rows"}${told.truncated ? ", cut short" : ""}, ${number(Math.round(took))} ms`),
      h("div", { class: "bar" }, h("button", { onclick: () => download(statement, "text/csv", "answer.csv").catch((error) => alertNear(error)) }, "Download CSV"))),
    table(rows.length > shown.length ? `The first ${SHOWN} rows` : "Answer", columns, shown));
}

const alertNear = (error) => document.querySelector("section[aria-label=Answer]")?.prepend(trouble(error));

/** A chart where there is something to draw: a number by day, or by name, with low and high where they are called so. */
function chart(told, rows) {
  const numeric = told.columns.filter((column) => column.type === "integer" || column.type === "real").map((column) => column.name);
  const value = numeric.includes("value") ? "value" : numeric.find((name) => !["low", "high", "stddev", "error", "epsilon", "delta"].includes(name));
  if (!value || rows.length < 2 || rows.length > 2000) return null;
  const day = told.columns.find((column) => column.type === "date")?.name;
  const names = told.columns.filter((column) => column.type === "text" && !["status"].includes(column.name)).map((column) => column.name);
  const of = (row) => ({ value: row[value] === null ? null : Number(row[value]), low: row.low ?? null, high: row.high ?? null });
  const name = (row) => names.map((one) => row[one]).join(" · ") || value;
  if (day && new Set(rows.map((row) => row[day])).size > 1) {
    const series = new Map();
    for (const row of rows) {
      if (!series.has(name(row))) series.set(name(row), { name: name(row), points: [] });
      series.get(name(row)).points.push({ day: row[day], ...of(row) });
    }
    if (series.size > 8 || [...series.values()].some((one) => new Set(one.points.map((p) => p.day)).size !== one.points.length)) return null;
    return h("div", { class: "panel" }, lines({ series: [...series.values()], unit: "", label: `${value} by ${day}` }));
  }
  if (!names.length || rows.length > 40 || new Set(rows.map(name)).size !== rows.length) return null;
  return h("div", { class: "panel" }, bars({ points: rows.map((row) => ({ name: name(row), ...of(row) })), unit: "", label: `${value} by ${names.join(", ")}` }));
}
