// Requests by outcome over time: second by second since the page opened, or minute by minute from the ledger.
import { byId, element, put } from "./dom.js";
import { clock, moment, rate } from "./format.js";
import { lately, met, NAMES, OUTCOMES, samples, shown } from "./history.js";
import { StackedChart } from "./charts.js";
import { series } from "./analytics.js";

let chart = null;
let range = 0; // seconds of the ledger; 0 is live
const legend = {};
let totals = {}; // requests by outcome since the start

export function prepare() {
  chart = new StackedChart(byId("traffic"), NAMES);
  byId("traffic-legend").replaceChildren(...[...OUTCOMES].reverse().map((name) => {
    const count = element("b");
    const root = element("li", {}, element("i", { class: `swatch ${name}` }), NAMES[name], count);
    legend[name] = { root, count };
    return root;
  }));
  byId("range").addEventListener("change", (event) => {
    range = Number(event.target.value);
    if (range) showRange();
    else draw();
  });
}

export function show({ stats }) {
  const now = lately();
  totals = stats.requests;
  for (const name of OUTCOMES) put(legend[name].count, now ? `${rate(now.outcomes[name])}/s` : "");
  if (!range) draw();
}

// The legend names what was ever met: since the start, or among the points.
function named(points) {
  const names = met(totals, ...points.map((one) => one.values));
  for (const name of OUTCOMES) legend[name].root.hidden = !names.includes(name);
  return names;
}

function draw() {
  const to = samples.at(-1)?.at ?? Date.now() / 1000;
  chart.draw({
    names: named([]),
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
    names: named(found),
    points: found, from: to - wanted, to, gap: Infinity, format: rate,
    label: "Requests a second by outcome, from the ledger; arrow keys read values",
    nothing,
    ticks: (at) => (wanted > 90_000 ? moment(at).split(",")[0] : clock(at).slice(0, 5)),
    when: moment,
  });
}
