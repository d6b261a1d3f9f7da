
// Elements of the page. Texts become text nodes only, so that markup in them stays text.

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function byId(id) {
  return document.getElementById(id);
}

// A text in three parts, of which the middle one is marked.
export function marked([before, middle, after], attributes) {
  return make("div", { dir: "auto", ...attributes }, before, make("mark", {}, middle), after);
}

export function say(text) {
  byId("say").textContent = text;
}

// Takes all drawing and draws nothing, for browsers that draw no canvas.
const nowhere = new Proxy(() => {}, {
  get: (_, name) => (typeof name === "symbol" ? () => "" : nowhere), set: () => true, apply: () => nowhere,
});

// Prepares a canvas for its size in CSS pixels; drawing is in these.
export function sized(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
  }
  const context = canvas.getContext("2d") ?? nowhere;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

export function showTip(event, ...children) {
  const tip = byId("tip");
  tip.replaceChildren(...children);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, window.innerWidth - box.width - 6);
  const below = event.clientY + 16;
  const top = below + box.height > window.innerHeight ? event.clientY - box.height - 10 : below;
  tip.style.left = `${Math.max(6, left)}px`;
  tip.style.top = `${Math.max(6, top)}px`;
}

export function hideTip() {
  byId("tip").hidden = true;
}

export function signed(value, digits = 3) {
  return (value < 0 ? "−" : "") + Math.abs(value).toFixed(digits);
}
