// Duplicates by rule and hour of the day, from the ledger.
import * as analytics from "./analytics.js";
import { byId, element, empty, put } from "./dom.js";
import { number, plural } from "./format.js";
import { sum } from "./history.js";
import { failed } from "./pager.js";

const WEEK = 604_800;
const MOST = 20; // rules
const HOURS = Array.from({ length: 24 }, (_, hour) => hour);
const two = (hour) => String(hour).padStart(2, "0");

export async function show() {
  try {
    await shown();
  } catch (error) {
    failed("heat", error);
  }
}

async function shown() {
  if (!analytics.available) {
    byId("heat").replaceChildren(empty("This needs a ledger.", "With ", element("code", {}, "Dedup(records=\"sqlite:///dedup.db\", secret=…)"),
      " every minute is remembered, and this map shows when each rule saves most."));
    return;
  }
  const rules = new Map();
  for (const { rule, hour, duplicates } of await analytics.heatmap(Date.now() / 1000 - WEEK)) {
    if (!duplicates) continue;
    if (!rules.has(rule)) rules.set(rule, HOURS.map(() => 0));
    rules.get(rule)[hour] += duplicates;
  }
  const busiest = [...rules].sort(([, one], [, other]) => sum(other) - sum(one)).slice(0, MOST);
  const of = rules.size > MOST ? `, the ${MOST} rules with most duplicates of ${number(rules.size)}` : "";
  put(byId("heat-note"), `the last seven days, in this computer's time${of}`);
  const most = Math.max(1, ...busiest.flatMap(([, hours]) => hours));
  byId("heat").replaceChildren(busiest.length ? map(busiest, most) : empty("Nothing is recorded yet.", "What is answered without a run of its own is counted here, hour by hour."));
}

function map(rules, most) {
  return element("div", { class: "heat-wrap" },
    element("table", { class: "heat" },
      element("caption", { class: "hidden" }, "Duplicates by rule and hour of the day"),
      element("thead", {}, element("tr", {}, element("td"), HOURS.map((hour) =>
        element("th", { scope: "col" }, hour % 3 === 0 ? two(hour) : element("span", { class: "hidden" }, two(hour)))))),
      element("tbody", {}, rules.map(([rule, hours]) => element("tr", {},
        element("th", { scope: "row" }, rule),
        hours.map((count, hour) => element("td", {
          class: count ? "warm" : "", title: `${rule}, ${two(hour)}:00: ${plural(count, "duplicate")}`,
          style: { "--heat": count ? 12 + 88 * Math.sqrt(count / most) : 0 },
        }, element("span", { class: "hidden" }, number(count)))))))),
    element("p", { class: "scale soft small", "aria-hidden": "true" }, "0", element("i"), number(most)));
}
