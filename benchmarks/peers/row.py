"""A row of the table: one library at one precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.peers.batches import FloatArray

Precision = Literal["float32", "bfloat16", "int8"]
Embed = Callable[[Sequence[str], int], FloatArray]
"""Texts and texts a batch in; the mean of the last hidden state over all tokens of each out: float32 [N, H]."""

# Small batches win where a core's cache is small, large ones where threads are many.
BATCH_SIZES = (32, 8, 4, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A way to run a row: how it is set up on loading, and texts a batch (0: the library decides)."""

    setup: str
    batch_size: int = 0

    def __str__(self) -> str:
        return f"{self.setup}, batch {self.batch_size}" if self.batch_size else self.setup


def every_batch_size(*setups: str) -> tuple[Variant, ...]:
    """Each set-up with each batch size, the variants of a set-up side by side."""
    return tuple(Variant(setup=setup, batch_size=size) for setup in setups for size in BATCH_SIZES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every row is given alike.

    Attributes:
        folder: The model.
        cache: A folder of this model's for converted models.
        threads: Threads to use.
        max_length: Tokens at which a text is cut, special tokens included.
        calibration: Texts for what quantises on examples.
    """

    folder: Path
    cache: Path
    threads: int
    max_length: int
    calibration: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One library at one precision.

    Attributes:
        name: Its name on the command line and in the table.
        library: The distribution whose version the report states.
        precision: What its matrix products are computed in.
        variants: Ways to run it among which the fastest on the workload is taken; the first is the default.
        prepare: Converts the model into the cache, once, in a process of its own; None where nothing is converted.
        load: Loads the model in one set-up and gives the function to time.
        ours: Whether this is layertap.
    """

    name: str
    library: str
    precision: Precision
    variants: tuple[Variant, ...]
    prepare: Callable[[Settings], None] | None = None
    load: Callable[[Settings, str], Embed]
    ours: bool = False
