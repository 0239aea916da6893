// A service has the colour that its name gives it, on every view; parts have a palette of their own.
const SERVICES = ["#2f7fe0", "#c026d3", "#4d7c0f", "#0e7490", "#9333ea", "#be185d", "#15803d", "#4338ca", "#0369a1", "#a21caf"];
const KNOWN = { gateway: "#1c9c8f", router: "#6f5bd6", generate: "#64748b" };

export function colourOf(name) {
  if (KNOWN[name]) return KNOWN[name];
  const number = /-(\d+)$/.exec(name);
  if (number) return SERVICES[Number(number[1]) % SERVICES.length];
  let hash = 0;
  for (const letter of name) hash = (hash * 31 + letter.codePointAt(0)) >>> 0;
  return SERVICES[hash % SERVICES.length];
}

export const PART_NAMES = {
  dense: "attention and dense", expert_queue: "expert queue", expert_compute: "expert compute",
  straggler_wait: "straggler wait", lane_wait: "lane wait", step_wait: "step wait",
};
// Communication is red and orange, computing brown and olive, waiting grey.
export const PART_COLOURS = {
  wire: "", encode: "var(--code)", straggler_wait: "#8f1d2c", expert_compute: "#7c6a0a", dense: "#6b4f3a",
  gate: "#b08d6a", combine: "#8a8f3c", sampling: "#cbb26a", expert_queue: "var(--queue)",
  lane_wait: "#94a3b8", step_wait: "#cbd5e1",
};
