// Pages of a list that the server keeps: "1 to 50 of 312", and a way to the next.
import { byId, element } from "./dom.js";
import { number } from "./format.js";

export const PAGE = 50;

export function pager(offset, shown, total, go) {
  const step = (name, to, possible) => element("button", { type: "button", disabled: !possible, onclick: () => go(Math.max(0, to)) }, name);
  return element("nav", { class: "pager", "aria-label": "Pages" },
    element("span", { class: "soft", role: "status" }, total ? `${number(offset + 1)} to ${number(offset + shown)} of ${number(total)}` : "none"),
    step("Previous", offset - PAGE, offset > 0),
    step("Next", offset + PAGE, offset + shown < total));
}

export function failed(host, error) {
  byId(host).replaceChildren(element("p", { class: "error", role: "alert" }, error.message));
}
