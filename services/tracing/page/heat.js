// What each service cost each layer, as a map: the darker, the more.
import { card, make, time } from "./dom.js";

export function heatCard(trace) {
  const { heat } = trace.reading;
  if (!heat.length) return null;
  const layers = [...new Set(heat.map((cell) => cell.layer))], services = [...new Set(heat.map((cell) => cell.service))].sort();
  const most = heat.reduce((sum, cell) => Math.max(sum, cell.cost), 0);
  const cells = new Map(heat.map((cell) => [`${cell.layer} ${cell.service}`, cell]));
  const head = make("tr", {}, make("th", { scope: "col" }, "service"), ...layers.map((layer) => make("th", { scope: "col" }, `layer ${layer}`)), make("th", { scope: "col" }, "in all"));
  const rows = services.map((service) => {
    const mine = layers.map((layer) => cells.get(`${layer} ${service}`));
    const whole = mine.reduce((sum, cell) => sum + (cell?.cost ?? 0), 0);
    return make("tr", {}, make("th", { scope: "row" }, service), ...mine.map((cell) => heatCell(trace, cell, most)), make("td", {}, time(whole)));
  });
  return card(make("h2", {}, "Layer × service: what each cost as the straggler, over all steps"),
    make("div", { class: "wide-table", tabindex: "0", role: "region", "aria-label": "heat map" }, make("table", { class: "heat" }, head, ...rows)));
}

function heatCell(trace, cell, most) {
  if (!cell) return make("td", { class: "faint" }, "·");
  const share = most ? cell.cost / most : 0;
  const title = `layer ${cell.layer}, ${cell.service}: straggler ${cell.count} times, cost ${time(cell.cost)}; ${cell.calls} calls, ${time(cell.duration / Math.max(cell.calls, 1))} in the mean`;
  const text = cell.cost ? time(cell.cost) : "0";
  const inside = cell.spanID ? make("a", { href: `#/trace/${trace.id}?span=${cell.spanID}`, "aria-label": title }, text) : text;
  return make("td", { title, style: `--share:${(85 * share).toFixed(1)}%`, class: `hot${share > 0.45 ? " very" : ""}` }, inside);
}
