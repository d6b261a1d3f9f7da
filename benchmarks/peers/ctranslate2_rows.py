"""Rows of CTranslate2's Encoder in float32 and int8; it has no bfloat16 on a CPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.machine import read_machine
from benchmarks.peers.batches import (
    FloatArray,
    PaddedBatch,
    load_tokenizer,
    mean_over_tokens,
    read_pad_id,
    sorted_batches,
    token_ids,
)
from benchmarks.peers.row import Embed, Precision, Row, Settings, every_batch_size

_ONE_WORKER = "sorted, one worker on all threads"
_WORKER_A_THREAD = "sorted, a worker a thread"


def _folder(settings: Settings) -> Path:
    return settings.cache / "ctranslate2"


def prepare(settings: Settings) -> None:
    """Convert the weights unless the cache holds the result; loading makes int8 of it."""
    if (_folder(settings) / "model.bin").is_file():
        return
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(settings.folder)).convert(str(_folder(settings)), force=True)


def load(settings: Settings, setup: str, *, precision: Precision) -> Embed:
    """Load an Encoder; with one worker per thread, as many batches run at a time."""
    if "avx512f" in read_machine().flags:
        # by default CTranslate2 takes AVX2 on processors of other makers than Intel
        os.environ.setdefault("CT2_FORCE_CPU_ISA", "AVX512")
    import ctranslate2

    workers = settings.threads if setup == _WORKER_A_THREAD else 1
    encoder = ctranslate2.Encoder(
        str(_folder(settings)),
        device="cpu",
        compute_type=precision,
        inter_threads=workers,
        intra_threads=settings.threads // workers,
    )
    tokenizer = load_tokenizer(settings.folder, settings.max_length)
    pad_id = read_pad_id(settings.folder)
    pool = ThreadPoolExecutor(workers)

    def run(batch: PaddedBatch) -> FloatArray:
        lengths = batch.attention_mask.sum(1).tolist()
        ids = [row[:length].tolist() for row, length in zip(batch.input_ids, lengths, strict=True)]
        states = np.asarray(encoder.forward_batch(ids).last_hidden_state)
        return mean_over_tokens(states, batch.attention_mask)

    def embed(texts: Sequence[str], batch_size: int) -> FloatArray:
        batches = list(sorted_batches(token_ids(tokenizer, texts), batch_size, pad_id))
        parts = list(pool.map(run, batches))
        vectors = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
        vectors[np.concatenate([batch.which for batch in batches])] = np.concatenate(parts)
        return vectors

    return embed


def _row(precision: Precision) -> Row:
    return Row(
        name=f"ctranslate2-{precision}",
        library="ctranslate2",
        precision=precision,
        variants=every_batch_size(_ONE_WORKER, _WORKER_A_THREAD),
        prepare=prepare,
        load=partial(load, precision=precision),
    )


ROWS = (_row("float32"), _row("int8"))
