
import { make, say } from "./dom.js";
import { facts, hasTexts, addArray, dropArrays, sentenceOf } from "./data.js";
import { state, change, watch } from "./state.js";

// Texts that the server computes when they are asked for: typed ones, and those of the map whose tokens are shown.

const MOST_KEPT = 16;
const kept = facts.sentences.length; // sentences of the file come first
let next = 0;
let running = null;

function keep(sentence, arrays) {
  const number = kept + next;
  next = (next + 1) % MOST_KEPT;
  dropArrays(`s${number}-`);
  for (const [name, [kind, ...rest]] of Object.entries(arrays)) addArray(`s${number}-${name}`, kind, rest.slice(0, -1), rest.at(-1));
  facts.sentences[number] = sentence;
  return number;
}

async function refusal(answer) {
  try {
    const { error } = await answer.json();
    return typeof error === "string" ? error : error.message;
  } catch {
    return `The server answered with the status ${answer.status}.`;
  }
}

// The answer of the server, or what is wrong, in words.
async function asked(text, signal) {
  let answer;
  try {
    answer = await fetch("page/sentence", {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ text }), signal,
    });
  } catch {
    return { wrong: "The server does not answer. Is it still running?" };
  }
  if (!answer.ok) return { wrong: await refusal(answer) };
  try {
    return await answer.json();
  } catch {
    return { wrong: "The answer of the server broke off. Try again." };
  }
}

function wrongWith(text) {
  const size = [...text].length;
  const most = facts.live.most_characters;
  if (text.trim() === "") return "There is no text. Type one.";
  if (size > most) {
    return `This text has ${size.toLocaleString("en")} characters, and the page shows texts of at most ${most.toLocaleString("en")}. Shorten it.`;
  }
  return "";
}

async function compute(text, index, status) {
  running?.abort();
  const mine = new AbortController();
  running = mine;
  const wrong = wrongWith(text);
  status.className = wrong ? "notice" : "note";
  status.textContent = wrong || "Computing …";
  if (wrong) return;
  const { sentence, arrays, wrong: refused } = await asked(text, mine.signal);
  if (mine !== running) return;
  running = null;
  status.className = refused ? "notice" : "note";
  status.textContent = refused ?? "";
  if (refused) return;
  change({ sentence: keep({ ...sentence, index }, arrays) });
  say(`${sentence.tokens.length} tokens`);
}

export function placeLive(pane) {
  const box = make("textarea", { id: "typed", rows: 2, dir: "auto", "aria-label": "Any text", "aria-describedby": "typed-says",
    placeholder: "Type any text", spellcheck: "false" });
  const status = make("p", { id: "typed-says", class: "note", role: "status" });
  const submit = () => {
    const text = box.value.toWellFormed?.() ?? box.value;
    const wrong = wrongWith(text);
    if (wrong) {
      running?.abort();
      running = null;
      status.className = "notice";
      status.textContent = wrong;
    } else if (text !== state.typed || state.sentence < 0) change({ typed: text, text: -1, sentence: -1, token: 0 });
  };
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      submit();
    }
  });
  // A field that takes millions of characters stops the browser for minutes.
  box.addEventListener("beforeinput", (event) => {
    const wrong = (event.data ?? "").length > facts.live.most_characters ? wrongWith(event.data) : "";
    if (!wrong) return;
    event.preventDefault();
    status.className = "notice";
    status.textContent = wrong;
  });
  pane.append(make("div", { id: "live" }, box, make("button", { type: "button", id: "show", onclick: submit }, "Show"), status));
  watch(["typed", "text", "sentence"], () => {
    const typed = state.text < 0 && state.typed !== "";
    if (typed && box !== document.activeElement) box.value = state.typed;
    if (state.sentence >= 0) {
      if (running === null) status.textContent = "";
      return;
    }
    if (typed) {
      const number = facts.sentences.findIndex((sentence) => sentence.index === null && sentence.text === state.typed);
      if (number >= 0) change({ sentence: number });
      else compute(state.typed, null, status);
    } else if (state.text >= 0 && hasTexts) {
      const number = sentenceOf(state.text);
      if (number >= 0) change({ sentence: number });
      else compute(facts.texts[state.text], state.text, status);
    }
  });
}
