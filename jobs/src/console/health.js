// Health: how far the stream is, what is open, what could not be read, which keys live and which are gone.

import { get } from "./api.js";
import { h, moment, number, put, table } from "./dom.js";

const EVERY_MS = 5000;

export async function show({ main }) {
  const heading = h("h1", { tabindex: "-1" }, "Health");
  const body = h("div", {});
  put(main, h("div", { class: "head" }, h("div", {}, heading, h("p", { class: "soft" }, "Numbers of events and of keys, of nobody. Renewed every five seconds."))), body);
  const renew = async () => put(body, page(await get("/v1/health")));
  await renew();
  const timer = setInterval(() => renew().catch(() => { /* The next try may be answered. */ }), EVERY_MS);
  return () => clearInterval(timer);
}

const sum = (numbers) => numbers.reduce((all, one) => all + (one ?? 0), 0);

function card(name, value, note, kind) {
  return h("div", { class: `card ${kind ?? ""}` }, h("div", { class: "soft" }, name), h("div", { class: "big" }, typeof value === "number" ? number(value) : value), note ? h("div", { class: "soft" }, note) : null);
}

function page(told) {
  const lag = told.partitions.some((p) => p.lag !== null && p.lag !== undefined) ? sum(told.partitions.map((p) => p.lag)) : null;
  const refused = sum((told.quarantine ?? []).map((q) => q.count));
  const deliveries = told.deliveries ?? { waiting: 0, dead: 0 };
  const alive = told.keys.filter((key) => !/destroyed|gone/.test(key.state)).length;
  const receipts = told.receipts ?? [];
  return [
    told.stopped ? h("div", { class: "notice bad", role: "alert" }, h("p", {}, h("strong", {}, `Ingest of ${told.stopped.topic} stopped at ${told.stopped.at}: `), told.stopped.reason)) : null,
    told.unbalanced.length ? h("div", { class: "notice bad", role: "alert" }, h("p", {}, h("strong", {}, "Events do not add up in "), told.unbalanced.join(", "))) : null,
    h("div", { class: "cards" },
      card("Behind the broker", lag ?? "not known", lag === null ? "no broker has told its end" : "events, all partitions", lag > 1_000_000 ? "warn" : null),
      card("Balance", told.unbalanced.length ? "wrong" : "right", "events in = counted + late + refused + quarantined", told.unbalanced.length ? "bad" : null),
      card("Unreadable events", refused, "in quarantine, by class below", refused ? "warn" : null),
      card("Deliveries given up", deliveries.dead, `${number(deliveries.waiting)} waiting`, deliveries.dead ? "bad" : null),
      card("Keys alive", alive, `${number(receipts.length)} receipts of destroyed ones below`)),
    h("h2", {}, "Partitions"),
    told.partitions.length ? table("Partitions", [
      { name: "partition" }, { name: "owner", cell: (p) => p.owner || "nobody" }, { name: "generation", number: true }, { name: "next_offset", text: "next offset", number: true },
      { name: "lag", number: true, cell: (p) => p.lag ?? "not known" }, { name: "watermark", text: "watermark, UTC" }, { name: "events", number: true },
      { name: "open_plan", text: "plan", cell: (p) => (p.open_plan ? h("span", { class: "tag warn" }, "open") : "none open") },
    ], told.partitions) : h("p", { class: "empty" }, "Nothing has been taken in."),
    h("h2", {}, "Windows"),
    told.windows.length ? table("Windows, newest first", [
      { name: "window" }, { name: "state", cell: (w) => h("span", { class: `tag ${/incomplete/.test(w.state) ? "warn" : /closed|released|complete/.test(w.state) ? "good" : "new"}` }, w.state) },
      { name: "outcomes", text: "events", cell: (w) => Object.entries(w.outcomes).map(([name, n]) => `${number(n)} ${name.replaceAll("_", " ")}`).join(", ") || "none of its own" },
      { name: "expired", text: "rows", cell: (w) => (w.expired ? "gone" : "kept") },
    ], [...told.windows].reverse()) : h("p", { class: "empty" }, "No window yet."),
    (told.quarantine ?? []).length ? [h("h2", {}, "Quarantine"), table("Unreadable events by class", [{ name: "class", cell: (q) => q.class.replaceAll("_", " ") }, { name: "count", number: true }], told.quarantine)] : null,
    h("h2", {}, "Keys"),
    told.keys.length ? table("Keys", [{ name: "key" }, { name: "state", cell: (key) => h("span", { class: `tag ${/destroyed|gone/.test(key.state) ? "" : "good"}` }, key.state) }], told.keys) : h("p", { class: "empty" }, "No key has been made."),
    receipts.length ? [h("h2", {}, "Receipts"), table("Keys that were destroyed, newest first, as the hash-chained log has it", [
      { name: "key" }, { name: "at", text: "destroyed, UTC", cell: (r) => moment(r.destroyed_ms) }, { name: "seq", text: "entry", number: true }], receipts)] : null,
  ];
}
