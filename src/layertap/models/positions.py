"""How an encoder knows where tokens stand: tables of positions, and distances in attention.

Bases of rotary angles and windows are numbers a layer in `EncoderSpec`; `rotary` reads them from configs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True, kw_only=True)
class PositionTable:
    """Table of learned absolute positions.

    Attributes:
        rows: rows of the table (`max_position_embeddings`).
        padding_id: None: positions are 0, 1, 2, ... (BERT). Otherwise they come from the ids, as in
            RoBERTa: a token equal to `padding_id` sits on row `padding_id` and is not counted, the others on
            `padding_id + 1, padding_id + 2, ...`.
    """

    rows: int
    padding_id: int | None = None

    @property
    def max_length(self) -> int:
        """Tokens that a sequence can have, special tokens included."""
        return self.rows if self.padding_id is None else self.rows - self.padding_id - 1

    def position_ids(self, input_ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return int32 [T], the rows of the position table for one sequence's ids [T]."""
        if self.padding_id is None:
            return np.arange(len(input_ids), dtype=np.int32)
        counted = input_ids != self.padding_id
        positions: npt.NDArray[np.int32] = (np.cumsum(counted) * counted + self.padding_id).astype(np.int32)
        return positions


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainPositions:
    """Positions 0, 1, 2, ... without a table: what rotary and relative attention count from.

    Attributes:
        max_length: tokens that a sequence can have, special tokens included.
    """

    max_length: int

    def position_ids(self, input_ids: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
        """Return int32 [T], for one sequence's ids [T]."""
        return np.arange(len(input_ids), dtype=np.int32)


@dataclass(frozen=True, slots=True, kw_only=True)
class RelativeBias:
    """A learned number for each head and distance, added to the scaled scores of every layer (Raffel et al. 2020).

    Attributes:
        buckets: rows of the table; half of them for keys before the query, half for those after it. Of each half
            one half stands for single distances, the other for ranges that widen with the logarithm.
        max_distance: from here on every distance is in the last bucket.
    """

    buckets: int
    max_distance: int

    def buckets_of(self, distances: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the bucket of each distance, key minus query (Raffel et al. 2020, as transformers counts them)."""
        half = self.buckets // 2
        exact = half // 2
        far = np.abs(distances)
        # in float32, as the models were trained with: it decides on which side of an edge a distance falls
        steps = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact))
        ratio = steps / np.float32(math.log(self.max_distance / exact))
        wide = exact + (ratio * np.float32(half - exact)).astype(np.int64)
        buckets: npt.NDArray[np.int64] = np.where(far < exact, far, np.minimum(wide, half - 1))
        return buckets + np.where(distances > 0, half, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disentangled:
    """A learned vector for each distance, of which every layer makes keys and queries (He et al. 2021).

    The score of query i and key j is `q_i k_j + q_i k(i - j) + q(i - j) k_j` over `sqrt(D * terms)`, where `k(d)` and
    `q(d)` are projections of the vector of distance d. With the third term the paper writes `q(j - i)`; tables are
    trained with the sign of transformers' code.

    Attributes:
        max_distance: `max_relative_positions`: vectors reach from -max_distance to max_distance - 1, and what is
            farther has the outermost; with `buckets`, where the logarithm reaches the last of them.
        buckets: None: a vector a distance. Otherwise this many on either side, half of them for single distances, the
            others for ranges that widen with the logarithm.
        content_to_position: the term `q_i k(i - j)` is there.
        position_to_content: the term `q(i - j) k_j` is there.
        shared_projections: those of the tokens; otherwise distances have their own.
        norm: the vectors are normed before they are projected.
    """

    max_distance: int
    buckets: int | None = None
    content_to_position: bool = True
    position_to_content: bool = True
    shared_projections: bool = False
    norm: bool = False

    @property
    def span(self) -> int:
        """Number of vectors on either side of distance 0."""
        return self.buckets or self.max_distance

    def vectors_of(self, distances: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the index of each distance's vector (query minus key), as transformers counts them."""
        buckets = distances
        if self.buckets is not None:
            middle = self.buckets // 2
            far = np.maximum(np.abs(distances), max(middle, 1)).astype(np.float32) / np.float32(middle)
            # In float32, as the models were trained with: it decides on which side of an edge a distance falls.
            # Logarithms are rounded once, like torch's: numpy's own in float32 put some on the other side.
            reach = np.float32((self.max_distance - 1) / middle)
            ratio = np.log(far.astype(np.float64)).astype(np.float32) / np.float32(np.log(np.float64(reach)))
            wide = (np.ceil(ratio * np.float32(middle - 1)) + middle).astype(np.int64)
            buckets = np.where(np.abs(distances) <= middle, distances, wide * np.sign(distances))
        vectors: npt.NDArray[np.int64] = np.clip(buckets + self.span, 0, 2 * self.span - 1)
        return vectors

    @property
    def terms(self) -> int:
        """Number of terms that a score adds up."""
        return 1 + self.content_to_position + self.position_to_content


def rotary_frequencies(theta: float, head_size: int, scale: float = 1.0) -> npt.NDArray[np.float32]:
    """Radians from a position to the next: `theta^(-2i / D) / scale`, float32 [D / 2].

    Each step is rounded to float32, as in transformers: in texts of thousands of tokens a frequency that is off by half
    a unit of its last place turns the last tokens by more than all other rounding does.
    """
    exponents = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    # the power in float64 first: float32 ones are not the same in every library
    powers = np.power(float(np.float32(theta)), exponents.astype(np.float64)).astype(np.float32)
    frequencies: npt.NDArray[np.float32] = np.float32(1) / powers / np.float32(scale)
    return frequencies
