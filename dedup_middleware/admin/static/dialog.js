// Questions before something changes, facts to look into, and short notes of what was done.
import { byId, element } from "./dom.js";

const dialog = byId("dialog");

dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("keydown", (event) => {
  if (event.key !== "Tab") return;
  const stops = [...dialog.querySelectorAll("button, a[href], input, [tabindex='0']")];
  const [from, to] = event.shiftKey ? [stops[0], stops.at(-1)] : [stops.at(-1), stops[0]];
  if (document.activeElement === from) {
    event.preventDefault();
    to.focus();
  }
});

function open(title, content, buttons, first) {
  const before = document.activeElement;
  dialog.replaceChildren(element("h2", { id: "dialog-title" }, title), ...content, element("div", { class: "buttons" }, buttons));
  dialog.showModal();
  first.focus();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    const answer = dialog.returnValue;
    dialog.returnValue = "";
    before?.focus?.();
    resolve(answer);
  }, { once: true }));
}

// Whether the one who is asked says yes. Escape, the backdrop and "Cancel" say no; "Cancel" has the focus.
async function confirmed(title, text, action, kind = "danger") {
  const no = element("button", { type: "button", onclick: () => dialog.close("no") }, "Cancel");
  const yes = element("button", { type: "button", class: kind, onclick: () => dialog.close("yes") }, action);
  return await open(title, [element("p", {}, text)], [no, yes], no) === "yes";
}

export function facts(title, rows) {
  const close = element("button", { type: "button", onclick: () => dialog.close() }, "Close");
  return open(title, [factTable(rows)], [close], close);
}

export function factTable(rows) {
  return element("table", { class: "facts" }, element("tbody", {}, rows.map(([name, value]) =>
    element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value)))));
}

export function toast(text, kind = "") {
  const note = element("p", { class: `toast ${kind}` }, text);
  byId("toasts").append(note);
  if (byId("toasts").childElementCount > 3) byId("toasts").firstElementChild.remove();
  setTimeout(() => note.remove(), kind === "bad" ? 12_000 : 6000);
}

// Ask, do, and tell how it went; whether it was done.
export async function change({ title, text, action, kind, done }, work) {
  if (!await confirmed(title, text, action, kind)) return false;
  try {
    toast(done(await work()));
    return true;
  } catch (error) {
    toast(error.message, "bad");
    return false;
  }
}
