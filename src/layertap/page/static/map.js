
import { make, byId, marked, sized, showTip, hideTip } from "./dom.js";
import { facts, array, hasArray, count, contextOf, hasTexts, textOf, labelOf, unit } from "./data.js";
import { state, change, choose, watch } from "./state.js";
import { colouring, onScheme, rgb, variable, scheme } from "./colours.js";

// The map: a point for each text, its place the projection of its vector at the chosen layer.

const still = window.matchMedia("(prefers-reduced-motion: reduce)");
const MANY = 20000;
const MOVE_MS = 320;
const OPACITY = 0.92;
const canvas = make("canvas", {
  id: "map", tabindex: "0", role: "img",
  "aria-label": `Map of the ${unit}s. Arrow keys move it, plus and minus zoom, 0 shows all, comma and full stop change `
    + "the layer.",
});
let tool = "move";
let typedPlace = null; // where the typed text is drawn
let places = null; // where points are drawn: those of a layer, or between two while they move
let moving = 0;
let planned = 0;
let gesture = null;
let ringed = [];
let visible = null;
let matching = null;

function visibleMarks() {
  if (visible === null) visible = markVisible();
  return visible;
}

function isVisible(i) {
  return visibleMarks()[i] === 1;
}

export function matches() {
  if (matching === null) matching = markMatching();
  return matching;
}

function markVisible() {
  const marks = new Uint8Array(count).fill(1);
  const { numbers } = colouring(state.colour);
  if (numbers && state.hidden.length && facts.columns[state.colour].kind === "classes") {
    const hidden = new Set(state.hidden);
    for (let i = 0; i < count; i++) if (hidden.has(numbers[i])) marks[i] = 0;
  }
  return marks;
}

function markMatching() {
  const query = state.query.trim().toLowerCase();
  if (query === "" || !hasTexts) return null;
  const listed = [];
  for (let i = 0; i < count; i++) if (facts.texts[i].toLowerCase().includes(query)) listed.push(i);
  return listed;
}

function view() {
  const { clientWidth: width, clientHeight: height } = canvas;
  const [rx, ry, cx, cy] = facts.extent;
  const scale = Math.min(width / rx, height / ry) * 0.47 * state.zoom;
  return { width, height, scale, x: cx + state.x, y: cy + state.y };
}

function atPlace([x, y], now) {
  return [now.width / 2 + (x - now.x) * now.scale, now.height / 2 - (y - now.y) * now.scale];
}

function screen(i, now) {
  return atPlace([places[2 * i], places[2 * i + 1]], now);
}

function plan() {
  if (!planned) planned = requestAnimationFrame(() => { planned = 0; draw(); });
}

export function draw() {
  const now = view();
  if (!now.width) return;
  const context = sized(canvas, now.width, now.height);
  if (places === null) places = array(`points${state.layer}`);
  const { palette, numbers } = colouring(state.colour);
  const found = matches();
  const faded = found !== null || state.selected.length > 0;
  const strong = faded ? new Uint8Array(count) : null;
  for (const i of state.selected.length ? state.selected : found ?? []) strong[i] = 1;
  (count > MANY ? drawPixels : drawDots)(context, now, palette, numbers, strong);
  drawRings(context, now);
  drawGesture(context);
}

function drawDots(context, now, palette, numbers, strong) {
  const radius = count > 5000 ? 2 : count > 1500 ? 2.8 : 3.6;
  for (const pass of strong ? [0, 1] : [1]) {
    for (let c = 0; c < palette.length; c++) {
      context.fillStyle = palette[c];
      context.globalAlpha = pass ? OPACITY : 0.13;
      for (let i = 0; i < count; i++) {
        if ((numbers && numbers[i] !== c) || !isVisible(i) || (strong && strong[i] !== pass)) continue;
        const [x, y] = screen(i, now);
        if (x < -9 || y < -9 || x > now.width + 9 || y > now.height + 9) continue;
        context.beginPath();
        context.arc(x, y, radius, 0, 7);
        context.fill();
      }
    }
  }
  context.globalAlpha = 1;
}

