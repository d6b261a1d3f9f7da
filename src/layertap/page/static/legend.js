
import { make } from "./dom.js";
import { facts, array, unit } from "./data.js";
import { state, change, watch } from "./state.js";
import { colouring, onScheme } from "./colours.js";

// The legend: what colours mean. A click on a class shows or hides its texts.

function countsOf(column) {
  const counts = new Uint32Array(facts.columns[column].names.length);
  for (const value of array(`column${column}`)) counts[value] += 1;
  return counts;
}

function classItem(column, name, number, colour, total) {
  const isOff = state.hidden.includes(number);
  const dot = make("span", { class: "dot" });
  dot.style.background = colour;
  const toggle = () => {
    const others = state.hidden.filter((hidden) => hidden !== number);
    change({ hidden: isOff ? others : [...others, number] });
  };
  const only = () => {
    const all = facts.columns[column].names.map((_, i) => i).filter((i) => i !== number);
    change({ hidden: state.hidden.length === all.length && !isOff ? [] : all });
  };
  return make("li", {}, make(
    "button",
    { type: "button", "aria-label": `${name}, ${total} ${unit}s, ${isOff ? "hidden" : "shown"}`,
      title: "Click: show or hide. Double-click: this one only.", onclick: toggle, ondblclick: only },
    dot, make("span", { class: `text${isOff ? " off" : ""}`, dir: "auto" }, name),
    make("span", { class: "number" }, total.toLocaleString("en")),
  ));
}

function numberItem(colour, low, high) {
  const dot = make("span", { class: "dot" });
  dot.style.background = colour;
  return make("li", { class: "row" }, dot, make("span", { class: "number" }, `${short(low)} to ${short(high)}`));
}

function short(value) {
  return Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(3);
}

export function legend() {
  const holder = make("div", { id: "legend" });
  const choice = make("select", { id: "colour", "aria-label": "Colour by" });
  facts.columns.forEach(({ name }, i) => choice.append(make("option", { value: i }, name)));
  choice.append(make("option", { value: -1 }, "one colour"));
  choice.addEventListener("change", () => change({ colour: Number(choice.value), hidden: [] }));
  const list = make("ul", { class: "list" });
  holder.append(make("h2", {}, "Colour"), choice, list);
  const redraw = () => {
    choice.value = String(state.colour);
    list.replaceChildren();
    if (state.colour < 0) return;
    const { kind, names, low, high } = facts.columns[state.colour];
    const { palette } = colouring(state.colour);
    if (kind === "classes") {
      const counts = countsOf(state.colour);
      list.append(...names.map((name, i) => classItem(state.colour, name, i, palette[i], counts[i])));
      if (state.hidden.length) {
        list.append(make("li", {}, make("button", { type: "button", onclick: () => change({ hidden: [] }) }, "Show all")));
      }
    } else {
      for (const step of [0, 5, 10, 15]) {
        const width = (high - low) / palette.length;
        list.append(numberItem(palette[step], low + step * width, low + (step + 1) * width));
      }
    }
  };
  watch(["colour", "hidden"], () => {
    const index = [...list.querySelectorAll("button")].indexOf(document.activeElement);
    redraw();
    if (index >= 0) list.querySelectorAll("button")[index]?.focus();
  });
  onScheme(redraw);
  return holder;
}
