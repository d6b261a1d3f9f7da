
import { facts, array, isWhole, unit, valueOf, hasTexts } from "./data.js";
import { make, say } from "./dom.js";

// Texts as ids or JSON Lines, to the clipboard or a file.

export function idsOf(texts) {
  return texts.map((i) => String(facts.ids ? facts.ids[i] : facts.rows[i])).join("\n") + "\n";
}

export function jsonlOf(texts) {
  const lines = texts.map((i) => {
    const row = { row: facts.rows[i] };
    if (facts.ids) row.id = facts.ids[i];
    if (hasTexts) row[unit] = facts.texts[i];
    if (!isWhole) Object.assign(row, { number: array("number")[i], begin: array("begin")[i], end: array("end")[i] });
    if (facts.contexts) row.text = facts.contexts[array("context")[i]];
    facts.columns.forEach(({ name, carried }, c) => {
      if (carried) row[name] = valueOf(c, i);
    });
    return JSON.stringify(row);
  });
  return lines.join("\n") + "\n";
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(`${what} copied`);
}

export function download(text, name) {
  const address = URL.createObjectURL(new Blob([text], { type: "application/x-ndjson" }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

export function copyButton(words, textNow, what) {
  const button = make("button", { type: "button" }, words);
  button.addEventListener("click", async () => {
    await copy(textNow(), what);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = words; }, 1200);
  });
  return button;
}
