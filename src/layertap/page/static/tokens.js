
import { make, sized, showTip, hideTip, signed } from "./dom.js";
import { facts, array, pointOf } from "./data.js";
import { state, change, choose, watch } from "./state.js";
import { heat, inkOn, onScheme, variable } from "./colours.js";

// The sentence: its tokens with their characters, a strip of figures by layer and token, and the model's outputs.

const MEASURES = {
  last: "cosine to itself in the last layer",
  cls: "cosine to the first token of the same layer",
  token: "cosine to the chosen token of the same layer",
  norm: "norm of the vector",
};

// Characters are counted as in Python, where an emoji is one.
function charactersOf(sentence, t) {
  return [...sentence.text].slice(sentence.begins[t], sentence.ends[t]).join("");
}

function valuesOf(number, measure, token) {
  const tokens = facts.sentences[number].tokens.length;
  const layers = facts.layer_names.length;
  if (measure === "last" || measure === "norm") return array(`s${number}-${measure}`);
  const cosines = array(`s${number}-cosines`);
  const values = new Float32Array(layers * tokens);
  const other = measure === "cls" ? 0 : token;
  for (let l = 0; l < layers; l++) {
    for (let t = 0; t < tokens; t++) values[l * tokens + t] = cosines[(l * tokens + other) * tokens + t];
  }
  return values;
}

function chips(sentence) {
  return make("div", { class: "chips", id: "tokens" }, ...sentence.tokens.map((token, t) => make(
    "button", { type: "button", "aria-pressed": String(t === state.token), onclick: () => change({ token: t }) }, token)));
}

function readout(sentence) {
  const t = Math.min(state.token, sentence.tokens.length - 1);
  const [begin, end] = [sentence.begins[t], sentence.ends[t]];
  const where = begin === end ? "a special token, which stands for no characters"
    : `characters ${begin} to ${end}: “${charactersOf(sentence, t)}”`;
  return make("p", { class: "note", id: "token-says" }, make("b", {}, sentence.tokens[t]), ` (token ${t}): `, make("bdi", {}, where));
}

// Width of a token in the strip: narrower where all tokens fit then, and no narrower than the numbers.
function cellOf(canvas, tokens) {
  const room = (canvas.parentElement?.clientWidth ?? 0) - 24;
  return Math.max(28, Math.min(34, Math.floor(room / tokens)));
}

function drawStrip(canvas, number) {
  const sentence = facts.sentences[number];
  const [tokens, layers] = [sentence.tokens.length, facts.layer_names.length];
  const chosen = Math.min(state.token, tokens - 1);
  const values = valuesOf(number, state.measure, chosen);
  const [cell, high, left, foot] = [cellOf(canvas, tokens), 19, 22, 66];
  const [width, height] = [left + tokens * cell, layers * high + foot];
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = sized(canvas, width, height);
  const isNorm = state.measure === "norm";
  const most = isNorm ? Math.max(...values) : 1;
  context.textBaseline = "middle";
  for (let l = 0; l < layers; l++) {
    context.textAlign = "right";
    context.fillStyle = variable(l === rowOf() ? "ink" : "faint");
    context.font = `${l === rowOf() ? "bold " : ""}11.5px system-ui, sans-serif`;
    context.fillText(String(l), left - 6, (l + 0.5) * high);
    context.textAlign = "center";
    context.font = "10.5px system-ui, sans-serif";
    for (let t = 0; t < tokens; t++) {
      const value = values[l * tokens + t];
      const colour = heat(value / most);
      context.fillStyle = colour;
      context.fillRect(left + t * cell, l * high, cell - 1, high - 1);
      context.fillStyle = inkOn(colour);
      const shown = isNorm ? value.toPrecision(3) : signed(value, 2).replace("0.", ".");
      context.fillText(shown, left + (t + 0.5) * cell, (l + 0.5) * high);
    }
  }
  context.textAlign = "right";
  for (let t = 0; t < tokens; t++) {
    context.save();
    context.translate(left + (t + 0.62) * cell, layers * high + 6);
    context.rotate(-Math.PI / 3.2);
    context.fillStyle = variable("ink");
    context.font = `${t === chosen ? "bold " : ""}11.5px system-ui, sans-serif`;
    context.fillText(clip(sentence.tokens[t]), 0, 0);
    context.restore();
  }
}

export function clip(token) {
  const characters = [...token];
  return characters.length > 10 ? `${characters.slice(0, 9).join("")}…` : token;
}

