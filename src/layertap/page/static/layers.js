
import { make, sized, showTip, hideTip, signed } from "./dom.js";
import { facts, array } from "./data.js";
import { state, change, watch } from "./state.js";
import { heat, inkOn, onScheme, variable } from "./colours.js";

// The curve: what a probe scores at each layer, and how similar layers are to each other.

function scoreWords(index) {
  const { value, low, high, control, selectivity } = facts.probe.rows[index];
  return `${facts.layers[index].name}: ${value.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)}); random labels `
    + `${control.toFixed(3)}, selectivity ${signed(selectivity)}`;
}

function scoreRow(layer, index) {
  const bar = make("canvas", { width: 1, height: 16, "aria-hidden": "true" });
  const score = facts.probe.rows[index];
  const words = scoreWords(index);
  const button = make(
    "button", { type: "button", title: words, "aria-label": words, onclick: () => change({ layer: index }) },
    make("span", { class: "number" }, shortName(layer, index)), bar, make("b", {}, score.value.toFixed(3)),
  );
  return { button, bar, score };
}

export function shortName(layer, index) {
  const number = /^hidden_states\[(\d+)\]$/.exec(layer.name);
  return number ? number[1] : String(index);
}

function drawBar({ bar, score }) {
  const width = bar.clientWidth;
  if (!width) return;
  const context = sized(bar, width, 16);
  const [low, high] = facts.probe.axis;
  const x = (value) => ((value - low) / (high - low || 1)) * (width - 4) + 2;
  context.fillStyle = variable("rule");
  context.fillRect(2, 7, width - 4, 2);
  context.fillStyle = variable("accent");
  const begin = x(facts.probe.chance);
  context.fillRect(begin, 6, Math.max(1, x(score.value) - begin), 4);
  context.fillStyle = variable("faint");
  const control = Math.max(2, Math.min(width - 2, x(score.control)));
  context.fillRect(control - 0.75, 2, 1.5, 12);
  context.fillStyle = variable("ink");
  context.fillRect(x(score.low), 7.3, x(score.high) - x(score.low), 1.4);
}

function placeScores(pane) {
  pane.append(make("h2", {}, facts.probe ? `Layers: ${facts.probe.metric} of a linear probe` : "Layers"));
  const list = make("ul", { class: "list layer", id: "curve" });
  const rows = facts.layers.map((layer, index) => {
    if (facts.probe) return scoreRow(layer, index);
    return { button: make("button", { type: "button", onclick: () => change({ layer: index }) }, layer.name), bar: null };
  });
  list.append(...rows.map(({ button }) => make("li", {}, button)));
  const says = make("p", { id: "curve-says" });
  pane.append(list);
  if (facts.probe) {
    pane.append(says);
    pane.append(make("p", { class: "note" }, facts.probe.sentence));
    const redraw = () => rows.forEach(drawBar);
    new ResizeObserver(redraw).observe(list);
    onScheme(redraw);
  } else {
    pane.append(make("p", { class: "note" }, facts.why_no_probe));
  }
  watch(["layer"], () => {
    rows.forEach(({ button }, i) => button.setAttribute("aria-current", String(i === state.layer)));
    if (facts.probe) says.textContent = scoreWords(state.layer);
  });
}

function placeAlike(pane) {
  const size = facts.layers.length;
  const alike = array("alike");
  const names = facts.layers.map(shortName);
  const canvas = make("canvas", { id: "alike", role: "img", tabindex: "0", "aria-label":
    "Similarity (linear CKA) of each two layers. Click a row to go to its layer." });
  pane.append(make("h2", {}, "Similarity of layers (CKA)"), canvas, make("p", { class: "note", id: "alike-note" },
    "1 stands for the same vectors up to rotation and scale. It says how alike layers are, not which is better."));
  const edge = 20;
  const cell = () => Math.min(34, (canvas.parentElement.clientWidth - 34 - edge) / size);
  const redraw = () => {
    const side = cell();
    if (side < 3) return;
    const whole = edge + side * size;
    canvas.style.width = `${whole}px`;
    canvas.style.height = `${whole}px`;
    const context = sized(canvas, whole, whole);
    context.textAlign = "center";
    context.textBaseline = "middle";
    for (let i = 0; i < size; i++) {
      context.fillStyle = variable(i === state.layer ? "ink" : "faint");
      context.font = `${i === state.layer ? "bold " : ""}11px system-ui, sans-serif`;
      context.fillText(names[i], edge / 2, edge + (i + 0.5) * side);
      context.fillText(names[i], edge + (i + 0.5) * side, edge / 2);
      for (let j = 0; j < size; j++) {
        const value = alike[i * size + j];
        const colour = heat(value);
        const ink = inkOn(colour);
        context.fillStyle = colour;
        context.fillRect(edge + j * side, edge + i * side, side - 1, side - 1);
        if (side >= 24) {
          context.fillStyle = ink;
          context.font = "10px system-ui, sans-serif";
          context.fillText(value.toFixed(2).replace("0.", "."), edge + (j + 0.5) * side, edge + (i + 0.5) * side);
        }
      }
    }
  };
  const where = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientY - box.top, event.clientX - box.left].map((at) => Math.floor((at - edge) / cell()));
  };
  canvas.addEventListener("pointermove", (event) => {
    const [i, j] = where(event);
    if (i < 0 || j < 0 || i >= size || j >= size) return hideTip();
    return showTip(event, `layers ${names[i]} and ${names[j]}: ${alike[i * size + j].toFixed(5)}`);
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("click", (event) => {
    const [i] = where(event);
    if (i >= 0 && i < size) change({ layer: i });
  });
  watch(["layer", "pane"], redraw);
  new ResizeObserver(redraw).observe(pane);
  onScheme(redraw);
}

export function placeLayers(pane, probeCommand, legend) {
  const scores = make("div", {});
  const alike = make("div", {});
  pane.append(scores, legend, alike);
  placeScores(scores);
  if (probeCommand) scores.append(probeCommand);
  placeAlike(alike);
}
