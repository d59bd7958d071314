// The rules in force: what each one saves, and its switch.
import { ask } from "./api.js";
import { split, sparkline } from "./charts.js";
import { change, facts } from "./dialog.js";
import { byId, element, empty, keyed, put, table } from "./dom.js";
import { number, percent, plural, rate, time } from "./format.js";
import { lately, NAMES, OUTCOMES, samples, shown as seconds, sum } from "./history.js";

let rules = []; // as the server told them last
let told = null; // the last tick
let current = {}; // requests a second by rule
const body = element("tbody");
const MANY = 100; // rules, beyond which rows out of sight are drawn anew in turn
const TURN = 50; // rows out of sight, each time
let next = 0; // of them
const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.dataset.seen = isIntersecting;
    if (isIntersecting) target.draw();
  }
});
export const labels = () => rules.map((rule) => rule.label);

export function prepare(changed) {
  const made = table("Rules, with what each one saves", [
    ["Rule"], ["Requests", "num"], ["Last minutes"], ["How they ended"], ["Hit rate", "num"], ["Saved", "num"], ["In force"], ["", "act"],
  ], [], { class: "cards" });
  made.querySelector("tbody").replaceWith(body);
  byId("rules").replaceChildren(made);
  whenChanged = changed;
}

let whenChanged = () => {};

export async function load() {
  rules = await ask("rules");
  redraw();
}

export function show(tick) {
  told = tick;
  redraw();
}

function redraw() {
  const stats = told?.stats.rules ?? {};
  const known = new Set(labels());
  const unknown = Object.keys(stats).filter((label) => !known.has(label));
  current = lately()?.rules ?? {};
  const all = [...rules, ...unknown.map((label) => ({ label, on: null, fields: null }))];
  put(byId("rules-note"), plural(all.length, "rule"));
  keyed(body, all, (rule) => rule.label, () => makeRow());
  if (all.length <= MANY) return;
  const unseen = [...body.children].filter((row) => row.dataset.seen !== "true");
  for (let place = 0; place < Math.min(TURN, unseen.length); place += 1) unseen[next++ % unseen.length].draw();
}

function makeRow() {
  const part = (name, kind, child) => element("td", { class: kind, "data-name": name }, child);
  const name = element("strong");
  const where = element("code");
  const requests = element("span");
  const spark = sparkline("accent");
  const now = element("small", { class: "soft" });
  const ended = split([...OUTCOMES].reverse());
  const hitRate = element("span");
  const saved = element("span");
  let rule = null;
  const toggle = element("button", { type: "button", class: "switch", role: "switch", onclick: () => turn(rule) }, element("i", { "aria-hidden": "true" }), element("span"));
  const look = element("button", { type: "button", class: "quiet", onclick: () => inForce(rule) }, "Fields");
  const drop = element("button", { type: "button", class: "quiet", onclick: () => invalidate(rule) }, "Invalidate");
  const row = element("tr", {},
    element("th", { scope: "row" }, name, where), part("Requests", "num", requests),
    part("Last minutes", "graph", element("span", { class: "with-now" }, spark, now)), part("How they ended", "graph", ended),
    part("Hit rate", "num", hitRate), part("Saved", "num", saved), part("In force", "", toggle),
    element("td", { class: "act" }, look, drop));
  row.show = (shown) => {
    rule = shown;
    if (row.dataset.seen === "true" || body.children.length <= MANY) row.draw();
  };
  row.draw = () => {
    const stats = told?.stats.rules[rule.label] ?? { requests: {}, hit_rate: 0, saved: 0 };
    const rates = samples.map((one) => one.rules[rule.label] ?? 0);
    put(name, rule.label);
    put(where, rule.fields ? [(rule.fields.methods ?? []).join(" "), rule.fields.path].filter(Boolean).join(" ") : "functions and earlier rules");
    const all = sum(stats.requests);
    row.classList.toggle("unused", !all);
    put(requests, number(all));
    spark.show(rates, seconds());
    put(now, `${rate(current[rule.label] ?? 0)}/s`);
    ended.show(stats.requests, ending(stats.requests));
    ended.title = ending(stats.requests);
    put(hitRate, all ? `${percent(stats.hit_rate)} %` : "–");
    put(saved, all ? time(stats.saved) : "–");
    toggle.hidden = rule.on === null;
    look.hidden = drop.hidden = !rule.fields;
    toggle.disabled = rule.fields?.mode === "off";
    toggle.setAttribute("aria-checked", String(rule.on));
    toggle.setAttribute("aria-label", `Rule ${rule.label}`);
    look.setAttribute("aria-label", `Fields of ${rule.label}`);
    drop.setAttribute("aria-label", `Invalidate ${rule.label}`);
    put(toggle.lastChild, rule.on ? "On" : "Off");
    row.classList.toggle("off", rule.on === false);
  };
  sight.observe(row);
  return row;
}

function ending(requests) {
  const told = [...OUTCOMES].reverse().filter((name) => requests[name]).map((name) => `${number(requests[name])} ${NAMES[name]}`);
  return told.join(", ") || "no request yet";
}

async function turn({ label, on }) {
  const done = await change({
    title: on ? `Switch “${label}” off?` : `Switch “${label}” on?`,
    text: on
      ? "Its requests go to the app by themselves until it is switched on again. What it stored is dropped."
      : "Its requests are deduplicated again, from an empty store.",
    action: on ? "Switch off" : "Switch on",
    kind: on ? "danger" : "primary",
    done: () => `“${label}” is ${on ? "off" : "on"}.`,
  }, () => ask("switch", { rule: label, on: !on }));
  if (done) await Promise.all([load(), whenChanged()]);
}

async function invalidate({ label }) {
  const done = await change({
    title: `Invalidate “${label}”?`,
    text: "Everything that this rule stored is dropped, and its flights take no newcomers. The next requests run.",
    action: "Invalidate",
    done: ({ dropped }) => `“${label}”: ${plural(dropped, "stored response")} dropped.`,
  }, () => ask("invalidate", { rule: label }));
  if (done) await whenChanged();
}

function inForce({ label, fields: all }) {
  return facts(`Rule “${label}”`, Object.entries(all).map(([name, value]) => [name, written(value)]));
}

function written(value) {
  if (value === null) return "none";
  if (Array.isArray(value)) return value.join(", ") || "nothing";
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
