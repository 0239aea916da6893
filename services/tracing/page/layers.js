// Each layer's mean times, of parallel services the straggler's.
import { card, make, percent, time } from "./dom.js";
import { PARTS } from "./tree.js";

export function layersCard(trace) {
  const { layers } = trace.reading;
  if (!layers.length) return null;
  const most = Object.fromEntries(PARTS.map((part) => [part, Math.max(...layers.map((one) => one.parts[part]), 1)]));
  const heads = ["layer", "steps", "in all", ...PARTS, "wire share", "straggler, and its cost in all"];
  const rows = layers.map((one) => make("tr", {},
    ...[one.layer, one.count, time(one.duration)].map((cell) => make("td", {}, String(cell))),
    ...PARTS.map((part) => make("td", { class: `filled of-${part}`, style: `--share:${(100 * one.parts[part] / most[part]).toFixed(1)}%` }, time(one.parts[part]))),
    make("td", {}, percent(one.parts.wire / (one.duration || 1))),
    make("td", {}, one.straggler && `${one.straggler} (${one.stragglerCount} of ${one.count}), ${time(one.stragglerCost)}`)));
  return card(make("h2", {}, "By layer: mean times, of parallel services the straggler"),
    make("div", { class: "wide-table", tabindex: "0", role: "region", "aria-label": "times by layer" },
      make("table", {}, make("tr", {}, ...heads.map((name) => make("th", { scope: "col" }, name))), ...rows)));
}
