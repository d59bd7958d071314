// What the ticks told, second by second: rates are differences between two of them.

export const OUTCOMES = ["forwarded", "bypassed", "revalidated", "collapsed", "stale", "hit"]; // from the bottom of a stack to its top
export const NAMES = {
  forwarded: "executed", bypassed: "passed by", revalidated: "revalidated", collapsed: "collapsed", stale: "stale", hit: "from the store",
};
const RARE = ["stale", "revalidated"]; // named only once there are any
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

// What counts for the hit rate; a revalidated request ran the app, if only to hear that nothing has changed.
export const reused = (counts) => duplicates(counts) + (counts.revalidated ?? 0);
export const duplicates = (counts) => (counts.hit ?? 0) + (counts.stale ?? 0) + (counts.collapsed ?? 0);

// The outcomes that somebody has met: all but the rare ones of which there is none.
export const met = (...counts) => OUTCOMES.filter((name) => !RARE.includes(name) || counts.some((one) => one[name]));

// What went on a second, over the last seconds together: {outcomes, rules, requests, saved}; null before the first sample.
// One second alone says little where requests come in bursts.
export function lately(seconds = 10) {
  const from = Date.now() / 1000 - seconds;
  const found = samples.filter((one, place) => one.at >= from || place === samples.length - 1);
  const all = found.reduce((passed, one) => passed + one.passed, 0);
  const mean = (value) => found.reduce((sum, one) => sum + (value(one) ?? 0) * one.passed, 0) / all;
  const means = (names, group) => Object.fromEntries(names.map((name) => [name, mean((one) => one[group][name])]));
  return found.length ? {
    outcomes: means(OUTCOMES, "outcomes"), rules: means(Object.keys(found.at(-1).rules), "rules"),
    requests: mean((one) => one.requests), saved: mean((one) => one.saved),
  } : null;
}
