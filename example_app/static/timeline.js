// Draws a burst: groups by what was asked for, each flight's leader first and under it those who joined.
import { byId, element, facts, plural, time } from "./dom.js";

const NAMES = {
  forwarded: "ran",
  collapsed: "collapsed into another's",
  hit: "served from the store",
  stale: "served stale",
  revalidated: "revalidated",
  bypassed: "passed by",
  bare: "ran (no middleware)",
};
const ORDER = { forwarded: 0, bare: 0, bypassed: 0, collapsed: 1, revalidated: 2, stale: 2, hit: 2 };

let shown = null; // the timeline on the page
const last = {}; // the last run of each side
let chosen = null; // the row that is looked into

export function draw(run, { replay = true } = {}) {
  shown = last[run.middleware] = run;
  chosen = null;
  byId("detail").hidden = true;
  byId("beside").append(byId("detail")); // out of the rows that are about to be replaced
  byId("zoom").hidden = false;
  verdict(run);
  legend(run);
  rows(replay);
}

export function zoom() {
  byId("beside").append(byId("detail"));
  byId("detail").hidden = true;
  chosen = null;
  if (shown) rows(false);
}

function verdict(run) {
  const others = run.rows.filter((row) => ORDER[row.outcome] > 0).length;
  const dot = () => element("span", { class: "sep", "aria-hidden": "true" }, "·");
  byId("verdict").replaceChildren(
    element("strong", {}, plural(run.rows.length, "request")), dot(),
    element("strong", {}, plural(run.executions, "execution")), dot(),
    element("strong", {}, time(run.milliseconds)),
    element("br"),
    run.middleware
      ? `${plural(others, "request")} got an answer that somebody else had paid for.`
      : "Without the middleware every request pays for itself.",
    beside(last[!run.middleware], run),
  );
}

// The same burst on the other side, when it was fired before.
function beside(other, run) {
  if (!other || other.pages !== run.pages) return "";
  const side = other.middleware ? "with" : "without";
  return ` The last one ${side} it: ${plural(other.executions, "execution")} in ${time(other.milliseconds)}.`;
}

function legend(run) {
  const counts = Object.entries(run.outcomes).sort(([a], [b]) => ORDER[a] - ORDER[b]);
  byId("legend").replaceChildren(...[
    ...counts.map(([outcome, count]) =>
      element("li", {}, element("i", { class: `swatch ${outcome}` }), element("b", {}, count), NAMES[outcome] ?? outcome)),
    element("li", {}, element("i", { class: `swatch work ${run.middleware ? "" : "bare"}` }), "work inside"),
    run.rows.some((row) => row.shared.some((piece) => piece.outcome === "collapsed"))
      && element("li", {}, element("i", { class: "swatch lent" }), "work shared between routes"),
  ].filter(Boolean));
  byId("legend").hidden = false;
}

function rows(replay) {
  const start = byId("zoom").querySelector("input:checked").value === "start";
  const span = niceEnd(start ? firstMoments(shown.rows) : shown.milliseconds);
  const groups = new Map();
  for (const row of shown.rows) groups.set(row.operation, [...(groups.get(row.operation) ?? []), row]);
  const timeline = byId("timeline");
  timeline.className = `timeline${replay ? " replay" : ""}${shown.middleware ? "" : " bare-run"}`;
  timeline.replaceChildren(axis(span), ...[...groups].map(([name, members]) => group(name, members, span)));
  const first = timeline.querySelector(".row");
  if (first) first.tabIndex = 0;
}

// Long enough for what is not waiting for the slowest operation.
function firstMoments(all) {
  const slowest = all.reduce((a, b) => (a.end - a.start > b.end - b.start ? a : b)).operation;
  return Math.max(...all.filter((row) => row.operation !== slowest).map((row) => row.end), 10);
}

function niceEnd(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10].map((step) => step * unit).find((end) => end >= value);
}

function axis(span) {
  const ticks = [0, 25, 50, 75, 100].map((at) =>
    element("span", { style: { "--at": at } }, at === 0 ? "0" : tick((span * at) / 100)));
  return element("div", { class: "axis", "aria-hidden": "true" }, element("span"), element("div", { class: "ticks" }, ticks));
}

const tick = (value) => (value >= 1000 ? `${+(value / 1000).toFixed(2)} s` : `${+value.toFixed(1)} ms`);

