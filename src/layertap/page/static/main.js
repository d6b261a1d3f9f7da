
import { make, byId } from "./dom.js";
import { facts } from "./data.js";
import { state, change, watch, begin } from "./state.js";
import { placeMap } from "./map.js";
import { placeLayers } from "./layers.js";
import { legend } from "./legend.js";
import { placeTexts, searchBox } from "./texts.js";
import { placeNeighbours } from "./neighbours.js";
import { placeTokens } from "./tokens.js";
import { placeAttention } from "./attention.js";
import { command } from "./commands.js";
import { placeLive } from "./live.js";

// The whole page: its parts in their panes, then the state of the address.

function placePanes() {
  const names = { layers: "Layers", map: "Map", text: "Text" };
  const buttons = Object.entries(names).map(([pane, words]) => {
    const button = make("button", { type: "button", onclick: () => change({ pane }) }, words);
    watch(["pane"], () => button.setAttribute("aria-pressed", String(state.pane === pane)));
    return button;
  });
  byId("panes").append(...buttons);
  watch(["pane"], () => { document.body.dataset.pane = state.pane; });
}

// The pane of a text is long: these lead to its parts.
function placeJumps(pane) {
  const parts = [["Nearest", ["neighbours"]], ["Tokens", ["tokens-view"]],
    ["Outputs", ["outputs", "tokens-view"]], ["Attention", ["attention-view"]]];
  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  pane.append(make("nav", { id: "jump", "aria-label": "Parts of the text's pane" }, ...parts.map(([words, ids]) => make(
    "button", { type: "button", onclick: () => {
      const part = ids.map(byId).find((element) => element !== null && element.offsetParent !== null);
      part?.scrollIntoView({ block: "start", behavior: still.matches ? "auto" : "smooth" });
    } }, words))));
}

function placeNotes(pane) {
  pane.append(make("h2", {}, "About this page"), ...facts.notes.map((note) => make("p", { class: "note" }, note)));
}

byId("about").textContent = facts.about;
if (facts.layers.length) placeJumps(byId("pane-text"));
if (facts.live) placeLive(byId("pane-text"));
if (facts.layers.length) {
  byId("search-box").append(searchBox());
  placePanes();
  placeLayers(byId("pane-layers"), facts.probe ? command("probe") : null, legend());
  placeNotes(byId("pane-layers"));
  placeMap(byId("pane-map"), command("extract"));
  placeTexts(byId("pane-text"));
  placeNeighbours(byId("pane-text"), command("neighbours"), command("typed"));
} else {
  document.body.dataset.only = "text";
}
placeTokens(byId("pane-text"), command("sentence"));
placeAttention(byId("pane-text"), command("attention"));
if (!facts.layers.length) placeNotes(byId("pane-text"));
begin();
document.documentElement.dataset.ready = "true";
