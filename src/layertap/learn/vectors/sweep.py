"""Features with one vector per text or word: checked, extracted in one pass, read from a cache if there is one."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.engine.progress import progress_on
from layertap.engine.streaming import Stream
from layertap.errors import FeatureError
from layertap.features.expr import Expr
from layertap.learn.arrays import Float32Array
from layertap.learn.vectors.cache import CacheKey, cache_lock, text_hash
from layertap.records import Ragged, Record

SHARD_BYTES = 1 << 26
"""Size of the vectors that are written to the cache at a time: a run that is killed loses no more than that."""

NAME = "v"


def width_of(extractor: Extractor, feature: Expr) -> int:
    """Return the size of the vectors of a feature.

    Raises:
        FeatureError: the feature does not give one vector per text.
    """
    schema, *companions = extractor.schema({NAME: feature})
    if schema.maps or schema.ragged:
        what = "attention maps" if schema.maps else "a vector per token, word or span"
        raise FeatureError(
            f"{feature} gives {what}; one vector per text is needed: pool the tokens, as in {_pooled(feature)}"
        )
    if len(schema.shape) != 1:
        raise FeatureError(
            f"{feature} gives {schema.shape[0]} vectors per text; one is needed: choose a layer, or fold the layers "
            "with layer_mean or layer_concat, as in hidden_states[-4:].layer_mean.mean"
        )
    if companions or schema.dtype not in ("float32", "float16"):
        raise FeatureError(f"{feature} gives {schema.dtype} codes, and floats are needed; omit .astype(...)")
    return schema.shape[0]


def _pooled(feature: Expr) -> str:
    try:
        return str(feature.mean)
    except FeatureError:
        return "last_hidden_state.mean"


def word_width_of(extractor: Extractor, feature: Expr) -> int:
    """Return the size of the vectors of a feature of words.

    Raises:
        FeatureError: the feature does not give one vector per word.
    """
    schema, *companions = extractor.schema({NAME: feature})
    if feature.form.unit != "words" or len(schema.shape) != 1 or companions or schema.dtype[:5] != "float":
        raise FeatureError(f"{feature}: one vector per word is needed, as in hidden_states[4].words(mean)")
    return schema.shape[0]


def extracted(extractor: Extractor, texts: Sequence[str], feature: Expr, *, progress: bool) -> Float32Array:
    """Extract the vectors of N texts, float32 [N, H], without a cache."""
    width_of(extractor, feature)
    vectors = extractor.extract(texts, feature, progress=progress)
    assert isinstance(vectors, np.ndarray)
    return vectors.astype(np.float32, copy=False)


def cached(
    extractor: Extractor,
    texts: Sequence[str],
    features: Sequence[Expr],
    cache: Path,
    *,
    progress: bool,
    notes: list[str] | None = None,
) -> Float32Array:
    """Return the vectors of the first feature, float32 [N, H], from a cache.

    Vectors that the cache lacks are extracted for all features in one pass, and added to it.

    Args:
        extractor: the model and its options.
        texts: N texts.
        features: features to keep in the cache; the vectors of the first one are returned.
        cache: folder of the cache; created if absent.
        progress: draw a progress bar on standard error while extracting.
        notes: list to which a remark on unknown tokens of the texts that ran is added, or None.
    """
    keys = {feature: cache_key(extractor, feature, cache) for feature in dict.fromkeys(features)}
    wanted = keys[features[0]]
    by_hash = {text_hash(text): text for text in texts}
    hashes = list(by_hash)
    vectors, known = wanted.read(hashes)
    if not known.all():
        with cache_lock(cache):
            _fill(extractor, by_hash, keys, progress=progress, notes=notes)
            vectors, known = wanted.read(hashes)
        assert known.all()
    row_of = {own: row for row, own in enumerate(hashes)}
    rows = np.array([row_of[text_hash(text)] for text in texts], dtype=np.int64)
    in_order: Float32Array = vectors[rows]
    return in_order


def sweep(
    extractor: Extractor,
    texts: Sequence[str],
    features: Sequence[Expr],
    cache: Path | None,
    *,
    progress: bool,
    notes: list[str] | None = None,
) -> dict[Expr, Float32Array]:
    """Return the vectors of several features, float32 [N, H] each, from one pass or from a cache.

    A remark on unknown tokens of the texts that ran is added to `notes`.
    """
    widths = {feature: width_of(extractor, feature) for feature in features}
    if cache is not None:
        return {
            feature: cached(extractor, texts, [feature, *features], cache, progress=progress, notes=notes)
            for feature in features
        }
    vectors: dict[Expr, Float32Array] = {
        feature: np.empty((len(texts), width), dtype=np.float32) for feature, width in widths.items()
    }
    names = {f"{NAME}{i}": feature for i, feature in enumerate(features)}
    with progress_on(sys.stderr, shown=progress, total=len(texts)) as on_progress:
        stream = extractor.stream(texts, names, on_progress=on_progress)
        for batch in stream:
            begin = batch.records[0].row
            for name, feature in names.items():
                vectors[feature][begin : begin + len(batch)] = np.asarray(batch.features[name])
    _add_notes(stream, notes)
    return vectors


def _add_notes(stream: Stream, notes: list[str] | None) -> None:
    if notes is not None:
        notes += stream.summary.remarks_on_unknown()


def sweep_words(
    extractor: Extractor,
    records: Sequence[Record],
    features: Sequence[Expr],
    *,
    progress: bool,
    notes: list[str] | None = None,
) -> dict[Expr, Float32Array]:
    """Extract the vectors of all M words of records for several features, float32 [M, H] each, in one pass.

    A remark on unknown tokens is added to `notes`.
    """
    parts: dict[Expr, list[Float32Array]] = {
        feature: [np.empty((0, word_width_of(extractor, feature)), dtype=np.float32)] for feature in features
    }
    names = {f"{NAME}{i}": feature for i, feature in enumerate(features)}
    with progress_on(sys.stderr, shown=progress, total=len(records)) as on_progress:
        stream = extractor.stream(records, names, on_progress=on_progress)
        for batch in stream:
            for name, feature in names.items():
                words = batch.features[name]
                assert isinstance(words, Ragged)
                parts[feature].append(words.values.astype(np.float32, copy=False))
    _add_notes(stream, notes)
    return {feature: np.concatenate(parts.pop(feature)) for feature in features}


def cache_key(extractor: Extractor, feature: Expr, cache: Path) -> CacheKey:
    """Return the key of the vectors of a feature in a cache."""
    stated = extractor.provenance({NAME: feature}).as_dict()
    identity: dict[str, Any] = {key: value for key, value in stated.items() if key not in ("model", "commit")}
    identity |= {"feature": identity.pop("features")[NAME], "max_length": identity["max_length"][NAME]}
    identity["prompt"] = identity["prompt"].get(NAME, "")
    return CacheKey(cache=cache, identity=identity, width=width_of(extractor, feature))


def _fill(
    extractor: Extractor,
    texts: Mapping[bytes, str],
    keys: Mapping[Expr, CacheKey],
    *,
    progress: bool,
    notes: list[str] | None,
) -> None:
    """Extract in one pass the texts that the cache lacks for any feature, for the features that lack some."""
    hashes = list(texts)
    lacking: dict[Expr, set[bytes]] = {}
    for feature, key in keys.items():
        _, known = key.read(hashes, repair=True)
        missing = {own for own, there in zip(hashes, known, strict=True) if not there}
        if missing:
            lacking[feature] = missing
    run = [own for own in hashes if any(own in missing for missing in lacking.values())]
    if not run:
        return
    names = {f"{NAME}{i}": feature for i, feature in enumerate(lacking)}
    row_bytes = sum(4 * keys[feature].width for feature in lacking)
    done: list[bytes] = []
    parts: dict[str, list[Float32Array]] = {name: [] for name in names}

    def write_shard() -> None:
        for name, feature in names.items():
            rows = [i for i, own in enumerate(done) if own in lacking[feature]]
            if rows:
                keys[feature].write([done[i] for i in rows], np.concatenate(parts[name])[rows])
            parts[name].clear()
        done.clear()

    with progress_on(sys.stderr, shown=progress, total=len(run)) as on_progress:
        stream = extractor.stream((texts[own] for own in run), names, on_progress=on_progress)
        for batch in stream:
            done.extend(run[record.row] for record in batch.records)
            for name in names:
                parts[name].append(np.asarray(batch.features[name], dtype=np.float32))
            if len(done) * row_bytes >= SHARD_BYTES:
                write_shard()
        if done:
            write_shard()
    _add_notes(stream, notes)
