"""Refuses tokenizers whose steps may run for ever or fill the memory.

A `tokenizer.json` is a program of somebody else: its regular expressions may backtrack without end, and its
replacements may double a text again and again. Steps of known kinds are bounded, and a literal table says which those
are. What is not in the table (in practice: an unusual regular expression) is tried out once, in a child process with
limits of time and memory.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from layertap.errors import TokenizerError
from layertap.models.config import short

TRIAL_SECONDS = 3
"""Limit of a trial in processor time; that of a harmless tokenizer takes a tenth of a second."""

TRIAL_WAIT = 120.0
"""Seconds after which a trial is given up, however busy the machine is."""

MOST_STEPS = 64
MOST_GROWTH = 64
"""How many times longer than a text its normalized form may be."""

LONGEST_WORD = 1_000
"""Limit of WordPiece's `max_input_chars_per_word` (usually 100): its time grows with the square of a word's length."""

# Steps whose time and output are bounded by the length of the text.
NORMALIZERS = frozenset(
    ("BertNormalizer", "ByteLevel", "Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "Precompiled", "Strip")
) | {"StripAccents"}
PRE_TOKENIZERS = frozenset(
    ("BertPreTokenizer", "ByteLevel", "CharDelimiterSplit", "Digits", "FixedLength", "Metaspace", "Punctuation")
) | {"UnicodeScripts", "Whitespace", "WhitespaceSplit"}
GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
PATTERNS = frozenset((r" {2,}", r"\s+", r"\s{2,}|[\n\r\t]", GPT_2, LLAMA_3, QWEN_2))

CHILD = Path(__file__).with_name("pipeline_trial.py")


def check_pipeline(backend: Tokenizer, path: Path) -> None:
    """Refuse a tokenizer that may not come to an end.

    Args:
        backend: the tokenizer as it will be used.
        path: its file, for the message.

    Raises:
        TokenizerError: a step that is known to have no bound, or that failed its trial.
    """
    longest = getattr(backend.model, "max_input_chars_per_word", 0)
    if longest > LONGEST_WORD:
        raise TokenizerError(
            f"{path}: max_input_chars_per_word: expected at most {LONGEST_WORD} (100 is usual), found {longest}"
        )
    steps = [
        *_steps(_state(backend.normalizer), "normalizers"),
        *_steps(_state(backend.pre_tokenizer), "pretokenizers"),
    ]
    if len(steps) > MOST_STEPS:
        raise TokenizerError(f"{path}: expected at most {MOST_STEPS} steps before the vocabulary, found {len(steps)}")
    growth = 1.0
    for step in steps:
        growth *= _growth(step)
    if growth > MOST_GROWTH:
        raise TokenizerError(
            f"{path}: its replacements may make a text {growth:.3g} times longer; at most {MOST_GROWTH} times is "
            "allowed"
        )
    unknown = [step for step in steps if not _is_known(step)]
    if unknown:
        reason = _try_out(json.dumps([_state(backend.normalizer), _state(backend.pre_tokenizer)]))
        if reason is not None:
            raise TokenizerError(f"{path}: the step {short(unknown[0])} is not usable: on a short text {reason}")


def _state(part: Any) -> dict[str, Any] | None:
    return None if part is None else json.loads(part.__getstate__())


def _steps(state: dict[str, Any] | None, name: str) -> Iterator[dict[str, Any]]:
    """Yield the steps of a normalizer or pre-tokenizer, sequences opened."""
    if state is None:
        return
    if state["type"] == "Sequence":
        for step in state[name]:
            yield from _steps(step, name)
    else:
        yield state


def _is_known(step: dict[str, Any]) -> bool:
    kind = step["type"]
    if kind in NORMALIZERS or kind in PRE_TOKENIZERS or kind == "Prepend":
        return True
    if kind not in ("Replace", "Split"):
        return False
    pattern: dict[str, str] = step["pattern"]
    return bool(pattern.get("String")) or pattern.get("Regex") in PATTERNS


def _growth(step: dict[str, Any]) -> float:
    """Return how many times longer a text of some characters may become by a step; what a match matches is not
    counted.
    """
    if step["type"] == "Replace":
        pattern = step["pattern"].get("String", "")
        return max(1.0, len(step["content"]) / max(1, len(pattern)))
    if step["type"] == "Prepend":
        return 1.0 + len(step["prepend"]) / 32
    return 1.0


@lru_cache(maxsize=32)
def _try_out(pipeline: str) -> str | None:
    """Run a normalizer and a pre-tokenizer over a few texts in a child process; None if all went well."""
    given = json.dumps({"pipeline": json.loads(pipeline), "path": sys.path, "seconds": TRIAL_SECONDS})
    try:
        done = subprocess.run(
            [sys.executable, "-P", str(CHILD)],
            input=given,
            capture_output=True,
            text=True,
            timeout=TRIAL_WAIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it did not come to an end within {TRIAL_WAIT:g} seconds"
    except OSError:
        return None  # no interpreter to start: an embedded one
    lines = done.stdout.splitlines()
    if not lines or lines[0] != "started" or lines[-1] == "done":
        return None
    if lines[-1].startswith("failed: "):
        return lines[-1].removeprefix("failed: ")
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"it did not come to an end within {TRIAL_SECONDS} seconds of processor time"
    return f"the tokenizers library ended with status {done.returncode}"
