// What the ledger knows; `known` is told whether there is one.
import { ask, query } from "./api.js";

const PAGE = 20_000;
const MOST = 5;
const LATE = 20; // seconds of a step that is too young to tell

export let available = null; // null until it was asked for

export function known(ledger) {
  available = ledger !== "none";
}

export async function operations(since, limit) {
  return (await ask(query("analytics/operations", { since, limit }))).items;
}

export async function heatmap(since) {
  const offset_minutes = -new Date().getTimezoneOffset(); // the hours of this computer's place
  return (await ask(query("analytics/heatmap", { since, offset_minutes, limit: PAGE }))).cells;
}

// Requests a second by outcome, all rules together; a step in which nothing came is a point of zeros.
export async function series(since, until) {
  const { step, items } = await pages("analytics/series", { since, until });
  const points = new Map();
  for (let at = Math.ceil(since / step) * step; at < until - LATE; at += step) points.set(at, { at, values: {} });
  for (const { at, requests } of items) {
    const values = points.get(at)?.values;
    const seconds = Math.min(step, until - at);
    for (const [name, count] of values ? Object.entries(requests) : []) values[name] = (values[name] ?? 0) + count / seconds;
  }
  return [...points.values()];
}

async function pages(path, parameters) {
  const all = [];
  let told = null;
  for (let page = 0; page < MOST; page += 1) {
    told = await ask(query(path, { ...parameters, offset: page * PAGE, limit: PAGE }));
    all.push(...told.items);
    if (!told.more) break;
  }
  return { ...told, items: all };
}
