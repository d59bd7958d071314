// Asks the middleware what it makes of a request, and shows its answer.
import { ask, byId, element, facts } from "./dom.js";

export function prepare(repo, port) {
  const examples = [
    ["git status", "GET", `/git/${repo}/status`, "accept: application/json\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", ""],
    ["who am I", "GET", "/me", "authorization: Bearer ada-token\naccept: application/json", ""],
    ["a search", "POST", "/search", "content-type: application/json", '{"words": "sidebar"}'],
    ["a commit", "POST", `/git/${repo}/commit`, "content-type: application/json", '{"message": "Mine"}'],
    ["no rule", "GET", "/anything?page=2", "accept-language: en\nuser-agent: curl/8", ""],
    ["a doubtful target", "GET", `/git/${repo}/%2e%2e/status`, "", ""],
    ["chat history", "GET", `/chat/${port}/history`, "cookie: theme=dark; session=1234", ""],
  ];
  const form = byId("ask");
  byId("examples").replaceChildren(...examples.map(([name, method, target, headers, body]) =>
    element("button", { type: "button", onclick: () => {
      Object.assign(form.elements.target, { value: target });
      Object.assign(form.elements.method, { value: method });
      Object.assign(form.elements.headers, { value: headers });
      Object.assign(form.elements.body, { value: body });
      form.requestSubmit();
    } }, name)));
  form.elements.target.value = examples[0][2];
  form.elements.headers.value = examples[0][3];
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    explain(form);
  });
}

async function explain(form) {
  const told = byId("told");
  const headers = form.elements.headers.value.split("\n")
    .map((line) => line.split(/:(.*)/s))
    .filter(([name, value]) => name.trim() && value !== undefined)
    .map(([name, value]) => [name.trim().toLowerCase(), value.trim()]);
  const { method, target, body } = form.elements;
  try {
    const answer = await ask("/api/explain", { method: method.value, target: target.value, headers, body: body.value });
    told.replaceChildren(...show(answer));
  } catch (error) {
    told.replaceChildren(element("p", { class: "error" }, error.message));
  }
  told.hidden = false;
}

function show(answer) {
  const keyed = Object.entries(answer.keyed);
  return [
    element("p", { class: "headline" }, headline(answer)),
    answer.decision === "consider" && element("div", { class: "columns" },
      column("The fingerprint holds", keyed, "nothing"),
      column("Left out", Object.entries(answer.left_out), "nothing: everything counts"),
      column("The app would see", answer.visible, "no header field")),
    answer.fingerprint && element("p", { class: "nothing" }, "Fingerprint ", element("code", {}, answer.fingerprint)),
  ].filter(Boolean);
}

function headline(answer) {
  const rule = element("strong", {}, answer.rule === "default" ? "No rule" : `Rule “${answer.rule}”`);
  if (answer.decision !== "consider") {
    return [rule, " · goes to the app by itself: ", element("strong", {}, answer.reason)];
  }
  return [
    rule,
    answer.rule === "default" ? " matches; the default is:" : "",
    answer.collapses ? " · collapses" : " · does not collapse",
    answer.ttl ? ` · lives ${answer.ttl} s` : " · stores nothing",
    answer.tags.length ? ` · tagged ${answer.tags.join(", ")}` : "",
  ];
}

function column(title, rows, otherwise) {
  return element("div", {}, element("h3", {}, title),
    rows.length ? facts(rows) : element("p", { class: "nothing" }, otherwise));
}
