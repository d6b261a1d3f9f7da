"""Points and layers of a page from stored features, as `layertap.open` reads them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from layertap.data.input import Input
from layertap.data.store import FeatureColumn, FeatureFile
from layertap.data.store.axes import SCALE
from layertap.engine.extractor import Extractor
from layertap.errors import InputError, OptionError, UsageError
from layertap.features.expr import Expr
from layertap.features.parse import parse
from layertap.learn.arrays import Float32Array, Int64Array
from layertap.learn.exploring.corpus import Corpus, check_kept, check_label
from layertap.learn.exploring.layers import Layer
from layertap.learn.exploring.nearest import normalised
from layertap.learn.exploring.units import UnitKind, Units, finder_of, unit_chars, units_of
from layertap.records import Array, FeatureSchema, Ragged, Record
from layertap.text.units import given_chars
from layertap.words import counted

SHOWN_DTYPES = ("float32", "float16", "int8")
UNITS: tuple[UnitKind, ...] = ("word", "span", "token")
NAMES_OF: Mapping[UnitKind, str] = {"word": "word_texts", "token": "token_strings"}
"""Details that name units."""

RANGES_OF: Mapping[UnitKind, str] = {"word": "word_offsets", "token": "token_offsets"}
"""Details with the characters of units in their text."""

CHECKED = 3
"""Texts whose vectors are computed anew, to see that they are those of the features."""

ALIKE = 0.9
"""Least cosine of a vector to the one that is stored, which may be in another precision."""

TEXT = "text"
ROW = "row in the input"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPoints:
    """Points of stored features, and their vectors.

    Attributes:
        corpus: the points; its rows are the numbers of records in the file.
        layers: vectors of each feature, or of each layer of features that hold several.
        names: names of the features that are shown.
        notes: remarks on features that are not shown.
        model: name of the model, as provenance states it, or an empty string.
    """

    corpus: Corpus
    layers: tuple[Layer, ...]
    names: tuple[str, ...]
    notes: tuple[str, ...]
    model: str


def read_stored(
    file: FeatureFile,
    *,
    features: Sequence[str] = (),
    label: str | None = None,
    texts: Input | None = None,
    text_column: str | None = None,
    most: int,
    seed: int,
    kept: Collection[int] = (),
) -> StoredPoints:
    """Read a random sample of the points of stored features.

    Args:
        file: the features.
        features: names of those to show; none: all with a vector for each text, or else for each word, span or token.
        label: carried column of labels, or None.
        texts: the input that the features were made from, or None: the texts are in a carried column or unknown.
        text_column: carried column of the texts; None: `text` where there is one.
        most: number of points.
        seed: seed of the sample.
        kept: numbers of records that are in it.

    Raises:
        InputError: no records, vectors that are not finite, or texts that the features were not made from.
        UsageError: a feature, column or record that is not there.
        OptionError: features that cannot be shown, or not together.
    """
    name = Path(str(file.path)).name
    if not len(file):
        raise InputError(f"{name}: it holds no records, so that there is nothing to show")
    names, notes = shown_features(file, features)
    if label is not None:
        check_label(label, file.columns, name)
    check_kept(kept, set(range(len(file))) & set(kept), name, len(file))
    kind = _kind(file.features[names[0]])
    records = _sample(len(file), most, seed, kept)
    given = _texts(file, records, texts, text_column, name)
    corpus = Corpus(
        name=name,
        records=tuple(_records(file, records, given)),
        rows=tuple(records.tolist()),
        total=len(file),
        label=label,
        has_texts=given is not None,
    )
    if kind is not None:
        corpus, more = _with_units(file, names[0], corpus, records, kind, most=most, seed=seed, kept=kept)
        notes = (*notes, *more)
    layers = [layer for own in names for layer in _layers(file, own, corpus)]
    return StoredPoints(
        corpus=corpus, layers=_distinct(layers), names=names, notes=notes, model=str(file.provenance.get("model", ""))
    )


def shown_features(file: FeatureFile, names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the features to show, and remarks on those that are not shown.

    Raises:
        UsageError: a feature that is not there.
        OptionError: a feature that cannot be shown, features with different points, or none that can be shown.
    """
    path = Path(str(file.path)).name
    reasons = {name: _unsuitable(schema) for name, schema in file.features.items()}
    for name in [name for name in reasons if name.endswith(SCALE) and name.removesuffix(SCALE) in reasons]:
        reasons[name] = "holds the scales of another feature"
    for name in names:
        if name not in reasons:
            raise UsageError(f"{path}: there is no feature {name!r}; there are {', '.join(map(repr, reasons))}")
        if reasons[name]:
            raise OptionError(f"{path}: {name!r} {reasons[name]}; name another feature (--feature)")
    usable = list(names) or [name for name, reason in reasons.items() if not reason]
    if not usable:
        parts = "; ".join(f"{name!r} {reason}" for name, reason in reasons.items())
        raise OptionError(f"{path}: no feature can be shown: {parts or 'there are none'}")
    kinds = {name: _kind(file.features[name]) for name in usable}
    first = next((kind for kind in (None, *UNITS) if kind in kinds.values()), None)
    other = [name for name, kind in kinds.items() if kind != first]
    what = {name: f"a vector for each {kinds[name] or 'text'}" for name in usable}
    if names and other:
        raise OptionError(
            f"{path}: {names[0]!r} and others of these features have different points: "
            f"{', '.join(f'{name!r} has {what[name]}' for name in names)}; show them on pages of their own"
        )
    shown = tuple(name for name in usable if kinds[name] == first)
    notes = tuple(f"{name!r} has {what[name]} and is not shown; --feature {name} shows it" for name in other)
    return shown, notes


