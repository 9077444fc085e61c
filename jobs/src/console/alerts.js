// The feed: live, filtered, with the evidence of one alert drawn against what it is held against, and the work on it by keyboard.

import { get, post, remove } from "./api.js";
import { against } from "./chart.js";
import { ago, h, moment, number, percent, put, say, table, trouble } from "./dom.js";

const SEVERITIES = ["critical", "high", "medium", "low"];
const STATES = ["new", "triaged", "confirmed", "false", "actioned", "appealed", "closed"];
const ABUSE = ["spam", "scam", "automation", "coordination", "abusive_group"];
const INNOCENT = ["brigade", "legitimate_use", "expected_traffic", "data_fault"];
const ENFORCEMENTS = ["warned", "limited", "suspended", "banned", "none"];
const SILENCES = [["1d", "a day"], ["7d", "a week"], ["30d", "30 days"]];
/** Alerts in the list at one time. */
const LISTED = 300;

const state = (alert) => alert.work?.state ?? "new";
const wants = (alert) => alert.work?.wants_attention ?? (!alert.withdrawn && alert.observed >= alert.threshold);
const words = (name) => name.replaceAll("_", " ");
const subject = (alert) => `${alert.subject.kind} ${alert.subject.value.length > 20 ? `${alert.subject.value.slice(0, 10)}…` : alert.subject.value}`;

