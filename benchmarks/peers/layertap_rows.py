"""layertap itself, as a user calls it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np

from benchmarks.peers.batches import FloatArray
from benchmarks.peers.row import Embed, Row, Settings, Variant

_FEATURE = "last_hidden_state.mean"
_AS_IT_COMES = Variant(setup="as it comes")


def load(settings: Settings, setup: str, *, precision: Literal["float32", "bfloat16"]) -> Embed:  # noqa: ARG001 - rows share one signature; layertap has one set-up
    """An Extractor with nothing tuned: batches, order and limit are its own."""
    import torch

    from layertap import Extractor

    torch.set_num_threads(settings.threads)
    extractor = Extractor.from_pretrained(settings.folder, precision=precision, max_length=settings.max_length)

    def embed(texts: Sequence[str], batch_size: int) -> FloatArray:  # noqa: ARG001 - it decides itself
        return np.asarray(extractor.extract(list(texts), _FEATURE), dtype=np.float32)

    return embed


def _row(precision: Literal["float32", "bfloat16"]) -> Row:
    return Row(
        name=f"layertap-{precision}",
        library="layertap",
        precision=precision,
        variants=(_AS_IT_COMES,),
        load=partial(load, precision=precision),
        ours=True,
    )


ROWS = (_row("float32"), _row("bfloat16"))
