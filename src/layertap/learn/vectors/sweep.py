"""Features with one vector a text: checked, extracted in one pass, read from a cache where there is one."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.engine.progress import progress_on
from layertap.errors import FeatureError
from layertap.features.expr import Expr
from layertap.learn.vectors.cache import FloatArray, Shelf, key_of, turn
from layertap.records import Ragged, Record

SHARD_BYTES = 1 << 26
"""Vectors are put on disk about so many bytes at a time: what a killed run has done stays done."""

NAME = "v"


def width_of(extractor: Extractor, feature: Expr) -> int:
    """Numbers a text of a feature.

    Raises:
        FeatureError: it does not give one vector a text.
    """
    schema, *companions = extractor.schema({NAME: feature})
    if schema.maps or schema.ragged:
        what = "attention maps" if schema.maps else "a vector a token, word or span"
        raise FeatureError(f"{feature} gives {what}; one vector a text is needed: pool it, as in {_pooled(feature)}")
    if len(schema.shape) != 1:
        raise FeatureError(
            f"{feature} gives {schema.shape[0]} vectors a text; one is needed: choose a layer, or fold them with "
            "layer_mean or layer_concat, as in hidden_states[-4:].layer_mean.mean"
        )
    if companions or schema.dtype not in ("float32", "float16"):
        raise FeatureError(f"{feature} gives {schema.dtype} codes, not numbers to learn from; leave .astype(...) out")
    return schema.shape[0]


def _pooled(feature: Expr) -> str:
    try:
        return str(feature.mean)
    except FeatureError:
        return "last_hidden_state.mean"


def extracted(extractor: Extractor, texts: Sequence[str], features: Sequence[Expr], *, progress: bool) -> FloatArray:
    """Vectors of the first feature, without a cache: float32 [N, H]."""
    width_of(extractor, features[0])
    found = extractor.extract(texts, features[0], progress=progress)
    assert isinstance(found, np.ndarray)
    return found.astype(np.float32, copy=False)


def cached(
    extractor: Extractor, texts: Sequence[str], features: Sequence[Expr], cache: Path, *, progress: bool
) -> FloatArray:
    """Vectors of the first feature, float32 [N, H], from a cache; what it lacks is extracted, for all features at once.

    Args:
        extractor: the model and its options.
        texts: N texts.
        features: what to keep in the cache; the first is wanted now.
        cache: a folder, made if absent.
        progress: draw a progress bar on standard error while extracting.
    """
    shelves = {feature: shelf_of(extractor, feature, cache) for feature in dict.fromkeys(features)}
    wanted = shelves[features[0]]
    by_key = {key_of(text): text for text in texts}
    keys = list(by_key)
    vectors, found = wanted.read(keys)
    if not found.all():
        with turn(cache):
            _fill(extractor, by_key, shelves, progress=progress)
            vectors, found = wanted.read(keys)
        assert found.all()
    place = {key: row for row, key in enumerate(keys)}
    rows = np.array([place[key_of(text)] for text in texts], dtype=np.int64)
    chosen: FloatArray = vectors[rows]
    return chosen


def sweep(
    extractor: Extractor, texts: Sequence[str], features: Sequence[Expr], cache: Path | None, *, progress: bool
) -> dict[Expr, FloatArray]:
    """Vectors of several features, float32 [N, H] each, extracted in one pass; from a cache where there is one."""
    widths = {feature: width_of(extractor, feature) for feature in features}
    if cache is not None:
        return {
            feature: cached(extractor, texts, [feature, *features], cache, progress=progress) for feature in features
        }
    found: dict[Expr, FloatArray] = {
        feature: np.empty((len(texts), width), dtype=np.float32) for feature, width in widths.items()
    }
    names = {f"{NAME}{i}": feature for i, feature in enumerate(features)}
    with progress_on(sys.stderr, shown=progress, total=len(texts)) as on_progress:
        for batch in extractor.stream(texts, names, on_progress=on_progress):
            begin = batch.records[0].row
            for name, feature in names.items():
                found[feature][begin : begin + len(batch)] = np.asarray(batch.features[name])
    return found


def word_width_of(extractor: Extractor, feature: Expr) -> int:
    """Numbers a word of a feature.

    Raises:
        FeatureError: it does not give one vector a word.
    """
    schema, *companions = extractor.schema({NAME: feature})
    if feature.form.unit != "words" or len(schema.shape) != 1 or companions or schema.dtype[:5] != "float":
        raise FeatureError(f"{feature}: one vector a word is needed, as in hidden_states[4].words(mean)")
    return schema.shape[0]


def sweep_words(
    extractor: Extractor, records: Sequence[Record], features: Sequence[Expr], *, progress: bool
) -> dict[Expr, FloatArray]:
    """Vectors of all words of records, float32 [M, H] each, extracted in one pass."""
    parts: dict[Expr, list[FloatArray]] = {
        feature: [np.empty((0, word_width_of(extractor, feature)), dtype=np.float32)] for feature in features
    }
    names = {f"{NAME}{i}": feature for i, feature in enumerate(features)}
    with progress_on(sys.stderr, shown=progress, total=len(records)) as on_progress:
        for batch in extractor.stream(records, names, on_progress=on_progress):
            for name, feature in names.items():
                found = batch.features[name]
                assert isinstance(found, Ragged)
                parts[feature].append(found.values.astype(np.float32, copy=False))
    return {feature: np.concatenate(parts.pop(feature)) for feature in features}


def shelf_of(extractor: Extractor, feature: Expr, cache: Path) -> Shelf:
    """Where a feature's vectors are kept."""
    stated = extractor.provenance({NAME: feature}).as_dict()
    identity: dict[str, Any] = {key: value for key, value in stated.items() if key not in ("model", "commit")}
    identity |= {"feature": identity.pop("features")[NAME], "max_length": identity["max_length"][NAME]}
    identity["prompt"] = identity["prompt"].get(NAME, "")
    return Shelf(cache=cache, identity=identity, width=width_of(extractor, feature))


def _fill(extractor: Extractor, texts: Mapping[bytes, str], shelves: Mapping[Expr, Shelf], *, progress: bool) -> None:
    """Extracts what shelves lack in one pass: each text that any of them lacks, for all that lack some."""
    keys = list(texts)
    lacking = {feature: {key for key, there in zip(keys, shelf.read(keys, repair=True)[1], strict=True) if not there}
               for feature, shelf in shelves.items()}  # fmt: skip
    lacking = {feature: missing for feature, missing in lacking.items() if missing}
    run = [key for key in keys if any(key in missing for missing in lacking.values())]
    if not run:
        return
    names = {f"{NAME}{i}": feature for i, feature in enumerate(lacking)}
    row_bytes = sum(4 * shelves[feature].width for feature in lacking)
    done: list[bytes] = []
    parts: dict[str, list[FloatArray]] = {name: [] for name in names}

    def put_away() -> None:
        for name, feature in names.items():
            rows = [i for i, key in enumerate(done) if key in lacking[feature]]
            if rows:
                shelves[feature].write([done[i] for i in rows], np.concatenate(parts[name])[rows])
            parts[name].clear()
        done.clear()

    with progress_on(sys.stderr, shown=progress, total=len(run)) as on_progress:
        for batch in extractor.stream((texts[key] for key in run), names, on_progress=on_progress):
            done.extend(run[record.row] for record in batch.records)
            for name in names:
                parts[name].append(np.asarray(batch.features[name], dtype=np.float32))
            if len(done) * row_bytes >= SHARD_BYTES:
                put_away()
        if done:
            put_away()
