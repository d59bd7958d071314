// What the ticks told, second by second: rates are differences between two of them.

export const OUTCOMES = ["forwarded", "bypassed", "collapsed", "hit"]; // from the bottom of a stack to its top
export const NAMES = { forwarded: "executed", bypassed: "passed by", collapsed: "collapsed", hit: "from the store" };
const SECONDS = 180;
const FIRST = 45;

export const samples = []; // the last SECONDS: {at, outcomes, requests, saved, rules, cpu, resident, bytes, evicted}
let last = null;

export function record(told) {
  const uptime = told.process?.uptime ?? performance.now() / 1000;
  const passed = last ? uptime - last.uptime : 0;
  const continues = last && passed > 0 && told.stats.duplicates >= last.told.stats.duplicates;
  if (continues && passed >= 0.2) samples.push(sample(told, last.told, passed));
  if (!continues || passed >= 0.2) last = { told, uptime };
  const oldest = Date.now() / 1000 - SECONDS - 2;
  while (samples.length && samples[0].at < oldest) samples.shift();
}

function sample(told, before, passed) {
  const outcomes = rates(told.stats.requests, before.stats.requests, passed);
  const rules = {};
  for (const [label, rule] of Object.entries(told.stats.rules)) {
    rules[label] = sum(rates(rule.requests, before.stats.rules[label]?.requests ?? {}, passed));
  }
  return {
    at: Date.now() / 1000,
    passed,
    outcomes,
    requests: sum(outcomes),
    saved: (told.stats.saved - before.stats.saved) / passed,
    rules,
    cpu: told.process ? (told.process.cpu_seconds - before.process.cpu_seconds) / passed : null,
    resident: told.process?.resident_bytes,
    bytes: told.store?.bytes ?? told.stats.bytes,
    evicted: told.stats.evicted - before.stats.evicted,
  };
}

function rates(now, before, passed) {
  return Object.fromEntries(OUTCOMES.map((name) =>
    [name, Math.max(0, (now[name] ?? 0) - (before[name] ?? 0)) / passed]));
}

// How many seconds a chart shows: more and more of them, until it is full.
export function shown() {
  const first = samples[0]?.at ?? 0;
  return Math.min(SECONDS, Math.max(FIRST, first ? (samples.at(-1).at - first) * 1.02 : 0));
}

export const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

// The share of requests that were answered without a forward of their own, over the last seconds; null when none came.
export function recentHitRate(seconds = 60) {
  const from = Date.now() / 1000 - seconds;
  let all = 0;
  let duplicates = 0;
  for (const one of samples) {
    if (one.at < from) continue;
    all += one.requests * one.passed;
    duplicates += (one.outcomes.hit + one.outcomes.collapsed) * one.passed;
  }
  return all > 0 ? duplicates / all : null;
}
