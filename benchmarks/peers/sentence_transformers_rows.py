"""sentence-transformers: ``encode``, which sorts by length itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks.peers.batches import BATCH_SIZES, FloatArray
from benchmarks.peers.row import Embed, Precision, Row, Settings, Variant

_VARIANTS = {f"encode, batch {size}": size for size in BATCH_SIZES}


def load(settings: Settings, variant: Variant, *, precision: Precision) -> Embed:
    """The folder's encoder with mean pooling and, as for everybody, no normalisation and the common limit."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    torch.set_num_threads(settings.threads)
    encoder = Transformer(str(settings.folder), model_kwargs={"dtype": getattr(torch, precision)})
    pooling = Pooling(encoder.get_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[encoder, pooling], device="cpu")
    model.max_seq_length = settings.max_length
    size = _VARIANTS[variant]

    def embed(texts: Sequence[str]) -> FloatArray:
        tensors = model.encode(
            list(texts), batch_size=size, show_progress_bar=False, convert_to_numpy=False, convert_to_tensor=True
        )
        return np.asarray(tensors.float().numpy(), dtype=np.float32)

    return embed


def _row(precision: Precision) -> Row:
    return Row(
        name=f"sentence-transformers-{precision}",
        library="sentence-transformers",
        precision=precision,
        variants=tuple(_VARIANTS),
        load=partial(load, precision=precision),
    )


ROWS = (_row("float32"), _row("bfloat16"))
