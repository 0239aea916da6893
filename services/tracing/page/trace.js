// One trace: the verdict, where its time went, the layer that matters on its own scale, and all of it.
import { ask, card, chip, counted, make, moment, percent, show, time } from "./dom.js";
import { PART_COLOURS, PART_NAMES } from "./colours.js";
import { details } from "./details.js";
import { heatCard } from "./heat.js";
import { layersCard } from "./layers.js";
import { LAYER, STEP, layerAround, readTrace, slowest } from "./tree.js";
import { Waterfall, legend } from "./waterfall.js";

const FEW_SPANS = 250;

export async function tracePage(id, parameters) {
  const asked = encodeURIComponent(id);
  const [[data], [reading]] = await Promise.all([ask(`/api/traces/${asked}`), ask(`/api/readings/${asked}`)]);
  const trace = readTrace(data, reading);
  const span = trace.byId.get(parameters.get("span"));
  const view = new TraceView(trace, span);
  show(headCard(trace), verdictCard(trace), stepsCard(trace), view.layerCard, heatCard(trace), layersCard(trace), view.node);
  view.begin();
}

const linkTo = (trace, spanID, text) => (spanID ? make("a", { href: `#/trace/${trace.id}?span=${spanID}` }, text) : make("span", {}, text));

function headCard(trace) {
  const root = trace.roots[0], { failure, isCancelled } = trace.reading;
  const numFailed = trace.spans.filter((span) => span.tag.error === true).length;
  const kind = isCancelled ? "cancelled" : "bad";
  return card(
    make("h1", {}, `${trace.processes.get(root.processID).label}: ${root.operationName}`),
    make("div", { class: "faint" }, `${trace.id} · `, moment(trace.start), ` · ${time(trace.end - trace.start)} · ${counted(trace.spans.length, "span")}`,
      numFailed ? make("b", { class: kind }, isCancelled ? " · cancelled" : ` · ${numFailed} failed`) : null),
    failure ? make("p", { class: `failure ${kind}` }, linkTo(trace, failure.spanID, failure.text)) : null,
    make("div", { class: "chips" }, ...[...trace.processes.values()].map((process) => chip(process.colour, process.label))));
}

function verdictCard(trace) {
  const sentences = trace.reading.verdict;
  if (!sentences.length) return null;
  return make("section", { class: "card verdict", "aria-label": "verdict" }, make("h2", {}, "Verdict"),
    ...sentences.map(({ text, spanID }) => make("p", {}, linkTo(trace, spanID, text))));
}

function stepsCard(trace) {
  const sums = {};
  for (const step of trace.spans.filter((span) => span.operationName === STEP))
    for (const [key, value] of Object.entries(step.tag)) {
      const part = /^moesaic\.(.*)_nanos$/.exec(key)?.[1];
      if (part && value) sums[part] = (sums[part] ?? 0) + value;
    }
  const parts = Object.entries(sums).sort((a, b) => b[1] - a[1]), whole = parts.reduce((sum, [, nanos]) => sum + nanos, 0);
  if (!whole) return null;
  const colour = (part) => PART_COLOURS[part] ?? "#999";
  return card(make("h2", {}, "Where the steps' time went, on the critical path"),
    make("div", { class: "stack", "aria-hidden": "true" }, ...parts.map(([part, nanos]) => make("i", { class: part === "wire" ? "wire" : "", title: `${part} ${percent(nanos / whole)}`, style: `flex:${nanos};${colour(part) ? `background:${colour(part)}` : ""}` }))),
    make("div", { class: "chips" }, ...parts.filter(([, nanos]) => nanos / whole > 0.002)
      .map(([part, nanos]) => chip(colour(part), `${PART_NAMES[part] ?? part} ${percent(nanos / whole)} · ${time(nanos / 1000)}`, part))));
}

class TraceView {
  constructor(trace, span) {
    Object.assign(this, { trace, span });
    const step = slowest(trace.spans.filter((one) => one.operationName === STEP && one.children.length));
    const worst = trace.byId.get(trace.reading.verdict.find((one) => one.spanID)?.spanID);
    this.step = step;
    this.layer = layerAround(span ?? worst) ?? (step && slowest(step.children.filter((one) => one.operationName === LAYER)));
    this.whole = new Waterfall(trace, { roots: trace.roots, from: trace.start, to: trace.end, label: "all spans", isWhole: true }, (one) => this.choose(one, this.whole));
    this.whole.onzoom = () => { this.out.disabled = !this.whole.isZoomed; };
    this.out = make("button", { disabled: "", onclick: () => this.whole.unzoom() }, "whole trace");
    this.details = make("aside", { id: "details", class: "card", "aria-label": "details of the span", tabindex: "0" });
    this.view = make("div", { id: "view" }, this.whole.node, this.details);
    const tools = make("div", { class: "tools" }, this.out, make("button", { onclick: () => this.whole.fold([]) }, "open all"),
      make("button", { onclick: () => this.whole.fold(trace.spans.filter((one) => one.operationName === STEP)) }, "fold steps"));
    this.node = make("section", { "aria-label": "waterfall", onkeydown: (event) => this.leave(event) },
      make("div", { class: "bar chips above" }, ...legend(), make("span", { class: "faint" }, "double click or z zooms to a span"), tools), this.view);
    this.layerCard = this.layer ? this.makeLayerCard() : null;
  }
  makeLayerCard() {
    const { layer, trace } = this, end = layer.children.reduce((most, one) => Math.max(most, one.end), layer.end);
    const fall = new Waterfall(trace, { roots: [layer], from: layer.startTime, to: end, label: `layer ${layer.tag["moesaic.layer"]}` }, (one) => this.choose(one, fall));
    const { text } = trace.reading.stragglers[layer.spanID] ?? { text: "" };
    this.inLayer = fall;
    return make("section", { class: "zoomed", "aria-label": "the layer on its own scale", onkeydown: (event) => this.leave(event, fall) },
      make("h2", {}, `Layer ${layer.tag["moesaic.layer"]}, on its own scale: ${text}`), fall.node);
  }
  begin() {
    const { trace, whole } = this;
    if (trace.spans.length > FEW_SPANS)
      whole.fold(trace.spans.filter((one) => [STEP, LAYER].includes(one.operationName) && one !== this.step && one !== this.layer));
    if (!this.span) return;
    whole.reveal(this.span);
    this.open(this.span);
    (this.layer && layerAround(this.span) ? this.layerCard : this.node).scrollIntoView({ block: "nearest" });
  }
  choose(span, from) {
    for (const fall of [this.whole, this.inLayer]) if (fall) { fall.chosen = span; fall.draw(); }
    this.from = from;
    this.open(span);
    if (from !== this.whole) this.whole.reveal(span);
  }
  open(span) {
    this.view.className = "open";
    this.details.replaceChildren(...details(this.trace, span, () => this.close()));
  }
  close() {
    this.view.className = "";
    for (const fall of [this.whole, this.inLayer]) if (fall) { fall.chosen = null; fall.draw(); }
    (this.from ?? this.whole).scroll.focus({ preventScroll: true });
  }
  leave(event, fall = this.whole) {
    if (event.key !== "Escape") return;
    if (this.view.className) this.close();
    else if (fall.isZoomed) fall.unzoom();
  }
}
