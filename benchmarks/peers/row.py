"""Define a row of the table: one library at one precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.peers.batches import FloatArray

Precision = Literal["float32", "bfloat16", "int8"]
Embed = Callable[[Sequence[str], int], FloatArray]
"""Function of texts and a batch size that returns the mean of the last hidden state of each text, float32 [N, H]."""

# Small batches win where a core's cache is small, large ones where threads are many.
BATCH_SIZES = (32, 8, 4, 1)
DEVICE_BATCH_SIZES = (128, 32, 512)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A way to run a row: its set-up on loading, and its batch size (0 if the library decides)."""

    setup: str
    batch_size: int = 0

    def __str__(self) -> str:
        return f"{self.setup}, batch {self.batch_size}" if self.batch_size else self.setup


def every_batch_size(*setups: str) -> tuple[Variant, ...]:
    """Combine each set-up with each batch size, with the variants of a set-up side by side."""
    return tuple(Variant(setup=setup, batch_size=size) for setup in setups for size in BATCH_SIZES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings that are the same for all rows.

    Attributes:
        folder: Folder of the model.
        cache: Folder for converted forms of this model.
        threads: Number of threads to use.
        max_length: Limit in tokens at which texts are truncated, special tokens included.
        calibration: Texts for libraries that quantise on examples.
        device: Device of torch, for rows that run on one.
    """

    folder: Path
    cache: Path
    threads: int
    max_length: int
    calibration: tuple[str, ...]
    device: str = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One library at one precision.

    Attributes:
        name: Name on the command line and in the table.
        library: Distribution whose version the report states.
        precision: Precision of the matrix products.
        variants: Ways to run it, of which the fastest on the workload is taken; the first one is the default.
        prepare: Converts the model into the cache, once, in a separate process; None if there is nothing to convert.
        load: Loads the model in one set-up and returns the function to time.
        ours: Whether this is layertap.
        on_device: Whether it runs on the device of the settings.
    """

    name: str
    library: str
    precision: Precision
    variants: tuple[Variant, ...]
    prepare: Callable[[Settings], None] | None = None
    load: Callable[[Settings, str], Embed]
    ours: bool = False
    on_device: bool = False

    def variants_on(self, device: str) -> tuple[Variant, ...]:
        """List the variants to choose from; on a device other than the processor with larger batches."""
        if device == "cpu" or not any(variant.batch_size for variant in self.variants):
            return self.variants
        setups = dict.fromkeys(variant.setup for variant in self.variants)
        return tuple(Variant(setup=setup, batch_size=size) for setup in setups for size in DEVICE_BATCH_SIZES)
