"""Copies of results from a device to the processor, which run beside the computation."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from layertap.backends.base import FloatArray
from layertap.backends.torch.devices import kind_of
from layertap.features.program import Capture


class Fetch:
    """Results of one run on their way to the processor.

    `take` is called for each result as soon as it is computed, `end` after the last one, and `results` waits. On CUDA,
    results travel in the precision that they have, through pinned memory and on a stream of their own, so that the
    device goes on computing; they are widened to float32 on the processor.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = _copy_stream(device) if kind_of(device) == "cuda" and torch.cuda.is_available() else None
        self._device = device
        self._results: dict[Capture, Tensor] = {}
        self._copied: torch.cuda.Event | None = None

    def take(self, capture: Capture, result: Tensor) -> None:
        """Start to copy a result."""
        if self._stream is None:
            self._results[capture] = result
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        with torch.cuda.stream(self._stream):
            host.copy_(result, non_blocking=True)
        result.record_stream(self._stream)  # its memory is not used again before the copy has ended
        self._results[capture] = host

    def end(self) -> None:
        """Mark the end of the copies; nothing is taken afterwards."""
        if self._stream is not None:
            # A waiting thread sleeps, so that the processor can prepare texts.
            self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._copied.record(self._stream)

    @torch.inference_mode()
    def results(self) -> dict[Capture, FloatArray]:
        """Wait for the copies, and return the results as float32 arrays."""
        if self._copied is not None:
            self._copied.synchronize()
        return {capture: result.float().cpu().numpy() for capture, result in self._results.items()}


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
