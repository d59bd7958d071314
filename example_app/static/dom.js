// Small helpers: elements without markup in strings, numbers as people write them, calls to our own server.

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") made.className = value;
    else if (name === "style") for (const [key, to] of Object.entries(value)) made.style.setProperty(key, to);
    else if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child != null && child !== false));
  return made;
}

export const byId = (id) => document.getElementById(id);

export function milliseconds(value) {
  if (value >= 1000) return [(value / 1000).toFixed(2), "s"];
  if (value >= 100) return [value.toFixed(0), "ms"];
  return [value.toFixed(1), "ms"];
}

export const time = (value) => milliseconds(value).join(" ");
export const plural = (count, word, many = `${word}s`) => `${count} ${count === 1 ? word : many}`;

export function size(bytes) {
  if (bytes == null) return "?";
  if (bytes >= 1e6) return `${(bytes / 1e6).toFixed(0)} MB`;
  return bytes >= 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${bytes} bytes`;
}

export async function ask(path, body) {
  const asked = body === undefined ? {} : {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  };
  const reply = await fetch(path, asked).catch(() => { // each browser has words of its own for it
    throw new Error("nobody answers. Does the example still run?");
  });
  const told = await reply.json().catch(() => ({}));
  if (!reply.ok) throw new Error(told.error ?? `${path} answered ${reply.status}`);
  return told;
}

export function facts(rows) {
  const lines = rows
    .filter(([, value]) => value != null && value !== "")
    .map(([name, value]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value)));
  return element("table", { class: "facts" }, element("tbody", {}, lines));
}
