// The big figures: what was saved since the start, and how it goes just now.
import { element, put } from "./dom.js";
import { duration, number, percent, plural, rate, time } from "./format.js";
import { recentHitRate, samples, shown, sum } from "./history.js";
import { sparkline } from "./charts.js";

const cards = {
  duplicates: card("Duplicates removed", "hit"),
  saved: card("Time saved", "collapsed"),
  hitRate: card("Hit rate", "accent"),
  requests: card("Requests a second", "forwarded"),
};

export function prepare(host) {
  host.replaceChildren(...Object.values(cards).map((one) => one.root));
}

function card(name, kind) {
  const value = element("span", { class: "value" });
  const unit = element("span", { class: "unit" });
  const note = element("dd", { class: "soft" });
  const spark = sparkline(kind);
  const root = element("div", { class: "card" }, element("dt", {}, name), element("dd", { class: "big" }, value, unit), note, spark);
  return {
    root,
    show(figure, of, text, values, most) {
      put(value, figure);
      put(unit, of);
      put(note, text);
      spark.show(values, shown(), most);
    },
  };
}

export function show({ stats }) {
  const all = sum(stats.requests);
  const last = samples.at(-1);
  const lately = recentHitRate();
  cards.duplicates.show(number(stats.duplicates), "", `of ${plural(all, "request")} since the start`,
    samples.map((one) => one.outcomes.hit + one.outcomes.collapsed));
  cards.saved.show(...duration(stats.saved), last ? `${time(last.saved)} of work each second now` : "of work that did not run",
    samples.map((one) => one.saved));
  cards.hitRate.show(percent(stats.hit_rate), "%", lately === null ? "no request in the last minute" : `${percent(lately)} % in the last minute`,
    samples.map((one) => (one.requests ? (one.outcomes.hit + one.outcomes.collapsed) / one.requests : 0)), 1);
  cards.requests.show(last ? rate(last.requests) : "0", "/s", last ? `${rate(last.outcomes.forwarded + last.outcomes.bypassed)} of them reach the app` : "counting",
    samples.map((one) => one.requests));
}