def _unsuitable(schema: FeatureSchema) -> str:
    """Return why a feature cannot be shown, or an empty string."""
    if schema.maps:
        return "holds attentions, and no vectors"
    if schema.dtype == "uint8":
        return "holds packed signs, whose cosines are no numbers of the model"
    if schema.dtype not in SHOWN_DTYPES or not schema.shape:
        return f"holds {schema.described}, and no vectors"
    return "" if len(schema.shape) <= 2 else f"holds arrays {schema.described}, and no vectors"


def _kind(schema: FeatureSchema) -> UnitKind | None:
    unit = schema.axes[0] if schema.ragged else None
    return next((kind for kind in UNITS if kind == unit), None)


def _sample(number: int, most: int, seed: int, kept: Collection[int]) -> Int64Array:
    """Draw the numbers of at most `most` of the records, in order, with those to keep."""
    if number <= most:
        return np.arange(number)
    order = np.random.default_rng(seed).choice(number, most, replace=False)
    others = order[~np.isin(order, list(kept))][: max(0, most - len(set(kept)))]
    return np.sort(np.r_[others, np.array(sorted(set(kept)), dtype=np.int64)])


def _texts(
    file: FeatureFile, records: Int64Array, texts: Input | None, column: str | None, name: str
) -> list[str] | None:
    """Return the texts of some records, or None where they are unknown.

    Raises:
        UsageError: a column of texts that is not there.
        InputError: an input of texts that does not have these rows and ids.
        OptionError: an input of texts for features of several inputs.
    """
    if texts is None:
        if column is not None and column not in file.columns:
            there = ", ".join(map(repr, file.columns)) or "no columns"
            raise UsageError(f"{name}: no column {column!r} of texts; beside the features there are {there}")
        held = TEXT if column is None else column
        if held not in file.columns:
            return None
        return ["" if value is None else str(value) for value in _values(file.columns[held], records)]
    rows = file.rows[records].tolist()
    if "file" in file.columns and len(set(file.columns["file"])) > 1:
        raise OptionError(
            f"{name}: these features are of several inputs, and --texts names one; carry the texts along instead "
            "(layertap extract --columns)"
        )
    ids = [None] * len(rows) if file.ids is None else _values(file.ids, records)
    wanted, read = dict(zip(rows, ids, strict=True)), dict[int, str]()
    with texts.open() as reader:
        for record in reader:
            if record.row not in wanted:
                continue
            own = wanted[record.row]
            if own is not None and record.id is not None and str(own) != str(record.id):
                raise InputError(
                    f"{texts.name}, row {record.row}: its id is {record.id!r}, and {own!r} in {name}; name the file of "
                    "texts that the features were made from"
                )
            read[record.row] = record.text
    missing = next((row for row in rows if row not in read), None)
    if missing is not None:
        raise InputError(
            f"{texts.name}: there is no row {missing}, which {name} has; name the file of texts that the features were "
            "made from"
        )
    return [read[row] for row in rows]


def _records(file: FeatureFile, records: Int64Array, texts: list[str] | None) -> Iterator[Record]:
    columns = {name: _values(column, records) for name, column in file.columns.items()}
    rows = file.rows[records]
    if not np.array_equal(rows, records):
        columns[ROW] = rows.tolist()
    ids = None if file.ids is None else _values(file.ids, records)
    for number in range(len(records)):
        yield Record(
            row=number,
            text="" if texts is None else texts[number],
            id=None if ids is None else ids[number],
            columns={name: values[number] for name, values in columns.items()},
        )


