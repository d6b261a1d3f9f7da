
// The data of the page: facts as JSON, arrays in base64, decoded when a view first needs them.

const TYPES = { f4: Float32Array, u4: Uint32Array, u2: Uint16Array };
const decoded = new Map();

export const facts = JSON.parse(document.getElementById("facts").textContent);

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

export function decode(kind, text) {
  const bytes = bytesOf(text);
  return new TYPES[kind](bytes.buffer, bytes.byteOffset, bytes.byteLength / TYPES[kind].BYTES_PER_ELEMENT);
}

export function hasArray(name) {
  return name in facts.arrays;
}

export function array(name) {
  let values = decoded.get(name);
  if (values === undefined) {
    const block = document.getElementById(`array-${name}`);
    values = decode(facts.arrays[name][0], block.textContent);
    block.remove();
    decoded.set(name, values);
  }
  return values;
}

export function shapeOf(name) {
  return facts.arrays[name].slice(1);
}

// Arrays of a sentence that a server computed join those of the file.
export function addArray(name, kind, shape, text) {
  facts.arrays[name] = [kind, ...shape];
  decoded.set(name, decode(kind, text));
}

export function dropArrays(beginning) {
  for (const name of Object.keys(facts.arrays)) {
    if (!name.startsWith(beginning)) continue;
    delete facts.arrays[name];
    decoded.delete(name);
  }
}

export const count = facts.count;
export const hasTexts = facts.texts !== null;

// A point is a text, or a word, span or token of one.
export const unit = facts.unit ?? "text";
export const isWhole = unit === "text";

// The text of a point in three parts, before it, itself and after it, with at most so many characters around it.
// Characters are counted as in Python, where an emoji is one.
export function contextOf(i, around = Infinity) {
  if (!facts.contexts) return null;
  const characters = [...facts.contexts[array("context")[i]]];
  const [begin, end] = [array("begin")[i], array("end")[i]];
  const [from, to] = [Math.max(0, begin - around), Math.min(characters.length, end + around)];
  const part = (first, last) => characters.slice(first, last).join("");
  return [(from > 0 ? "…" : "") + part(from, begin), part(begin, end), part(end, to) + (to < characters.length ? "…" : "")];
}

export function textOf(i) {
  if (!hasTexts) {
    const row = `row ${facts.rows[i]}${facts.ids ? `, id ${facts.ids[i]}` : ""}`;
    return isWhole ? row : `${row}, ${unit} ${array("number")[i]}`;
  }
  return facts.texts[i] === "" ? "(empty text)" : facts.texts[i];
}

export function labelOf(i) {
  return facts.label === null ? null : valueOf(facts.label, i);
}

export function valueOf(column, i) {
  const { kind, names } = facts.columns[column];
  const value = array(`column${column}`)[i];
  return kind === "classes" ? names[value] : Number.isInteger(value) ? String(value) : value.toPrecision(4);
}

// The number of the sentence (a text with tokens and attentions) of a text, or -1.
export function sentenceOf(text) {
  const whole = isWhole || text < 0 ? text : array("context")[text];
  return facts.sentences.findIndex((sentence) => sentence.index === whole);
}

// The first point of a text, or -1.
export function pointOf(index) {
  return isWhole ? index : array("context").indexOf(index);
}
