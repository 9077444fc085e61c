// Elements from plain values. Text is only ever set as text, so nothing that comes from a table or an alert can become markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" && "value" in node) node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element: `h("p", {class: "soft"}, "text", child)`. Handlers are `onclick` and the like. */
export const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

/** An SVG element. */
export const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** Puts `children` where `node`'s were. */
export function put(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Says something to a screen reader. */
export function say(text) {
  const live = document.getElementById("live");
  live.textContent = "";
  setTimeout(() => { live.textContent = text; }, 50);
}

const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const fine = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

/** A number for people. */
export function number(value) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  return Math.abs(value) >= 1000 ? plain.format(value) : fine.format(value);
}

/** The same on an axis. */
export const compact = (value) => short.format(value);

/** A share as per cent. */
export const percent = (share) => (share === null || share === undefined ? "–" : `${fine.format(share * 100)} %`);

/** `2026-01-05 12:30:00` UTC of milliseconds. */
export function moment(ms) {
  if (ms === null || ms === undefined) return "–";
  return new Date(ms).toISOString().slice(0, 19).replace("T", " ");
}

/** How long ago, in words. */
export function ago(ms, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - ms) / 1000));
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= length) return `${Math.floor(seconds / length)} ${unit} ago`;
  }
  return `${seconds} s ago`;
}

/** One button of several that exclude each other. `options` are [value, text]. */
export function pick(label, options, chosen, onchange) {
  return h("span", { class: "pick", role: "group", "aria-label": label },
    options.map(([value, text]) => h("button", { type: "button", "aria-pressed": String(value === chosen), onclick: () => onchange(value) }, text)));
}

/** A table that scrolls. `columns` are {name, text, number, cell(row)}. */
export function table(caption, columns, rows, attributes = {}) {
  const cell = (column, row) => {
    const value = column.cell ? column.cell(row) : row[column.name];
    if (value === null || value === undefined) return h("td", { class: "nothing" }, "none");
    return h("td", { class: column.number ? "number" : null }, typeof value === "number" ? number(value) : value);
  };
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", attributes, h("caption", {}, caption),
      h("thead", {}, h("tr", {}, columns.map((c) => h("th", { scope: "col", class: c.number ? "number" : null, title: c.title }, c.text ?? c.name)))),
      h("tbody", {}, rows.map((row) => h("tr", {}, columns.map((column) => cell(column, row)))))));
}

/** What went wrong, with what to do about it. */
export function trouble(error) {
  return h("div", { class: "notice bad", role: "alert" },
    h("p", {}, h("strong", {}, error.reason ?? error.message), error.code ? h("span", { class: "soft" }, ` [${error.code}]`) : null),
    error.hint ? h("p", {}, error.hint) : null);
}
