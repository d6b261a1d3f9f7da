
import { make, sized, showTip, hideTip } from "./dom.js";
import { facts, array, hasArray } from "./data.js";
import { state, change, watch } from "./state.js";
import { heat, onScheme, variable, rgb } from "./colours.js";
import { clip } from "./tokens.js";

// Attention: every head of every block small, one head large, and what the chosen token attends to.

const SCALE = 65535; // probabilities are stored in whole numbers of 1/65535

function headOf(number, block, head) {
  const tokens = facts.sentences[number].tokens.length;
  const size = tokens * tokens;
  const begin = (block * facts.heads + head) * size;
  return { tokens, values: array(`s${number}-attention`).subarray(begin, begin + size) };
}

function paint(context, { tokens, values }, left, top, side) {
  const [low, high] = [rgb(variable("heat-low")), rgb(variable("heat-high"))];
  const ratio = window.devicePixelRatio || 1;
  const wide = Math.max(1, Math.round(side * ratio));
  const image = context.createImageData(wide, wide);
  for (let y = 0; y < wide; y++) {
    const row = Math.floor((y * tokens) / wide) * tokens;
    for (let x = 0; x < wide; x++) {
      // Square roots, so that small probabilities can be seen.
      const share = Math.sqrt(values[row + Math.floor((x * tokens) / wide)] / SCALE);
      const at = 4 * (y * wide + x);
      for (let c = 0; c < 3; c++) image.data[at + c] = low[c] + (high[c] - low[c]) * share;
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, Math.round(left * ratio), Math.round(top * ratio));
}

function grid(holder) {
  const canvas = make("canvas", { id: "heads", tabindex: "0", role: "img",
    "aria-label": "All heads: a row for each block. Arrow keys choose a head." });
  const [left, top] = [18, 16];
  const side = () => Math.max(14, Math.min(44, (holder.clientWidth - left - 2) / facts.heads));
  const redraw = () => {
    const cell = side();
    const [width, height] = [left + cell * facts.heads, top + cell * facts.blocks];
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    const context = sized(canvas, width, height);
    context.font = "10.5px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = variable("faint");
    for (let a = 0; a < facts.heads; a++) context.fillText(String(a), left + (a + 0.5) * cell, top / 2);
    for (let b = 0; b < facts.blocks; b++) {
      context.fillStyle = variable("faint");
      context.fillText(String(b), left / 2, top + (b + 0.5) * cell);
      for (let a = 0; a < facts.heads; a++) {
        paint(context, headOf(state.sentence, b, a), left + a * cell + 1, top + b * cell + 1, cell - 2);
      }
    }
    context.strokeStyle = variable("ink");
    context.lineWidth = 2;
    context.strokeRect(left + state.head * cell, top + state.block * cell, cell, cell);
  };
  const where = (event) => {
    const box = canvas.getBoundingClientRect();
    return { block: Math.floor((event.clientY - box.top - top) / side()), head: Math.floor((event.clientX - box.left - left) / side()) };
  };
  const valid = ({ block, head }) => block >= 0 && head >= 0 && block < facts.blocks && head < facts.heads;
  canvas.addEventListener("click", (event) => { if (valid(where(event))) change(where(event)); });
  canvas.addEventListener("pointermove", (event) => {
    const over = where(event);
    if (valid(over)) showTip(event, `block ${over.block}, head ${over.head}`);
    else hideTip();
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("keydown", (event) => {
    const [db, da] = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key] ?? [0, 0];
    const to = { block: state.block + db, head: state.head + da };
    if ((db || da) && valid(to)) {
      change(to);
      event.preventDefault();
    }
  });
  return { canvas, redraw };
}

function large(holder) {
  const canvas = make("canvas", { id: "head", role: "img", "aria-label": "One head: a row for each token that attends, a column for each that is attended to" });
  // Where tokens are too many to be named, their names take no room.
  const measure = () => {
    const number = facts.sentences[state.sentence].tokens.length;
    const named = (holder.clientWidth - 80) / number >= 9;
    const edge = named ? 76 : 4;
    return { named, edge, cell: Math.min(26, Math.max(5, (holder.clientWidth - edge - 4) / number)) };
  };
  const redraw = () => {
    const sentence = facts.sentences[state.sentence];
    const one = headOf(state.sentence, state.block, state.head);
    const { named, edge, cell } = measure();
    const whole = edge + cell * one.tokens;
    canvas.style.width = `${whole}px`;
    canvas.style.height = `${whole}px`;
    const context = sized(canvas, whole, whole);
    paint(context, one, edge, edge, cell * one.tokens);
    const chosen = Math.min(state.token, one.tokens - 1);
    context.textBaseline = "middle";
    context.fillStyle = variable("ink");
    for (let t = 0; named && t < one.tokens; t++) {
      context.font = `${t === chosen ? "bold " : ""}11px system-ui, sans-serif`;
      context.textAlign = "right";
      context.fillText(clip(sentence.tokens[t]), edge - 5, edge + (t + 0.5) * cell);
      context.save();
      context.translate(edge + (t + 0.5) * cell, edge - 5);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(clip(sentence.tokens[t]), 0, 0);
      context.restore();
    }
    context.strokeStyle = variable("ink");
    context.lineWidth = 1.5;
    context.strokeRect(edge, edge + chosen * cell, cell * one.tokens, cell);
  };
  const where = (event) => {
    const { edge, cell } = measure();
    const box = canvas.getBoundingClientRect();
    return [event.clientY - box.top, event.clientX - box.left].map((at) => Math.floor((at - edge) / cell));
  };
  canvas.addEventListener("pointermove", (event) => {
    const [from, to] = where(event);
    const { tokens } = facts.sentences[state.sentence];
    if (from < 0 || from >= tokens.length) return hideTip();
    return showTip(event, ...saying(from, to));
  });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("click", (event) => {
    const [from] = where(event);
    if (from >= 0 && from < facts.sentences[state.sentence].tokens.length) change({ token: from });
  });
  return { canvas, redraw };
}

function saying(from, to) {
  const { tokens } = facts.sentences[state.sentence];
  const { values } = headOf(state.sentence, state.block, state.head);
  const at = (t) => (values[from * tokens.length + t] / SCALE).toFixed(3);
  if (to >= 0 && to < tokens.length) {
    return [make("bdi", {}, tokens[from]), " attends to ", make("bdi", {}, tokens[to]), `: ${at(to)}`];
  }
  return [make("bdi", {}, tokens[from]), " attends to ", make("bdi", {}, listed(from, 3))];
}

function listed(from, most) {
  const { tokens } = facts.sentences[state.sentence];
  const { values } = headOf(state.sentence, state.block, state.head);
  const order = tokens.map((_, t) => t).sort((a, b) => values[from * tokens.length + b] - values[from * tokens.length + a]);
  return order.slice(0, most).map((t) => `${tokens[t]} ${(values[from * tokens.length + t] / SCALE).toFixed(3)}`).join(", ");
}

// Where a head's attention goes on average; each pair of tokens counts once, under the first description that fits.
function habits() {
  const { tokens, values } = headOf(state.sentence, state.block, state.head);
  const kinds = [["the token itself", (q, k) => q === k], ["the token before", (q, k) => k === q - 1],
    ["the token after", (q, k) => k === q + 1], ["the first token", (q, k) => k === 0],
    ["the last token", (q, k) => k === tokens - 1], ["others", () => true]];
  const sums = kinds.map(() => 0);
  for (let q = 0; q < tokens; q++) {
    for (let k = 0; k < tokens; k++) sums[kinds.findIndex(([, fits]) => fits(q, k))] += values[q * tokens + k] / SCALE;
  }
  return kinds.map(([name], i) => `${name} ${((100 * sums[i]) / tokens).toFixed(0)} %`).join(", ");
}

export function placeAttention(pane, commandOf) {
  const holder = make("div", { id: "attention-view" });
  pane.append(holder);
  if (!facts.sentences.length && !facts.live) return;
  const small = grid(holder);
  const big = large(holder);
  const title = make("h2", {});
  const says = make("p", { id: "attention-says" });
  const usual = make("p", { class: "note", id: "attention-habits" });
  const redraw = () => {
    holder.hidden = state.sentence < 0;
    if (holder.hidden || !holder.clientWidth) return;
    if (!holder.childElementCount) {
      holder.append(make("h2", {}, "Attention: blocks down, heads across"), small.canvas, title, says, big.canvas, usual,
        make("p", { class: "note" }, "Attention says where a head reads from, not what its output is used for. Blocks count from 0: "
          + "block 2 reads hidden_states[2] and writes hidden_states[3]."), commandOf);
    }
    if (!hasArray(`s${state.sentence}-attention`)) {
      holder.replaceChildren(make("h2", {}, "Attention"), make("p", { class: "note" }, facts.why_no_attention));
      return;
    }
    const { tokens } = facts.sentences[state.sentence];
    const from = Math.min(state.token, tokens.length - 1);
    title.textContent = `Head ${state.head} of block ${state.block}`;
    says.replaceChildren(make("b", {}, make("bdi", {}, tokens[from])), " attends to ", make("bdi", {}, listed(from, 4)));
    usual.textContent = `On average over this text's tokens: ${habits()}.`;
    small.redraw();
    big.redraw();
  };
  watch(["sentence", "block", "head", "token", "pane"], redraw);
  new ResizeObserver(redraw).observe(pane);
  onScheme(redraw);
}
