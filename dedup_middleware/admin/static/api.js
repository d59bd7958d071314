// The server, asked over its JSON API; paths are relative to where it is mounted.

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export const session = new EventTarget(); // "signed-out" when the server says 401

// `fine` are statuses beside 2xx whose answer is one.
export async function ask(path, body, method = body === undefined ? "GET" : "POST", fine = []) {
  const asked = { method, headers: { accept: "application/json" }, credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    asked.headers["content-type"] = "application/json";
    asked.body = JSON.stringify(body);
  }
  const reply = await fetch(`api/${path}`, asked).catch(() => { // each browser has words of its own for it
    throw new Refused(0, "The server does not answer.");
  });
  const told = await reply.json().catch(() => null);
  if (reply.ok || fine.includes(reply.status)) return told;
  if (reply.status === 401 && !path.startsWith("session")) session.dispatchEvent(new Event("signed-out"));
  throw new Refused(reply.status, told?.error ?? `The server answered ${reply.status}.`);
}

export function query(path, parameters) {
  const given = Object.entries(parameters).filter(([, value]) => value != null && value !== "");
  return given.length ? `${path}?${new URLSearchParams(given)}` : path;
}