function group(name, members, span) {
  const leaders = new Map(members.filter((row) => row.followers || ORDER[row.outcome] === 0).map((row) => [row.id, row.start]));
  const place = (row) => leaders.get(row.leader) ?? row.start;
  const sorted = [...members].sort((a, b) =>
    ORDER[a.outcome] === 2 || ORDER[b.outcome] === 2
      ? (ORDER[a.outcome] === 2) - (ORDER[b.outcome] === 2) || a.start - b.start
      : place(a) - place(b) || ORDER[a.outcome] - ORDER[b.outcome] || a.start - b.start);
  const count = (outcome) => members.filter((row) => row.outcome === outcome).length;
  const ran = members.filter((row) => ORDER[row.outcome] === 0).length;
  const told = [
    ran && `${ran} ran`,
    count("collapsed") && `${count("collapsed")} collapsed`,
    count("hit") && plural(count("hit"), "hit"),
    members.some((row) => row.stored) && "stored",
  ].filter(Boolean).join(" · ");
  return element("section", { class: "group" },
    element("h3", {}, name, element("code", {}, `GET ${members[0].target}`), element("small", {}, told)),
    element("ul", { class: "rows" }, sorted.map((row) => element("li", {}, drawRow(row, span)))));
}

function drawRow(row, span) {
  const place = (start, end) => ({
    "--at": (start / span) * 100, "--for": ((end - start) / span) * 100,
    "--begin": start / 1000, "--last": Math.max(end - start, 20) / 1000,
  });
  const kind = row.leader ? "joined" : row.outcome === "hit" ? "stored" : "leads";
  const own = new Set(row.work.map((piece) => piece.name));
  const shared = row.shared.filter((piece) => piece.outcome !== "forwarded" && !own.has(callee(piece)));
  const pieces = [
    ...shared.map((piece) => element("i", { class: "piece borrowed", style: place(piece.start, piece.end) })),
    ...row.work.map((piece) => element("i", { class: "piece", style: place(piece.start, piece.end) })),
  ];
  const line = element("button", {
    type: "button", class: `row ${kind}`, tabindex: -1, "aria-pressed": "false",
    "aria-label": `Page ${row.page + 1}: ${sentence(row)}`, onclick: () => choose(row), onkeydown: move,
  },
  element("span", { class: "who" }, `page ${row.page + 1}`, inside(row, shared)),
  element("span", { class: "track" }, element("i", { class: `bar ${row.outcome}`, style: place(row.start, row.end) }), pieces));
  line.dataset.id = row.id;
  line.dataset.flight = row.flight;
  return line;
}

// What a leader did: its own work, and what it got from another route's through dedup.call.
function inside(row, shared) {
  const names = [...row.work.map((piece) => piece.name), ...shared.map((piece) => `shares ${callee(piece)}`)];
  return names.length ? element("span", { class: "long" }, ` · ${[...new Set(names)].join(", ")}`) : null;
}

const callee = (piece) => piece.name.replace(/^\w+ call /, "").replaceAll("_", " ");

// Up and down walk the rows; only one of them is a tab stop.
function move(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const all = [...byId("timeline").querySelectorAll(".row")];
  const next = all[all.indexOf(event.currentTarget) + step];
  if (!next) return;
  event.currentTarget.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function sentence(row) {
  const took = time(row.end - row.start);
  if (row.leader) {
    const leader = shown.rows.find((other) => other.id === row.leader);
    return `collapsed into page ${leader.page + 1}'s request, ${took}`;
  }
  if (row.outcome === "hit") return `served from the store, ${took}`;
  return `${NAMES[row.outcome] ?? row.outcome}, ${took}`;
}

function choose(row) {
  chosen = chosen === row.id ? null : row.id;
  for (const line of byId("timeline").querySelectorAll(".row")) {
    line.setAttribute("aria-pressed", String(line.dataset.id === chosen));
    line.classList.toggle("mate", chosen !== null && row.flight !== "" && line.dataset.flight === row.flight);
  }
  const panel = byId("detail");
  panel.hidden = chosen === null;
  if (chosen === null) return;
  panel.replaceChildren(...detail(row));
  // Beside the timeline where there is room, else right below the rows that it is about.
  if (matchMedia("(max-width: 64rem)").matches) byId("timeline").querySelector('[aria-pressed="true"]').closest(".group").append(panel);
  else byId("beside").append(panel);
}

function detail(row) {
  const seconds = (value) => (value == null ? null : time(value * 1000));
  return [
    element("h3", {}, `Page ${row.page + 1} asked GET ${row.target}`),
    element("p", {}, `${sentence(row)[0].toUpperCase()}${sentence(row).slice(1)}.`),
    facts([
      ["outcome", [row.outcome, row.reason].filter(Boolean).join(", ")],
      ["rule", row.rule],
      ["on the wire", row.cache_status && `Cache-Status: ${row.cache_status}`],
      ["flight", row.flight],
      ["joined by", row.followers ? plural(row.followers, "other request") : null],
      ["in the server", row.server == null ? null : time(row.server)],
      ["waited", seconds(row.waited)],
      ["saved", seconds(row.saved)],
      ["age of the answer", seconds(row.age)],
      ["work that ran", row.work.map((piece) => `${piece.name}, ${time(piece.end - piece.start)}`).join("; ")],
      ["dedup.call", row.shared.map((piece) => `${callee(piece)}: ${piece.outcome}, ${time(piece.end - piece.start)}`).join("; ")],
      ["answer", `${row.status}, ${row.bytes} bytes`],
    ]),
  ];
}
