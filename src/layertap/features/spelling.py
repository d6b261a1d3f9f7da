"""Advice for common mistakes: near misses of names, characters of input methods."""

from __future__ import annotations

import re
from difflib import get_close_matches

from layertap.features.grammar import STEPS

# Everything but names and numbers that can stand in a feature text.
PLAIN = frozenset(" _.,:=+-()[]'\"")

# No hexadecimal, no imaginary, no number that runs into a word.
NUMBER = re.compile(r"(0|[1-9][0-9]*|0*[0-9]*(?=[.eE]))(\.[0-9]*)?([eE][+-]?[0-9]+)?(?![\w.])")

_FULL_WIDTH = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
WIDE: dict[str, str] = {
    **_FULL_WIDTH,
    "\u3001": ",",  # ideographic comma
    "\u3002": ".",  # ideographic full stop
    "\u3010": "[",  # lenticular brackets
    "\u3011": "]",
    "\u3014": "[",  # tortoise shell brackets
    "\u3015": "]",
    "\uff3b": "[",
    "\uff3d": "]",
    "\u300c": "'",  # corner brackets
    "\u300d": "'",
    "\u2018": "'",  # curly quotes
    "\u2019": "'",
    "\u201c": '"',
    "\u201d": '"',
    "\u2010": "-",  # hyphens, dashes, minus
    "\u2011": "-",
    "\u2013": "-",
    "\u2014": "-",
    "\u2212": "-",
    "\u2026": "...",
    "\u2236": ":",  # ratio
    "\u00b7": ".",  # middle dot
    "\u00a0": " ",
    "\u3000": " ",
}

_OUTPUTS = "name the output itself: last_hidden_state, hidden_states[-1] or pooler_output"
_ATTENTIONS = "write attentions[i] for block i, counted from 0, or attentions[:] for all"
MISTAKEN_SOURCES: dict[str, str] = {
    "all_hidden_states": "write hidden_states[:] for all layers",
    "attention": _ATTENTIONS,
    "attention_maps": _ATTENTIONS,
    "attention_probs": _ATTENTIONS,
    "attention_scores": _ATTENTIONS,
    "attention_weights": _ATTENTIONS,
    "attn": _ATTENTIONS,
    "attn_weights": _ATTENTIONS,
    "cls": "write last_hidden_state.cls",
    "cls_token": "write last_hidden_state.cls",
    "embedding_output": "write hidden_states[0]",
    "embeddings": "write hidden_states[0] for the embedding output, or sentence_embedding",
    "encoder_outputs": _OUTPUTS,
    "hidden_state": "write last_hidden_state, or hidden_states[i] for layer i",
    "last_hidden": "write last_hidden_state",
    "last_hidden_states": "write last_hidden_state (one state, every token of the last layer)",
    "layers": "write hidden_states[i] for layer i, hidden_states[:] for all",
    "mean_pooling": "write last_hidden_state.mean",
    "model_output": _OUTPUTS,
    "output": _OUTPUTS,
    "output_attentions": "nothing is switched on here; name the layers: attentions[:] for all, attentions[-1] for the "
    "last",
    "output_hidden_states": "nothing is switched on here; name the layers: hidden_states[:] for all, "
    "hidden_states[-1] for the last",
    "outputs": _OUTPUTS,
    "pooled": "write pooler_output",
    "pooled_output": "write pooler_output",
    "pooler": "write pooler_output",
    "sentence_embeddings": "write sentence_embedding",
    "sequence_output": "write last_hidden_state",
    "token_embeddings": "write last_hidden_state",
}


def advice_on_step(name: str) -> str:
    """Return what to write instead of an unknown step; empty if no step is near."""
    if name in MISTAKEN_STEPS:
        return f"; {MISTAKEN_STEPS[name]}"
    close = get_close_matches(name.lower(), tuple(STEPS), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


MISTAKEN_STEPS: dict[str, str] = {
    "CLS": "write cls",
    "average": "write mean, or layer_mean for layers",
    "avg": "write mean, or layer_mean for layers",
    "binarize": "write astype(binary)",
    "word": "write words(mean), or words(first)",
    "span": "write spans(mean)",
    "windows": "long texts are a matter of the run: --long window (long='window')",
    "cat": "write layer_concat for layers, or concat(f, g) for features",
    "concat": "write layer_concat for layers, or concat(f, g) for features",
    "dtype": "write astype(float16), astype(int8) or astype(binary)",
    "float16": "write astype(float16)",
    "attentions": "attentions is a source of its own: write attentions[0], without what is before it",
    "head": "write heads(0) for the first head",
    "head_mean": "write heads_mean",
    "mean_heads": "write heads_mean",
    "half": "write astype(float16)",
    "int8": "write astype(int8)",
    "l2": "write normalize",
    "l2_normalize": "write normalize",
    "max_pool": "write max",
    "max_pooling": "write max",
    "mean_pool": "write mean",
    "mean_pooling": "write mean",
    "norm": "write normalize",
    "normalise": "write normalize",
    "normalized": "write normalize",
    "pooler": "write pooler_output alone",
    "raw": "write unnormed",
    "unnormalized": "write unnormed",
    "pooler_output": "write pooler_output alone, without the model or outputs before it",
    "prenorm": "write unnormed",
    "pre_norm": "write unnormed",
    "quantize": "write astype(int8) or astype(binary)",
    "to": "write astype(float16), astype(int8) or astype(binary)",
}
