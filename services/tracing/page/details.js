// What is known of one span: its attributes, links, events and process.
import { chip, make, time } from "./dom.js";

export function details(trace, span, close) {
  const process = trace.processes.get(span.processID);
  const table = (tags) => make("table", {}, ...tags.map((tag) => make("tr", {}, make("th", { scope: "row" }, tag.key), make("td", {}, pretty(tag)))));
  const part = (title, content) => (content.length ? [make("h3", {}, title), ...content] : []);
  const links = span.references.filter((one) => one.refType === "FOLLOWS_FROM")
    .map((one) => make("div", {}, make("a", { href: `#/trace/${one.traceID}?span=${one.spanID}` }, `trace ${one.traceID.slice(0, 8)}, span ${one.spanID.slice(0, 8)}`)));
  const events = span.logs.map((log) => make("div", {}, make("div", { class: "faint" }, `after ${time(log.timestamp - span.startTime)}`), table(log.fields)));
  const words = trace.reading.stragglers[span.spanID]?.text, why = span.tag["otel.status_description"];
  return [
    make("div", { class: "bar" }, make("h2", {}, span.operationName), make("div", { class: "tools" }, make("button", { onclick: close, "aria-label": "close the details" }, "✕"))),
    chip(process.colour, process.label), make("div", { class: "faint" }, `${time(span.duration)}, begins after ${time(span.startTime - trace.start)}`),
    words ? make("p", {}, words) : null,
    span.tag.error === true && why ? make("p", { class: trace.reading.isCancelled ? "faint" : "bad" }, String(why)) : null,
    ...part("attributes", span.tags.length ? [table(span.tags)] : []), ...part("links", links), ...part("events", events),
    ...part("process", process.tags.length ? [table(process.tags)] : []), make("p", { class: "faint" }, `span ${span.spanID}`),
  ].filter(Boolean);
}

function pretty(tag) {
  return tag.key.endsWith("_nanos") ? time(tag.value / 1000) : String(tag.value);
}