export async function show({ main, me, rest }) {
  const feed = new Map();
  const filter = { attention: true, severity: "", rule: "", state: "" };
  let chosen = rest[0] ?? null;
  let shown = null;
  let listed = [];
  let due = false;
  const fresh = new Set();

  const list = h("div", { class: "catalogue", role: "listbox", tabindex: "0", "aria-label": "Alerts" });
  const detail = h("div", { "aria-live": "off" }, h("p", { class: "empty" }, "Choose an alert, or press ", h("kbd", {}, "j"), "."));
  const live = h("span", { class: "tag" }, "connecting");
  const filters = h("div", { class: "bar" });
  const told = h("p", { class: "soft" });

  put(main,
    h("div", { class: "head" }, h("div", {}, h("h1", { tabindex: "-1" }, "Alerts"), told), h("div", { class: "bar" }, live)),
    filters,
    h("div", { class: "columns alerts" }, list, detail), h("section", { id: "rules" }));

  const fits = (alert) => (!filter.attention || wants(alert)) && (!filter.severity || alert.severity === filter.severity)
    && (!filter.rule || alert.rule === filter.rule) && (!filter.state || state(alert) === filter.state);
  const order = (a, b) => SEVERITIES.indexOf(a.severity) - SEVERITIES.indexOf(b.severity) || b.last_ms - a.last_ms;

  function draw() {
    due = false;
    const all = [...feed.values()];
    const open = all.filter(wants).length;
    listed = all.filter(fits).sort(order);
    const badge = document.getElementById("waiting");
    if (badge) badge.textContent = open || "";
    told.textContent = `${open} of ${all.length} want attention. No alert names a recipient or a reporter.`;
    const rules = [...new Set(all.map((alert) => alert.rule))].sort();
    const choose = (name, options, text) => h("label", {}, text, h("select", { onchange: (event) => { filter[name] = event.target.value; draw(); } },
      h("option", { value: "" }, "any"), options.map((one) => h("option", { value: one, selected: filter[name] === one }, words(one)))));
    if (!filters.contains(document.activeElement)) {
      put(filters,
        h("label", {}, h("input", { type: "checkbox", checked: filter.attention, onchange: (event) => { filter.attention = event.target.checked; draw(); } }), "Only what wants attention"),
        choose("severity", SEVERITIES, "Severity"), choose("rule", rules, "Rule"), choose("state", STATES, "State"));
    }
    put(list, listed.length ? listed.slice(0, LISTED).map(item) : h("p", { class: "empty" }, all.length ? "Nothing fits these filters." : "No alerts."),
      listed.length > LISTED ? h("p", { class: "empty" }, `${listed.length - LISTED} more: narrow the filters.`) : null);
    fresh.clear();
  }
  const item = (alert) => h("div", {
    class: `alert${fresh.has(alert.fingerprint) ? " fresh" : ""}`, role: "option", id: `alert-${alert.fingerprint}`,
    "aria-selected": String(alert.fingerprint === chosen), onclick: () => open(alert.fingerprint),
  },
  h("div", { class: "top" }, h("strong", {}, words(alert.rule)), h("span", {}, h("span", { class: `tag ${alert.severity}` }, alert.severity), " ", h("span", { class: `tag ${state(alert)}` }, state(alert)))),
  h("div", { class: "soft" }, `${subject(alert)} · ${ago(alert.last_ms)}`),
  h("div", { class: "what" }, alert.explanation));

  async function open(fingerprint) {
    chosen = fingerprint;
    for (const one of list.querySelectorAll("[aria-selected]")) one.setAttribute("aria-selected", String(one.id === `alert-${fingerprint}`));
    const here = document.getElementById(`alert-${fingerprint}`);
    here?.scrollIntoView({ block: "nearest" });
    list.setAttribute("aria-activedescendant", `alert-${fingerprint}`);
    history.replaceState(null, "", `#/alerts/${fingerprint}`);
    // Nobody must act on the one before while this one is on its way.
    if (shown !== fingerprint) put(detail, h("p", { class: "soft" }, "…"));
    try {
      const alert = await get(`/v1/alerts/${fingerprint}`);
      if (chosen === fingerprint) {
        shown = fingerprint;
        put(detail, evidence(alert, me, took));
      }
    } catch (error) {
      if (chosen === fingerprint) put(detail, trouble(error));
    }
  }

  /** After a step: what the server says is how it stands. */
  async function took(alert) {
    feed.set(alert.fingerprint, { ...feed.get(alert.fingerprint), ...alert });
    draw();
    // Who has gone on to another meanwhile stays there.
    if (chosen === alert.fingerprint) await open(alert.fingerprint);
    say(`The alert is ${state(alert)}.`);
  }

  const keys = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || document.querySelector("dialog[open]")) return;
    const at = listed.findIndex((alert) => alert.fingerprint === chosen);
    const to = { j: at + 1, ArrowDown: at + 1, k: Math.max(0, at - 1), ArrowUp: Math.max(0, at - 1) }[event.key];
    if (to !== undefined && (event.key.length === 1 || list.contains(document.activeElement))) {
      if (listed[to]) open(listed[to].fingerprint);
      event.preventDefault();
      return;
    }
    const button = { t: "take", c: "confirm", d: "dismiss", n: "note" }[event.key];
    const found = button && detail.querySelector(`[data-key="${button}"]`);
    if (found) {
      if (found.tagName === "BUTTON") found.click();
      else found.focus();
      event.preventDefault();
    }
  };
  document.addEventListener("keydown", keys);

  // The stream sends all there is first, then each change. It comes back by itself with Last-Event-ID.
  const stream = new EventSource("/v1/alerts/stream");
  const later = () => {
    if (!due) {
      due = true;
      setTimeout(draw, 60);
    }
  };
  stream.addEventListener("open", () => { live.textContent = "live"; live.className = "tag good"; later(); });
  stream.addEventListener("error", () => { live.textContent = "connecting again"; live.className = "tag warn"; });
  stream.addEventListener("alert", (event) => {
    const alert = JSON.parse(event.data);
    const known = feed.get(alert.fingerprint);
    feed.set(alert.fingerprint, alert);
    fresh.add(alert.fingerprint);
    later();
    if (known && alert.fingerprint === chosen && known.revision !== alert.revision && !detail.contains(document.activeElement)) open(alert.fingerprint);
  });
  draw();
  if (chosen) open(chosen);
  rules(document.getElementById("rules"));
  return () => {
    stream.close();
    document.removeEventListener("keydown", keys);
  };
}

