// The page: the figures of the comparison, then whatever its reader fires.
import { ask, byId, element, milliseconds, plural, size } from "./dom.js";
import { prepare } from "./explain.js";
import { draw, zoom } from "./timeline.js";

const summary = await ask("/api/summary");
figures(summary.comparison);
controls();
prepare(summary.repo, summary.port);
marks();

function figures({ without, with: with_, pages, refreshes, machine, mix }) {
  const total = Object.values(mix).reduce((a, b) => a + b);
  byId("headline").textContent = `${without.burst.executions} executions became ${with_.burst.executions}.`;
  byId("lead").textContent = `${pages} pages refreshed at once, ${without.burst.requests} requests in all. `
    + `Without the middleware the backend did the same ${plural(with_.burst.distinct, "piece")} of work again and again; `
    + "with it, each was done once.";
  byId("mix").textContent = `One page asks ${total} things at once: `
    + `${Object.entries(mix).map(([name, count]) => `${name} ${count} times`).join(", ")}.`;
  byId("machine").textContent = `Everything on this page was measured on this machine (${machine}), over HTTP, `
    + `against a server process each without and with the middleware. Resident memory at most: ${size(without.resident)} without, ${size(with_.resident)} with.`;
  byId("cards").replaceChildren(
    card("Executions in one burst", without.burst.executions, with_.burst.executions, (value) => [value, ""]),
    card(`A request's p50, ${refreshes} refreshes`, without.refreshes.latency.p50, with_.refreshes.latency.p50, milliseconds),
    card(`A request's p95, ${refreshes} refreshes`, without.refreshes.latency.p95, with_.refreshes.latency.p95, milliseconds),
    card(`CPU, ${refreshes} refreshes`, without.refreshes.cpu, with_.refreshes.cpu, (value) => [value.toFixed(2), "s"]),
    card(`Log lines, ${refreshes} refreshes`, without.refreshes.log_lines, with_.refreshes.log_lines, (value) => [value, ""]),
    share("Hit rate", with_.refreshes.hit_rate, `from ${size(with_.bytes_held)} held`),
  );
}

function card(name, before, after, format) {
  const [value, unit] = format(after);
  const ratio = before / after;
  const most = Math.max(before, after);
  return element("div", { class: "card" },
    element("dt", {}, name),
    element("dd", {},
      element("span", { class: "after" }, value, element("span", { class: "unit" }, unit)),
      element("span", { class: "before" }, `was ${format(before).join(" ")}`),
      ratio >= 1.2 && element("span", { class: "gain" }, `÷ ${ratio >= 10 ? ratio.toFixed(0) : ratio.toFixed(1)}`)),
    bars((before / most) * 100, (after / most) * 100));
}

function share(name, part, note) {
  return element("div", { class: "card" },
    element("dt", {}, name),
    element("dd", {},
      element("span", { class: "after" }, (part * 100).toFixed(1), element("span", { class: "unit" }, "%")),
      element("span", { class: "before" }, note)),
    element("div", { class: "compare whole", "aria-hidden": "true" }, element("i", { class: "only", style: { "--part": part * 100 } })));
}

function bars(before, after) {
  return element("div", { class: "compare", "aria-hidden": "true" },
    element("i", { style: { "--part": before } }), element("i", { style: { "--part": after } }));
}

function controls() {
  const choices = [1, 3, summary.most_pages].filter((count, index, all) => all.indexOf(count) === index);
  byId("pages").append(...choices.map((count) => element("label", {},
    element("input", { type: "radio", name: "pages", value: count, checked: count === 3 }), element("span", {}, count))));
  const form = byId("fire");
  const label = () => {
    const count = Number(form.elements.pages.value);
    byId("go").textContent = `Refresh ${count === 1 ? "the page" : `${count} pages`}`;
  };
  form.addEventListener("change", label);
  label();
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    fire(form);
  });
  byId("zoom").addEventListener("change", zoom);
  byId("writes").addEventListener("click", write);
  if (!summary.may_commit) byId("writes").querySelector("[data-write=commit]").remove();
}

async function fire(form) {
  const run = byId("run");
  const go = byId("go");
  const focused = document.activeElement === go;
  go.disabled = true;
  run.setAttribute("aria-busy", "true");
  try {
    const { middleware, pages, fresh } = form.elements;
    draw(await ask("/api/burst", { middleware: middleware.value === "on", pages: Number(pages.value), fresh: fresh.checked }));
    byId("writes").hidden = false;
  } catch (error) {
    byId("verdict").replaceChildren(element("span", { class: "error" }, `The burst failed: ${error.message}`));
  } finally {
    run.setAttribute("aria-busy", "false");
    go.disabled = false;
    if (focused && document.activeElement === document.body) go.focus({ preventScroll: true }); // disabling took it
  }
}

async function write(event) {
  const what = event.target.closest("[data-write]")?.dataset.write;
  if (!what) return;
  try {
    const told = await ask("/api/write", { what });
    byId("fire").elements.fresh.checked = false;
    byId("written").replaceChildren(element("code", {}, `POST ${told.target}`), ` answered ${told.status}. What it touched is forgotten; fire again.`);
  } catch (error) {
    byId("written").replaceChildren(element("span", { class: "error" }, `The write failed: ${error.message}`));
  }
}

function marks() {
  byId("mark-list").replaceChildren(...summary.marks.map((mark) =>
    element("li", { class: mark.met ? "met" : "missed" },
      element("span", { class: "sign", role: "img", "aria-label": mark.met ? "met" : "missed" }, mark.met ? "✓" : "✗"),
      element("span", {}, mark.name, element("small", {}, mark.wanted)),
      element("strong", {}, mark.measured))));
}
