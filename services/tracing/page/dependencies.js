// Who calls whom: a graph whose edges say how often, how long and how badly, and the same as a table.
import { ask, card, draw, make, show, time } from "./dom.js";
import { colourOf } from "./colours.js";

const WIDTH = 150, HEIGHT = 34, ACROSS = 410, DOWN = 74, EDGE = 24;

export async function dependenciesPage() {
  const calls = await ask("/api/dependencies");
  if (!calls.length) return show(card(make("h1", {}, "Who calls whom"), make("p", {}, "No stored trace has a call from one service to another.")));
  const heads = ["caller", "called", "calls", "p50", "p99", "failed"];
  const rows = calls.map((call) => make("tr", {}, ...[call.parent, call.child, call.callCount.toLocaleString("en"), time(call.p50), time(call.p99)].map((cell) => make("td", {}, cell)),
    make("td", { class: call.errors ? "bad" : "" }, String(call.errors))));
  show(card(make("h1", {}, "Who calls whom, over all stored traces"), make("div", { class: "wide-table", tabindex: "0", role: "region", "aria-label": "graph" }, graph(calls))),
    card(make("h2", {}, "The same as a table: times are the called one's"), make("table", {}, make("tr", {}, ...heads.map((name) => make("th", { scope: "col" }, name))), ...rows)));
}

function graph(calls) {
  const places = placed(calls), columns = [...places.values()];
  const width = Math.max(...columns.map(({ x }) => x)) + WIDTH + EDGE, height = Math.max(...columns.map(({ y }) => y)) + HEIGHT + EDGE;
  const most = Math.max(...calls.map((call) => call.callCount));
  const label = `Calls between ${places.size} services`;
  return draw("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "graph" },
    ...calls.map((call) => edge(call, places, most)), ...[...places].map(([name, { x, y }]) => draw("g", {},
      draw("rect", { x, y, width: WIDTH, height: HEIGHT, rx: 7, style: `stroke:${colourOf(name)}` }),
      draw("text", { x: x + WIDTH / 2, y: y + HEIGHT / 2 + 5, "text-anchor": "middle" }, name.slice(0, 20)))));
}
function edge(call, places, most) {
  const from = places.get(call.parent), to = places.get(call.child);
  const [x1, y1, x2, y2] = [from.x + WIDTH, from.y + HEIGHT / 2, to.x, to.y + HEIGHT / 2], middle = (x1 + x2) / 2;
  const width = 1.5 + 4 * Math.sqrt(call.callCount / most), bad = call.errors ? " bad" : "";
  return draw("g", { class: `edge${bad}` }, draw("path", { d: `M${x1} ${y1} C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`, style: `stroke-width:${width}` }),
    draw("text", { x: x2 - 8, y: y2 - 10, "text-anchor": "end" }, `${call.callCount.toLocaleString("en")} · p50 ${time(call.p50)} · p99 ${time(call.p99)}`),
    call.errors ? draw("text", { x: x2 - 8, y: y2 + 18, "text-anchor": "end", class: "failed" }, `${call.errors} failed`) : null);
}
// A column for each distance from a service that nobody calls; circles end where they were entered.
function placed(calls) {
  const names = [...new Set(calls.flatMap((call) => [call.parent, call.child]))].sort();
  const called = new Set(calls.map((call) => call.child)), column = new Map();
  const reach = (name, depth, way) => {
    if (way.has(name) || (column.get(name) ?? -1) >= depth) return;
    column.set(name, depth);
    for (const call of calls) if (call.parent === name) reach(call.child, depth + 1, new Set([...way, name]));
  };
  for (const name of [...names.filter((each) => !called.has(each)), ...names]) if (!column.has(name)) reach(name, 0, new Set());
  const rows = {}, tallest = Math.max(...names.map((name) => names.filter((each) => column.get(each) === column.get(name)).length));
  return new Map(names.map((name) => {
    const depth = column.get(name), row = rows[depth] = (rows[depth] ?? -1) + 1;
    const inColumn = names.filter((each) => column.get(each) === depth).length;
    return [name, { x: EDGE + depth * ACROSS, y: EDGE + (row + (tallest - inColumn) / 2) * DOWN }];
  }));
}
