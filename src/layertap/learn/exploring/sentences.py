"""Tokens, figures by layer and token, attentions and outputs of single texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.errors import BackendError, FeatureError
from layertap.learn.arrays import Float32Array
from layertap.learn.exploring.nearest import normalised
from layertap.page.content import PageArray

SCALE = 65535
"""Attention probabilities are whole numbers of 1/65535: within 8e-6 of the computed ones."""

SHOWN_VALUES = 4

DETAILS = ("token_strings", "token_offsets")
"""Details that `sentence_from` needs."""

POOLERS = {
    "trained": "dense layer and tanh on the first token of the last layer; trained",
    "untrained": "dense layer and tanh on the first token; stored in this checkpoint, never trained (its bias is "
    "exactly zero), so that its values mean nothing",
    "absent": "absent: this checkpoint stores no pooler",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sentence:
    """One text with its tokens.

    Attributes:
        text: the text.
        index: number of the text in the corpus, or None.
        tokens: the T tokens as strings.
        begins, ends: character range of each token.
        outputs: the model's outputs of this text: name, shape, description, first values; JSON values.
        arrays: `last` float32 [L+1, T], cosine of each hidden state to that of the token in the last layer; `norm`
            float32 [L+1, T]; `cosines` float32 [L+1, T, T] between the tokens of a layer; `attention` uint16
            [L, A, T, T], absent where the model gives no attentions.
    """

    text: str
    index: int | None
    tokens: tuple[str, ...]
    begins: tuple[int, ...]
    ends: tuple[int, ...]
    outputs: tuple[Mapping[str, Any], ...]
    arrays: Mapping[str, PageArray]

    def as_facts(self) -> dict[str, Any]:
        """Return what a page states of the text, as JSON values."""
        return {
            "index": self.index,
            "text": self.text,
            "tokens": list(self.tokens),
            "begins": list(self.begins),
            "ends": list(self.ends),
            "outputs": [dict(output) for output in self.outputs],
        }


def sentence_of(extractor: Extractor, text: str, index: int | None = None) -> Sentence:
    """Compute everything that a page shows of one text."""
    results = able(extractor).extract(text, sentence_features(extractor), details=DETAILS)
    assert isinstance(results, dict)
    return sentence_from(extractor, text, {name: np.asarray(value) for name, value in results.items()}, index)


def able(extractor: Extractor) -> Extractor:
    """Return an extractor for single texts: without windows, and with the output of a pooler that was never trained.

    A page shows such an output as what it is.
    """
    semantics = extractor.semantics
    return extractor.with_semantics(
        replace(semantics, untrained_pooler="use", long="truncate", truncate_side="right", window=None, overlap=None)
    )


def sentence_features(extractor: Extractor) -> dict[str, str]:
    """Return the features that `sentence_from` needs, for an extractor of `able`; beside them it needs `DETAILS`."""
    facts = extractor.facts
    features = {"hidden": "hidden_states[:]", "mean": "last_hidden_state.mean"}
    if gives_attentions(extractor):
        features["attention"] = "attentions[:]"
    if facts.has_cls:
        features["cls"] = "last_hidden_state.cls"
    if _pooler_state(extractor) != "absent":
        features["pooler"] = "pooler_output"
    return features


def sentence_from(
    extractor: Extractor, text: str, results: Mapping[str, PageArray], index: int | None = None
) -> Sentence:
    """Put together what a page shows of one text.

    Args:
        extractor: the model.
        text: the text.
        results: arrays of `sentence_features` and `DETAILS` for this text.
        index: number of the text in the corpus, or None.
    """
    hidden_LTH = np.ascontiguousarray(results["hidden"].swapaxes(0, 1), dtype=np.float32)
    made: dict[str, PageArray] = dict(figures(hidden_LTH))
    if "attention" in results:
        made["attention"] = np.rint(results["attention"] * SCALE).astype(np.uint16)
    offsets = results["token_offsets"]
    return Sentence(
        text=text,
        index=index,
        tokens=tuple(map(str, results["token_strings"].tolist())),
        begins=tuple(offsets[:, 0].tolist()),
        ends=tuple(offsets[:, 1].tolist()),
        outputs=tuple(outputs_of(extractor, results)),
        arrays=made,
    )


def figures(hidden_LTH: Float32Array) -> dict[str, Float32Array]:
    """Return cosines and norms of the hidden states of a text: `last`, `norm`, `cosines`, as in `Sentence`."""
    layers, tokens, size = hidden_LTH.shape
    units = normalised(hidden_LTH.reshape(-1, size)).reshape(layers, tokens, size)
    return {
        "last": np.einsum("lth,th->lt", units, units[-1]).astype(np.float32),
        "norm": np.sqrt(np.einsum("lth,lth->lt", hidden_LTH, hidden_LTH, dtype=np.float64)).astype(np.float32),
        "cosines": np.matmul(units, units.swapaxes(1, 2)),
    }


def gives_attentions(extractor: Extractor) -> bool:
    """Return whether the model gives attention probabilities, as its backend and options are."""
    try:
        extractor.plan("attentions[:]")
    except (FeatureError, BackendError):
        return False
    return True


def outputs_of(extractor: Extractor, results: Mapping[str, PageArray]) -> list[dict[str, Any]]:
    """Describe the outputs that are easily confused, with the first values of those that are one vector."""
    facts = extractor.facts
    size, last = facts.spec.hidden_size, facts.spec.num_hidden_layers
    shape = (len(results["hidden"]), size)
    rows = [
        _output("last_hidden_state", shape, f"a vector for each token: hidden_states[{last}]"),
        _output("hidden_states[i]", shape, f"i from 0 (the output of the embeddings) to {last}"),
    ]
    if "cls" in results:
        says = "the vector of the first token, last_hidden_state[:, 0]"
        rows.append(_output("last_hidden_state.cls", (size,), says, results["cls"]))
    says = "the mean over tokens of the last layer"
    rows.append(_output("last_hidden_state.mean", (size,), says, results["mean"]))
    pooled = results.get("pooler")
    state = POOLERS[_pooler_state(extractor)]
    rows.append(_output("pooler_output", None if pooled is None else (size,), state, pooled))
    return rows


def _pooler_state(extractor: Extractor) -> str:
    return extractor.facts.pooler if extractor.facts.spec.pooler else "absent"


def sentence_bytes(extractor: Extractor, num_tokens: int) -> int:
    """Return the approximate size of a text with its arrays in a page."""
    spec = extractor.facts.spec
    maps = 2 * spec.num_hidden_layers * spec.num_attention_heads * num_tokens**2
    floats = 4 * (spec.num_hidden_layers + 1) * num_tokens * (num_tokens + 2)
    return (maps + floats) * 4 // 3


def _output(name: str, shape: tuple[int, ...] | None, says: str, vector: PageArray | None = None) -> dict[str, Any]:
    words = "" if shape is None else f"float32 [{', '.join(map(str, shape))}]"
    values = None if vector is None else [float(value) for value in vector[:SHOWN_VALUES]]
    return {"name": name, "shape": words, "says": says, "values": values}
