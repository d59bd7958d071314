// Flights under way: who waits on what, for how long.
import { ask } from "./api.js";
import { byId, element, empty, keyed, put, traceLink } from "./dom.js";
import { digest, plural, time } from "./format.js";

const MOST = 12;
let jaeger = null;
let asking = false;
const list = element("ul", { class: "flights" });

export function prepare() {
  draw([]);
}

export function link(base) {
  jaeger = base;
}

export async function show({ stats }) {
  if (!stats.flights) return draw([]);
  if (asking) return undefined;
  asking = true;
  try {
    draw(await ask("flights"));
  } catch { /* the connection says so */ } finally {
    asking = false;
  }
  return undefined;
}

function draw(flights) {
  const host = byId("flights");
  if (!flights.length) {
    put(byId("flights-note"), "");
    if (!host.querySelector(".empty")) host.replaceChildren(empty("Nothing is under way.", "While the app works on a request that others may wait for, it stands here."));
    return;
  }
  if (list.parentNode !== host) host.replaceChildren(list);
  const oldest = Math.max(...flights.map((one) => one.seconds));
  keyed(list, flights.slice(0, MOST).map((one) => ({ ...one, part: one.seconds / oldest })), (one) => one.flight, line);
  put(byId("flights-note"), flights.length > MOST ? `${MOST} oldest of ${flights.length}` : plural(flights.length, "flight"));
}

function line(first) {
  const rule = element("strong");
  const since = element("span", { class: "num" });
  const bar = element("i");
  const who = element("span", { class: "soft" });
  const made = element("li", {}, element("span", { class: "line" }, rule, since), element("span", { class: "meter", "aria-hidden": "true" }, bar),
    element("span", { class: "line" }, who, traceLink(jaeger, first.trace_id)));
  made.show = (one) => {
    put(rule, one.rule);
    put(since, time(one.seconds));
    bar.style.setProperty("width", `${Math.max(2, one.part * 100)}%`);
    put(who, told(one));
    made.title = `Flight ${one.flight}, fingerprint ${digest(one.key)}`;
  };
  return made;
}

function told({ flight, waiters, followers, awaits, landed, current }) {
  return [
    `#${flight}`,
    waiters ? `${plural(waiters, "request")} ${waiters === 1 ? "waits" : "wait"}` : "nobody waits",
    followers ? `${followers} joined` : "",
    awaits.length ? `itself on ${awaits.map((other) => `#${other}`).join(", ")}` : "",
    landed ? "landed" : "",
    current ? "" : "out of date",
  ].filter(Boolean).join(", ");
}
