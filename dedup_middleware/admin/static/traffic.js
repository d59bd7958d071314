// Requests by outcome over time: second by second since the page opened, or minute by minute from the ledger.
import { byId, element, put } from "./dom.js";
import { clock, moment, rate } from "./format.js";
import { NAMES, OUTCOMES, samples, shown } from "./history.js";
import { StackedChart } from "./charts.js";
import { series } from "./analytics.js";

let chart = null;
let range = 0; // seconds of the ledger; 0 is live
const counts = {};

export function prepare() {
  chart = new StackedChart(byId("traffic"), OUTCOMES, NAMES);
  byId("traffic-legend").replaceChildren(...[...OUTCOMES].reverse().map((name) => {
    counts[name] = element("b");
    return element("li", {}, element("i", { class: `swatch ${name}` }), NAMES[name], counts[name]);
  }));
  byId("range").addEventListener("change", (event) => {
    range = Number(event.target.value);
    if (range) showRange();
    else show();
  });
}

export function show() {
  const last = samples.at(-1);
  for (const name of OUTCOMES) put(counts[name], last ? `${rate(last.outcomes[name])}/s` : "");
  if (range) return;
  const to = last?.at ?? Date.now() / 1000;
  chart.draw({
    points: samples.map((one) => ({ at: one.at, values: one.outcomes })),
    from: to - shown(), to, gap: 4, least: 1, format: rate,
    label: "Requests a second by outcome, the last minutes; arrow keys read values",
    nothing: "No request came. Ask your application for something, and it shows here within a second.",
    ticks: (at, end) => (end - at < 0.5 ? "now" : `${-Math.round(end - at)} s`),
    when: clock,
  });
}

export async function showRange() {
  if (!range) return;
  const wanted = range;
  const to = Date.now() / 1000;
  let nothing = "The ledger knows of no request in this time.";
  const found = await series(to - wanted, to).catch((error) => {
    nothing = error.message;
    return [];
  });
  if (range !== wanted) return;
  chart.draw({
    points: found, from: to - wanted, to, gap: Infinity, format: rate,
    label: "Requests a second by outcome, from the ledger; arrow keys read values",
    nothing,
    ticks: (at) => (wanted > 90_000 ? moment(at).split(",")[0] : clock(at).slice(0, 5)),
    when: moment,
  });
}