// Many points are written as pixels, which takes a tenth of the time of circles.
function drawPixels(context, now, palette, numbers, strong) {
  const [wide, high] = [canvas.width, canvas.height];
  const image = context.createImageData(wide, high);
  const pixels = new Uint32Array(image.data.buffer);
  const inks = palette.map((colour) => {
    const [r, g, b] = rgb(colour);
    return (b << 16) | (g << 8) | r;
  });
  const ratio = wide / now.width;
  const side = Math.max(2, Math.round(2 * ratio));
  const seen = visibleMarks();
  const scale = now.scale * ratio;
  const [left0, top0] = [wide / 2 - now.x * scale - side / 2, high / 2 + now.y * scale - side / 2];
  for (const pass of strong ? [0, 1] : [1]) {
    const alpha = (pass ? 255 * OPACITY : 45) << 24;
    for (let i = 0; i < count; i++) {
      if (seen[i] === 0 || (strong !== null && strong[i] !== pass)) continue;
      const left = (left0 + places[2 * i] * scale) | 0;
      const top = (top0 - places[2 * i + 1] * scale) | 0;
      if (left < 0 || top < 0 || left + side > wide || top + side > high) continue;
      const ink = (alpha | inks[numbers === null ? 0 : numbers[i]]) >>> 0;
      for (let y = 0, at = top * wide + left; y < side; y++, at += wide) {
        for (let x = 0; x < side; x++) pixels[at + x] = ink;
      }
    }
  }
  context.putImageData(image, 0, 0);
}

function drawRings(context, now) {
  context.strokeStyle = variable("ink");
  for (const i of ringed) ring(context, screen(i, now), 6, 1.3);
  if (typedPlace !== null) diamond(context, atPlace(typedPlace, now));
  if (state.text >= 0) ring(context, screen(state.text, now), 8, 2.4);
}

function ring(context, [x, y], radius, width) {
  context.lineWidth = width;
  context.beginPath();
  context.arc(x, y, radius, 0, 7);
  context.stroke();
}

function diamond(context, [x, y]) {
  context.beginPath();
  context.moveTo(x, y - 9);
  for (const [dx, dy] of [[9, 0], [0, 9], [-9, 0]]) context.lineTo(x + dx, y + dy);
  context.closePath();
  context.fillStyle = variable("accent");
  context.fill();
  context.lineWidth = 2;
  context.strokeStyle = variable("panel");
  context.stroke();
  context.font = "bold 12px system-ui, sans-serif";
  context.textAlign = x > canvas.clientWidth - 60 ? "right" : "left";
  context.textBaseline = "middle";
  context.lineWidth = 4;
  const left = x + (context.textAlign === "right" ? -14 : 14);
  context.strokeText("typed", left, y);
  context.fillText("typed", left, y);
}

// The place of the typed text on the map of the chosen layer, or null where there is none.
function placeOfTyped() {
  const name = `s${state.sentence}-place`;
  if (state.text >= 0 || state.sentence < 0 || !hasArray(name)) return null;
  return array(name).subarray(2 * state.layer, 2 * state.layer + 2);
}

function drawGesture(context) {
  if (!gesture?.path) return;
  context.beginPath();
  const [first, ...rest] = gesture.path;
  if (tool === "box") {
    const [x, y] = rest.at(-1) ?? first;
    context.rect(first[0], first[1], x - first[0], y - first[1]);
  } else {
    context.moveTo(...first);
    for (const point of rest) context.lineTo(...point);
    context.closePath();
  }
  context.fillStyle = variable("accent");
  context.strokeStyle = variable("accent");
  context.globalAlpha = 0.12;
  context.fill();
  context.globalAlpha = 1;
  context.lineWidth = 1.3;
  context.stroke();
}

export function ringNeighbours(texts) {
  ringed = texts;
  plan();
}

function move() {
  const to = array(`points${state.layer}`);
  const typedTo = placeOfTyped();
  const typedFrom = typedPlace ?? typedTo;
  cancelAnimationFrame(moving);
  typedPlace = typedTo;
  if (places === null || still.matches || count > MANY) {
    places = to;
    plan();
    return;
  }
  const from = Float32Array.from(places);
  const begun = performance.now();
  const step = (now) => {
    const share = Math.min(1, Math.max(0, (now - begun) / MOVE_MS));
    const eased = share * share * (3 - 2 * share);
    places = share === 1 ? to : from.map((value, k) => value + (to[k] - value) * eased);
    if (typedTo !== null) typedPlace = typedTo.map((value, k) => typedFrom[k] + (value - typedFrom[k]) * eased);
    draw();
    if (share < 1) moving = requestAnimationFrame(step);
  };
  moving = requestAnimationFrame(step);
}

