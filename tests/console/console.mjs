// One scenario in a real browser: `node console.mjs PACKAGES CHROMIUM BASE SCENARIO [JSON]`. Ends with 0 when all it claims held.
// Each scenario also fails on a script error, on what the content policy forbade, and on a request to another host.

import { createRequire } from "node:module";
import assert from "node:assert/strict";
import fs from "node:fs";

const [, , packages, executablePath, base, scenario, more] = process.argv;
const given = more ? JSON.parse(more) : {};
const require = createRequire(`${packages}/`);
const { chromium } = require("playwright-core");
const axe = fs.readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
// How long anything may take before a scenario gives up: it measures nothing.
const PATIENCE = 180_000;
const PAGES = ["statistics", "sql", "budget", "alerts", "health", "promises"];

const browser = await chromium.launch({ executablePath, timeout: PATIENCE, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
const faults = [];

async function open(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1360, height: 900 }, ignoreHTTPSErrors: true, ...options });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.on("pageerror", (error) => faults.push(`script: ${error.message}`));
  page.on("console", (message) => {
    // The browser notes each refused answer by itself; the page shows it, which is what is tested.
    if (message.type() === "error" && !/Failed to load resource/.test(message.text())) faults.push(`console: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(base) && !/^(blob|data):/.test(request.url())) faults.push(`another host: ${request.url()}`);
  });
  return page;
}

async function login(page, name, password = given.password) {
  await page.goto(`${base}/`);
  await page.getByLabel("Name").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
}

async function at(page, path) {
  await page.evaluate((hash) => { location.hash = hash; }, `#/${path}`);
}

const heading = (page, text) => page.locator("main h1", { hasText: text }).waitFor();
const alone = (text) => new RegExp(`^${text}$`);

/** Runs the statement that stands in the editor, or this one. */
async function run(page, statement) {
  if (statement) await page.getByLabel("SQL statement").fill(statement);
  await page.getByLabel("SQL statement").press("Escape");
  await page.getByLabel("SQL statement").press("Control+Enter");
}

const answered = (page, sql) => page.evaluate(async (statement) => {
  const answer = await fetch("/v1/sql", { method: "POST", headers: { "Content-Type": "application/json", "X-Starling": "1" }, body: JSON.stringify({ sql: statement }) });
  return answer.json();
}, sql);

/** Violations of the page as it stands, as axe-core tells them. */
async function violations(page) {
  const found = await page.evaluate(`(async () => { ${axe}; return (await axe.run(document, {})).violations.map((v) => v.id + ": " + v.nodes.map((n) => n.html.slice(0, 120)).join(" | ")); })()`);
  return found;
}

const scenarios = {
  async only_who_has_a_password_comes_in() {
    const page = await open();
    await login(page, "ada", "wrong-horse-battery");
    await page.getByRole("alert").waitFor();
    assert.equal(await page.getByLabel("Password").inputValue(), "", "a wrong password is not kept");
    await page.getByLabel("Password").fill(given.password);
    await page.getByLabel("Password").press("Enter");
    await heading(page, "Statistics");
    assert.equal(await page.evaluate(() => document.cookie), "", "a script can read the session");
    assert.ok(await page.getByText("product, team product").isVisible());
    await page.reload();
    await heading(page, "Statistics");
    await page.getByRole("button", { name: "Log out" }).click();
    await heading(page, "Log in");
    await page.reload();
    await heading(page, "Log in");
    // A session that ends while a page is open asks for a login, and does not pretend.
    await login(page, "ada");
    await heading(page, "Statistics");
    await page.context().clearCookies();
    await at(page, "budget");
    await heading(page, "Log in");
  },

  async statistics_are_those_of_sql_with_their_error() {
    const page = await open();
    await login(page, "ada");
    await heading(page, "Statistics");
    await at(page, `statistics/${given.metric}`);
    await page.locator("figure svg").waitFor();
    const rows = await answered(page, `SELECT * FROM stats.${given.metric} WHERE status = 'released' ORDER BY day DESC, value DESC`);
    const column = (name) => rows.columns.findIndex((one) => one.name === name);
    assert.ok(rows.rows.length >= 2, "there is something to draw");
    // The chart may be there before the table is.
    await page.locator("main table tbody tr").first().waitFor();
    const shown = await page.locator("main table tbody tr").evaluateAll((all) => all.map((row) => [...row.cells].map((cell) => cell.textContent)));
    assert.equal(shown.length, Math.min(500, rows.rows.length));
    const value = (text) => Number(text.replaceAll(",", ""));
    for (const [index, row] of shown.slice(0, 50).entries()) {
      const truth = rows.rows[index];
      assert.equal(row[0], truth[column("day")]);
      const told = value(row[row.length - 5]);
      assert.ok(Math.abs(told - truth[column("value")]) <= Math.abs(truth[column("value")]) * 0.001 + 0.5, `${row}: ${truth}`);
    }
    // Each series that is drawn has a point for each of its days, by keyboard too.
    assert.ok((await page.locator("figure svg circle.fill").count()) > 1);
    await page.locator("figure svg").focus();
    await page.keyboard.press("ArrowLeft");
    const newest = rows.rows[0][column("day")];
    assert.match(await page.locator("figure .tip").textContent(), new RegExp(`^${newest}: .*\\d`));
    await page.getByRole("button", { name: "On one day" }).click();
    assert.equal(await page.locator("figure svg circle.fill").count(), Math.min(40, rows.rows.filter((row) => row[column("day")] === newest).length));
    const [file] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name: "Download CSV" }).click()]);
    const text = fs.readFileSync(await file.path(), "utf8").trim().split("\n");
    assert.equal(text[0].split(",")[0], "day");
    assert.equal(text.length - 1, rows.rows.length);
    // Whoever goes on before an answer is there sees the page he went to, and keeps seeing it.
    await page.route("**/v1/budget", async (route) => { await new Promise((done) => setTimeout(done, 500)); await route.continue(); });
    const late = page.waitForResponse("**/v1/budget");
    await at(page, "budget");
    await heading(page, "Budget");
    await at(page, `statistics/${given.metric}`);
    await page.locator("figure svg").waitFor();
    await (await late).finished();
    await page.waitForTimeout(100);
    assert.equal(await page.locator("main h1").textContent(), "Statistics", "a late answer wrote over another page");
    // What it means, and how to find another.
    await page.getByText("What does this number mean?").waitFor();
    assert.match(await page.locator("main").textContent(), /low to high holds what would be there without noise/);
    await page.getByPlaceholder("Find a metric").fill("call minutes");
    await page.getByRole("link", { name: /Call minutes/ }).click();
    await page.locator("main h2", { hasText: "Call minutes" }).waitFor();
  },

  async a_private_question_tells_its_price_is_paid_once_and_stands_in_the_budget() {
    const page = await open();
    await login(page, "joe");
    await heading(page, "Statistics");
    await at(page, "sql");
    await run(page, given.question);
    await page.getByRole("heading", { name: "What it would cost" }).waitFor();
    const charges = `SELECT count(*) AS n FROM meta.charges WHERE who = 'engineering'`;
    const before = (await answered(page, charges)).rows[0][0];
    await page.getByRole("button", { name: "Ask, and pay this" }).click();
    await page.locator("section table caption", { hasText: alone("Answer") }).waitFor();
    assert.equal((await answered(page, charges)).rows[0][0], before + 1, "charged once");
    assert.match(await page.locator("section .notice").first().textContent(), /\d/, "the cost is told");
    const first = await page.locator("section table tbody").textContent();
    await run(page);
    await page.getByRole("button", { name: "Show the stored answer, free" }).click();
    await page.locator("section table caption", { hasText: alone("Answer") }).waitFor();
    assert.equal(await page.locator("section table tbody").textContent(), first, "the same answer");
    assert.equal((await answered(page, charges)).rows[0][0], before + 1, "free the second time");
    await at(page, "budget");
    await page.getByRole("heading", { name: "One person at the most" }).waitFor();
    assert.ok(await page.locator("main table", { hasText: "charges" }).locator("tbody tr", { hasText: "engineering" }).count(), "the charge is shown");
    assert.equal(await page.locator("main table", { hasText: "charges" }).locator("tbody td", { hasText: alone("product") }).count(), 0, "another team's charge is shown");
  },

  async sql_is_completed_told_wrong_where_it_is_and_can_be_cancelled() {
    const page = await open();
    await login(page, "ada");
    await heading(page, "Statistics");
    await at(page, "sql");
    const editor = page.getByLabel("SQL statement");
    await editor.fill("");
    await editor.pressSequentially("SELECT * FROM stats.people_served_d");
    await page.getByRole("option", { name: /stats\.people_served_daily/ }).waitFor();
    await editor.press("Tab");
    assert.equal(await editor.inputValue(), "SELECT * FROM stats.people_served_daily");
    await run(page, "SELECT nothing_of_that_name FROM stats.people_served_daily");
    const told = page.locator("section [role=alert]");
    await told.waitFor();
    assert.match(await told.textContent(), /\[42\w{3}\]/);
    await run(page, "SELECT '<img src=x onerror=alert(1)><b>bold</b>' AS markup");
    await page.locator("section td", { hasText: "<b>bold</b>" }).waitFor();
    assert.equal(await page.locator("section td img, section td b").count(), 0, "an answer became markup");
    const cancelled = page.getByText("Cancelled.");
    const late = page.locator("section [role=alert]", { hasText: "took longer than" });
    // The gate ends it of itself after ten seconds. Where the browser was slower than that it is asked again.
    for (let round = 1; ; round += 1) {
      await run(page, given.slow);
      await page.getByRole("button", { name: /^Cancel/ }).click({ timeout: 15_000 }).catch(() => {});
      await cancelled.or(late).first().waitFor();
      if (await cancelled.count()) break;
      assert.ok(round < 5, "it was never cancelled before its time was up");
    }
    // The gate is free again.
    await run(page, "SELECT 41 + 1 AS answer");
    await page.locator("section td", { hasText: alone("42") }).waitFor();
  },

  async alerts_are_live_and_worked_on_by_keyboard() {
    const page = await open();
    await login(page, "ivy");
    await heading(page, "Statistics");
    await at(page, "alerts");
    await page.getByText("live", { exact: true }).waitFor();
    await page.locator(".alert").first().waitFor();
    // They come one by one; the door knows how many it will be.
    const listed = await page.evaluate(async () => {
      const { alerts } = await (await fetch("/v1/alerts")).json();
      return alerts.filter((alert) => alert.work?.wants_attention ?? true).length;
    });
    await page.waitForFunction((n) => document.querySelectorAll(".alert").length === n, listed);
    await page.keyboard.press("j");
    await page.getByRole("heading", { name: "Work on it" }).waitFor();
    const fingerprint = await page.locator("main code").first().textContent();
    await page.keyboard.press("t");
    await page.locator(".steps li", { hasText: "take ivy" }).waitFor();
    await page.keyboard.press("n");
    await page.keyboard.type("looks <b>bad</b>");
    await page.keyboard.press("Enter");
    await page.locator(".steps li", { hasText: "looks <b>bad</b>" }).waitFor();
    await page.getByLabel("Dismiss as…").selectOption("legitimate_use");
    await page.locator(".steps li", { hasText: "dismiss" }).waitFor();
    const steps = await page.evaluate(async (name) => (await (await fetch(`/v1/alerts/${name}`)).json()).steps, fingerprint);
    assert.deepEqual(steps.map((step) => [step.by, step.what.step]), [["ivy", "take"], ["ivy", "note"], ["ivy", "dismiss"]]);
    await page.waitForFunction((n) => document.querySelectorAll(".alert").length === n, listed - 1);
    await page.getByLabel("Only what wants attention").uncheck();
    await page.waitForFunction((n) => document.querySelectorAll(".alert").length === n, listed);
    // What a phone number could hide in is refused, in words.
    await page.keyboard.press("Escape");
    await page.getByLabel("A note, without numbers of people").fill("call +49 170 1234567");
    await page.getByLabel("A note, without numbers of people").press("Enter");
    await page.locator("main [role=alert]").waitFor();
    // Somebody else's step arrives without a reload.
    const other = await page.locator(".alert .tag.new").first().evaluate((tag) => tag.closest(".alert").id.slice(6));
    process.stdout.write(`take ${other}\n`);
    await page.locator(`#alert-${other} .tag`, { hasText: "triaged" }).waitFor();
    // A silence, and its end.
    await page.locator(`#alert-${other}`).click();
    await page.getByLabel("Why it can be silent").fill("known campaign");
    await page.getByLabel("Why it can be silent").press("Enter");
    await page.getByText(/^Silent until/).waitFor();
    await page.getByRole("button", { name: "End the silence" }).click();
    await page.getByLabel("Why it can be silent").waitFor();
    // A precision of the rules, once they are judged.
    await page.reload();
    await page.locator("#rules table").first().waitFor();
    assert.match(await page.locator("#rules table").first().textContent(), /0 %/, "a dismissed alert counts against its rule");
  },

  async each_role_finds_its_pages_and_no_others() {
    for (const [name, pages] of Object.entries(given.roles)) {
      const page = await open();
      await login(page, name);
      await heading(page, "Statistics");
      const found = await page.locator(".side nav a").evaluateAll((all) => all.map((link) => link.dataset.page));
      assert.deepEqual(found, pages, name);
      for (const one of PAGES) {
        await at(page, one);
        await heading(page, pages.includes(one) ? new RegExp(one, "i") : "There is no such page");
        await page.waitForLoadState("networkidle").catch(() => {});
        assert.equal(await page.locator("main [role=alert]").count(), 0, `${name}, ${one}: ${await page.locator("main").textContent()}`);
      }
      await page.context().close();
    }
  },

  async every_page_passes_axe_in_light_dark_and_narrow() {
    for (const [colorScheme, width] of [["light", 1360], ["dark", 1360], ["light", 480]]) {
      const page = await open({ colorScheme, viewport: { width, height: 900 } });
      await page.goto(`${base}/`);
      await heading(page, "Log in");
      assert.deepEqual(await violations(page), [], `log in, ${colorScheme}`);
      for (const name of ["ada", "ivy", "aud"]) {
        await login(page, name);
        await heading(page, "Statistics");
        for (const one of await page.locator(".side nav a").evaluateAll((all) => all.map((link) => link.dataset.page))) {
          await at(page, one);
          await heading(page, new RegExp(one, "i"));
          if (one === "statistics") await page.locator("figure svg").waitFor();
          if (one === "alerts") {
            await page.locator(".alert").first().waitFor();
            await page.locator(".alert").first().click();
            await page.getByRole("heading", { name: "Work on it" }).waitFor();
          }
          await page.waitForTimeout(50);
          assert.deepEqual(await violations(page), [], `${one} as ${name}, ${colorScheme}, ${width} wide`);
          assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth + 1), `${one}: the page is wider than ${width}`);
        }
        await page.context().clearCookies();
      }
      await page.context().close();
    }
  },

  async who_looks_after_it_sees_health_and_promises() {
    const page = await open();
    await login(page, "aud");
    await heading(page, "Statistics");
    // The two keys belong together for a second and a half: where the browser was slower they are pressed again.
    const health = page.locator("main h1", { hasText: "Health" });
    for (let round = 1; round <= 20 && !(await health.isVisible()); round += 1) {
      await page.keyboard.press("g");
      await page.keyboard.press("h");
      await health.waitFor({ timeout: 5_000 }).catch(() => {});
    }
    await heading(page, "Health");
    await page.locator(".card", { hasText: "Balance" }).locator("text=right").waitFor();
    const windows = await page.locator("table", { hasText: "Windows" }).locator("tbody tr").count();
    assert.ok(windows >= given.days, `${windows} windows`);
    assert.ok(await page.locator("table", { hasText: "Keys that were destroyed" }).locator("tbody tr").count() >= given.days, "receipts");
    await at(page, "promises");
    await heading(page, "Promises");
    await page.locator("table", { hasText: "Classes of data" }).waitFor();
    assert.match(await page.locator("table", { hasText: "Classes of data" }).textContent(), /phone/i);
    await page.locator("table", { hasText: "Newest entries" }).waitFor();
    assert.ok(await page.locator("table", { hasText: "Newest entries" }).locator("tbody tr").count() > 3);
    await page.keyboard.press("?");
    await page.getByRole("dialog", { name: "Keys" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByLabel("Light or dark").selectOption("dark");
    assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), "dark");
  },
};

try {
  await scenarios[scenario]();
  assert.deepEqual(faults, []);
} catch (error) {
  console.error(error);
  for (const fault of faults) console.error(fault);
  const pages = browser.contexts().flatMap((context) => context.pages());
  for (const page of pages) console.error(`at ${page.url()}: ${(await page.locator("main").textContent().catch(() => "")).slice(0, 600)}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
