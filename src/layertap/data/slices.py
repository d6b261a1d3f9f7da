"""Cutting consecutive records out of a feature, and putting such pieces together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from layertap.records import Array, AttentionMaps, Feature, FeatureSchema, Ragged


def cut(feature: Feature, begin: int, end: int) -> Feature:
    """Return the records `begin:end` of a feature, as views."""
    if isinstance(feature, Ragged):
        offsets = feature.offsets[begin : end + 1]
        return Ragged(feature.values[offsets[0] : offsets[-1]], offsets - offsets[0])
    if isinstance(feature, AttentionMaps):
        first, last = feature.offsets[[begin, end]]
        return AttentionMaps(feature.values[first:last], feature.lengths[begin:end], feature.leading)
    return feature[begin:end]


def join(schema: FeatureSchema, pieces: Sequence[Feature]) -> Feature:
    """Return a copy of the records of several pieces in their order; no pieces give no records."""
    dtype = np.dtype(object if schema.dtype == "str" else schema.dtype)
    row_shape = () if schema.maps else schema.shape
    values: list[Array] = [np.empty((0, *row_shape), dtype)]
    lengths: list[Array] = [np.zeros(0, np.int64)]
    for piece in pieces:
        if isinstance(piece, Ragged | AttentionMaps):
            values.append(piece.values)
            lengths.append(piece.lengths if isinstance(piece, AttentionMaps) else np.diff(piece.offsets))
        else:
            values.append(piece)
    laid = np.concatenate(values)
    if schema.maps:
        return AttentionMaps(laid, np.concatenate(lengths), schema.shape)
    if schema.ragged:
        return Ragged(laid, np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(lengths))]))
    return laid
