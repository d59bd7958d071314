// Elements without markup in strings: whatever comes from the server is text, never HTML.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

export function svg(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name === "style") for (const [key, to] of Object.entries(value)) made.style.setProperty(key, to);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child != null && child !== false));
  return made;
}

// Changes a text only when it is another one: a screen reader and a selection stay where they are.
export function put(node, text) {
  if (node.textContent !== String(text)) node.textContent = text;
}

// Children by key, each made once and shown again with its `show(item)`: what has focus keeps it.
export function keyed(parent, items, key, make) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const id = String(key(item));
    const child = old.get(id) ?? make(item);
    child.dataset.key = id;
    child.show?.(item);
    old.delete(id);
    return child;
  });
  old.forEach((child) => child.remove());
  wanted.forEach((child, place) => {
    if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] ?? null);
  });
}

export function empty(title, ...text) {
  return element("div", { class: "empty" }, element("strong", {}, title), element("p", {}, ...text));
}

export function table(caption, heads, rows, properties = {}) {
  return element("div", { class: "scroll" }, element("table", properties,
    element("caption", { class: "hidden" }, caption),
    element("thead", {}, element("tr", {}, heads.map(([name, kind]) => element("th", { scope: "col", class: kind }, name)))),
    element("tbody", {}, rows)));
}

// A cell with its column's name, which a phone shows beside the value.
export function cell(name, kind, ...children) {
  return element("td", { class: kind, "data-name": name }, ...children);
}

export function traceLink(base, trace, text = "Trace") {
  if (!trace || !/^https?:\/\//.test(base ?? "")) return null;
  return element("a", {
    class: "trace", href: `${base.replace(/\/+$/, "")}/trace/${encodeURIComponent(trace)}`,
    target: "_blank", rel: "noreferrer",
  }, text);
}
