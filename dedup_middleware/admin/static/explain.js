// Asks what would become of a request, and shows the answer.
import { ask } from "./api.js";
import { factTable } from "./dialog.js";
import { byId, element } from "./dom.js";
import { briefly } from "./format.js";

const form = byId("ask");

export function prepare() {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const { method, target, headers, body } = form.elements;
    const told = byId("told");
    try {
      told.replaceChildren(...drawn(await ask("explain", {
        method: method.value, target: target.value, headers: pairs(headers.value), body: body.value,
      })));
    } catch (error) {
      told.replaceChildren(element("p", { class: "error" }, error.message));
    }
    told.hidden = false;
  });
}

function pairs(text) {
  return text.split("\n").map((line) => line.split(/:(.*)/s))
    .filter(([name, value]) => name.trim() && value !== undefined)
    .map(([name, value]) => [name.trim().toLowerCase(), value.trim()]);
}

function drawn(answer) {
  return [
    element("p", { class: "headline" }, ...headline(answer)),
    answer.decision === "consider" && element("div", { class: "columns" },
      column("The fingerprint holds", Object.entries(answer.keyed), "Nothing."),
      column("Left out", Object.entries(answer.left_out), "Nothing: everything counts."),
      column("The app would see", answer.visible, "No header field.")),
    answer.fingerprint && element("p", { class: "soft small" }, "Fingerprint ", element("code", {}, answer.fingerprint)),
  ].filter(Boolean);
}

function headline(answer) {
  const rule = element("strong", {}, answer.rule === "default" ? "No rule" : `Rule “${answer.rule}”`);
  if (answer.decision !== "consider") return [rule, ". It goes to the app by itself: ", element("strong", {}, answer.reason), "."];
  return [
    rule, answer.collapses ? ". Collapses with the same under way" : ". Never collapsed",
    answer.ttl > 0 ? `, stored for ${briefly(answer.ttl)}` : ", not stored",
    answer.tags.length ? `, tagged ${answer.tags.join(", ")}.` : ".",
  ];
}

function column(title, rows, nothing) {
  return element("section", {}, element("h2", {}, title), rows.length ? factTable(rows) : element("p", { class: "soft" }, nothing));
}
