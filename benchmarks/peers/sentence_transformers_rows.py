"""Row of sentence-transformers' ``encode``, which sorts texts by length itself."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from benchmarks.peers.batches import FloatArray
from benchmarks.peers.row import Embed, Precision, Row, Settings, every_batch_size


def load(settings: Settings, setup: str, *, precision: Precision) -> Embed:  # noqa: ARG001 - rows share one signature; here is one set-up
    """Load the folder's encoder with mean pooling, without normalisation, at the limit of all rows."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Pooling, Transformer

    torch.set_num_threads(settings.threads)
    encoder = Transformer(str(settings.folder), model_kwargs={"dtype": getattr(torch, precision)})
    pooling = Pooling(encoder.get_embedding_dimension(), pooling_mode="mean")
    model = SentenceTransformer(modules=[encoder, pooling], device=settings.device)
    model.max_seq_length = settings.max_length

    def embed(texts: Sequence[str], batch_size: int) -> FloatArray:
        tensors = model.encode(
            list(texts), batch_size=batch_size, show_progress_bar=False, convert_to_numpy=False, convert_to_tensor=True
        )
        return np.asarray(tensors.float().cpu().numpy(), dtype=np.float32)

    return embed


def _row(precision: Precision) -> Row:
    return Row(
        name=f"sentence-transformers-{precision}",
        library="sentence-transformers",
        precision=precision,
        variants=every_batch_size("encode"),
        load=partial(load, precision=precision),
        on_device=True,
    )


ROWS = (_row("float32"), _row("bfloat16"))
