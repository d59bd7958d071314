// Memory against its bound, and what the process uses.
import { element, put } from "./dom.js";
import { bytes, duration, number, percent, plural } from "./format.js";
import { samples, shown } from "./history.js";
import { gauge, sparkline } from "./charts.js";

const ring = gauge("Memory that stored responses use");
const held = element("p", { class: "held" });
const rows = {
  responses: row("Stored responses"),
  evicted: row("Evictions", "bad"),
  cpu: row("Processor", "accent"),
  resident: row("Resident memory", "forwarded"),
  uptime: row("Running for"),
  ledger: row("Ledger"),
};

export function prepare(host) {
  host.replaceChildren(
    element("div", { class: "memory" }, ring, held),
    element("dl", { class: "meters" }, Object.values(rows).map((one) => one.root)),
  );
}

function row(name, kind) {
  const value = element("dd", { class: "value" });
  const spark = kind ? sparkline(kind) : null;
  return {
    root: element("div", {}, element("dt", {}, name), spark ? element("dd", { class: "graph" }, spark) : null, value),
    show(text, values, most) {
      put(value, text);
      if (!spark) return;
      spark.show(values, shown(), most);
      spark.toggleAttribute("hidden", !values.some((one) => one > 0));
    },
  };
}

export function ledger(state) {
  rows.ledger.show({ none: "none", ok: "works" }[state] ?? state);
  rows.ledger.root.classList.toggle("error", state === "failing");
}

export function show({ stats, store, process }) {
  const used = store?.bytes ?? stats.bytes;
  const bound = store?.max_bytes;
  ring.show(bound ? used / bound : 0, bound ? `${percent(used / bound)} %` : "?", `${bytes(used)} of ${bytes(bound)}`);
  put(held, `${bytes(used)} of ${bytes(bound)}`);
  rows.responses.show(number(store?.responses ?? stats.responses));
  rows.evicted.show(number(stats.evicted), samples.map((one) => one.evicted), 1);
  const last = samples.at(-1);
  rows.cpu.show(last?.cpu == null ? "counting" : `${percent(last.cpu, 0)} % of a core`, samples.map((one) => one.cpu ?? 0), 1);
  rows.resident.show(bytes(process?.resident_bytes), samples.map((one) => one.resident ?? 0));
  rows.uptime.show(process ? duration(process.uptime).join(" ") : "?");
  rows.evicted.root.title = `${plural(stats.evicted, "response")} made room for younger ones; ${number(stats.expired)} expired, ${number(stats.invalidated)} were invalidated`;
}
