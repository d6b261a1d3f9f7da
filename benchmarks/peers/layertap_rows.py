"""Rows of layertap, called as a user calls it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np

from benchmarks.peers.batches import FloatArray
from benchmarks.peers.row import Embed, Precision, Row, Settings, Variant

_FEATURE = "last_hidden_state.mean"
_AS_IT_COMES = Variant(setup="as it comes")


def load(settings: Settings, setup: str, *, precision: Precision, backend: Literal["native", "torch"]) -> Embed:  # noqa: ARG001 - rows share one signature; layertap has one set-up
    """Load an Extractor with default batches, order and limit."""
    from layertap import Extractor

    if backend == "torch":
        import torch

        torch.set_num_threads(settings.threads)
    extractor = Extractor.from_pretrained(
        settings.folder,
        precision=precision,
        max_length=settings.max_length,
        backend=backend,
        device=settings.device if backend == "torch" else "cpu",
        threads=settings.threads if backend == "native" else None,
    )

    def embed(texts: Sequence[str], batch_size: int) -> FloatArray:  # noqa: ARG001 - it decides itself
        return np.asarray(extractor.extract(list(texts), _FEATURE), dtype=np.float32)

    return embed


def _row(precision: Precision, backend: Literal["native", "torch"] = "native") -> Row:
    return Row(
        name=f"layertap-{precision}" if backend == "native" else f"layertap-torch-{precision}",
        library="layertap",
        precision=precision,
        variants=(_AS_IT_COMES,),
        load=partial(load, precision=precision, backend=backend),
        ours=backend == "native",
        on_device=backend == "torch",
    )


ROWS = (_row("float32"), _row("bfloat16"), _row("int8"), _row("float32", "torch"), _row("bfloat16", "torch"))
