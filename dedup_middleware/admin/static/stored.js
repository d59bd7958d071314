// What is stored: found by rule and tag, dropped one by one or together.
import { ask, query } from "./api.js";
import { change } from "./dialog.js";
import { byId, cell, element, empty, table } from "./dom.js";
import { ago, briefly, bytes, digest, moment, number, plural, time } from "./format.js";
import { failed, PAGE, pager } from "./pager.js";
import { labels } from "./rules.js";

const form = byId("stored-filter");
let offset = 0;
let filter = { rule: "", tag: "" };
let gone = [];

export function prepare() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    look({ rule: form.elements.rule.value, tag: form.elements.tag.value.trim() });
  });
  form.elements.rule.addEventListener("change", () => form.requestSubmit());
  byId("clear-all").addEventListener("click", () => drop({ all: true }, "Invalidate everything?",
    "Every stored response is dropped, and flights under way take no newcomers. The next requests all run."));
  byId("clear-shown").addEventListener("click", () => (filter.tag
    ? drop({ tags: [filter.tag] }, `Invalidate the tag “${filter.tag}”?`, "Whatever carries this tag is dropped, under every rule.")
    : drop({ rule: filter.rule }, `Invalidate “${filter.rule}”?`, "Everything that this rule stored is dropped.")));
}

export async function show() {
  const select = form.elements.rule;
  select.replaceChildren(element("option", { value: "" }, "every rule"),
    ...labels().map((label) => element("option", { value: label }, label)));
  select.value = filter.rule;
  drawGone();
  await page();
}

function look(wanted) {
  filter = wanted;
  offset = 0;
  form.elements.rule.value = filter.rule;
  form.elements.tag.value = filter.tag;
  return page();
}

async function page() {
  const clear = byId("clear-shown");
  clear.hidden = !filter.rule && !filter.tag;
  clear.textContent = filter.tag ? "Invalidate this tag" : "Invalidate this rule";
  try {
    const { total, items } = await ask(query("responses", { ...filter, offset, limit: PAGE }));
    if (!items.length && offset) {
      offset = Math.max(0, offset - PAGE);
      await page();
      return;
    }
    draw(total, items);
  } catch (error) {
    failed("stored-list", error);
  }
}

function draw(total, items) {
  byId("tags").replaceChildren(...[...new Set(items.flatMap((one) => one.tags))].sort().map((tag) => element("option", { value: tag })));
  if (!items.length) {
    byId("stored-list").replaceChildren(filter.rule || filter.tag
      ? empty("Nothing stored matches.", "Try another rule or tag.")
      : empty("Nothing is stored.", "A rule stores responses when it has a ", element("code", {}, "ttl"), ", such as ", element("code", {}, "Rule(\"/git/{repo}/status\", ttl=\"5s\")"), "."));
    return;
  }
  byId("stored-list").replaceChildren(
    table("Stored responses", [["Rule"], ["Status"], ["Tags"], ["Hits", "num"], ["Saves", "num"], ["Size", "num"], ["Age", "num"], ["Left", "num"], ["", "act"]],
      items.map(line), { class: "cards" }),
    pager(offset, items.length, total, (to) => {
      offset = to;
      return page();
    }));
}

function line(one) {
  return element("tr", {},
    element("th", { scope: "row" }, element("strong", {}, one.rule), element("code", { title: one.key }, one.route ?? digest(one.key))),
    cell("Status", "", one.status ?? "value"),
    cell("Tags", "tags", one.tags.map((tag) => element("button", { type: "button", class: "tag", title: "Show what carries this tag", onclick: () => look({ rule: "", tag }) }, tag))),
    cell("Hits", "num", number(one.hits)), cell("Saves", "num", time(one.seconds)), cell("Size", "num", bytes(one.bytes)),
    cell("Age", "num", briefly(one.age)), cell("Left", "num", one.ttl < 0 ? "stale" : briefly(one.ttl)),
    element("td", { class: "act" }, element("button", {
      type: "button", class: "quiet", "aria-label": `Invalidate ${one.rule}, fingerprint ${digest(one.key)}`,
      onclick: () => drop({ key: one.key }, "Invalidate this response?", `It is stored under “${one.rule}”, fingerprint ${digest(one.key)}. The next request for it runs.`),
    }, "Invalidate")));
}

async function drop(what, title, text) {
  const done = await change({ title, text, action: "Invalidate", done: ({ dropped }) => `${plural(dropped, "stored response")} dropped.` },
    () => ask("invalidate", what));
  if (done) await page();
}

export function fill(found) {
  gone = [...found].sort((a, b) => b.at - a.at);
  drawGone();
}

export function heard(invalidated) {
  gone = [invalidated, ...gone].slice(0, 50);
  if (!byId("stored").hidden) drawGone();
}

// What somebody asked to drop.
function named({ tags, rule, key, by }) {
  if (tags.length) return tags.join(", ");
  if (rule) return `rule “${rule}”`;
  if (key) return `fingerprint ${digest(key)}`;
  return by === "request" ? "its own target" : "everything";
}

function drawGone() {
  byId("gone").replaceChildren(gone.length
    ? element("ul", { class: "gone" }, gone.slice(0, 12).map((one) => element("li", {},
      element("span", { class: "soft", title: moment(one.at) }, ago(Date.now() / 1000 - one.at)),
      element("span", { class: "soft" }, `by ${one.by}`), element("span", {}, named(one)),
      element("strong", {}, plural(one.dropped, "response")))))
    : empty("Nothing was invalidated yet.", "Code does it by ", element("code", {}, "await dedup.invalidate(\"repo:demo\")"), ", a request that writes by its rule, and you by the buttons here."));
}
