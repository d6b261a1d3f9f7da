"""Rows of transformers: SDPA attention, padded batches, in input order (the common way) and sorted by length."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.peers.batches import FloatArray
from benchmarks.peers.row import Embed, Precision, Row, Settings, Variant, every_batch_size

INPUT_ORDER = Variant(setup="input order", batch_size=32)
SORTED = "sorted"


def load(settings: Settings, setup: str, *, precision: Precision) -> Embed:
    """Load AutoModel and AutoTokenizer as documented; mean over the attention mask in float32."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    torch.set_num_threads(settings.threads)
    tokenizer = AutoTokenizer.from_pretrained(settings.folder)
    dtype = getattr(torch, precision)
    model = AutoModel.from_pretrained(settings.folder, dtype=dtype, attn_implementation="sdpa").eval()
    model.to(settings.device)

    def forward(batch: Any) -> FloatArray:
        with torch.inference_mode():
            batch = batch.to(settings.device)
            states = model(**batch).last_hidden_state
            weights = batch["attention_mask"].unsqueeze(-1)
            means = (states.float() * weights).sum(1) / weights.sum(1)
        return np.asarray(means.cpu().numpy(), dtype=np.float32)

    def embed_in_order(texts: Sequence[str], batch_size: int) -> FloatArray:
        vectors = []
        for start in range(0, len(texts), batch_size):
            batch = tokenizer(
                list(texts[start : start + batch_size]),
                padding=True,
                truncation=True,
                max_length=settings.max_length,
                return_tensors="pt",
            )
            vectors.append(forward(batch))
        return np.concatenate(vectors)

    def embed_sorted(texts: Sequence[str], batch_size: int) -> FloatArray:
        encoded = tokenizer(list(texts), truncation=True, max_length=settings.max_length)
        order = np.argsort([-len(ids) for ids in encoded["input_ids"]], kind="stable")
        vectors = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), batch_size):
            which = order[start : start + batch_size]
            part = {key: [rows[index] for index in which] for key, rows in encoded.items()}
            vectors[which] = forward(tokenizer.pad(part, return_tensors="pt"))
        return vectors

    return embed_sorted if setup == SORTED else embed_in_order


def _row(precision: Precision, order: str, variants: tuple[Variant, ...]) -> Row:
    return Row(
        name=f"transformers-{precision}-{order}",
        library="transformers",
        precision=precision,
        variants=variants,
        load=partial(load, precision=precision),
        on_device=True,
    )


ROWS = (
    _row("float32", "input-order", (INPUT_ORDER,)),
    _row("float32", "sorted", every_batch_size(SORTED)),
    _row("bfloat16", "input-order", (INPUT_ORDER,)),
    _row("bfloat16", "sorted", every_batch_size(SORTED)),
)
