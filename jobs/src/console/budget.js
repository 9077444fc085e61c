// Privacy budget: what is spent and left, by whom, and what one person can have lost at the most.

import { get } from "./api.js";
import { meter } from "./chart.js";
import { h, moment, number, put, table } from "./dom.js";

/** Blocks of a dataset that are shown. */
const SHOWN = 60;

export async function show({ main, me }) {
  const heading = h("h1", { tabindex: "-1" }, "Budget");
  put(main, heading, h("p", { class: "soft" }, "Reading the ledger…"));
  const told = await get("/v1/budget");
  const datasets = [...new Set(told.blocks.map((block) => block.dataset))].sort();
  put(main,
    h("div", { class: "head" }, h("div", {}, heading,
      h("p", { class: "soft" }, `What questions and releases have told of each day, as the ledger has it at ${moment(told.now_ms)} UTC. Spent budget never comes back.`))),
    h("h2", {}, "One person at the most"), worst(told.one_person_at_most),
    h("h2", {}, "Teams"), allotments(told.allotments),
    h("h2", {}, "Blocks"), datasets.length ? datasets.map((dataset) => blocks(dataset, told.blocks.filter((block) => block.dataset === dataset)))
      : h("p", { class: "empty" }, "Nothing is charged yet."),
    h("h2", {}, "Charges"), charges(told.charges, me));
}

/** What the worst case means, in words. */
function worst(stretches) {
  if (!stretches?.length) return h("p", { class: "empty" }, "Nothing is charged yet, so nobody has lost anything.");
  return h("div", { class: "cards" }, stretches.map((one) => h("div", { class: "card" },
    h("div", { class: "soft" }, one.days === 1 ? "Over the dearest day" : `Over the dearest ${one.days} days`),
    h("div", { class: "big" }, `ε ${number(one.epsilon)}`),
    h("p", {}, one.odds_to_one >= 1e6
      ? "Odds of 1 to 1 can become nearly anything: there is no promise left over so long a time."
      : `Somebody who thinks 1 to 1 that this person was there can at the most come to think ${number(one.odds_to_one)} to 1, whatever else he knows.`),
    h("p", { class: "soft" }, `From ${one.first_day}, for a person who was there on every day and in every dataset. δ ${one.delta}${one.threshold_delta ? ` and ${one.threshold_delta.toExponential(1)} for thresholds` : ""}.`))));
}

const allotments = (rows) => (rows.length
  ? table("What teams may ask", [
    { name: "team" }, { name: "dataset" },
    { name: "used", text: "this period", cell: (row) => meter(row.spent_rho, row.rho_per_refill, `${row.team} of ${row.dataset}`) },
    { name: "left_rho", text: "left, ρ", number: true }, { name: "rho_per_refill", text: "a period, ρ", number: true },
    { name: "rho_per_block", text: "a block, ρ", number: true },
    { name: "more", text: "the whole again at", cell: (row) => moment(row.more_at_ms) },
  ], rows)
  : h("p", { class: "empty" }, "No team has an allotment."));

function blocks(dataset, rows) {
  const newest = [...rows].sort((a, b) => (a.day < b.day ? 1 : -1));
  return h("div", {}, table(`${newest.length > SHOWN ? `The newest ${SHOWN} of ${newest.length} blocks` : "Blocks"} of private.${dataset}, newest first`, [
      { name: "day", text: "block" },
      { name: "used", text: "spent", cell: (row) => meter(row.spent_rho, row.limit_rho, `${dataset} ${row.day}`) },
      { name: "spent_epsilon", text: "spent, ε", number: true }, { name: "limit_epsilon", text: "limit, ε", number: true },
      { name: "releases_spent_rho", text: "releases, ρ", number: true }, { name: "teams_spent_rho", text: "teams, ρ", number: true },
      { name: "teams_left_rho", text: "left for teams, ρ", number: true },
    ], newest.slice(0, SHOWN)));
}

function charges(rows, me) {
  const newest = [...rows].sort((a, b) => b.charged_ms - a.charged_ms).slice(0, 200);
  if (!newest.length) return h("p", { class: "empty" }, "Nothing is charged yet.");
  return table(`The newest ${newest.length} of ${rows.length} charges${me.role === "product" ? ": releases, and your team's" : ""}`, [
    { name: "charged", text: "when, UTC", cell: (row) => moment(row.charged_ms) }, { name: "who" }, { name: "dataset" },
    { name: "question", cell: (row) => h("span", { class: "mono" }, row.question.length > 44 ? `${row.question.slice(0, 43)}…` : row.question) },
    { name: "days", text: "blocks", cell: (row) => (row.days.length > 1 ? `${row.days[0]} and ${row.days.length - 1} more` : row.days[0]) },
    { name: "rho_per_day", text: "ρ a block", number: true },
  ], newest);
}
