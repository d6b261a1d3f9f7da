
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

export function textOf(i) {
  if (!hasTexts) return `row ${facts.rows[i]}${facts.ids ? `, id ${facts.ids[i]}` : ""} (the file holds no texts)`;
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
  return facts.sentences.findIndex((sentence) => sentence.index === text);
}
