// The stream of what happens. When it breaks: ask once in a while, say so, and try the stream again.
import { ask, session } from "./api.js";

const SILENCE = 6000; // a stream that ticks each second and says nothing for so long is dead
const GRACE = 2500; // for a stream that the browser opens again by itself
const UNSEEN = 30_000; // a page that nobody sees gives its connection back
const WAITS = [1000, 2000, 4000, 8000, 15_000];
const KINDS = ["burst", "alert", "invalidated"];

export const live = new EventTarget(); // "tick", "burst", "alert", "invalidated" with `detail`; "state"
export let state = "connecting"; // "connecting", "live", "polling", "offline", "stopped"

let stream = null;
let failures = 0;
let timer = 0;
let watchdog = 0;
let unseen = 0;

export function start() {
  stop();
  say("connecting");
  failures = 0;
  open();
}

export function stop() {
  stream?.close();
  stream = null;
  clearTimeout(timer);
  clearTimeout(watchdog);
  say("stopped");
}

function open() {
  const opened = new EventSource("api/events");
  let returning = false;
  stream = opened;
  alive();
  opened.addEventListener("tick", (event) => {
    failures = 0;
    returning = false;
    alive();
    say("live");
    tell("tick", JSON.parse(event.data));
  });
  for (const kind of KINDS) opened.addEventListener(kind, (event) => tell(kind, JSON.parse(event.data)));
  opened.addEventListener("error", () => {
    if (stream !== opened) return;
    if (opened.readyState === EventSource.CLOSED) broken();
    else if (!returning) alive(GRACE); // the server ended it, and the browser opens the next one
    returning = true; // each try of its own that fails is an error too, and earns no new grace
  });
}

function alive(patience = SILENCE) {
  clearTimeout(watchdog);
  watchdog = setTimeout(broken, patience);
}

// The stream is gone: poll, and open it again after a while, the longer the more often it failed.
async function broken() {
  stream?.close();
  stream = null;
  clearTimeout(watchdog);
  clearTimeout(timer);
  const again = performance.now() + WAITS[Math.min(failures, WAITS.length - 1)];
  failures += 1;
  await poll(again);
}

async function poll(again) {
  try {
    const stats = await ask("stats");
    if (stream || state === "stopped") return;
    say("polling");
    tell("tick", stats);
  } catch (error) {
    if (state === "stopped" || error.status === 401) return;
    say("offline");
  }
  const left = again - performance.now();
  timer = left <= 0 ? setTimeout(open) : setTimeout(() => poll(again), Math.min(left, 2000));
}

function say(now) {
  if (now === state) return;
  state = now;
  live.dispatchEvent(new Event("state"));
}

function tell(kind, detail) {
  live.dispatchEvent(new CustomEvent(kind, { detail }));
}

session.addEventListener("signed-out", stop);
document.addEventListener("visibilitychange", () => {
  clearTimeout(unseen);
  if (document.hidden) unseen = setTimeout(stop, UNSEEN);
  else if (state === "stopped" && !document.body.classList.contains("signed-out")) start();
});
addEventListener("online", () => state === "offline" && start());
