// The big figures: what was saved since the start, and how it goes just now.
import { element, put } from "./dom.js";
import { duration, number, percent, plural, rate, time } from "./format.js";
import { duplicates, lately, reused, samples, shown, sum } from "./history.js";
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
  const now = lately();
  const minute = lately(60);
  cards.duplicates.show(number(stats.duplicates), "", `of ${plural(all, "request")} since the start`,
    samples.map((one) => duplicates(one.outcomes)));
  cards.saved.show(...duration(stats.saved), now ? `${time(now.saved)} of work each second now` : "of work that did not run",
    samples.map((one) => one.saved));
  cards.hitRate.show(percent(stats.hit_rate), "%", minute?.requests ? `${percent(reused(minute.outcomes) / minute.requests)} % in the last minute` : "no request in the last minute",
    samples.map((one) => (one.requests ? reused(one.outcomes) / one.requests : 0)), 1);
  cards.requests.show(now ? rate(now.requests) : "0", "/s", now ? `${rate(now.requests - duplicates(now.outcomes))} of them answered by the app` : "counting",
    samples.map((one) => one.requests));
}
