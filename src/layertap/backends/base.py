"""Interface of a backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from layertap.errors import BackendError
from layertap.features.program import Capture, Program, SegmentKind
from layertap.packing import PackedBatch, Segments
from layertap.tensors import TensorView

Weights: TypeAlias = Callable[[Iterable[str]], Mapping[str, TensorView]]
"""Canonical names -> stored tensors, checked; called as parts of a model are first needed."""

FloatArray = npt.NDArray[np.float32]

Started: TypeAlias = Callable[[], dict[Capture, FloatArray]]
"""Run that a backend has started: a function that waits for its end and returns the captures. Called once."""


class OutOfMemoryError(BackendError):
    """A batch for which the memory of the device does not suffice; a smaller one may run."""


class Backend(ABC):
    """Runs programs over packed batches with the weights of one model. Safe to call from several threads.

    Attributes:
        name: name of the backend.
        instruction_set: instruction set that its kernels use on this machine, or the name of several that give the same
            bits ("x86"); equal bits need the same name.
        batch_tokens: default token budget of a batch.
        overlaps: whether `start` returns while the device still works, so that the caller can prepare texts and store
            results in the meantime.
        leaves_python: whether `run` works without Python's lock, so that a thread can prepare texts in the meantime,
            and gives a text the same bits in every batch, so that chunks can begin small.
        chunk_result_bytes: limit in bytes of the results that the engine collects before it hands them over; None: the
            engine's own.
    """

    name: str
    instruction_set: str
    batch_tokens: int
    overlaps: bool = False
    leaves_python: bool = False
    chunk_result_bytes: int | None = None

    @abstractmethod
    def run(
        self, program: Program, batch: PackedBatch, segments: Mapping[SegmentKind, Segments]
    ) -> dict[Capture, FloatArray]:
        """Run the encoder once and return the program's captures.

        Args:
            program: what to run.
            batch: B sequences, T packed tokens, already checked against the model's tables.
            segments: the `Segments` of every kind that a capture names.

        Returns:
            One array for each capture: float32 [S, H] where it reduces (`sum` not divided by counts, segments without
            rows zero), float32 [T, H] where it does not, float32 [M] of attention (see `Capture`).

        Raises:
            OutOfMemoryError: the memory of the device does not suffice for this batch.
        """

    def start(self, program: Program, batch: PackedBatch, segments: Mapping[SegmentKind, Segments]) -> Started:
        """Start a run, and return the function that waits for its results; arguments and errors as in `run`."""
        captures = self.run(program, batch, segments)
        return lambda: captures


def rows_needed(
    program: Program, segments: Mapping[SegmentKind, Segments], num_tokens: int
) -> npt.NDArray[np.int32] | None:
    """Return the rows that captures need from block `program.stop`: int32, ascending, or None for all T rows."""
    if not program.top_rows_only:
        return None
    needed = np.zeros(num_tokens, dtype=bool)
    for capture in program.captures:
        if program.stop not in capture.layers:
            continue
        if capture.segments is None:
            return None
        rows = segments[capture.segments]
        if capture.reduce == "first" and rows.is_simple:
            needed[rows.begin[rows.begin < rows.end]] = True
        elif capture.reduce == "last" and rows.is_simple:
            needed[rows.end[rows.begin < rows.end] - 1] = True
        else:
            needed[rows.rows()] = True
    # At least one row, so that no backend has to run a block on none.
    needed[0] |= not needed.any()
    rows_kept = np.flatnonzero(needed).astype(np.int32)
    return None if len(rows_kept) == num_tokens else rows_kept
