"""Compare the native engine's matrix products with the processor's peak, on one core.

The command is ``python -m benchmarks native-products``. Figures are in processor time of this thread, which other
processes disturb less; the peak is the best, and a product the best tenth, of many short tries in the same run.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.limit import LimitUnknownError, build_peak_program, measure_peaks
from benchmarks.report import markdown_table


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """A product of an encoder block: N columns out of K, and its epilogue."""

    columns: int
    inner: int
    activation: str = "none"
    residual: bool = False

    def __str__(self) -> str:
        return f"{self.columns} x {self.inner}" + (" GELU" * (self.activation == "gelu")) + " +residual" * self.residual


def block(hidden: int) -> list[Layer]:
    """List the products of a block: query, key and value; attention output; feed-forward up and down."""
    return [
        Layer(columns=3 * hidden, inner=hidden),
        Layer(columns=hidden, inner=hidden, residual=True),
        Layer(columns=4 * hidden, inner=hidden, activation="gelu"),
        Layer(columns=hidden, inner=4 * hidden, residual=True),
    ]


LAYERS = block(384) + block(768)
FEW_ROWS = (1, 4, 10, 32)
_VALUE = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.uint8}
_TRY_SECONDS = 0.001
_VECTOR_FLAGS = ("-mavx2", "-mfma", "-mavx512f", "-mavx512vnni", "-mavx512bf16")
# instructions that the loop of the peak may use, the same as the kernels
_PEAK_FLAGS = {
    "avx2": _VECTOR_FLAGS[:2],
    "avx512": _VECTOR_FLAGS[:3],
    "avx512_vnni": _VECTOR_FLAGS[:4],
    "avx512_bf16": _VECTOR_FLAGS,
    "amx": (*_VECTOR_FLAGS, "-mamx-tile", "-mamx-bf16", "-mamx-int8"),
}


class Product:
    """A product, ready to be repeated, with random operands and a discarded result."""

    def __init__(self, native: Any, instruction_set: str, name: str, layer: Layer, rows: int) -> None:
        random = np.random.default_rng(0)
        columns, inner = -(-layer.columns // 64) * 64, -(-layer.inner // 64) * 64
        weights = random.standard_normal((layer.columns, layer.inner), dtype=np.float32) / np.float32(layer.inner**0.5)
        self._packed = native.Packed(instruction_set, name, weights)
        x = random.standard_normal((-(-rows // 16) * 16, inner), dtype=np.float32)
        held: dict[str, Any] = {
            "float32": x,
            "bfloat16": (x.view(np.uint32) >> 16).astype(np.uint16),
            "int8": (x * 30 + 128).clip(0, 255),
        }
        halves = name == "bfloat16" and not layer.residual  # what the next product reads
        self._arguments: dict[str, Any] = {
            "a": held[name].astype(_VALUE[name]).view(np.uint8),
            "bias": np.zeros(columns, np.float32),
            "activation": layer.activation,
            "out": np.zeros((rows, columns), np.uint16 if halves else np.float32),
            "row_begin": 0,
            "row_end": rows,
            "panel_begin": 0,
            "panel_end": self._packed.panels,
        }
        if layer.residual:
            self._arguments["residual"] = np.zeros((rows, columns), np.float32)
        if name == "int8":
            self._arguments["row_scales"] = np.full(rows, 1 / 30, np.float32)
            self._arguments["row_zeros"] = np.full(rows, 128, np.float32)
        self._native = native
        self._repeat = max(1, round(_TRY_SECONDS / self._time(1)))
        self._seconds: list[float] = []
        self.operations = 2 * rows * layer.columns * layer.inner
        self.weight_bytes = self._packed.data.nbytes

    def _time(self, repeat: int) -> float:
        began = time.thread_time()
        self._native.product(self._packed, repeat=repeat, **self._arguments)
        return max(time.thread_time() - began, 1e-9) / repeat

    def try_again(self, times: int) -> None:
        """Time the product a few more times."""
        self._seconds += [self._time(self._repeat) for _ in range(times)]

    @property
    def seconds(self) -> float:
        """Seconds of one product, by the best tenth of the tries."""
        return float(np.quantile(self._seconds, 0.1))


def measure(native: Any, instruction_set: str, name: str, rows: int, *, rounds: int, peak_program: Path) -> list[str]:
    """Measure a row of the table: each layer's share of the peak, or the rate of reading weights with few rows."""
    products = [Product(native, instruction_set, name, layer, rows) for layer in LAYERS]
    peak = 0.0
    for _ in range(rounds):
        rates = measure_peaks(peak_program, 1, seconds=0.01)
        peak = max(peak, rates[name].operations_per_second)
        for product in products:
            product.try_again(10)
    cells = []
    for product in products:
        share = f"{product.operations / product.seconds / peak:.0%}"
        rate = f"{product.weight_bytes / product.seconds / 1e9:.0f} GB/s"
        cells.append(share if rows not in FEW_ROWS else f"{share}, {rate}")
    return [name, str(rows), f"{peak / 1e9:.0f}", *cells]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the requested instruction sets."""
    import layertap.backends.native._native_testing as native

    offered = [name for name in native.instruction_sets() if name in _PEAK_FLAGS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks native-products", description=__doc__)
    parser.add_argument("--instruction-set", nargs="+", choices=offered, default=offered[:1])
    parser.add_argument("--format", nargs="+", choices=list(_VALUE), default=list(_VALUE))
    parser.add_argument("--rows", nargs="+", type=int, default=[256, *FEW_ROWS], help="rows of activations (tokens)")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args(arguments)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    header = ["format", "rows", "peak, GFLOP/s", *map(str, LAYERS)]
    for instruction_set in options.instruction_set:
        with tempfile.TemporaryDirectory() as folder:
            try:
                program = build_peak_program(Path(folder), flags=_PEAK_FLAGS[instruction_set])
                names = [name for name in options.format if name in measure_peaks(program, 1, seconds=0.01)]
            except LimitUnknownError as error:
                parser.error(f"the peak cannot be measured: {error}")
            table = [
                measure(native, instruction_set, name, rows, rounds=options.rounds, peak_program=program)
                for name in names
                for rows in options.rows
            ]
        title = f"### Products: {instruction_set}, one core, share of the peak; with few rows also weights read"
        print("\n".join([title, "", *markdown_table(header, table), ""]), flush=True)
    return 0
