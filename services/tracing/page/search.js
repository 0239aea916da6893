// The search and what it finds; what it cannot read is said beside its field.
import { ask, card, chip, make, moment, percent, show, time } from "./dom.js";
import { colourOf } from "./colours.js";

const LIVE_MILLIS = 3000, COMMAND = "moesaic serve --tracing";
const DURATION = /^(\d+(\.\d+)?(ns|us|µs|ms|s|m|h|d))+$/;
const TAG = /([^\s=]+)=(?:"([^"]*)"|(\S*))/g;
let timer = 0;

export function stopLive() { clearInterval(timer); }

export async function searchPage(parameters) {
  const services = await ask("/api/services");
  if (!services.length) return show(emptyCard(), liveCard(parameters));
  const service = parameters.get("service");
  const operations = service ? await ask(`/api/services/${encodeURIComponent(service)}/operations`) : [];
  const form = searchForm(parameters, services, operations), found = make("div", { id: "found", "aria-live": "polite" });
  show(make("h1", { class: "heard" }, "Search"), card(form), liveCard(parameters), found);
  await fill(form, found, parameters);
}

function searchForm(parameters, services, operations) {
  const beside = (name) => make("span", { class: "bad problem", id: `${name}-problem`, "data-of": name });
  const field = (name, label, attributes = {}) => make("label", {}, label,
    make("input", { name, value: parameters.get(name) ?? "", "aria-describedby": `${name}-problem`, ...attributes }), beside(name));
  const choice = (name, label, values, names = values) => make("label", {}, label, make("select", { name },
    ...values.map((value, index) => make("option", { value, selected: parameters.get(name) === value && "" }, names[index]))));
  const form = make("form", { role: "search", onsubmit: (event) => { event.preventDefault(); go(form); } },
    choice("service", "service", ["", ...services], ["any", ...services]),
    choice("operation", "operation", ["", ...operations], ["any", ...operations]),
    field("attributes", "attributes", { class: "wide", placeholder: "moesaic.layer=3 error=true" }),
    field("minDuration", "at least", { class: "narrow", placeholder: "100ms" }), field("maxDuration", "at most", { class: "narrow", placeholder: "2s" }),
    choice("lookback", "within", ["1h", "15m", "6h", "48h"], ["the last hour", "15 minutes", "6 hours", "2 days"]),
    choice("limit", "up to", ["20", "100", "500"], ["20 traces", "100 traces", "500 traces"]),
    make("button", { class: "main" }, "Find traces"));
  form.elements.service.addEventListener("change", () => { form.elements.operation.value = ""; go(form); });
  return form;
}

function go(form) {
  if (!check(form)) return;
  const said = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  if (document.getElementById("live")?.checked) said.set("live", "1");
  const address = `#/search?${said}`;
  if (location.hash === address) dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = address;
}

// Says beside each field what is wrong with it; whether nothing is.
function check(form) {
  const left = form.elements.attributes.value.replace(TAG, " ").trim();
  const problems = { attributes: left && `“${left}” is not KEY=VALUE` };
  for (const name of ["minDuration", "maxDuration"]) {
    const text = form.elements[name].value.trim();
    problems[name] = text && !DURATION.test(text) ? `“${text}” is no duration such as 1.5s or 200ms` : "";
  }
  for (const [name, text] of Object.entries(problems)) say(form, name, text);
  return !Object.values(problems).some(Boolean);
}
function say(form, name, text) {
  form.querySelector(`[data-of="${name}"]`).textContent = text;
  form.elements[name].setAttribute("aria-invalid", String(Boolean(text)));
}

const tagsIn = (text) => Object.fromEntries([...text.matchAll(TAG)].map(([, key, quoted, plain]) => [key, quoted ?? plain]));

