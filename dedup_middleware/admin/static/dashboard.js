// The page: signs in, listens, and hands what it hears to whatever shows it.
import * as alerts from "./alerts.js";
import * as analytics from "./analytics.js";
import { ask, session } from "./api.js";
import * as audit from "./audit.js";
import * as bursts from "./bursts.js";
import { change } from "./dialog.js";
import { byId, put } from "./dom.js";
import * as explain from "./explain.js";
import * as figures from "./figures.js";
import * as flights from "./flights.js";
import { clock } from "./format.js";
import * as heatmap from "./heatmap.js";
import { record } from "./history.js";
import * as live from "./live.js";
import * as machine from "./machine.js";
import * as operations from "./operations.js";
import * as rules from "./rules.js";
import * as stored from "./stored.js";
import * as traffic from "./traffic.js";

const VIEWS = ["overview", "stored", "explain", "audit"];
const SAYS = { connecting: "Connecting", live: "Live", polling: "Polling", offline: "Disconnected", stopped: "Paused" };
const SLOW = 15_000; // how often rules and what the ledger knows are read again

let on = true;
let lastHeard = null;

figures.prepare(byId("figures"));
machine.prepare(byId("machine"));
traffic.prepare();
rules.prepare(slow);
bursts.prepare();
flights.prepare();
alerts.prepare();
stored.prepare();
explain.prepare();
audit.prepare();

async function enter() {
  try {
    const stats = await ask("stats");
    document.body.classList.remove("signed-out");
    byId("sign-in").hidden = true;
    byId("nav").hidden = byId("engine").hidden = false;
    tick(stats);
    await Promise.all([rules.load(), recent(), health(), whoAmI()]);
    view();
    await slow();
    live.start();
  } catch (error) {
    if (error.status === 401) return;
    byId("disconnected").hidden = false;
    put(byId("disconnected"), error.status ? error.message : "The server does not answer. This page tries again in a moment.");
    setTimeout(enter, 5000);
  }
}

async function health() {
  const { ledger } = await ask("health/ready", undefined, "GET", [503]);
  analytics.known(ledger);
  machine.ledger(ledger);
  byId("range").hidden = !analytics.available;
}

async function whoAmI() {
  const { who } = await ask("session");
  byId("sign-out").hidden = !who?.startsWith("browser ");
  byId("sign-out").title = `Signed in as ${who}`;
}

async function recent() {
  const told = await ask("recent");
  bursts.fill(told.bursts);
  alerts.fill(told.alerts);
  stored.fill(told.invalidations);
}

async function slow() {
  if (document.hidden || document.body.classList.contains("signed-out")) return;
  if (live.state === "offline") return; // what is shown stays, as the page says
  await Promise.all([health(), rules.load(), operations.show(), heatmap.show(), traffic.showRange()]).catch(() => {});
}

setInterval(slow, SLOW);

function tick(told) {
  lastHeard = Date.now() / 1000;
  on = told.enabled;
  record(told);
  for (const one of [bursts, flights, operations]) one.link(told.jaeger);
  byId("switched-off").hidden = on;
  byId("engine").setAttribute("aria-checked", String(on));
  byId("engine").setAttribute("aria-label", "Deduplication");
  put(byId("engine").lastElementChild, on ? "On" : "Off");
  if (byId("overview").hidden) return;
  figures.show(told);
  machine.show(told);
  traffic.show(told);
  rules.show(told);
  flights.show(told);
  alerts.redraw();
}

live.live.addEventListener("tick", (event) => tick(event.detail));
live.live.addEventListener("burst", (event) => {
  bursts.add(event.detail);
  if (!analytics.available) operations.show();
});
live.live.addEventListener("alert", (event) => alerts.add(event.detail));
live.live.addEventListener("invalidated", (event) => stored.heard(event.detail));
live.live.addEventListener("state", () => {
  const lost = live.state === "offline";
  byId("connection").dataset.state = live.state;
  put(byId("connection").lastElementChild, SAYS[live.state]);
  byId("disconnected").hidden = !lost;
  put(byId("disconnected"), lost ? `Disconnected. What you see is as of ${clock(lastHeard)}; trying again.` : "");
  if (live.state === "live") recent().catch(() => {});
});

// -- views -----------------------------------------------------------------------------------------------------------

function view() {
  const wanted = VIEWS.find((name) => location.hash === `#${name}`) ?? "overview";
  for (const name of VIEWS) byId(name).hidden = name !== wanted;
  for (const link of byId("nav").children) {
    if (link.hash === `#${wanted}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (wanted === "stored") stored.show();
  if (wanted === "audit") audit.show();
  return wanted;
}

addEventListener("hashchange", () => {
  if (location.hash === "#main" || document.body.classList.contains("signed-out")) return;
  byId(`${view()}-title`).focus({ preventScroll: true });
  scrollTo(0, 0);
});

byId("engine").addEventListener("click", () => change({
  title: on ? "Switch deduplication off?" : "Switch deduplication on?",
  text: on
    ? "Every request goes to the app by itself until it is switched on again. What is stored is dropped; flights under way finish."
    : "Requests are deduplicated again, from an empty store.",
  action: on ? "Switch off" : "Switch on",
  kind: on ? "danger" : "primary",
  done: () => `Deduplication is ${on ? "off" : "on"}.`,
}, () => ask("switch", { rule: null, on: !on })).then(async (done) => done && tick(await ask("stats"))));

// -- sign in ---------------------------------------------------------------------------------------------------------

session.addEventListener("signed-out", () => {
  document.body.classList.add("signed-out");
  for (const name of VIEWS) byId(name).hidden = true;
  byId("nav").hidden = byId("engine").hidden = byId("sign-out").hidden = true;
  byId("sign-in").hidden = false;
  byId("token").focus();
});

byId("sign-in-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  put(byId("sign-in-error"), "");
  try {
    await ask("session", { token: byId("token").value });
    byId("token").value = "";
    await enter();
  } catch (error) {
    put(byId("sign-in-error"), error.status === 401 ? "That is not the token." : error.message);
    byId("token").select();
  }
});

byId("sign-out").addEventListener("click", async () => {
  await ask("session", undefined, "DELETE").catch(() => {});
  live.stop();
  session.dispatchEvent(new Event("signed-out"));
});

enter(); // when everything above listens
