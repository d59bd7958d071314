// One collapsed burst as bars: the leader's run, and below it those who waited for the same answer.
import { byId, element, empty, keyed, put, traceLink } from "./dom.js";
import { clock, digest, number, plural, time } from "./format.js";

const ROWS = 18; // followers drawn one by one; the others share a line
const KEPT = 50;
const CALM = 4000; // milliseconds that a burst stays before a newer one takes its place

const bursts = []; // the newest first
let jaeger = null;
let shown = null; // the flight that is drawn
let since = -CALM;
let timer = 0;
const list = element("div", { class: "choices", role: "group", "aria-label": "Recent bursts, the newest first" });
const stage = element("div", { class: "burst" });

export const seen = () => bursts;

export function prepare() {
  byId("bursts").replaceChildren(stage, list);
  byId("follow").addEventListener("change", () => byId("follow").checked && bursts.length && draw(bursts[0]));
  nothing();
}

export function link(base) {
  jaeger = base;
}

export function fill(found) {
  bursts.splice(0, bursts.length, ...[...found].sort((a, b) => b.started - a.started).slice(0, KEPT));
  redraw();
}

export function add(burst) {
  bursts.unshift(burst);
  bursts.length = Math.min(bursts.length, KEPT);
  redraw();
}

function redraw() {
  if (!bursts.length) return nothing();
  keyed(list, bursts, id, choice);
  newest();
}

function newest() {
  clearTimeout(timer);
  const left = since + CALM - performance.now();
  if (shown === null || (byId("follow").checked && left <= 0)) draw(bursts[0]);
  else if (byId("follow").checked) timer = setTimeout(newest, left);
}

const id = (burst) => `${burst.flight}-${burst.started}`;

function nothing() {
  shown = null;
  list.replaceChildren();
  stage.replaceChildren(empty("No burst yet.",
    "When requests ask for the same at the same time, one of them runs and the others wait for its answer. The next time that happens, it is drawn here."));
}

function choice() {
  const when = element("span", { class: "soft" });
  const what = element("strong");
  const many = element("span", { class: "many" });
  let burst = null;
  const made = element("button", { type: "button", onclick: () => {
    byId("follow").checked = false;
    draw(burst);
  } }, when, what, many);
  made.show = (one) => {
    burst = one;
    put(when, clock(one.started));
    put(what, one.rule);
    put(many, `1 ran, ${number(one.joined)} waited`);
    made.setAttribute("aria-pressed", String(id(one) === shown));
  };
  return made;
}

function draw(burst) {
  if (shown === id(burst)) return;
  shown = id(burst);
  since = performance.now();
  for (const one of list.children) one.setAttribute("aria-pressed", String(one.dataset.key === shown));
  const followers = [...burst.followers]
    .map((one) => ({ ...one, start: Math.max(0, one.at - one.waited - burst.started), end: one.at - burst.started }))
    .sort((a, b) => a.start - b.start);
  const end = Math.max(burst.duration, ...followers.map((one) => one.end), 1e-4);
  const rest = followers.slice(ROWS);
  const more = burst.joined - Math.min(ROWS, followers.length); // the server keeps some hundred of them one by one
  stage.replaceChildren(
    element("p", { class: "verdict" }, element("strong", {}, `1 run answered ${plural(burst.joined + 1, "request")}`),
      ` of ${burst.rule}. ${time(burst.joined * burst.duration)} of work did not run.`),
    element("p", { class: "soft small" }, `${clock(burst.started)}, ${status(burst)}, fingerprint ${digest(burst.key)}`),
    axis(end),
    element("ol", { class: "bars", style: { "--rows": Math.min(followers.length, ROWS + 1) + 1 } },
      bar("Leader", "leads", `ran ${time(burst.duration)}`, 0, burst.duration, end, burst.trace_id),
      followers.slice(0, ROWS).map((one, place) =>
        bar(`Follower ${place + 1}`, "joined", `waited ${time(one.waited)}`, one.start, one.end, end, one.trace_id)),
      rest.length > 0 && bar(`${number(more)} more`, "joined more", `up to ${time(Math.max(...rest.map((one) => one.waited)))}`,
        Math.min(...rest.map((one) => one.start)), Math.max(...rest.map((one) => one.end)), end)),
  );
}

function status({ status: code, error }) {
  if (error) return `failed: ${error}`;
  return code ? `status ${code}` : "a function";
}

function axis(end) {
  return element("div", { class: "axis", "aria-hidden": "true" },
    [0, 0.25, 0.5, 0.75, 1].map((part) => element("span", { style: { "--at": part * 100 } }, part ? time(end * part) : "0")));
}

function bar(who, kind, what, start, stop, end, trace) {
  return element("li", { class: kind },
    element("span", { class: "who" }, who),
    element("span", { class: "track", "aria-hidden": "true" },
      element("i", { style: { "--at": (start / end) * 100, "--for": ((stop - start) / end) * 100 } })),
    element("span", { class: "what" }, what), traceLink(jaeger, trace));
}
