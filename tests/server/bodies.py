"""Hostile bodies and headers: sound requests, damaged in seeded random ways."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SOUND: dict[str, list[dict[str, Any]]] = {
    "/v1/embeddings": [
        {"input": ["the good", "bank"], "model": "tiny@hidden_states[1].mean", "encoding_format": "float"},
        {"input": "film", "model": "v", "dimensions": 8, "user": "me", "truncate_prompt_tokens": 5},
    ],
    "/v1/features": [
        {"texts": ["the good"], "features": {"a": "last_hidden_state"}, "details": ["token_ids"], "long": "window"},
        {"pairs": [["a", "b"]], "features": ["attentions[0].heads_mean", "hidden_states[:].mean.astype(int8)"]},
        {"words": [["the", "bank"]], "features": "last_hidden_state.words(max)", "details": True},
        {"texts": ["the good bank"], "spans": [[[0, 3]]], "features": {"s": "last_hidden_state.spans(mean)"}},
    ],
    "/v1/predict": [{"texts": ["x"], "heads": ["tiny"]}],
    "/v1/rerank": [{"query": "x", "documents": ["a", {"text": "b"}], "top_n": 1, "return_documents": True}],
    "/pooling": [{"input": ["x"], "use_activation": True, "encoding_format": "base64"}],
    "/embed": [{"inputs": ["a", "b"], "normalize": False, "truncate": True, "truncation_direction": "left"}],
    "/embed_all": [{"inputs": "a", "layer": -1}],
    "/similarity": [{"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {"truncate": True}}],
    "/predict": [{"inputs": [["a"], ["b", "c"]], "raw_scores": True}],
    "/rerank": [{"query": "a", "texts": ["b"], "return_text": True}],
    "/tokenize": [{"inputs": "a", "add_special_tokens": False}],
    "/decode": [{"ids": [[1, 2], [3]], "skip_special_tokens": False}],
    "/": [{"inputs": "a"}, {"query": "a", "texts": ["b"]}],
}
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**40, 1.5, -0.0, 1e308, "", " ", "x", "\0",
    "\U0010ffff", "a" * 5000,
    "hidden_states[", "tiny@", "@", "../../etc/passwd", "last_hidden_state" + ".mean" * 300, "(" * 1500, [], {}, [[]],
    [None], [0], [[0]], [""], [[""]], {"": None}, [1, "a"], [["a", "b", "c"]], "float32", "window", "{{7*7}}",
)  # fmt: skip
FEATURES = (
    "hidden_states[99]", "hidden_states[-99:99].layer_mean", "concat(last_hidden_state.cls, pooler_output)",
    "attentions[:]", "hidden_states[:].layer_concat.mean.truncate(1).astype(binary)", "last_hidden_state.words(sum)",
    "sentence_embedding(prompt='x')", "sentence_embedding", "hidden_states[0].spans(first)", "layer_mix(1)", "1 + 1",
    "hidden_states[1:].layer_mix(1e38, 1e38, 1e38).mean", "__import__('os')", "lambda: 0", "last_hidden_state[:, 0]",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HostileRequest:
    """One request, by which it can be sent again."""

    number: int
    path: str
    content: bytes
    headers: dict[str, bytes]


def hostile_requests(count: int, seed: int = 0) -> Iterator[HostileRequest]:
    """Yield requests; the same seed makes the same ones."""
    for number in range(count):
        generator = random.Random(f"{seed}/{number}")
        path = generator.choice(list(SOUND))
        body = json.loads(json.dumps(generator.choice(SOUND[path])))
        for _ in range(generator.choice((1, 1, 1, 2, 5))):
            body = _changed(body, generator)
        content = json.dumps(body).encode("utf-8", "surrogatepass")
        if generator.random() < 0.3:
            content = _damaged(content, generator)
        headers = {"content-type": b"application/json"}
        if generator.random() < 0.2:
            name = generator.choice(
                ("content-type", "accept", "authorization", "content-encoding", "x-other", "accept-charset")
            )
            headers[name] = bytes(
                generator.choice([*range(32, 127), *range(128, 256)]) for _ in range(generator.randrange(60))
            ).strip(b" ")
        yield HostileRequest(number, path, content, headers)


def _changed(value: Any, generator: random.Random) -> Any:
    """Change something somewhere in a JSON value."""
    if generator.random() < 0.25 or not isinstance(value, dict | list) or not value:
        return generator.choice((*VALUES, *FEATURES))
    if isinstance(value, list):
        place = generator.randrange(len(value))
        if generator.random() < 0.2:
            return value * generator.choice((0, 2, 50))
        return [*value[:place], _changed(value[place], generator), *value[place + 1 :]]
    name = generator.choice(list(value))
    match generator.randrange(6):
        case 0:
            return {key: own for key, own in value.items() if key != name}
        case 1:
            return value | {
                generator.choice(("model", "input", "inputs", "texts", "precision", "x")): generator.choice(VALUES)
            }
        case 2:
            return {(key[:-1] if key == name else key): own for key, own in value.items()}
        case _:
            return value | {name: _changed(value[name], generator)}


def _damaged(content: bytes, generator: random.Random) -> bytes:
    place = generator.randrange(len(content) + 1)
    match generator.randrange(5):
        case 0:
            return content[:place]
        case 1:
            return content[:place] + bytes([generator.randrange(256)]) + content[place:]
        case 2:
            return content[:place] + content[place + 1 :]
        case 3:
            return content + content
        case _:
            return b"[" * generator.choice((10, 2_000)) + content
