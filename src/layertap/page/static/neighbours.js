
import { make, signed } from "./dom.js";
import { facts, array, hasArray, shapeOf, textOf, unit } from "./data.js";
import { state, change, watch } from "./state.js";
import { onScheme } from "./colours.js";
import { ringNeighbours } from "./map.js";
import { shortName } from "./layers.js";
import { textItem } from "./texts.js";

// Nearest texts of the chosen one, by the cosine of their whole vectors, and their ranks at all layers.

export function nearestTo(text, layer) {
  const [, most] = shapeOf(`near${layer}`);
  const near = array(`near${layer}`).subarray(text * most, (text + 1) * most);
  const cosines = array(`cosine${layer}`).subarray(text * most, (text + 1) * most);
  return Array.from(near, (other, k) => ({ other, cosine: cosines[k] }));
}

// Nearest texts of the chosen text, or of the typed one, or null where there is neither.
function nearestHere(layer) {
  if (state.text >= 0) return nearestTo(state.text, layer);
  const name = `s${state.sentence}-near`;
  if (state.sentence < 0 || !hasArray(name)) return null;
  const [, most] = shapeOf(name);
  const [near, cosines] = [array(name), array(`s${state.sentence}-cosine`)];
  return Array.from({ length: most }, (_, k) => ({ other: near[layer * most + k], cosine: cosines[layer * most + k] }));
}

function rankTable() {
  const here = nearestHere(state.layer).map(({ other }) => other);
  const ranks = facts.layers.map((_, layer) => {
    const order = nearestHere(layer).map(({ other }) => other);
    return new Map(order.map((other, k) => [other, k + 1]));
  });
  const kept = ranks.map((rank) => here.filter((other) => rank.has(other)).length);
  const at = (layer) => (layer === state.layer ? " here" : "");
  const head = make("tr", {}, make("th", {}, "layer"), ...facts.layers.map((layer, i) => make("th", { class: `rank${at(i)}` },
    make("button", { type: "button", "aria-label": layer.name, onclick: () => change({ layer: i }) }, shortName(layer, i)))));
  const rows = here.map((other) => make("tr", {}, make("td", { class: "wide", dir: "auto" }, cut(textOf(other))),
    ...ranks.map((rank, i) => make("td", { class: `rank${at(i)}` }, String(rank.get(other) ?? "·")))));
  const foot = make("tr", {}, make("td", {}, "in both lists"), ...kept.map((number, i) => make("td", { class: `rank${at(i)}` }, String(number))));
  return make("div", { class: "scroll" }, make("table", { id: "ranks" }, make("thead", {}, head), make("tbody", {}, ...rows, foot)));
}

function cut(text) {
  const characters = [...text];
  return characters.length > 44 ? `${characters.slice(0, 42).join("")} …` : text;
}

export function placeNeighbours(pane, commandOf, typedCommandOf) {
  const holder = make("div", { id: "neighbours" });
  pane.append(holder);
  if (!hasArray("near0")) return;
  const redraw = () => {
    holder.replaceChildren();
    const near = nearestHere(state.layer);
    if (near === null) {
      ringNeighbours([]);
      return;
    }
    ringNeighbours(near.map(({ other }) => other));
    const { name, dimensions } = facts.layers[state.layer];
    holder.append(
      make("h2", {}, "Nearest at ", make("code", {}, name), ` (cosine, ${dimensions} dimensions)`),
      make("ul", { class: "list", id: "nearest" }, ...near.map(({ other, cosine }) => textItem(other, signed(cosine)))),
      make("h2", {}, "How this list changes over layers"), rankTable(),
      make("p", { class: "note" }, `Ranks among the ${near.length} nearest at each layer; a dot: not among them.`
        + (facts.sampled ? ` Only ${unit}s of the sample are compared.` : "")),
      state.text >= 0 ? commandOf : typedCommandOf,
    );
  };
  watch(["text", "sentence", "layer", "colour"], redraw);
  onScheme(redraw);
}
