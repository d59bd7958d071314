// Small charts in SVG. Colours come from the style sheet by class name, so a theme needs no redrawing.
import { element, put, svg } from "./dom.js";

const LEFT = 44;
const BOTTOM = 24;
const TOP = 8;

// The first of 1, 1.5, 2, 3, 4... that is not below the value.
function niceEnd(value) {
  if (!(value > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((step) => step * unit).find((end) => end >= value * 0.999);
}

// Stacked areas over time. `draw({names, points: [{at, values: {name: number}}], from, to, gap, label, format})`; where two
// points are further apart than `gap` seconds, nothing is drawn between them.
export class StackedChart {
  constructor(host, titles, height = 320) {
    this.host = host;
    this.titles = titles;
    this.height = height;
    this.told = null;
    this.cursor = null; // the index of the point that is read
    this.picture = svg("svg", {
      class: "stacked", height, tabindex: 0, role: "img", onpointermove: (event) => this.point(event),
      onpointerleave: () => this.read(null), onkeydown: (event) => this.key(event), onblur: () => this.read(null),
    });
    this.readout = element("div", { class: "readout", hidden: true });
    this.note = element("p", { class: "nothing soft" });
    this.spoken = element("p", { class: "hidden", "aria-live": "polite" });
    host.replaceChildren(this.picture, this.note, this.readout, this.spoken);
    new ResizeObserver(() => this.told && this.draw(this.told)).observe(host);
  }

  draw(told) {
    this.told = told;
    const width = this.host.clientWidth;
    if (!width) return; // in a view that is not shown
    const { points, from, to } = told;
    const highest = Math.max(0, ...points.map((point) => this.total(point)));
    const top = niceEnd(Math.max(highest, told.least ?? 1));
    this.x = (at) => LEFT + ((at - from) / (to - from)) * (width - LEFT - 6);
    this.y = (value) => this.height - BOTTOM - (value / top) * (this.height - BOTTOM - TOP);
    this.picture.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.picture.setAttribute("aria-label", told.label);
    put(this.note, highest > 0 ? "" : told.nothing);
    const runs = unbroken(points, told.gap);
    this.line = svg("path", { class: "cursor" });
    this.picture.replaceChildren(
      ...[0, 0.5, 1].flatMap((part) => this.rule(part * top, width, told.format)),
      ...this.ticks(told, width),
      ...told.names.flatMap((name, level) => runs.map((run) => svg("path", { class: `area ${name}`, d: this.area(run, level) }))),
      this.line,
    );
    this.read(this.cursor === null ? null : Math.min(this.cursor, points.length - 1), false);
  }

  total(point, levels = this.told.names.length) {
    return this.told.names.slice(0, levels).reduce((all, name) => all + (point.values[name] ?? 0), 0);
  }

  area(run, level) {
    const at = (point, levels) => `${this.x(point.at).toFixed(1)},${this.y(this.total(point, levels)).toFixed(1)}`;
    const above = run.map((point) => at(point, level + 1));
    const below = [...run].reverse().map((point) => at(point, level));
    return `M${above.join("L")}L${below.join("L")}Z`;
  }

  rule(value, width, format) {
    const y = this.y(value).toFixed(1);
    return [
      svg("path", { class: value ? "rule" : "rule base", d: `M${LEFT} ${y}H${width - 6}` }),
      svg("text", { class: "tick", x: LEFT - 8, y: Number(y) + 4, "text-anchor": "end" }, format(value)),
    ];
  }

  ticks({ from, to, ticks }, width) {
    const number = width < 480 ? 3 : 5;
    return Array.from({ length: number }, (_, place) => {
      const at = from + ((to - from) * place) / (number - 1);
      const anchor = place === 0 ? "start" : place === number - 1 ? "end" : "middle";
      return svg("text", { class: "tick", x: this.x(at).toFixed(1), y: this.height - 6, "text-anchor": anchor }, ticks(at, to));
    });
  }

  point(event) {
    const points = this.told?.points ?? [];
    if (!points.length || !this.x) return;
    const x = event.clientX - this.picture.getBoundingClientRect().left;
    const away = points.map((point) => Math.abs(this.x(point.at) - x));
    this.read(away.indexOf(Math.min(...away)));
  }

  key(event) {
    const last = (this.told?.points.length ?? 0) - 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -last, End: last }[event.key];
    if (event.key === "Escape") this.read(null);
    if (!step || last < 0) return;
    event.preventDefault();
    this.read(Math.min(last, Math.max(0, (this.cursor ?? last) + step)));
    put(this.spoken, this.readout.innerText.replaceAll("\n", ", "));
  }

  read(index) {
    const point = index === null ? undefined : this.told?.points[index];
    this.cursor = point ? index : null;
    this.readout.hidden = !point;
    if (!point) {
      this.line?.removeAttribute("d");
      return;
    }
    const x = this.x(point.at);
    this.line.setAttribute("d", `M${x.toFixed(1)} ${TOP}V${this.height - BOTTOM}`);
    this.readout.replaceChildren(
      element("strong", {}, this.told.when(point.at)),
      ...[...this.told.names].reverse().map((name) => element("span", {},
        element("i", { class: `swatch ${name}` }), this.titles[name], element("b", {}, this.told.format(point.values[name] ?? 0)))),
    );
    const right = x > this.host.clientWidth / 2;
    this.readout.style.setProperty("left", right ? "auto" : `${x + 12}px`);
    this.readout.style.setProperty("right", right ? `${this.host.clientWidth - x + 12}px` : "auto");
  }
}

function unbroken(points, gap) {
  const runs = [];
  points.forEach((point, place) => {
    if (place === 0 || point.at - points[place - 1].at > gap) runs.push([]);
    runs.at(-1).push(point);
  });
  return runs.filter((run) => run.length > 1);
}

// A line without axes; as wide as its place.
export function sparkline(kind) {
  const fill = svg("path", { class: "fill" });
  const line = svg("path", { class: "line" });
  const made = svg("svg", { class: `spark ${kind}`, viewBox: "0 0 100 28", preserveAspectRatio: "none", "aria-hidden": "true" }, fill, line);
  made.show = (values, room, most = 0) => {
    const top = Math.max(most, ...values, 1e-9);
    const step = 100 / Math.max(1, room - 1);
    const begin = 100 - step * (values.length - 1);
    const path = values.map((value, place) =>
      `${(begin + place * step).toFixed(2)},${(26.5 - (Math.max(0, value) / top) * 25).toFixed(2)}`).join("L");
    line.setAttribute("d", values.length > 1 ? `M${path}` : "");
    fill.setAttribute("d", values.length > 1 ? `M${begin.toFixed(2)},28L${path}L100,28Z` : "");
  };
  return made;
}

// How full something is, as three quarters of a ring.
export function gauge(label) {
  const path = "M25.1 86.9A45 45 0 1 1 94.9 86.9";
  const filled = svg("path", { class: "filled", d: path, pathLength: 100 });
  const figure = svg("text", { class: "figure", x: 60, y: 62, "text-anchor": "middle" });
  const note = svg("text", { class: "unit", x: 60, y: 80, "text-anchor": "middle" }, "of its bound");
  const made = svg("svg", {
    class: "gauge", viewBox: "0 0 120 100", role: "meter", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": 100,
  }, svg("path", { class: "whole", d: path }), filled, figure, note);
  made.show = (part, text, spoken) => {
    const value = Math.min(100, Math.max(0, part * 100));
    filled.toggleAttribute("hidden", value < 0.5); // a round cap would draw a dot
    filled.style.setProperty("stroke-dasharray", `${value} 100`);
    made.classList.toggle("tight", value >= 90);
    made.setAttribute("aria-valuenow", value.toFixed(1));
    made.setAttribute("aria-valuetext", spoken);
    put(figure, text);
  };
  return made;
}

// One bar in parts: how requests ended.
export function split(names) {
  const parts = Object.fromEntries(names.map((name) => [name, element("i", { class: name })]));
  const made = element("span", { class: "split", role: "img" }, Object.values(parts));
  made.show = (counts, spoken) => {
    const all = Object.values(counts).reduce((a, b) => a + b, 0);
    for (const [name, part] of Object.entries(parts)) {
      part.hidden = !counts[name];
      part.style.setProperty("width", `${all ? ((counts[name] ?? 0) / all) * 100 : 0}%`);
    }
    made.setAttribute("aria-label", spoken);
  };
  return made;
}
