"""Requests to a backend: `Program`, a set of `Capture`s.

A capture is the one primitive: fold hidden states over layers, then reduce rows over segments. Everything after
it (dividing sums by counts, joining, normalising) happens to small vectors in `features.vectors`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fold = Literal["sum", "max"]
Reduce = Literal["first", "last", "sum", "max", "min"]
SegmentKind = Literal[
    "tokens",
    "content",
    "cls",
    "after_prompt",
    "tokens_by_position",
    "content_by_position",
    "after_prompt_by_position",
    "words",
    "spans",
    "windows",
]
"""Kinds of segments: the rows of a text that are reduced together. One segment a text:

`tokens`: all; `content`: without the template's special tokens; `after_prompt`: all but the input's prompt and what the
template puts before it; `..._by_position`: the same rows, with weights 1, 2, 3, ... for `sum`, counted from the first
row of `content`, else of the text.

Any number a text: `words`, `spans`: the rows under each word or character range; `windows`: all rows of each of its
sequences; `cls`: the template's CLS token of each.

A text of several windows has several sequences. Of rows that stand for one token in two windows, all kinds but the last
two hold the one with more context.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """One thing that a backend hands over; also the key under which it does.

    Attributes:
        layers: hidden states that go in, 0..L ascending, at least one.
        fold: how several layers become one; "sum" also for a single layer with weights None.
        weights: one weight a layer for `fold="sum"`, or None for ones.
        segments: which rows, by the name under which the engine passes `Segments`; None: every row.
        reduce: what happens to the rows of a segment; None exactly where `segments` is None.
        pooler: the capture is the pooler head on the rows that `segments` ("windows") and `reduce`
            ("first") give; `layers` is then (L,).
        attention: not hidden states but attention probabilities of block `layers[0]` (1..L; one layer): "heads",
            or their "mean". `segments` and `reduce` are None.
        unnormed: of hidden state L, which is among `layers`, what it is before the model's final norm.
        heads: which heads, in the order wanted; None: all.

    Result: float32 [S, H] (sums not divided) where reduced, otherwise float32 [T, H]. Of attention float32 [M]: the
    maps [heads, t, t] ([t, t] for the mean) of all B sequences laid end to end.
    """

    layers: tuple[int, ...]
    fold: Fold = "sum"
    weights: tuple[float, ...] | None = None
    segments: SegmentKind | None = None
    reduce: Reduce | None = None
    pooler: bool = False
    unnormed: bool = False
    attention: Literal["heads", "mean"] | None = None
    heads: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Request to run one packed batch: captures and how far to run.

    Attributes:
        captures: what to hand over, each once.
        stop: the highest block to run, 0..L (0: the embedding output only). Never below the highest layer
            of a capture; above it only where the rule "stop" is off.
        top_rows_only: in block `stop`, compute queries, attention output and feed-forward only for the rows that
            captures need from it. Set only where `first`, `last` or few rows are needed.
    """

    captures: tuple[Capture, ...]
    stop: int
    top_rows_only: bool = False
