
import { facts, array } from "./data.js";
import { state } from "./state.js";

// Colours of points and of heat maps, for the light and the dark scheme.

const dark = window.matchMedia("(prefers-color-scheme: dark)");
// Distinct for colour-blind readers, and each with a contrast of at least 3 to the ground (`plots/style.py` has them, too).
const CLASSES = {
  light: ["#1f6389", "#ec5675", "#265b16", "#af8201", "#3992b8", "#7d46ce", "#b15a08", "#628d73", "#5f2f52", "#4b694a"],
  dark: ["#79b8dc", "#ca657c", "#7da700", "#ddd15a", "#88e0fc", "#866bc9", "#a76935", "#a1ddac", "#ab86b5", "#a8b178"],
};
const OTHERS = { light: "#858585", dark: "#7d848c" };
const RAMP = { light: ["#00306e", "#6f7072", "#a08400"], dark: ["#5a8fd6", "#a3a39c", "#fde737"] };

export function scheme() {
  return dark.matches ? "dark" : "light";
}

export function onScheme(redraw) {
  dark.addEventListener("change", () => redraw());
}

export function variable(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

export function rgb(hex) {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

export function mix(from, to, share) {
  const [one, other] = [rgb(from), rgb(to)];
  return `#${one.map((v, i) => Math.round(v + (other[i] - v) * share).toString(16).padStart(2, "0")).join("")}`;
}

function ramp(share) {
  const [low, middle, high] = RAMP[scheme()];
  return share < 0.5 ? mix(low, middle, share * 2) : mix(middle, high, share * 2 - 1);
}

export const STEPS = 16;

// Colours of a column, and the number of the colour of each text.
export function colouring(column) {
  if (column < 0) return { palette: [variable("accent")], numbers: null };
  const { kind, names, low, high } = facts.columns[column];
  const values = array(`column${column}`);
  if (kind === "classes") {
    const set = CLASSES[scheme()];
    return { palette: names.map((_, i) => set[i] ?? OTHERS[scheme()]), numbers: values };
  }
  const width = high - low || 1;
  const numbers = new Uint16Array(values.length);
  for (let i = 0; i < values.length; i++) {
    numbers[i] = Math.min(STEPS - 1, Math.floor(((values[i] - low) / width) * STEPS));
  }
  return { palette: Array.from({ length: STEPS }, (_, i) => ramp(i / (STEPS - 1))), numbers };
}

export function colourOf(text) {
  const { palette, numbers } = colouring(state.colour);
  return palette[numbers ? numbers[text] : 0];
}

export function heat(share) {
  return mix(variable("heat-low"), variable("heat-high"), Math.max(0, Math.min(1, share)));
}

// Ink that can be read on a cell of a heat map: black or white, with a contrast of at least 4.5 to any colour.
export function inkOn(colour) {
  const [r, g, b] = rgb(colour).map((v) => (v <= 10 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000000" : "#ffffff";
}
