// Who changed what, and who was refused.
import { ask, query } from "./api.js";
import { byId, cell, element, empty, table } from "./dom.js";
import { moment, number } from "./format.js";
import { failed, PAGE, pager } from "./pager.js";

let offset = 0;

export function prepare() {
  byId("audit-again").addEventListener("click", () => {
    offset = 0;
    return show();
  });
}

export async function show() {
  try {
    const { total, items } = await ask(query("audit", { offset, limit: PAGE }));
    byId("audit-list").replaceChildren(...items.length ? [
      table("Audit log", [["When"], ["Who"], ["What"], ["Target"], ["Result"]], items.map(line), { class: "cards" }),
      pager(offset, items.length, total, (to) => {
        offset = to;
        return show();
      }),
    ] : [empty("Nothing to tell yet.", "Switching, invalidating and every refused request are written down here.")]);
  } catch (error) {
    failed("audit-list", error);
  }
}

function line({ at, who, what, target, result, times }) {
  return element("tr", {},
    element("th", { scope: "row" }, moment(at)), cell("Who", "", who), cell("What", "", what),
    cell("Target", "wrap", target),
    cell("Result", "wrap", element("span", { class: what === "refused" ? "error" : "" }, result), times > 1 ? ` ${number(times)} times` : ""));
}
