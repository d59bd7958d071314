// Recent alerts: the state of each one, the latest first.
import { byId, element, empty, keyed, put } from "./dom.js";
import { ago, moment, plural } from "./format.js";
import { toast } from "./dialog.js";

const states = new Map(); // by alert and rule: the last that was heard
const list = element("ul", { class: "alerts" });

export function prepare() {
  redraw();
}

export function fill(found) {
  for (const one of [...found].sort((a, b) => a.at - b.at)) states.set(id(one), one);
  redraw();
}

export function add(alert) {
  states.set(id(alert), alert);
  toast(`${alert.over ? "Over: " : ""}${alert.message}`, alert.over ? "" : "bad");
  redraw();
}

const id = (alert) => `${alert.alert} ${alert.rule ?? ""}`;

export function redraw() {
  const shown = [...states.values()].sort((a, b) => a.over - b.over || b.at - a.at).slice(0, 20);
  const active = shown.filter((one) => !one.over).length;
  const pill = byId("alert-count");
  pill.hidden = !active;
  put(pill, active ? plural(active, "alert") : "");
  put(byId("alerts-note"), active ? `${active} active` : "");
  if (!shown.length) {
    if (!byId("alerts").querySelector(".empty")) byId("alerts").replaceChildren(empty("No alert.", "What you name is watched, such as ",
      element("code", {}, "Alert(\"few hits\", \"hit-rate\", below=0.5)"), " in ", element("code", {}, "Dedup(alerts=[…])"), ", and stands here when it is raised."));
    return;
  }
  if (list.parentNode !== byId("alerts")) byId("alerts").replaceChildren(list);
  keyed(list, shown, id, line);
}

function line() {
  const state = element("span", { class: "state" });
  const name = element("strong");
  const when = element("span", { class: "soft" });
  const message = element("p");
  const made = element("li", {}, element("span", { class: "line" }, name, state), message, when);
  made.show = (one) => {
    made.classList.toggle("over", one.over);
    put(state, one.over ? "over" : "active");
    put(name, one.rule ? `${one.alert}, ${one.rule}` : one.alert);
    put(message, one.message.replace(`${one.alert}: `, "")); // it stands above
    put(when, ago(Date.now() / 1000 - one.at));
    when.title = moment(one.at);
  };
  return made;
}
