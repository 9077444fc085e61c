// Promises: which class of data goes where and how long it lives, as the schema has it, and who read what how often, as the log has it.

import { get } from "./api.js";
import { h, moment, put, table } from "./dom.js";

export async function show({ main, me }) {
  const heading = h("h1", { tabindex: "-1" }, "Promises");
  put(main, heading, h("p", { class: "soft" }, "Reading the schema…"));
  const told = await get("/v1/promises");
  const asked = me.may.audit ? await get("/v1/audit?limit=100") : null;
  put(main,
    h("div", { class: "head" }, h("div", {}, heading,
      h("p", { class: "soft" }, "Made from the schema that the decoder is built from, and from the hash-chained log: it cannot say what is not so."))),
    h("h2", {}, "What comes in, and what becomes of it"),
    table("Classes of data", [
      { name: "class", cell: (row) => row.class.replaceAll("_", " ") }, { name: "fields", cell: (row) => h("span", { class: "mono" }, row.fields.join(", ")) },
      { name: "goes_to", text: "goes to" }, { name: "lives", text: "how long" },
    ], told.classes),
    h("h2", {}, "What is kept of a person"),
    table("Datasets", [{ name: "name" }, { name: "unit", text: "one row is" }, { name: "keeps", cell: (row) => row.keeps.map((one) => one.replace(/\.$/, "")).join("; ") }, { name: "lives", text: "how long" }], told.datasets),
    h("h2", {}, "Who read it"),
    told.reads.length ? table("Reads, from the log", [
      { name: "what", cell: (row) => row.schema_or_feed }, { name: "by_role", text: "by role" }, { name: "count", text: "times", number: true }, { name: "last", text: "last, UTC", cell: (row) => moment(row.last_ms) },
    ], told.reads) : h("p", { class: "empty" }, "Nobody has read anything yet."),
    asked ? [h("h2", {}, "The log"), h("p", { class: "soft" }, "Each entry holds the hash of the one before it. ", h("code", {}, "starling audit verify"), " checks all of them."),
      table("Newest entries", [
        { name: "seq", text: "entry", number: true }, { name: "at", text: "when, UTC", cell: (e) => moment(e.at_ms) }, { name: "kind", cell: (e) => e.kind.replaceAll("_", " ") },
        { name: "detail", cell: (e) => h("span", { class: "mono" }, detail(e)) },
      ], asked.entries)] : null);
}

function detail(entry) {
  const { seq, at_ms: at, kind, hash, ...more } = entry;
  const text = JSON.stringify(more.detail ?? more);
  return text.length > 160 ? `${text.slice(0, 159)}…` : text;
}
