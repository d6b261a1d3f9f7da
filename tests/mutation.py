"""Seeded mutations of JSON values and bytes, for the tests that damage files."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

from layertap.errors import CheckpointError, LayertapError

NESTED: object = "deep"
for _ in range(60):
    NESTED = [NESTED]
HOSTILE: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 7, 64, 2**31 - 1, 2**31, 2**63, -(2**63), 10**12, 10**400, -(10**400)),
    *(0.5, -0.0, 1.0, 1e-12, 1e308, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "x",
        "bert",
        "roberta",
        "gelu",
        "F32",
        "I64",
        "../x",
        "/etc/passwd",
        "absolute",
        "mean",
        "0",
        "\ud800",
        "\x00",
    ),
    *("a\nb", "\u202e", "x" * 10_000, "Transformer", "sentence_transformers.models.Pooling", "[UNK]"),
    *([], [[]], {}, {"a": {}}, [1] * 1000, [0, 8], [2, 3], ["mean", "cls"], {"text": 1}, NESTED),
    *({"content": "\ud800"}, {"content": "[NEW]", "special": 1}, {"9" * 30: "x"}, {"3": {"content": "[X]"}}),
]
BYTES = [
    b"",
    b"\0",
    b"\xff",
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"9" * 30,
    b"-",
    b"e9",
    b"null",
    b"\\ud800",
    b"\xc3",
]


def ours(call: Callable[[], object], case: object, error: type[LayertapError] = CheckpointError) -> bool:
    """Whether the call is refused with our own error; everything else but success is a failure of the test."""
    try:
        call()
    except error as refused:
        message = str(refused)
        assert message.isprintable(), f"{case!r:.500}: {message!r}"
        assert len(message) < 2_000, f"{case!r:.500}: a message of {len(message)} characters"
        return True
    except BaseException as escaped:
        escaped.add_note(f"{case!r:.2000}")
        raise
    return False


def mutated(value: Any, source: random.Random, fields: tuple[str, ...] = ()) -> Any:
    """A copy of a JSON value with one to three places replaced, dropped, doubled, or filled with a neighbour's."""
    value = deepcopy(value)
    for _ in range(source.randint(1, 3)):
        places = list(_places(value))
        if not places:
            return deepcopy(source.choice(HOSTILE))
        parent, key = source.choice(places)
        other, other_key = source.choice(places)
        action = source.random()
        if action < 0.6:
            parent[key] = deepcopy(source.choice(HOSTILE))
        elif action < 0.7:
            del parent[key]
        elif action < 0.85:
            parent[key] = deepcopy(other[other_key])
        elif isinstance(parent, dict):
            parent[source.choice(fields or ("x", "\ud800", "a\nb", ""))] = deepcopy(source.choice(HOSTILE))
        else:
            parent.insert(source.randrange(len(parent) + 1), deepcopy(source.choice(HOSTILE)))
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict | list):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from _places(child)


def mutated_bytes(content: bytes, source: random.Random, within: int) -> bytes:
    """A copy with one to four pieces of its first bytes changed, lost, put in, doubled, or everything after cut."""
    data = bytearray(content)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(min(within, len(data)) + 1)
        to = min(len(data), at + source.choice((1, 1, 2, 8, 100)))
        action = source.random()
        if action < 0.3 and at < len(data):
            data[at] ^= 1 << source.randrange(8)
        elif action < 0.5:
            del data[at:to]
        elif action < 0.8:
            data[at:at] = source.choice(BYTES)
        elif action < 0.95:
            data[at:at] = data[at:to]
        else:
            del data[at:]
    return bytes(data)


def rewrite(path: Path, content: bytes | str) -> None:
    """Write a file anew: some file systems flush one that is cut to nothing and written again, milliseconds each."""
    path.unlink(missing_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