/** How often each rule was right, and what is silenced. */
async function rules(section) {
  try {
    const [{ rules: known, kept_today: kept }, { silences }] = await Promise.all([get("/v1/alerts/rules"), get("/v1/alerts/silences")]);
    put(section, h("h2", {}, "Rules"),
      known.length ? table("How often each rule was right, as judged here", [
        { name: "rule", cell: (row) => words(row.rule) }, { name: "version", number: true }, { name: "open", number: true }, { name: "confirmed", number: true },
        { name: "false", text: "no abuse", number: true },
        { name: "precision", number: true, cell: (row) => (row.precision === null ? "not judged yet" : percent(row.precision)) },
        { name: "says", text: "stands, and what it told lately", cell: (row) => (row.demoted_since_ms || row.exceeds ? h("span", { class: "tag warn" }, row.says) : row.says) },
        { name: "chosen_says", text: "chosen by its e-values", cell: (row) => row.chosen_says ?? "–" },
      ], known) : h("p", { class: "empty" }, "No rule has raised an alert."),
      kept.length ? h("div", { class: "notice warn" }, kept.map((one) => h("p", {}, one.says)),
        h("p", {}, "What is kept is told to nobody: ", h("code", {}, "SELECT * FROM integrity.kept_alerts"), ".")) : null,
      silences.length ? [h("h2", {}, "Silences"), table("Silent until they end, or at four times the evidence", [
        { name: "rule", cell: (row) => words(row.rule) }, { name: "subject", cell: (row) => subject({ subject: { kind: row.subject_kind, value: row.subject } }) },
        { name: "until", cell: (row) => moment(row.until_ms) }, { name: "by", cell: (row) => row.by ?? row.owner ?? "–" }, { name: "text", text: "why" },
      ], silences)] : null);
  } catch (error) {
    put(section, h("h2", {}, "Rules"), trouble(error));
  }
}

function evidence(alert, me, took) {
  const work = alert.work ?? {};
  const baseline = { own: "its own past", segment: "others of its kind", rule: "baseline" }[alert.baseline.kind] ?? alert.baseline.kind;
  return [
    h("div", { class: "panel" },
      h("div", { class: "head" }, h("div", {}, h("h2", {}, words(alert.rule)), h("p", {}, alert.explanation)),
        h("div", { class: "bar" }, h("span", { class: `tag ${alert.severity}` }, alert.severity), h("span", { class: `tag ${state(alert)}` }, state(alert)))),
      against({ observed: alert.observed, threshold: alert.threshold, baseline: alert.baseline.value, names: { baseline } }),
      alert.counter_evidence.length ? [h("h3", {}, "What speaks for the subject, or limits what is known"), h("ul", {}, alert.counter_evidence.map((text) => h("li", {}, text)))] : null,
      alert.data_gaps.length ? h("div", { class: "notice warn" }, h("p", {}, "Missing when it was judged: ", alert.data_gaps.join("; "))) : null,
      work.silenced_until_ms ? h("div", { class: "notice" }, h("p", {}, `Silent until ${moment(work.silenced_until_ms)} UTC, or at four times the evidence.`)) : null,
      work.cleared ? h("div", { class: "notice warn" }, h("p", {}, "The appeal was granted: what was done is to be undone.")) : null,
      h("dl", { class: "facts" },
        [["Subject", `${alert.subject.kind} ${alert.subject.value}`], ["Key of", alert.subject.epoch ? `${alert.subject.epoch}; the name dies with that day's key` : null],
          ["Window", `${moment(alert.window.start_ms)} to ${moment(alert.window.end_ms)} UTC`],
          ["Seen", `${number(alert.observed)}, the rule fires at ${number(alert.threshold)}, ${number(alert.factor)} times ${alert.baseline.value === null ? "the threshold" : baseline}`],
          ["Signals behind it", number(alert.evidence)],
          ["E-value", alert.e_value_log10 === undefined ? null : `10^${alert.e_value_log10}, at most 1 on average where nothing is wrong`], ["Since", `${moment(alert.first_ms)} UTC, last ${moment(alert.last_ms)}`],
          ["Rule", `${alert.rule} version ${alert.rule_version}, told ${alert.revision} ${alert.revision === 1 ? "time" : "times"}`],
          ["Fingerprint", h("code", {}, alert.fingerprint)], ["With", work.assignee], ["Case", work.case], ["Judged", work.reason ? `${words(work.reason)}, by ${work.decided_by}` : null],
          ["Done", work.enforcement ? `${work.enforcement}, by ${work.acted_by}` : null],
        ].filter(([, value]) => value).map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]))),
    actions(alert, me, took),
    h("div", { class: "panel" }, h("h2", {}, "What was done about it"),
      alert.steps.length ? h("ol", { class: "list steps" }, [...alert.steps].reverse().map(stepped)) : h("p", { class: "soft" }, "Nobody has looked yet.")),
  ];
}