function nearest(x, y, within) {
  const now = view();
  let best = -1;
  let least = within * within;
  for (let i = 0; i < count; i++) {
    const dx = now.width / 2 + (places[2 * i] - now.x) * now.scale - x;
    const dy = now.height / 2 - (places[2 * i + 1] - now.y) * now.scale - y;
    if (dx * dx + dy * dy < least && isVisible(i)) {
      least = dx * dx + dy * dy;
      best = i;
    }
  }
  return best;
}

function inside(path) {
  const now = view();
  const [xs, ys] = [path.map((p) => p[0]), path.map((p) => p[1])];
  const [left, right] = [Math.min(...xs), Math.max(...xs)];
  const [top, bottom] = [Math.min(...ys), Math.max(...ys)];
  const kept = [];
  for (let i = 0; i < count; i++) {
    if (!isVisible(i)) continue;
    const [x, y] = screen(i, now);
    if (x < left || x > right || y < top || y > bottom) continue;
    if (tool === "box" || isWithin(path, x, y)) kept.push(i);
  }
  return kept;
}

function isWithin(path, x, y) {
  let within = false;
  for (let i = 0, j = path.length - 1; i < path.length; j = i++) {
    const [[xi, yi], [xj, yj]] = [path[i], path[j]];
    if (yi > y !== yj > y && x < ((xj - xi) * (y - yi)) / (yj - yi) + xi) within = !within;
  }
  return within;
}

function zoomAt(factor, px, py) {
  const now = view();
  const zoom = Math.max(0.2, Math.min(200, state.zoom * factor));
  const [dx, dy] = [(px - now.width / 2) / now.scale, (now.height / 2 - py) / now.scale];
  const share = 1 - state.zoom / zoom;
  change({ zoom, x: state.x + dx * share, y: state.y + dy * share });
}

