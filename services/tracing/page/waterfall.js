// Spans under each other with their bars on one scale: a tree that the keyboard can walk.
import { chip, make, tick, ticks, time } from "./dom.js";
import { foldedParts, partsOf, remark } from "./tree.js";

const ROW = 25, AROUND = 10;
let made = 0;

export class Waterfall {
  // `of` has the roots, the time from and to, and the label; `choose` is told which span is opened.
  constructor(trace, of, choose) {
    Object.assign(this, { trace, of, choose, folded: new Set(), chosen: null, current: null, rows: [] });
    [this.from, this.to] = [of.from, of.to];
    this.prefix = `tree${made += 1}`;
    this.ruler = make("div", { class: "ruler", "aria-hidden": "true" });
    this.lines = make("div", { class: "lines", "aria-hidden": "true" });
    this.inner = make("div", { class: "inner", role: "presentation" });
    this.scroll = make("div", {
      class: `scroll${of.isWhole ? " whole" : ""}`, role: "tree", tabindex: "0", "aria-label": of.label,
      onscroll: () => this.draw(), onkeydown: (event) => this.press(event), onfocus: () => this.enter(),
    }, this.inner);
    this.node = make("div", { class: "card fall" }, this.ruler, this.scroll);
    new ResizeObserver(() => this.draw()).observe(this.scroll);
    this.layOut();
  }
  fold(spans) { this.folded = new Set(spans); this.layOut(); }
  reveal(span) {
    for (let above = span.parent; above; above = above.parent) this.folded.delete(above);
    this.layOut();
    this.chosen = span;
    this.go(span);
    this.scroll.scrollTop = Math.max(0, (this.index(span) - 5) * ROW);
  }
  layOut() {
    this.rows = [];
    const waiting = this.of.roots.map((span) => [span, 0]).reverse();
    while (waiting.length) {
      const [span, depth] = waiting.pop();
      this.rows.push([span, depth]);
      if (!this.folded.has(span)) for (let i = span.children.length - 1; i >= 0; i--) waiting.push([span.children[i], depth + 1]);
    }
    this.inner.style.height = `${this.rows.length * ROW}px`;
    if (this.index(this.current) < 0) this.current = this.rows[0][0];
    this.draw();
  }
  index(span) { return this.rows.findIndex(([one]) => one === span); }
  zoom(from, to) { this.from = from; this.to = Math.max(to, from + 1); this.draw(); this.onzoom?.(); }
  get isZoomed() { return this.from !== this.of.from || this.to !== this.of.to; }
  unzoom() { this.zoom(this.of.from, this.of.to); }
  enter() { if (!this.current) this.current = this.rows[0][0]; this.draw(); }
  go(span) {
    this.current = span;
    const top = this.index(span) * ROW, { scrollTop, clientHeight } = this.scroll;
    if (top < scrollTop) this.scroll.scrollTop = top;
    else if (top + ROW > scrollTop + clientHeight) this.scroll.scrollTop = top + ROW - clientHeight;
    this.draw();
  }
  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.index(this.current), span = this.current, last = this.rows.length - 1;
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / ROW) - 1);
    const to = (index) => this.go(this.rows[Math.max(0, Math.min(last, index))][0]);
    const isFolded = this.folded.has(span), inside = span.children.length;
    const keys = {
      ArrowDown: () => to(at + 1), ArrowUp: () => to(at - 1), Home: () => to(0), End: () => to(last),
      PageDown: () => to(at + page), PageUp: () => to(at - page),
      ArrowRight: () => { if (inside && isFolded) this.toggle(span); else if (inside) to(at + 1); },
      ArrowLeft: () => { if (inside && !isFolded) this.toggle(span); else if (this.index(span.parent) >= 0) this.go(span.parent); },
      Enter: () => this.choose(span), " ": () => this.choose(span), z: () => this.zoom(span.startTime, span.end),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }
  toggle(span) {
    if (!this.folded.delete(span)) this.folded.add(span);
    this.layOut();
  }
  draw() {
    const length = this.to - this.from;
    const first = Math.max(0, Math.floor(this.scroll.scrollTop / ROW) - AROUND), count = Math.ceil(this.scroll.clientHeight / ROW) + 2 * AROUND;
    const shown = this.rows.slice(first, first + count).map(([span, depth], index) => this.row(span, depth, first + index));
    const at = ticks(length);
    // From the trace's start, or from the zoomed stretch's own.
    this.lines.replaceChildren(...at.map((each) => make("i", { style: `left:${100 * each / length}%` })));
    this.inner.replaceChildren(this.lines, ...shown);
    const labels = at.filter((each) => each < 0.93 * length).map((each) => make("span", { style: `left:${100 * each / length}%` }, tick(each, length)));
    const begin = this.from - this.trace.start;
    this.ruler.replaceChildren(make("span", { class: "head" }, begin ? `from ${time(begin)} on` : "span"), make("div", { class: "track" }, ...labels), make("span", { class: "took" }, time(length)));
    const current = this.index(this.current);
    if (current >= first && current < first + count) this.scroll.setAttribute("aria-activedescendant", `${this.prefix}-${current}`);
    else this.scroll.removeAttribute("aria-activedescendant");
  }
  row(span, depth, index) {
    const process = this.trace.processes.get(span.processID), isFolded = this.folded.has(span), isBad = span.tag.error === true;
    const bad = isBad ? (this.trace.reading.isCancelled ? "faint" : "bad") : "";
    const fold = make("span", { class: "fold", "aria-hidden": "true", onclick: (event) => { event.stopPropagation(); this.toggle(span); } }, span.children.length ? (isFolded ? "▸" : "▾") : "");
    const said = remark(this.trace, span);
    const name = make("div", { class: "name", style: `padding-left:${4 + depth * 13}px;border-color:${process.colour}`, title: `${process.label}: ${span.operationName} ${said}` },
      fold, make("span", { class: bad }, span.operationName), make("span", { class: "faint" }, ` ${said}`), isBad ? make("span", { class: "heard" }, ", failed") : null);
    const parts = isFolded ? foldedParts(this.trace, span) : partsOf(span);
    const bars = parts.map(([part, from, to, whose]) => this.stretch(part, from, to, part === "" && isBad ? `var(--${bad === "bad" ? "bad" : "queue"})` : this.trace.processes.get(whose).colour)).filter(Boolean);
    return make("div", {
      class: `row${span === this.chosen ? " chosen" : ""}${span === this.current ? " current" : ""}`, style: `top:${index * ROW}px`,
      role: "treeitem", id: `${this.prefix}-${index}`, "aria-level": depth + 1, "aria-setsize": this.rows.length, "aria-posinset": index + 1,
      "aria-selected": String(span === this.chosen), "aria-expanded": span.children.length ? String(!isFolded) : undefined,
      onclick: () => { this.current = span; this.choose(span); }, ondblclick: () => this.zoom(span.startTime, span.end),
    }, name, make("div", { class: "track" }, ...bars), make("div", { class: "took" }, time(span.duration)));
  }
  stretch(part, from, to, colour) {
    const scale = 100 / (this.to - this.from), left = (from - this.from) * scale, width = (to - from) * scale;
    if (left > 100 || left + width < 0) return null;
    const [begin, end] = [Math.max(left, -1), Math.min(left + width, 101)];
    const fill = part === "" || part === "compute" ? `background:${colour};${part ? "" : "opacity:.62;"}` : "";
    return make("i", { class: part ? `part ${part}` : "", title: part, style: `left:${begin}%;width:${end - begin}%;${fill}` });
  }
}

export const legend = () => [["", "wire", "wire"], ["var(--code)", "encode, decode"], ["var(--queue)", "queue"]]
  .map(([colour, name, part]) => chip(colour, name, part)).concat(make("span", {}, "compute: the service's colour"));
