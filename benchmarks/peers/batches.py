"""Tokenise, sort, batch and average for libraries that have no tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tokenizers import Tokenizer

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PaddedBatch:
    """A batch of sequences of similar length: ids and mask int64 [B, T], and the numbers [B] of their texts."""

    which: IntArray
    input_ids: IntArray
    attention_mask: IntArray


def load_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """Load the folder's tokenizer, which truncates at ``max_length`` tokens, special ones included, without padding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return tokenizer


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """Tokenise all texts at once, on the tokenizer's own threads."""
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(list(texts))]


def sorted_batches(ids: Sequence[Sequence[int]], size: int, pad_id: int) -> Iterator[PaddedBatch]:
    """Make batches of ``size`` sequences, longest first, padded to the longest of the batch."""
    order = np.argsort([-len(sequence) for sequence in ids], kind="stable")
    for start in range(0, len(order), size):
        which = order[start : start + size]
        lengths = np.array([len(ids[index]) for index in which])
        mask = np.arange(lengths.max())[None, :] < lengths[:, None]
        padded = np.full(mask.shape, pad_id, dtype=np.int64)
        padded[mask] = np.concatenate([ids[index] for index in which])
        yield PaddedBatch(which=which, input_ids=padded, attention_mask=mask.astype(np.int64))


def mean_over_tokens(states: FloatArray, mask: IntArray) -> FloatArray:
    """Average the tokens of each sequence: states [B, T, H] and mask [B, T] to [B, H]."""
    weights = mask.astype(np.float32)
    sums = np.matmul(weights[:, None, :], states)[:, 0]
    return np.asarray(sums / weights.sum(1, keepdims=True), dtype=np.float32)


def read_pad_id(folder: Path) -> int:
    """Read the padding id from the folder's config.json; 0 if there is none."""
    import json

    return int(json.loads((folder / "config.json").read_text("utf-8")).get("pad_token_id") or 0)
