
import { facts, count, pointOf, sentenceOf } from "./data.js";

// The state of the page, kept in the address after "#", or in memory where a frame has no address.

const last = facts.layers.length - 1;
const inFile = facts.sentences.length;
const EXAMPLE = "He sat by the bank of the river, then went to the bank to pay.";
const initial = {
  layer: facts.start, text: inFile ? pointOf(facts.sentences[0].index) : facts.live && count ? 0 : -1, sentence: inFile ? 0 : -1,
  colour: facts.label ?? (facts.columns.length ? 0 : -1), hidden: [], query: "", typed: facts.live && !count ? EXAMPLE : "",
  measure: "last", token: 0, block: 0, head: 0, zoom: 1, x: 0, y: 0, pane: facts.layers.length ? "map" : "text", selected: [],
};
const MEASURE_NAMES = ["last", "cls", "token", "norm"];
const PANES = ["layers", "map", "text"];
const MOST_IN_ADDRESS = 300;
const MOST_TYPED_IN_ADDRESS = 2000;
const watchers = [];
let timer = 0;

export const state = { ...initial };

function wholes(text, below) {
  const kept = [];
  for (const part of text.split(",")) {
    if (/^\d+$/.test(part) && Number(part) < below) kept.push(Number(part));
  }
  return kept;
}

// Values that do not fit this page are ignored: an address may have been typed, or be for another file.
function fromAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const read = { ...initial };
  const whole = (name, below, least = 0) => {
    const value = Number(given.get(name) ?? NaN);
    if (Number.isInteger(value) && value >= least && value < below) read[name] = value;
  };
  whole("layer", last + 1);
  whole("text", count, -1);
  whole("sentence", inFile, -1);
  whole("colour", facts.columns.length, -1);
  whole("token", 512);
  whole("block", Math.max(1, facts.blocks));
  whole("head", Math.max(1, facts.heads));
  for (const name of ["zoom", "x", "y"]) {
    const value = Number(given.get(name) ?? NaN);
    if (Number.isFinite(value) && (name !== "zoom" || (value >= 0.2 && value <= 200))) read[name] = value;
  }
  if (MEASURE_NAMES.includes(given.get("measure"))) read.measure = given.get("measure");
  if (PANES.includes(given.get("pane"))) read.pane = given.get("pane");
  read.query = given.get("query") ?? "";
  if (facts.live && given.has("typed")) Object.assign(read, { typed: given.get("typed"), text: -1, sentence: -1 });
  read.hidden = wholes(given.get("hidden") ?? "", 65536);
  read.selected = wholes(given.get("selected") ?? "", count);
  if (given.has("text") && !given.has("sentence")) read.sentence = sentenceOf(read.text);
  Object.assign(state, read);
}

function toAddress() {
  const kept = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (String(value) === String(initial[name])) continue;
    if (name === "selected" && value.length > MOST_IN_ADDRESS) continue;
    if (name === "typed" && value.length > MOST_TYPED_IN_ADDRESS) continue;
    if (name === "sentence" && value >= inFile) continue; // a server computes it again
    if (name === "text" && state.typed) continue;
    kept.set(name, typeof value === "number" && !Number.isInteger(value) ? value.toPrecision(6) : String(value));
  }
  const address = `#${kept}`;
  if (address === location.hash || (address === "#" && location.hash === "")) return;
  try {
    history.replaceState(null, "", address);
  } catch {
    // In the frame of a notebook there is no address to change.
  }
}

export function watch(names, redraw) {
  watchers.push([names, redraw]);
}

function tell(changed) {
  for (const [names, redraw] of watchers) {
    if (names.some((name) => changed.includes(name))) redraw(changed);
  }
}

export function change(values) {
  const changed = Object.keys(values).filter((name) => values[name] !== state[name]);
  if (!changed.length) return;
  Object.assign(state, values);
  tell(changed);
  clearTimeout(timer);
  timer = setTimeout(toAddress, 150);
}

export function choose(text) {
  change({ text, typed: "", sentence: sentenceOf(text), token: 0 });
}

export function begin() {
  fromAddress();
  tell(Object.keys(state));
  window.addEventListener("hashchange", () => {
    fromAddress();
    tell(Object.keys(state));
  });
}
