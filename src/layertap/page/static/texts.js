
import { make, byId, marked } from "./dom.js";
import { facts, contextOf, hasTexts, unit, textOf, labelOf, valueOf } from "./data.js";
import { state, change, choose, watch } from "./state.js";
import { colourOf, onScheme } from "./colours.js";
import { copyButton, download, idsOf, jsonlOf } from "./exporting.js";
import { matches } from "./map.js";

// Texts as lists: the chosen one, those that a search finds, those that were selected on the map.

const MOST_LISTED = 200;

export function textItem(i, before) {
  const dot = make("span", { class: "dot" });
  dot.style.background = colourOf(i);
  return make("li", {}, make(
    "button",
    { type: "button", "aria-current": String(i === state.text), onclick: () => choose(i),
      title: labelOf(i) === null ? `row ${facts.rows[i]}` : `${labelOf(i)}, row ${facts.rows[i]}` },
    before === undefined ? null : make("span", { class: "number" }, before), dot,
    make("span", { class: "text", dir: "auto" }, textOf(i),
      facts.contexts ? marked(contextOf(i, 40), { class: "faint context" }) : ""),
  ));
}

function listOf(texts) {
  const list = make("ul", { class: "list" }, ...texts.slice(0, MOST_LISTED).map((i) => textItem(i)));
  if (texts.length > MOST_LISTED) {
    list.append(make("li", { class: "note" }, `and ${(texts.length - MOST_LISTED).toLocaleString("en")} more, which copies and downloads hold`));
  }
  return list;
}

function exportRow(texts, name) {
  return make(
    "div", { class: "row" },
    copyButton(facts.ids ? "Copy ids" : "Copy row numbers", () => idsOf(texts), "ids"),
    copyButton("Copy JSONL", () => jsonlOf(texts), "JSONL"),
    make("button", { type: "button", onclick: () => download(jsonlOf(texts), name) }, "Download JSONL"),
  );
}

export function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

// How many of some texts have each label, the most frequent ones first.
function labelsOf(texts) {
  if (facts.label === null || facts.columns[facts.label].kind !== "classes") return "";
  const counts = new Map();
  for (const i of texts) counts.set(labelOf(i), (counts.get(labelOf(i)) ?? 0) + 1);
  const sorted = [...counts].sort((one, other) => other[1] - one[1]);
  const shown = sorted.slice(0, 8).map(([name, number]) => `${name} ${number.toLocaleString("en")}`);
  return shown.join(" · ") + (sorted.length > 8 ? ` · and ${sorted.length - 8} more` : "");
}

function drawSelected(holder) {
  holder.replaceChildren();
  if (!state.selected.length) return;
  const clear = make("button", { type: "button", onclick: () => change({ selected: [] }) }, "Clear the selection");
  const row = exportRow(state.selected, "selected.jsonl");
  row.append(clear);
  holder.append(
    make("h2", {}, `Selected: ${counted(state.selected.length, unit)}`), row,
    make("p", { class: "note", id: "selected-labels", dir: "auto" }, labelsOf(state.selected)),
    make("div", { class: "selection" }, listOf(state.selected)),
  );
}

function drawSearch(holder) {
  holder.replaceChildren();
  const listed = matches();
  if (listed === null) return;
  holder.append(make("h2", {}, `Search: ${counted(listed.length, unit)}`));
  if (listed.length) holder.append(exportRow(listed, "search.jsonl"), listOf(listed));
  else holder.append(make("p", { class: "note" }, `No ${unit} contains this. The search takes the characters as they stand, in either case.`));
}

function drawChosen(holder) {
  holder.replaceChildren();
  if (state.text < 0) {
    if (state.typed) holder.append(make("h3", { dir: "auto" }, state.typed), make("p", { class: "faint" }, "typed; not among the texts of the map"));
    else if (state.sentence >= 0) holder.append(make("h3", { dir: "auto" }, facts.sentences[state.sentence].text));
    else holder.append(make("h3", {}, `Choose a ${unit}`), make("p", { class: "faint" }, "Click a point of the map, or search."));
    return;
  }
  const values = facts.columns.map(({ name }, c) => `${name}: ${valueOf(c, state.text)}`);
  holder.append(
    make("h3", { dir: "auto" }, textOf(state.text)),
    facts.contexts ? marked(contextOf(state.text), { class: "context" }) : "",
    make("p", { class: "faint", dir: "auto" }, [`row ${facts.rows[state.text]}`, ...(facts.ids ? [`id ${facts.ids[state.text]}`] : []), ...values].join(" · ")),
  );
}

export function searchBox() {
  const box = make("input", {
    type: "search", id: "search", placeholder: `Search ${unit}s  /`, "aria-label": `Search ${unit}s`, disabled: !hasTexts,
  });
  let timer = 0;
  box.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => change({ query: box.value }), 120);
  });
  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "TEXTAREA", "SELECT"].includes(event.target.tagName) && event.target.type !== "range";
    if (event.key === "/" && !typing) {
      box.focus();
      event.preventDefault();
    } else if (event.key === "Escape") {
      box.value = "";
      change({ query: "", selected: [] });
    } else if ((event.key === "," || event.key === ".") && !typing) {
      const layer = state.layer + (event.key === "." ? 1 : -1);
      if (layer >= 0 && layer < facts.layers.length) change({ layer });
    }
  });
  watch(["query"], () => { if (box !== document.activeElement) box.value = state.query; });
  return box;
}

export function placeTexts(pane) {
  const [selected, search, chosen] = ["selected", "results", "chosen"].map((id) => make("div", { id }));
  pane.append(selected, search, chosen);
  const all = () => { drawSelected(selected); drawSearch(search); drawChosen(chosen); };
  watch(["selected", "colour", "text"], () => drawSelected(selected));
  watch(["query", "colour", "text"], () => drawSearch(search));
  watch(["text", "sentence", "typed"], () => drawChosen(chosen));
  watch(["text", "selected"], (changed) => {
    if (changed.length < 6 && byId("panes").offsetParent !== null && (state.text >= 0 || state.selected.length)) {
      change({ pane: "text" });
    }
  });
  // What was selected or found stands at the top.
  watch(["selected", "query"], (changed) => {
    if (changed.length < 6 && (state.selected.length || state.query)) pane.scrollTop = 0;
  });
  onScheme(all);
}
