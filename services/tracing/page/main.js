// Where the address leads, and the keys that hold everywhere.
import { card, make, show } from "./dom.js";
import { dependenciesPage } from "./dependencies.js";
import { searchPage, stopLive } from "./search.js";
import { tracePage } from "./trace.js";

async function route() {
  const [path, query] = location.hash.slice(1).split("?"), parameters = new URLSearchParams(query);
  const trace = /^\/trace\/([0-9a-fA-F]+)$/.exec(path);
  stopLive();
  try {
    if (trace) await tracePage(trace[1], parameters);
    else if (path === "/dependencies") await dependenciesPage();
    else await searchPage(parameters);
  } catch (error) {
    show(card(make("h1", { class: "bad" }, error.message), make("a", { href: "#/search" }, "back to the search")));
  }
}

const keys = document.getElementById("keys");
document.getElementById("keys-button").addEventListener("click", () => keys.showModal());
addEventListener("keydown", (event) => {
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "?" && !keys.open) keys.showModal();
  if (event.key !== "/") return;
  event.preventDefault();
  const field = document.querySelector("input[name=attributes]");
  if (field) field.focus(); else location.hash = "#/search";
});
addEventListener("hashchange", route);
// Links as Jaeger's pages have them: /trace/ID and /search.
if (location.pathname !== "/" && !location.hash) location.replace(`/#${location.pathname}${location.search}`);
else route();
