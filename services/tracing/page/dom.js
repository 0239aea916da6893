// Makes elements, asks the query API, and writes times for a person to read.

// What strangers wrote into spans goes into the page as text alone.
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}
export function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}
function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "style") node.style.cssText = value;
    else if (value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export async function ask(path) {
  const answer = await (await fetch(path)).json();
  if (answer.errors) throw new Error(answer.errors[0].msg);
  return answer.data;
}

export const show = (...nodes) => document.getElementById("main").replaceChildren(...nodes.filter(Boolean));
export const card = (...children) => make("section", { class: "card" }, ...children);
export const chip = (colour, text, part = "") =>
  make("span", {}, make("span", { class: `dot ${part}`, style: colour ? `background:${colour}` : "" }), text);

export const percent = (share) => `${(100 * share).toFixed(1)} %`;
export const counted = (number, thing) => `${number.toLocaleString("en")} ${thing}${number === 1 ? "" : "s"}`;
export function time(micros) {
  if (micros >= 1e6) return `${(micros / 1e6).toFixed(2)} s`;
  return micros >= 1000 ? `${(micros / 1000).toFixed(2)} ms` : `${Math.round(micros)} µs`;
}

const pad = (number, digits = 2) => String(number).padStart(digits, "0");
// As ISO 8601 has it, in the reader's zone.
function iso(date) {
  const offset = -date.getTimezoneOffset(), away = Math.abs(offset);
  const zone = offset === 0 ? "Z" : `${offset < 0 ? "-" : "+"}${pad(Math.trunc(away / 60))}:${pad(away % 60)}`;
  return `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}.${pad(date.getMilliseconds(), 3)}${zone}`;
}
function ago(millis) {
  const seconds = Math.max(0, Math.round(millis / 1000));
  if (seconds < 120) return `${seconds} s ago`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min ago`;
  return seconds < 172800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} days ago`;
}
export function moment(micros, isBrief = false) {
  const date = new Date(micros / 1000), text = ago(Date.now() - date.getTime());
  return make("time", { datetime: date.toISOString(), title: iso(date) }, isBrief ? text : `${iso(date)} (${text})`);
}

// Between 2 and `most` round moments of a stretch of time, from its start.
export function ticks(length, most = 6) {
  const rough = length / most, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  return Array.from({ length: Math.floor(length / step) + 1 }, (_, index) => index * step);
}
export function tick(micros, length) {
  if (micros === 0) return "0";
  const [unit, scale] = length >= 2e6 ? ["s", 1e6] : length >= 2e3 ? ["ms", 1e3] : ["µs", 1];
  return `${+(micros / scale).toPrecision(6)} ${unit}`;
}
