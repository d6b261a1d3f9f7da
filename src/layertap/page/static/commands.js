
import { make } from "./dom.js";
import { facts, array, hasArray, hasTexts } from "./data.js";
import { state, watch } from "./state.js";
import { copyButton } from "./exporting.js";

// Below each view, the command line or the Python lines that give its numbers.

// A string as Python writes it; JSON's escapes are Python's, too.
function quoted(text) {
  return JSON.stringify(text);
}

function filled(template) {
  const sentence = state.sentence >= 0 ? facts.sentences[state.sentence].text : "";
  const text = state.text >= 0 && hasTexts ? facts.texts[state.text] : sentence;
  const values = {
    FEATURE: facts.layers[state.layer]?.feature, NAME: facts.layers[state.layer]?.column ?? "v", INDEX: String(state.text),
    VECTORS: facts.layers[state.layer]?.code ?? "", UNIT: state.text >= 0 && hasArray("number") ? String(array("number")[state.text]) : "0",
    ROW: state.text >= 0 ? String(facts.rows[state.text]) : "0", TEXT: quoted(text), SENTENCE: quoted(sentence),
    BLOCK: String(state.block), HEAD: String(state.head),
  };
  return template.replace(/\{([A-Z]+)\}/g, (whole, name) => values[name] ?? whole);
}

export function command(name) {
  const template = facts.commands[name];
  if (!template) return make("div", {});
  const code = make("pre", { "data-command": name });
  const head = make("div", {}, make("h2", {}, "The same numbers"), copyButton("Copy", () => code.textContent, "command"));
  const holder = make("div", { class: "command" }, head, code);
  watch(["layer", "text", "sentence", "block", "head"], () => { code.textContent = filled(template); });
  return holder;
}