function at(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

const fingers = new Map();

function onDown(event) {
  canvas.setPointerCapture(event.pointerId);
  fingers.set(event.pointerId, at(event));
  hideTip();
  gesture = { from: at(event), x: state.x, y: state.y, moved: false, path: tool === "move" ? null : [at(event)] };
  if (fingers.size === 2) gesture = { pinch: distance(), moved: true };
}

function distance() {
  const [a, b] = [...fingers.values()];
  return Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
}

function onMove(event) {
  const [x, y] = at(event);
  if (!gesture) {
    hover(event, x, y);
    return;
  }
  fingers.set(event.pointerId, [x, y]);
  if (gesture.pinch) {
    const [a, b] = [...fingers.values()];
    if (!b) return;
    const apart = distance();
    zoomAt(apart / gesture.pinch, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
    gesture.pinch = apart;
    return;
  }
  const [dx, dy] = [x - gesture.from[0], y - gesture.from[1]];
  if (Math.hypot(dx, dy) > 4) gesture.moved = true;
  if (!gesture.moved) return;
  if (gesture.path) {
    gesture.path.push([x, y]);
    plan();
  } else {
    const { scale } = view();
    change({ x: gesture.x - dx / scale, y: gesture.y + dy / scale });
  }
}

function onUp(event) {
  fingers.delete(event.pointerId);
  const ended = gesture;
  if (!ended || fingers.size) return;
  gesture = null;
  if (!ended.moved) {
    const picked = nearest(...at(event), event.pointerType === "touch" ? 22 : 12);
    if (picked >= 0) choose(picked);
  } else if (ended.path) {
    change({ selected: inside(tool === "box" ? [ended.path[0], ended.path.at(-1)] : ended.path) });
  }
  plan();
}

function hover(event, x, y) {
  const over = event.pointerType === "touch" ? -1 : nearest(x, y, 9);
  canvas.style.cursor = over >= 0 ? "pointer" : "";
  if (over < 0) {
    hideTip();
    return;
  }
  const label = labelOf(over);
  const text = textOf(over);
  showTip(
    event,
    make("div", { dir: "auto" }, text.length > 300 ? `${text.slice(0, 300)} …` : text),
    facts.contexts ? marked(contextOf(over, 90), { class: "context" }) : "",
    make("div", { class: "faint" }, `${label === null ? "" : `${label} · `}row ${facts.rows[over]}`),
  );
}

const KEYS = {
  ArrowLeft: () => pan(-40, 0), ArrowRight: () => pan(40, 0), ArrowUp: () => pan(0, 40), ArrowDown: () => pan(0, -40),
  "+": () => zoomMiddle(1.3), "=": () => zoomMiddle(1.3), "-": () => zoomMiddle(1 / 1.3),
  0: () => change({ zoom: 1, x: 0, y: 0 }),
};

function pan(dx, dy) {
  const { scale } = view();
  change({ x: state.x + dx / scale, y: state.y + dy / scale });
}

function zoomMiddle(factor) {
  zoomAt(factor, canvas.clientWidth / 2, canvas.clientHeight / 2);
}

function onKey(event) {
  const act = event.ctrlKey || event.metaKey ? undefined : KEYS[event.key];
  if (act) {
    act();
    event.preventDefault();
  }
}

function toolButtons() {
  const buttons = [["move", "Move"], ["box", "Box"], ["lasso", "Lasso"]].map(([name, words]) => {
    const button = make("button", { type: "button", "aria-pressed": String(name === tool) }, words);
    button.addEventListener("click", () => {
      tool = name;
      canvas.classList.toggle("drawing", name !== "move");
      buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
    });
    return button;
  });
  return buttons;
}

export function placeMap(pane, commandOf) {
  const name = make("b", { id: "layer-name" });
  const slider = make("input", {
    type: "range", id: "layer", min: 0, max: facts.layers.length - 1, step: 1, "aria-label": "Layer",
  });
  slider.addEventListener("input", () => change({ layer: Number(slider.value) }));
  const zooms = [["−", "Zoom out", () => zoomMiddle(1 / 1.4)], ["+", "Zoom in", () => zoomMiddle(1.4)],
    ["All", "Show all points", () => change({ zoom: 1, x: 0, y: 0 })]]
    .map(([words, says, act]) => make("button", { type: "button", title: says, "aria-label": says, onclick: act }, words));
  const held = make("p", { class: "note", id: "map-note" });
  const context = canvas.getContext("2d");
  pane.append(
    make("div", { class: "row" }, name, slider, make("div", { class: "row" }, ...toolButtons(), ...zooms)),
    make("div", { id: "map-holder" }, canvas),
    held,
    commandOf,
  );
  if (!context) {
    held.textContent = "This browser draws no canvas, so there is no map. Lists, neighbours and figures work.";
    return;
  }
  canvas.addEventListener("pointerdown", onDown);
  canvas.addEventListener("pointermove", onMove);
  canvas.addEventListener("pointerup", onUp);
  canvas.addEventListener("pointercancel", (event) => { fingers.delete(event.pointerId); gesture = null; plan(); });
  canvas.addEventListener("pointerleave", hideTip);
  canvas.addEventListener("keydown", onKey);
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    hideTip();
    zoomAt(Math.exp(-event.deltaY * 0.0016), ...at(event));
  }, { passive: false });
  new ResizeObserver(plan).observe(canvas);
  onScheme(plan);
  watch(["layer"], () => {
    const { name: title, variance } = facts.layers[state.layer];
    name.textContent = title;
    slider.value = state.layer;
    slider.setAttribute("aria-valuetext", title);
    held.textContent = `First two principal components, which hold ${(100 * (variance[0] + variance[1])).toFixed(1)} % `
      + "of the variance of this layer, scaled to one size and turned onto those of the layer before. Distances on "
      + "the map are not distances in the full space: the list of nearest texts is.";
    move();
  });
  watch(["colour", "hidden"], () => { visible = null; plan(); });
  watch(["query"], () => { matching = null; plan(); });
  watch(["sentence", "text"], () => { typedPlace = placeOfTyped(); });
  watch(["text", "sentence", "selected", "zoom", "x", "y"], plan);
  byId("map").dataset.scheme = scheme();
}