def _values(column: Sequence[Any], records: Int64Array) -> list[Any]:
    """Return the values of some records, given in order; those of large files are read some thousand at a time."""
    size, values = 1 << 14, list[Any]()
    bounds = np.searchsorted(records, np.arange(0, len(column) + size, size))
    for number, (begin, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        if begin < end:
            first = number * size
            block = column[first : first + size]
            values += [block[place] for place in (records[begin:end] - first).tolist()]
    return values


def _with_units(
    file: FeatureFile,
    feature: str,
    corpus: Corpus,
    records: Int64Array,
    kind: UnitKind,
    *,
    most: int,
    seed: int,
    kept: Collection[int],
) -> tuple[Corpus, tuple[str, ...]]:
    """Return the corpus of the words, spans or tokens of the records of a feature."""
    counts = np.concatenate([np.diff(block.offsets) for block in _ragged(file, feature, records)])
    if not counts.sum():
        raise InputError(f"{corpus.name}: {feature!r} holds no {kind}s, so that there is nothing to show")
    texts, chars = _named_units(file, corpus, records, kind, counts)
    notes: tuple[str, ...] = ()
    if len(records) < len(file):
        notes = (f"The {kind}s are of a random sample of {len(records):,} of {len(file):,} texts",)
    held = corpus.has_texts if texts is None else True
    if texts is not None:
        pairs = zip(corpus.records, texts, strict=True)
        corpus = replace(corpus, records=tuple(replace(record, text=text) for record, text in pairs))
    owners = np.repeat(np.arange(len(records)), counts)
    numbers = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    units: Units = units_of(kind, owners=owners.tolist(), numbers=numbers.tolist(), chars=chars, texts=corpus.texts)
    whole = replace(corpus, units=units, total=len(units), has_texts=held)
    return whole.drawn(most, seed, kept), notes


def _named_units(
    file: FeatureFile, corpus: Corpus, records: Int64Array, kind: UnitKind, counts: Int64Array
) -> tuple[list[str] | None, list[Any]]:
    """Return the texts as far as they follow from stored strings, and the characters of the units of each."""
    ranges, strings = RANGES_OF.get(kind), NAMES_OF.get(kind)
    if corpus.has_texts and ranges is not None and ranges in file.features:
        return None, [rows for block in _ragged(file, ranges, records) for rows in block]
    if corpus.has_texts and kind != "token":
        finder = finder_of(kind)
        spans = corpus.column("spans") if kind == "span" else [None] * len(records)
        pairs = zip(corpus.records, spans, strict=True)
        own = [replace(record, spans=None if span is None else tuple(map(tuple, span))) for record, span in pairs]
        chars = [unit_chars(record, finder, corpus.name) for record in own]
        wrong = next((i for i, rows in enumerate(chars) if len(rows) != counts[i]), None)
        if wrong is None:
            return None, chars
        raise InputError(
            f"{corpus.name}: record {records[wrong]} has {counted(int(counts[wrong]), kind)}, and its text "
            f"{counted(len(chars[wrong]), kind)}; extract with --details {ranges}, which says where they are"
        )
    if strings is not None and strings in file.features:
        lists = [list(map(str, rows)) for block in _ragged(file, strings, records) for rows in block]
        return [" ".join(own) for own in lists], [given_chars(own) for own in lists]
    return None, [np.zeros((count, 2), dtype=np.int64) for count in counts.tolist()]


def _ragged(file: FeatureFile, name: str, records: Int64Array) -> Iterator[Ragged]:
    """Yield some records of a ragged feature block by block."""
    for _, block in _blocks(file, name, file[name], records):
        assert isinstance(block, Ragged)
        yield block


def _blocks(
    file: FeatureFile, name: str, column: FeatureColumn, records: Int64Array
) -> Iterator[tuple[slice, Array | Ragged]]:
    """Yield some records of a feature, given in order, as they lie together in the file, with their places."""
    size = file.block_records(name)
    for begin in range(0, len(column), size):
        first, last = np.searchsorted(records, [begin, begin + size]).tolist()
        if first == last:
            continue
        block, own = column[begin : begin + size], records[first:last] - begin
        assert isinstance(block, np.ndarray | Ragged)
        if len(own) < len(block):
            block = Ragged.from_rows([block[i] for i in own.tolist()]) if isinstance(block, Ragged) else block[own]
        yield slice(first, last), block


def _layers(file: FeatureFile, name: str, corpus: Corpus) -> Iterator[Layer]:
    """Read the vectors of the points for a feature: one layer, or several of a feature that holds several."""
    schema, column = file.features[name], file[name]
    access = f"layertap.open({str(file.path)!r})[{name!r}]"
    if schema.dtype == "int8":
        column, access = column.dequantized, f"{access}.dequantized"
    vectors = _vectors(file, name, column, corpus)
    if not np.isfinite(vectors).all():
        row = corpus.point_rows[int(np.flatnonzero(~np.isfinite(vectors).all(axis=tuple(range(1, vectors.ndim))))[0])]
        raise InputError(f"{corpus.name}: {name!r} of record {row} is not finite; extract it with other options")
    read = f'v = np.asarray({access}, dtype="float32")' if corpus.units is None else f"r = {access}[:]\nv = r.values"
    whole = "" if corpus.units is None else '.astype("float32")'
    text = file.provenance.get("features", {}).get(name)
    if vectors.ndim == 2:
        feature = _parsed(text, name)
        yield Layer(name=_hidden(str(feature)) or name, feature=feature, code=f"{read}{whole}", vectors=vectors)
        return
    numbers = layer_numbers(text, vectors.shape[1])
    for i in range(vectors.shape[1]):
        own = name if numbers is None else f"hidden_states[{numbers[i]}]"
        single = None if numbers is None else re.sub(r"^hidden_states\[[^]]*\]", own, text)
        yield Layer(
            name=f"{name}, layer {i}" if numbers is None else own,
            feature=_parsed(single, f"{name}, layer {i}"),
            code=f"{read}[:, {i}]{whole}",
            vectors=np.ascontiguousarray(vectors[:, i]),
        )


def _vectors(file: FeatureFile, name: str, column: FeatureColumn, corpus: Corpus) -> Float32Array:
    """Read the vectors of the points: float32 [N, H] or [N, L, H]."""
    records, units = np.array(corpus.rows, dtype=np.int64), corpus.units
    vectors = np.empty((len(corpus), *column.schema.shape), dtype=np.float32)
    for places, block in _blocks(file, name, column, records):
        if isinstance(block, Ragged):
            assert units is not None
            begin, end = np.searchsorted(units.owners, [places.start, places.stop])
            starts = block.offsets[units.owners[begin:end] - places.start]
            vectors[begin:end] = block.values[starts + units.numbers[begin:end]]
        else:
            vectors[places] = block
    return vectors


def layer_numbers(text: Any, count: int) -> list[int] | None:
    """Return the numbers of the layers of a stored feature, or None where its expression does not say them.

    Args:
        text: the expression, as provenance states it.
        count: number of layers that are stored.
    """
    match = re.match(r"hidden_states\[([^]]*)\]", text) if isinstance(text, str) else None
    if match is None:
        return None
    selection = match[1].replace(" ", "")
    if re.fullmatch(r"\d+(,\d+)*", selection):
        numbers = [int(part) for part in selection.split(",")]
        return numbers if len(numbers) == count else None
    parts = re.fullmatch(r"(\d*):(?:-?\d*)(?::(\d+))?", selection)
    if parts is None:
        return None
    begin, step = int(parts[1] or 0), int(parts[2] or 1)
    return [begin + step * i for i in range(count)]


def _parsed(text: Any, name: str) -> Expr | str:
    """Return the expression of a feature, or the name where there is none in the grammar, as for a head."""
    try:
        return parse(text) if isinstance(text, str) else name
    except UsageError:
        return name


def _hidden(text: str) -> str | None:
    match = re.match(r"hidden_states\[\d+\]", text)
    return None if match is None else match[0]


def _distinct(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return the layers with names of their own, and features that tell them apart."""
    made: list[Layer] = []
    for layer in layers:
        same = sum(layer.name == other.name for other in layers)
        clash = any(layer.feature == other.feature for other in made)
        name = layer.name if same == 1 else str(layer.feature)
        name = name if all(name != other.name for other in made) else f"{name} ({len(made)})"
        made.append(replace(layer, name=name, feature=f"{layer.feature} ({len(made)})" if clash else layer.feature))
    return tuple(made)


def check_texts(points: StoredPoints, extractor: Extractor) -> None:
    """Compute the vectors of a few points anew, and compare them with those that are stored.

    Raises:
        InputError: they differ, so that the features were made from other texts.
    """
    corpus, layer = points.corpus, next((layer for layer in points.layers if isinstance(layer.feature, Expr)), None)
    if layer is None:
        return
    chosen = np.linspace(0, len(corpus.records) - 1, CHECKED).astype(int).tolist()
    for number in dict.fromkeys(chosen):
        record = corpus.records[number]
        value = np.asarray(extractor.extract(record.text, layer.feature), dtype=np.float32)
        units = corpus.units
        point = number if units is None else int(np.searchsorted(units.owners, number))
        if units is not None:
            if len(value) != units.counts[number]:
                value = np.zeros((units.counts[number], layer.vectors.shape[1]), dtype=np.float32)
            value = value[units.numbers[point]]
        pair = normalised(np.stack([value, layer.vectors[point]]))
        if float(pair[0] @ pair[1]) < ALIKE and value.any():
            raise InputError(
                f"{corpus.name}: the vector of record {corpus.rows[number]} is not that of its text, "
                f"{record.text!r:.60}; name the file of texts that the features were made from (--texts)"
            )