function stepped({ at_ms: at, by, what }) {
  const { step, ...more } = what;
  const said = Object.entries(more).map(([name, value]) => (name === "text" ? `“${value}”` : name === "granted" ? (value ? "granted" : "refused") : words(String(value)))).join(", ");
  return h("li", {}, h("strong", {}, step), said ? ` ${said}` : "", h("div", { class: "soft" }, `${by}, ${moment(at)} UTC`));
}

/** Steps that can be taken from where it stands. The server has the last word; what it refuses is told with why. */
function actions(alert, me, took) {
  const at = state(alert);
  const told = h("div", {});
  let mine = me.name;
  // Where nobody logs in, who takes a step says so.
  const named = me.way === "local" || me.way === "service";
  const path = `/v1/alerts/${alert.fingerprint}`;
  const attempt = async (asked) => {
    try {
      await took(await asked());
    } catch (error) {
      put(told, trouble(error));
    }
  };
  const take = (step) => attempt(() => post(`${path}/steps`, named ? { by: mine, ...step } : step));
  const choice = (key, label, options, make) => h("select", { "aria-label": label, "data-key": key, onchange: (event) => event.target.value && take(make(event.target.value)) },
    h("option", { value: "" }, label), options.map((one) => h("option", { value: one }, words(one))));
  const form = (key, label, button, make) => {
    const field = h("input", { "aria-label": label, placeholder: label, "data-key": key, size: "34", maxlength: "2000" });
    return h("form", { class: "bar", onsubmit: (event) => { event.preventDefault(); if (field.value.trim()) attempt(() => make(field.value.trim())); } }, field, h("button", {}, button));
  };
  const stepped = (text) => post(`${path}/steps`, { ...(named ? { by: mine } : {}), ...text });
  const can = {
    take: ["new", "triaged", "confirmed", "actioned", "appealed", "false"].includes(at), judge: ["new", "triaged", "confirmed", "false"].includes(at), act: ["confirmed", "actioned"].includes(at),
    appeal: ["actioned"].includes(at), answer: at === "appealed", close: ["false", "confirmed", "actioned"].includes(at),
  };
  const lasting = h("select", { "aria-label": "Silent for" }, SILENCES.map(([value, text]) => h("option", { value }, text)));
  return h("div", { class: "panel" }, h("h2", {}, "Work on it"),
    named ? h("label", {}, "Your name", h("input", { value: mine, maxlength: "64", oninput: (event) => { mine = event.target.value.trim(); } })) : null,
    h("div", { class: "bar" },
      can.take ? h("button", { class: at === "new" ? "main" : null, "data-key": "take", onclick: () => take({ step: "take", assignee: mine }) }, "Take ", h("kbd", {}, "t")) : null,
      can.judge ? choice("confirm", "Confirm as…", ABUSE, (reason) => ({ step: "confirm", reason })) : null,
      can.judge ? choice("dismiss", "Dismiss as…", INNOCENT, (reason) => ({ step: "dismiss", reason })) : null,
      can.act ? choice("act", "What was done…", ENFORCEMENTS, (enforcement) => ({ step: "act", enforcement })) : null,
      can.close ? h("button", { onclick: () => take({ step: "close" }) }, "Close") : null),
    form("note", "A note, without numbers of people", "Note", (text) => stepped({ step: "note", text })),
    form("case", "Case", "Put into the case", (name) => stepped({ step: "case", case: name })),
    can.appeal ? form("appeal", "What the subject says", "Appeal", (text) => stepped({ step: "appeal", text })) : null,
    can.answer ? [form("grant", "Written answer: granted", "Grant", (text) => stepped({ step: "answer", granted: true, text })),
      form("refuse", "Written answer: refused", "Refuse", (text) => stepped({ step: "answer", granted: false, text }))] : null,
    alert.work?.silenced_until_ms
      ? h("button", { onclick: () => attempt(() => remove(`${path}/silence${named ? `?by=${encodeURIComponent(mine)}` : ""}`)) }, "End the silence")
      : h("div", { class: "bar" }, form("silence", "Why it can be silent", "Silence", (text) => post(`${path}/silence`, { for: lasting.value, text, ...(named ? { by: mine } : {}) })), h("label", {}, "for", lasting)),
    told);
}
