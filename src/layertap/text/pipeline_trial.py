"""Child process of `pipeline`: runs a normalizer and a pre-tokenizer over a few texts, within limits.

Run as a script, so that nothing but the tokenizers library is imported. Prints `started`, then `done` or `failed: ` and
the reason; a parent that sees neither knows that the process was ended.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Any

MEMORY = 4 << 30
"""Bytes that the process may map."""

LENGTH = 50_000
"""Characters of a text: a pattern whose time grows with the square of a text's length needs seconds for it."""

MOST_LETTERS = 12
MOST_GROWTH = 64


def main() -> None:
    """Read the pipeline from standard input and try it out."""
    given = json.load(sys.stdin)
    sys.path[:] = given["path"]
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (given["seconds"], given["seconds"]))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from tokenizers import Tokenizer

    normalizer, pre_tokenizer = given["pipeline"]
    state = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "x"},
    }
    say("started")
    try:
        backend = Tokenizer.from_str(json.dumps(state))
        for text in texts(given["pipeline"]):
            if backend.normalizer is not None and len(backend.normalizer.normalize_str(text)) > MOST_GROWTH * len(text):
                say(f"failed: it becomes more than {MOST_GROWTH} times longer")
                return
            backend.encode(text)
    except BaseException as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        say(f"failed: it ends with {reason[:200]!r}")
        return
    say("done")


def say(line: str) -> None:
    """Write a line to the parent."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def texts(pipeline: list[Any]) -> Iterator[str]:
    """Yield texts that make bad patterns run long: runs of the characters that they name, of letters, of spaces."""
    letters = [letter for letter in dict.fromkeys("a 1" + patterns(pipeline)) if letter.isalnum() or letter.isspace()]
    for letter in letters[:MOST_LETTERS]:
        yield letter * LENGTH + "!"
    for pair in ("ab", "a ", " \n"):
        yield pair * (LENGTH // 2)
    yield "The quick brown fox, aged 42, jumped over 3,000 lazy dogs\u2019 caf\u00e9s. \u4f60\u597d \U0001f600 " * 100


def patterns(part: Any) -> str:
    """Return all patterns in a part of the pipeline, one after the other."""
    if isinstance(part, list):
        return "".join(map(patterns, part))
    if not isinstance(part, dict):
        return ""
    own = part.get("pattern")
    text = "".join(map(str, own.values())) if isinstance(own, dict) else ""
    return text + "".join(patterns(value) for key, value in part.items() if key != "pattern")


if __name__ == "__main__":
    main()
