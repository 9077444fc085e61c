// The frame around every page: who is logged in, where to go, light or dark, and the keys.

import { get, onLoggedOut, post } from "./api.js";
import { h, put, say, trouble } from "./dom.js";

/** Pages: key after `g`, name, module, and what of `/v1/me` must be true for it to be there. */
const PAGES = [
  ["s", "statistics", "Statistics", () => true],
  ["q", "sql", "SQL", () => true],
  ["b", "budget", "Budget", (may) => may.budget],
  ["a", "alerts", "Alerts", (may) => may.alerts],
  ["h", "health", "Health", (may) => may.health],
  ["p", "promises", "Promises", () => true],
];

const root = document.getElementById("root");
let me = null;
let main = null;
let leave = null;
let turn = 0;

const pages = () => PAGES.filter(([, , , there]) => there(me.may));

function theme(next) {
  try {
    if (next !== undefined) localStorage.setItem("starling.theme", next);
    const kept = localStorage.getItem("starling.theme");
    if (kept === "light" || kept === "dark") document.documentElement.dataset.theme = kept;
    else delete document.documentElement.dataset.theme;
    return kept ?? "system";
  } catch {
    return "system"; // A browser that keeps nothing follows the system.
  }
}

function login(message) {
  leave?.();
  leave = null;
  me = null;
  const name = h("input", { name: "name", autocomplete: "username", required: true, autocapitalize: "none", spellcheck: "false" });
  const password = h("input", { name: "password", type: "password", autocomplete: "current-password", required: true });
  const button = h("button", { class: "main", type: "submit" }, "Log in");
  const told = h("div", {}, message ? h("div", { class: "notice" }, h("p", {}, message)) : null);
  const form = h("form", {
    onsubmit: async (event) => {
      event.preventDefault();
      button.disabled = true;
      try {
        me = await post("/v1/login", { name: name.value, password: password.value });
        frame();
      } catch (error) {
        put(told, trouble(error));
        password.value = "";
        password.focus();
      } finally {
        button.disabled = false;
      }
    },
  },
  h("label", { class: "stacked" }, "Name", name),
  h("label", { class: "stacked" }, "Password", password),
  button);
  document.title = "Log in · Starling";
  put(root, h("main", { id: "main", class: "login" },
    h("div", { class: "brand" }, h("img", { src: "/console/starling.svg", alt: "" }), "Starling"),
    h("div", { class: "panel" }, h("h1", {}, "Log in"), told, form,
      h("p", { class: "soft" }, "An engineer adds users with ", h("code", {}, "starling users add"), "."))));
  name.focus();
}

function who() {
  if (me.way === "local") {
    return h("p", { class: "soft" }, "On this machine, without a login. For questions over ", h("code", {}, "private.*"), ": ", h("code", {}, "starling users add"), ".");
  }
  return h("div", {}, h("strong", {}, me.name), h("div", { class: "soft" }, `${me.role}${me.team ? `, team ${me.team}` : ""}`));
}

function frame() {
  main = h("main", { id: "main", tabindex: "-1" });
  const themes = h("select", { "aria-label": "Light or dark", onchange: (event) => theme(event.target.value) },
    [["system", "as the system"], ["light", "light"], ["dark", "dark"]].map(([value, text]) => h("option", { value, selected: theme() === value }, text)));
  put(root, h("div", { class: "shell" },
    h("header", { class: "side" },
      h("a", { class: "brand", href: "#/statistics" }, h("img", { src: "/console/starling.svg", alt: "" }), "Starling"),
      h("nav", { "aria-label": "Pages" }, pages().map(([, page, title]) =>
        h("a", { href: `#/${page}`, "data-page": page }, title, page === "alerts" ? h("span", { class: "count", id: "waiting" }) : null))),
      h("div", { class: "foot" }, who(),
        h("div", { class: "bar" }, themes, h("button", { onclick: keys, "aria-haspopup": "dialog" }, "Keys ", h("kbd", {}, "?"))),
        me.way === "cookie" ? h("button", { onclick: logout }, "Log out") : null)),
    main));
  go();
}

async function logout() {
  try {
    await post("/v1/logout", {});
  } finally {
    login("You are logged out.");
  }
}

function keys() {
  const known = [
    ...pages().map(([key, , title]) => [`g ${key}`, title]),
    ["j, k", "next, previous alert"], ["t", "take the alert"], ["c, d", "confirm it as abuse, dismiss it"], ["n", "write a note"],
    ["Ctrl Enter", "run the statement"], ["Esc", "cancel it"], ["?", "these keys"],
  ];
  const box = h("dialog", { "aria-label": "Keys" }, h("h1", {}, "Keys"),
    h("dl", { class: "facts" }, known.map(([key, what]) => [h("dt", {}, key.split(" ").map((k) => [h("kbd", {}, k), " "])), h("dd", {}, what)])),
    h("form", { method: "dialog" }, h("button", { class: "main" }, "Close")));
  box.addEventListener("close", () => box.remove());
  document.body.append(box);
  box.showModal();
}

/** The page that the address names, and what stands after it. */
function place() {
  const [path, query] = location.hash.replace(/^#\//, "").split("?");
  const [page, ...rest] = path.split("/");
  return { page: page || "statistics", rest: rest.map(decodeURIComponent), query: new URLSearchParams(query ?? "") };
}

async function go() {
  if (!me) return;
  const at = place();
  const found = pages().find(([, page]) => page === at.page);
  for (const link of document.querySelectorAll(".side nav a")) {
    if (link.dataset.page === at.page) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const mine = ++turn;
  leave?.();
  leave = null;
  if (!found) {
    put(main, h("h1", { tabindex: "-1" }, "There is no such page"), h("p", {}, "Choose one at the side, or press ", h("kbd", {}, "?"), "."));
    return;
  }
  const [, page, title] = found;
  document.title = `${title} · Starling`;
  // A page writes into a place of its own: one that is still waiting for an answer when somebody goes on cannot write over the next.
  const stage = h("div", {});
  try {
    const { show } = await import(`./${page}.js`);
    if (mine !== turn) return;
    put(main, stage);
    const left = await show({ main: stage, me, rest: at.rest, query: at.query });
    if (mine !== turn) left?.();
    else leave = left ?? null;
  } catch (error) {
    if (mine === turn && error.status !== 401) put(main, h("div", {}, h("h1", { tabindex: "-1" }, title), trouble(error)));
  }
  if (mine === turn) {
    if (!main.contains(document.activeElement)) main.querySelector("h1")?.focus({ preventScroll: true });
    say(title);
  }
}

let after = false;
document.addEventListener("keydown", (event) => {
  if (!me || event.ctrlKey || event.metaKey || event.altKey) return;
  if (/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName) || document.querySelector("dialog[open]")) return;
  if (after) {
    after = false;
    const found = pages().find(([key]) => key === event.key);
    if (found) {
      location.hash = `#/${found[1]}`;
      event.preventDefault();
      event.stopImmediatePropagation();
    }
  } else if (event.key === "g") {
    after = true;
    setTimeout(() => { after = false; }, 1500);
  } else if (event.key === "?") {
    keys();
  }
}, true);

window.addEventListener("hashchange", go);
onLoggedOut(() => { if (me) login("Your session has ended. Log in to go on."); });

theme();
try {
  me = await get("/v1/me");
  frame();
} catch (error) {
  if (error.status === 401) login();
  else put(root, h("main", { id: "main", class: "login" }, h("h1", {}, "Starling"), trouble(error), h("button", { onclick: () => location.reload() }, "Try again")));
}