async function fill(form, found, parameters) {
  if (!check(form)) return found.replaceChildren();
  const query = new URLSearchParams({ limit: "20", lookback: "1h" });
  for (const [name, value] of parameters) if (!["attributes", "live"].includes(name)) query.set(name, value);
  if (parameters.get("attributes")) query.set("tags", JSON.stringify(tagsIn(parameters.get("attributes"))));
  let traces;
  try {
    traces = await ask(`/api/summaries?${query}`);
  } catch (error) {
    const name = ["minDuration", "maxDuration"].find((each) => error.message.startsWith(each));
    if (!name) throw error;
    say(form, name, error.message);
    return found.replaceChildren();
  }
  if (!traces.length) return found.replaceChildren(card(make("p", {}, "Traces are stored, but none of this time is like that.")));
  const longest = Math.max(...traces.map((trace) => trace.duration), 1);
  found.replaceChildren(...traces.map((trace) => foundTrace(trace, longest)));
}

function foundTrace(trace, longest) {
  const { request } = trace, isCancelled = request.status === "CANCELLED";
  const facts = [
    request.inputTokens !== undefined ? `${request.inputTokens} → ${request.outputTokens ?? 0} tokens` : null,
    request.firstToken !== undefined ? `first after ${time(request.firstToken)}` : null,
    typeof request.communication === "number" ? `communication ${percent(request.communication)}` : null,
  ].filter(Boolean).map((text) => make("span", {}, text));
  if (request.straggler) facts.push(chip(colourOf(request.straggler), `straggler ${request.straggler}`));
  const end = isCancelled ? make("span", { class: "cancelled" }, "cancelled")
    : request.status ? make("span", { class: "bad" }, request.status)
      : trace.numErrors ? make("span", { class: "bad" }, `${trace.numErrors} failed`) : null;
  return make("a", { class: "card found", href: `#/trace/${trace.traceID}` },
    make("span", { class: "top" }, make("b", {}, `${trace.rootService}: ${trace.rootOperation}`), make("span", { class: "faint" }, trace.traceID.slice(0, 8)), end,
      make("span", { class: "chips facts" }, ...facts), make("span", { class: "right faint" }, moment(trace.startTime, true)), make("b", {}, time(trace.duration))),
    make("span", { class: "length", style: `width:${100 * trace.duration / longest}%` }),
    make("span", { class: "chips" }, ...Object.entries(trace.services).map(([name, count]) => chip(colourOf(name), `${name} (${count})`))));
}

function emptyCard() {
  const copied = make("span", { class: "faint", role: "status" });
  const copy = make("button", { onclick: async () => { await navigator.clipboard.writeText(COMMAND); copied.textContent = "copied"; } }, "copy");
  return card(make("h1", {}, "No trace has come yet"),
    make("p", {}, "Start a cluster that sends its traces here, and ask it something:"),
    make("div", { class: "bar" }, make("code", {}, COMMAND), copy, copied),
    make("p", { class: "faint" }, "Other services send theirs by OTLP: set OTEL_EXPORTER_OTLP_ENDPOINT where they run."));
}

// Looks again every few seconds while it is on and the page can be seen.
function liveCard(parameters) {
  const box = make("input", { type: "checkbox", role: "switch", id: "live", onchange: () => {
    const said = new URLSearchParams(parameters);
    if (box.checked) said.set("live", "1"); else said.delete("live");
    location.hash = `#/search?${said}`;
  } });
  box.checked = parameters.get("live") === "1";
  stopLive();
  if (box.checked) timer = setInterval(() => refresh(parameters), LIVE_MILLIS);
  return make("div", { class: "bar live" }, make("label", { class: "inline" }, box, " refresh live"));
}
async function refresh(parameters) {
  const form = document.querySelector("form[role=search]"), found = document.getElementById("found");
  if (document.hidden) return;
  if (!form) return (await ask("/api/services")).length && dispatchEvent(new HashChangeEvent("hashchange"));
  if (!found.contains(document.activeElement)) await fill(form, found, parameters).catch(() => {});
}
