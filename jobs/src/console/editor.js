// Completion for a text field: tables, columns, functions and words of SQL, as the combobox pattern of WAI-ARIA has it.

import { objects, sql } from "./api.js";
import { h, put } from "./dom.js";

const WORDS = "SELECT FROM WHERE GROUP BY ORDER BY HAVING LIMIT DISTINCT CASE WHEN THEN ELSE END AND OR NOT IN IS NULL BETWEEN LIKE JOIN LEFT ON AS WITH DESC ASC UNION COUNT SUM AVG MEDIAN PERCENTILE_CONT STDDEV VAR EXPLAIN PRIVACY SUGGEST SETTINGS epsilon".split(" ");
const FUNCTIONS = [
  ["COUNT(DISTINCT person)", "number of people"], ["dp_clip(", "bounds of one row: dp_clip(x, low, high)"], ["dp_stddev(", "standard deviation of an aggregate's noise"],
  ["dp_low(", "lower end of its 95 % interval"], ["dp_high(", "upper end of its 95 % interval"], ["dp_other()", "whether a row pools the groups left out"],
];
const AT_ONCE = 12;

let known = null;

/** Tables and columns, read once. */
async function read() {
  if (known) return known;
  const rows = objects(await sql("SELECT table_schema, table_name, column_name, comment FROM meta.columns ORDER BY 1, 2, ordinal_position"));
  const tables = [...new Set(rows.map((row) => `${row.table_schema}.${row.table_name}`))];
  known = { rows, tables };
  return known;
}

function candidates(word, before) {
  const { rows, tables } = known ?? { rows: [], tables: [] };
  const text = word.toLowerCase();
  const inUse = new Set(tables.filter((table) => before.all.toLowerCase().includes(table)));
  const columns = new Map();
  for (const row of rows) {
    const used = inUse.has(`${row.table_schema}.${row.table_name}`);
    if (used || (!inUse.size && text)) columns.set(row.column_name, row.comment);
  }
  const all = [
    ...(/\b(from|join)\s+\S*$/i.test(before.text) ? tables.map((table) => [table, "table"]) : [...columns].concat(FUNCTIONS, tables.map((table) => [table, "table"]))),
    ...WORDS.map((one) => [one, ""]),
  ];
  const begins = all.filter(([name]) => name.toLowerCase().startsWith(text) && name.toLowerCase() !== text);
  const holds = text.length > 1 ? all.filter(([name]) => !name.toLowerCase().startsWith(text) && name.toLowerCase().includes(text)) : [];
  return [...begins, ...holds].slice(0, AT_ONCE);
}

/** Adds completion to `text`: as one writes, or at once with Ctrl Space. */
export function completion(text) {
  read().catch(() => { /* Without the list words of SQL are still completed. */ });
  const list = h("ul", { class: "choices", role: "listbox", id: "choices", "aria-label": "Completions", hidden: true });
  text.after(list);
  for (const [name, value] of [["aria-autocomplete", "list"], ["aria-controls", "choices"], ["aria-haspopup", "listbox"]]) text.setAttribute(name, value);
  let found = [];
  let chosen = -1;

  const word = () => /[\w.]*$/.exec(text.value.slice(0, text.selectionStart))[0];
  const close = () => {
    list.hidden = true;
    chosen = -1;
    text.removeAttribute("aria-activedescendant");
  };
  const mark = (at) => {
    chosen = (at + found.length) % found.length;
    [...list.children].forEach((item, index) => item.setAttribute("aria-selected", String(index === chosen)));
    list.children[chosen].scrollIntoView({ block: "nearest" });
    text.setAttribute("aria-activedescendant", list.children[chosen].id);
  };
  const take = (at) => {
    const end = text.selectionStart;
    text.setRangeText(found[at][0], end - word().length, end, "end");
    close();
    text.focus();
  };
  const open = (forced) => {
    const typed = word();
    const upTo = text.value.slice(0, text.selectionStart);
    found = typed.length > 1 || forced || /\b(from|join)\s+$/i.test(upTo) ? candidates(typed, { text: upTo, all: text.value }) : [];
    if (!found.length) return close();
    put(list, found.map(([name, what], at) => h("li", { role: "option", id: `choice-${at}`, "aria-selected": "false", onmousedown: (event) => { event.preventDefault(); take(at); } }, name, what ? h("small", {}, what) : null)));
    list.hidden = false;
    const lines = upTo.split("\n");
    list.style.top = `${Math.min(text.offsetHeight, 14 + lines.length * 20 - text.scrollTop + 4)}px`;
    list.style.left = `${Math.min(text.offsetWidth - 300, 14 + (lines[lines.length - 1].length - typed.length) * 8)}px`;
    chosen = -1;
    return undefined;
  };
  text.addEventListener("input", () => open(false));
  text.addEventListener("blur", close);
  text.addEventListener("keydown", (event) => {
    if (event.key === " " && event.ctrlKey) { event.preventDefault(); open(true); return; }
    if (list.hidden || event.ctrlKey || event.metaKey) return;
    if (event.key === "ArrowDown") mark(chosen + 1);
    else if (event.key === "ArrowUp") mark(chosen < 0 ? found.length - 1 : chosen - 1);
    else if ((event.key === "Enter" || event.key === "Tab") && chosen >= 0) take(chosen);
    else if (event.key === "Tab" && found.length) take(0);
    else if (event.key === "Escape") { close(); event.stopPropagation(); }
    else return;
    event.preventDefault();
  });
}
