// A trace read from Jaeger's JSON: each span once, below one other at most, cut into its parts.
import { colourOf } from "./colours.js";

export const PARTS = ["encode", "wire", "decode", "queue", "compute"];
export const STEP = "router.step", LAYER = "router.layer", CALL = "router.expert", COMPUTE = "expert.compute";
const MANY_LAYERS = 32;

export function readTrace(data, reading) {
  const spans = data.spans.map((span) => ({
    ...span, end: span.startTime + span.duration, children: [],
    tag: Object.fromEntries(span.tags.map((tag) => [tag.key, tag.value])),
  }));
  spans.sort((a, b) => a.startTime - b.startTime || b.duration - a.duration);
  spans.forEach((span, index) => { span.position = index; });
  const byId = new Map([...spans].reverse().map((span) => [span.spanID, span]));
  findParents(spans, byId, data.traceID);
  const roots = [];
  for (const span of spans) (span.parent ? span.parent.children : roots).push(span);
  const processes = new Map();
  for (const id of new Set(spans.map((span) => span.processID))) {
    const { serviceName, tags } = data.processes[id] ?? { serviceName: id, tags: [] };
    const label = reading.labels[id] ?? serviceName;
    processes.set(id, { label, colour: colourOf(label), tags });
  }
  const start = spans[0].startTime, end = spans.reduce((most, span) => Math.max(most, span.end), start);
  return { id: data.traceID, spans, byId, roots, processes, reading, start, end };
}

// Of several spans of one id the first is the parent; of spans in a circle the first has none.
function findParents(spans, byId, traceId) {
  for (const span of spans) {
    const parent = span.references.find((one) => one.refType === "CHILD_OF" && one.traceID === traceId);
    span.parent = (parent && byId.get(parent.spanID)) || null;
  }
  const ends = new Set();
  for (const span of spans) {
    const way = new Set();
    let one = span;
    while (one && !ends.has(one) && !way.has(one)) { way.add(one); one = one.parent; }
    if (one && way.has(one)) {
      const passed = [...way], circle = passed.slice(passed.indexOf(one));
      circle.reduce((first, other) => (other.position < first.position ? other : first)).parent = null;
    }
    for (const passed of way) ends.add(passed);
  }
}

// As [part, start, end, whose]; of the wire only both ways' sum is measured, see docs/tracing.md.
export function partsOf(span) {
  const micros = Object.fromEntries(PARTS.map((part) => [part, (span.tag[`moesaic.${part}_nanos`] ?? 0) / 1000]));
  const last = span.operationName.split(".").pop();
  if (![CALL, COMPUTE].includes(span.operationName) || !PARTS.some((part) => micros[part]))
    return [[PARTS.includes(last) ? last : "", span.startTime, span.end, span.processID]];
  const served = [["decode", micros.decode], ["queue", micros.queue], ["compute", micros.compute]];
  const service = span.children.find((child) => child.processID !== span.processID);
  let order = [...served, ["encode", micros.encode]];
  if (micros.wire) {
    const seen = service ? service.startTime - span.startTime - micros.encode : -1;
    const there = seen >= 0 && seen <= micros.wire ? seen : micros.wire / 2;
    order = [["encode", micros.encode], ["wire", there], ...served, ["wire", micros.wire - there]];
  }
  let at = span.startTime;
  const cut = order.filter(([, length]) => length)
    .map(([part, length]) => [part, at, at += length, (part === "compute" && service ? service : span).processID]);
  return at < span.end ? [...cut, ["", at, span.end, span.processID]] : cut;
}

// A folded step or layer shows the calls that it waited for, over its own length.
export function foldedParts(trace, span) {
  const whole = ["", span.startTime, span.end, span.processID];
  const layers = span.operationName === STEP ? span.children.filter((one) => one.operationName === LAYER)
    : span.operationName === LAYER ? [span] : [];
  const waited = (layer) => trace.byId.get(trace.reading.stragglers[layer.spanID]?.spanID);
  const calls = layers.length <= MANY_LAYERS ? layers.map(waited).filter(Boolean) : [];
  return calls.length ? [whole, ...calls.flatMap(partsOf)] : partsOf(span);
}

export function remark(trace, span) {
  const { tag } = span, called = (address) => trace.reading.names[address] ?? address ?? "";
  if (span.operationName === STEP) {
    const tokens = tag["moesaic.tokens"];
    if (tokens === undefined) return "in another trace";
    return `${tokens} token${tokens === 1 ? "" : "s"}${tag["moesaic.kept"] ? `, ${tag["moesaic.kept"]}` : ""}`;
  }
  if (span.operationName === LAYER) return `${tag["moesaic.layer"]} · ${called(tag["moesaic.straggler"])}`;
  if (span.operationName === CALL) return `→ ${called(tag["server.address"])}${tag["moesaic.attempt"] > 1 ? ` attempt ${tag["moesaic.attempt"]}` : ""}`;
  return span.parent?.processID === span.processID ? "" : trace.processes.get(span.processID).label;
}

export function layerAround(span) {
  for (let one = span; one; one = one.parent) if (one.operationName === LAYER) return one;
  return null;
}
export const slowest = (spans) => spans.reduce((most, one) => (most && most.duration >= one.duration ? most : one), undefined);
