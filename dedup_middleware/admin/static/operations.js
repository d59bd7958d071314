// The most duplicated operations: from the ledger, else from the bursts that this page has heard of.
import * as analytics from "./analytics.js";
import { byId, cell, element, empty, put, table, traceLink } from "./dom.js";
import { clock, digest, moment, number, time } from "./format.js";
import { seen } from "./bursts.js";
import { failed } from "./pager.js";

const MOST = 8;
const DAY = 86_400;
const heard = new Map(); // bursts by rule and key, for want of a ledger
const counted = new Set();
let since = Date.now() / 1000;
let jaeger = null;

export function link(base) {
  jaeger = base;
}

export async function show() {
  try {
    await shown();
  } catch (error) {
    failed("operations", error);
  }
}

async function shown() {
  if (!analytics.available) return fromBursts();
  put(byId("operations-note"), "from the ledger: seen in the last 24 hours, counted since they were first seen");
  const found = await analytics.operations(Date.now() / 1000 - DAY, MOST);
  if (!found.length) return draw(empty("Nothing is recorded yet.", "Executions and their duplicates stand here a moment after they happen."));
  return draw(list(found));
}

function fromBursts() {
  for (const burst of seen()) {
    const id = `${burst.flight}-${burst.started}`;
    if (counted.has(id)) continue;
    counted.add(id);
    since = Math.min(since, burst.started);
    const one = heard.get(`${burst.rule} ${burst.key}`)
      ?? { rule: burst.rule, key: burst.key, executions: 0, duplicates: 0, total: 0, saved: 0, last: 0, trace_id: null };
    heard.set(`${burst.rule} ${burst.key}`, one);
    one.executions += 1;
    one.duplicates += burst.joined;
    one.total += burst.duration;
    one.saved += burst.joined * burst.duration;
    one.last = Math.max(one.last, burst.started);
    one.trace_id = burst.trace_id ?? one.trace_id;
  }
  put(byId("operations-note"), heard.size ? `from the bursts since ${clock(since)}; hits are not among them` : "");
  const most = [...heard.values()].sort((a, b) => b.duplicates - a.duplicates).slice(0, MOST);
  draw(most.length ? list(most.map((one) => ({ ...one, average: one.total / one.executions }))) : empty("Nothing was asked for twice yet.",
    "Without a ledger this table counts bursts while the page is open. ", element("code", {}, "Dedup(records=\"sqlite:///dedup.db\", secret=…)"), " remembers every operation."));
}

function list(found) {
  const most = Math.max(...found.map((one) => one.duplicates));
  return table("Operations by duplicates", [["Operation"], ["Duplicates", "num"], ["Runs", "num"], ["A run", "num"], ["Saved", "num"], ["Last", "num"], ["", "act"]],
    found.map((one) => element("tr", {},
      element("th", { scope: "row" }, element("strong", {}, one.rule), element("code", {}, one.route ?? digest(one.key))),
      cell("Duplicates", "num", element("span", { class: "with-bar" }, number(one.duplicates),
        element("i", { style: { width: `${(one.duplicates / most) * 100}%` } }))),
      cell("Runs", "num", number(one.executions)), cell("A run", "num", time(one.average)),
      cell("Saved", "num", time(one.saved)), cell("Last", "num", moment(one.last)), cell("", "act", traceLink(jaeger, one.trace_id)))),
    { class: "cards" });
}

function draw(content) {
  byId("operations").replaceChildren(content);
}