// The layer of the model that the chosen layer of the map is, or -1 where it is another feature.
function rowOf() {
  return facts.layer_names.indexOf(facts.layers[state.layer]?.name);
}

function strip(number) {
  const choice = make("select", { id: "measure", "aria-label": "What the strip shows" });
  for (const [name, words] of Object.entries(MEASURES)) choice.append(make("option", { value: name }, words));
  choice.value = state.measure;
  choice.addEventListener("change", () => change({ measure: choice.value }));
  const canvas = make("canvas", { id: "strip", role: "img", "aria-label": "Figures of each token at each layer" });
  const sentence = facts.sentences[number];
  const where = (event) => {
    const box = canvas.getBoundingClientRect();
    const cell = cellOf(canvas, sentence.tokens.length);
    return [Math.floor((event.clientY - box.top) / 19), Math.floor((event.clientX - box.left - 22) / cell)];
  };
  canvas.addEventListener("pointermove", (event) => {
    const [l, t] = where(event);
    if (l < 0 || t < 0 || l >= facts.layer_names.length || t >= sentence.tokens.length) return hideTip();
    const value = valuesOf(number, state.measure, Math.min(state.token, sentence.tokens.length - 1))[l * sentence.tokens.length + t];
    return showTip(event, make("bdi", {}, sentence.tokens[t]), `, ${facts.layer_names[l]}: ${signed(value, 5)}`);
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("click", (event) => {
    const [, t] = where(event);
    if (t >= 0 && t < sentence.tokens.length) change({ token: t });
  });
  return [choice, make("div", { class: "scroll strip" }, canvas)];
}

function outputs(sentence) {
  const rows = sentence.outputs.map(({ name, shape, says, values }) => make(
    "tr", {}, make("td", { class: "wide" }, make("span", { class: "number" }, shape), make("code", {}, name),
      make("div", { class: "faint" }, says),
      values ? make("div", {}, make("code", { class: "values" }, `${values.map((v) => signed(v, 6)).join("  ")}  …`)) : null),
  ));
  return make("table", { id: "outputs" }, make("tbody", {}, ...rows));
}

export function sentencePicker() {
  const choice = make("select", { id: "sentence", "aria-label": "Texts with tokens" });
  choice.append(make("option", { value: -1 }, `choose one of ${facts.sentences.length} texts with tokens`));
  facts.sentences.forEach(({ text }, i) => choice.append(make("option", { value: i }, [...text].slice(0, 70).join(""))));
  choice.value = String(state.sentence);
  choice.addEventListener("change", () => {
    const number = Number(choice.value);
    if (number < 0) return;
    const { index } = facts.sentences[number];
    if (index === null) change({ text: -1, sentence: number, token: 0 });
    else choose(pointOf(index));
  });
  return choice;
}

export function placeTokens(pane, commandOf) {
  const holder = make("div", { id: "tokens-view" });
  pane.append(holder);
  const redraw = (changed = []) => {
    const focused = document.activeElement?.id;
    const chip = [...(holder.querySelector("#tokens")?.children ?? [])].indexOf(document.activeElement);
    const scrolled = holder.querySelector(".strip")?.scrollLeft ?? 0;
    holder.replaceChildren();
    if (facts.live && state.sentence < 0) return;
    holder.append(make("h2", {}, "Tokens"));
    if (!facts.sentences.length) {
      holder.append(make("p", { class: "note" }, facts.why_no_sentences));
      return;
    }
    if (!facts.live) holder.append(make("p", {}, sentencePicker()));
    if (state.sentence < 0) {
      if (state.text >= 0) holder.append(make("p", { class: "note" }, facts.why_not_this_sentence));
      return;
    }
    const sentence = facts.sentences[state.sentence];
    holder.append(chips(sentence), readout(sentence), make("h2", {}, "Each token at each layer"), ...strip(state.sentence),
      make("p", { class: "note" }, "A cosine near 1 says that two vectors point the same way, not that the layer is done with the token."),
      make("h2", {}, "Which output is which"), outputs(sentence), commandOf);
    drawStrip(holder.querySelector("#strip"), state.sentence);
    holder.querySelector(".strip").scrollLeft = changed.includes("sentence") ? 0 : scrolled;
    if (chip >= 0) holder.querySelector("#tokens").children[chip]?.focus();
    else if (focused === "measure" || focused === "sentence") holder.querySelector(`#${focused}`)?.focus();
  };
  watch(["sentence", "text", "token", "measure", "layer", "pane"], redraw);
  onScheme(redraw);
}
