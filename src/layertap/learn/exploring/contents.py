"""Content of a page: computed from texts with a model, in one pass over the texts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.engine.progress import status_on
from layertap.errors import OptionError
from layertap.features.expr import Expr
from layertap.features.parse import parse
from layertap.learn.arrays import Float32Array
from layertap.learn.blas import blas_threads, idle_processors
from layertap.learn.exploring.corpus import Colours, Corpus, colours_of
from layertap.learn.exploring.layers import Layer, sweep_units
from layertap.learn.exploring.nearest import nearest
from layertap.learn.exploring.planes import Plane, extent, planes
from layertap.learn.exploring.scores import best_layer, probe_facts, probed
from layertap.learn.exploring.stored import StoredPoints, check_texts
from layertap.learn.exploring.text_views import SENTENCE_BYTES, TextViews, texts_of
from layertap.learn.probing.findings import sample_of
from layertap.learn.probing.geometry import similarity
from layertap.learn.vectors.sweep import sweep, width_of
from layertap.page.content import PageArray, PageContent
from layertap.words import counted

MOST_BYTES = 60_000_000
"""Size of a page."""

MOST_SENTENCES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """Options of a page.

    Attributes:
        pooling: pooling of each hidden state.
        neighbours: number of nearest texts of each text.
        sentences: number of texts with tokens and attentions.
        rows: rows of the input that are among these.
        seed: seed of samples, folds and random labels.
    """

    pooling: str = "mean"
    neighbours: int = 10
    sentences: int = 30
    rows: tuple[int, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.neighbours < 1:
            raise OptionError(f"neighbours {self.neighbours}: expected at least 1")
        if not 0 <= self.sentences <= MOST_SENTENCES:
            raise OptionError(f"sentences {self.sentences}: expected a number from 0 to {MOST_SENTENCES}")
        if len(set(self.rows)) > MOST_SENTENCES:
            raise OptionError(f"{len(set(self.rows))} rows with tokens: at most {MOST_SENTENCES} are kept in a page")
        if self.seed < 0:
            raise OptionError(f"seed {self.seed}: expected a whole number of at least 0")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exploration:
    """Content of a page, with the vectors that it was made of.

    Attributes:
        content: content of the page, of N texts.
        layers: for each layer, float32 [N, H].
        planes: for each layer, the plane of the map.
    """

    content: PageContent
    layers: tuple[Float32Array, ...]
    planes: tuple[Plane, ...]


def layers_of(extractor: Extractor, pooling: str, unit: str = "text") -> list[Expr]:
    """Return a feature for each hidden state.

    Raises:
        FeatureError: a pooling that gives no vector for a text of this model.
    """
    last = pooling if unit == "text" else f"{unit}s({pooling})"
    features = [parse(f"hidden_states[{i}].{last}") for i in range(extractor.facts.spec.num_hidden_layers + 1)]
    if unit == "text":
        width_of(extractor, features[0])
    return features


def exploration(
    extractor: Extractor,
    corpus: Corpus,
    options: PageOptions,
    *,
    commands: Mapping[str, str],
    progress: bool = False,
) -> Exploration:
    """Compute the content of a page, with the vectors that it is made of.

    Args:
        extractor: the model.
        corpus: texts; where they would make a page of more than 60 MB, a random sample of them is taken.
        options: what to compute.
        commands: name of a view -> the command, or the Python lines, that give its numbers.
        progress: show progress on standard error.

    Raises:
        OptionError: rows with tokens that are too long.
    """
    features = layers_of(extractor, options.pooling, corpus.unit)
    corpus = fitting(corpus, num_layers=len(features), options=options)
    notes: list[str] = []
    if corpus.units is None:
        vectors = sweep(extractor, corpus.texts, features, None, progress=progress, notes=notes)
    else:
        vectors = sweep_units(extractor, corpus.records, corpus.units, features, progress=progress, notes=notes)
    layers = [
        Layer(
            name=f"hidden_states[{i}]",
            feature=feature,
            code='v = np.asarray(layertap.open("vectors.parquet")["v"], dtype="float32")'
            if corpus.units is None
            else 'r = layertap.open("vectors.parquet")["v"][:]\nv = r.values.astype("float32")',
            vectors=vectors[feature],
        )
        for i, feature in enumerate(features)
    ]
    model = str(extractor.provenance(features)["model"]).rpartition("/")[2]
    units = "tokens" if corpus.units is None else f"the tokens of a {corpus.unit}"
    return compose(
        corpus,
        layers,
        texts=texts_of(
            extractor, corpus, number=options.sentences, rows=options.rows, seed=options.seed, progress=progress
        ),
        options=options,
        commands=commands,
        subject=f"{model}, {options.pooling} over {units}",
        notes=notes,
        threads=extractor.runtime.threads,
        progress=progress,
    )


def stored_exploration(
    points: StoredPoints,
    options: PageOptions,
    *,
    extractor: Extractor | None,
    why_no_model: str,
    commands: Mapping[str, str],
    threads: int | None = None,
    progress: bool = False,
) -> Exploration:
    """Compute the content of a page from stored features.

    Args:
        points: points and vectors.
        options: what to compute.
        extractor: the model of the features, for views of single texts; None where it or the texts are unknown.
        why_no_model: why there is none, for a page whose texts are known.
        commands: as in `exploration`.
        threads: most threads to use, or None for any number.
        progress: show progress on standard error.

    Raises:
        InputError: the vectors are not those of the texts.
    """
    corpus, layers = points.corpus, points.layers
    chosen = _fitting_points(corpus, len(layers), options)
    if len(chosen) < len(corpus):
        corpus, layers = corpus.at(chosen), tuple(replace(layer, vectors=layer.vectors[chosen]) for layer in layers)
    if extractor is not None and corpus.has_texts:
        check_texts(replace(points, corpus=corpus, layers=layers), extractor)
        texts = texts_of(
            extractor, corpus, number=options.sentences, rows=options.rows, seed=options.seed, progress=progress
        )
    else:
        reason = why_no_model if corpus.has_texts else "the features hold no texts (--texts names their file)"
        texts = TextViews(why_no_sentences=f"Tokens and attentions are not in this page: {reason}.")
    named = ", ".join(points.names)
    model = points.model.rpartition("/")[2]
    return compose(
        corpus,
        layers,
        texts=texts,
        options=options,
        commands=commands,
        subject=f"{model}, stored {'feature' if len(points.names) == 1 else 'features'} {named}".removeprefix(", "),
        notes=points.notes,
        threads=threads,
        progress=progress,
    )


def compose(
    corpus: Corpus,
    layers: Sequence[Layer],
    *,
    texts: TextViews,
    options: PageOptions,
    commands: Mapping[str, str],
    subject: str,
    notes: Sequence[str],
    threads: int | None = None,
    progress: bool = False,
) -> Exploration:
    """Put the content of a page together.

    Args:
        corpus: texts and points.
        layers: vectors of the points.
        texts: views of single texts.
        options: what to compute.
        commands: as in `exploration`.
        subject: what the layers are, for the line at the top.
        notes: remarks on the vectors.
        threads: most threads to use, or None for any number.
        progress: show progress on standard error.
    """
    findings, reason = probed(layers, corpus, options.seed, progress=progress)
    vectors = [layer.vectors for layer in layers]
    with status_on(sys.stderr, shown=progress) as say, blas_threads(idle_processors(threads)):
        near = []
        for number, values in enumerate(vectors, start=1):
            say(f"explore: neighbours at layer {number} of {len(layers)}")
            near.append(nearest(values, options.neighbours))
        say("explore: maps")
        made = planes(vectors)
        alike = similarity([values[sample_of(len(corpus), options.seed)] for values in vectors])
    colours = colours_of(corpus, texts.lengths if corpus.units is None else None)
    facts: dict[str, Any] = {
        **corpus_facts(corpus, colours, start=best_layer(findings, len(layers)), planes_=made),
        "about": about(corpus, subject),
        "notes": [*notes_on(corpus), *(f"{note}." for note in notes)],
        "layers": [layer.as_facts(plane) for layer, plane in zip(layers, made, strict=True)],
        "probe": None if findings is None else probe_facts(findings, corpus.unit, reason),
        "why_no_probe": reason if findings is None else "",
        **texts.as_facts(),
        "commands": dict(commands),
    }
    arrays: dict[str, PageArray] = {"alike": alike.astype(np.float32), **colour_arrays(colours), **unit_arrays(corpus)}
    for i, (plane, (indices, cosines)) in enumerate(zip(made, near, strict=True)):
        arrays |= {f"points{i}": plane.points, f"near{i}": indices, f"cosine{i}": cosines}
    for i, sentence in enumerate(texts.sentences):
        arrays |= {f"s{i}-{name}": values for name, values in sentence.arrays.items()}
    content = PageContent(title=f"{corpus.name}: what each layer sees", facts=facts, arrays=arrays)
    return Exploration(content=content, layers=tuple(vectors), planes=tuple(made))


def fitting(corpus: Corpus, *, num_layers: int, options: PageOptions) -> Corpus:
    """Return the points, or a random sample of them that fits into a page of 60 MB."""
    chosen = _fitting_points(corpus, num_layers, options)
    return corpus if len(chosen) == len(corpus) else corpus.at(chosen)


def _fitting_points(corpus: Corpus, num_layers: int, options: PageOptions) -> list[int]:
    text_bytes = sum(len(record.text.encode(errors="replace")) + 40 for record in corpus.records)
    each = num_layers * (8 + 8 * options.neighbours) * 4 / 3 + text_bytes / max(1, len(corpus))
    if corpus.units is not None:
        each += sum(len(name.encode(errors="replace")) + 24 for name in corpus.units.names) / len(corpus)
    room = MOST_BYTES - 500_000 - (SENTENCE_BYTES if options.sentences or options.rows else 0)
    return corpus.draw(max(1, int(room / each)), options.seed, options.rows)


def corpus_facts(corpus: Corpus, colours: Sequence[Colours], *, start: int, planes_: list[Plane]) -> dict[str, Any]:
    """Return the facts of a page on its points and their texts, as JSON values."""
    has_ids = any(record.id is not None for record in corpus.records)
    ids = [record.id for record in corpus.records]
    units = corpus.units
    return {
        "count": len(corpus),
        "total": corpus.total,
        "sampled": corpus.is_sampled,
        "unit": corpus.unit,
        "texts": (corpus.texts if units is None else list(units.names)) if corpus.has_texts else None,
        "contexts": None if units is None or not corpus.has_texts else corpus.texts,
        "rows": corpus.point_rows,
        "ids": (ids if units is None else [ids[i] for i in units.owners.tolist()]) if has_ids else None,
        "columns": [column.as_facts() for column in colours],
        "label": 0 if corpus.label is not None and colours and colours[0].name == corpus.label else None,
        "start": start,
        "extent": list(extent(planes_)),
    }


def unit_arrays(corpus: Corpus) -> dict[str, PageArray]:
    """Return the arrays of a page for points that are parts of texts: whose they are, and which characters."""
    units = corpus.units
    if units is None:
        return {}
    begins, ends = units.chars.T
    named = {"context": units.owners, "number": units.numbers, "begin": begins, "end": ends}
    return {name: values.astype(np.uint32) for name, values in named.items()}


def colour_arrays(colours: Sequence[Colours]) -> dict[str, PageArray]:
    """Return the arrays of a page for the columns."""
    return {f"column{i}": column.values for i, column in enumerate(colours)}


def notes_on(corpus: Corpus) -> list[str]:
    """Return remarks on the texts of a page."""
    texts = f"{corpus.unit}s" if corpus.has_texts else "texts"
    notes = ["This page contains the texts. Share it only where the texts may be shared."]
    if not corpus.has_texts:
        notes = [f"The features hold no {texts}: points are shown with the numbers of their rows."]
    if corpus.is_sampled:
        notes.append(
            f"It shows a random sample of {len(corpus):,} of the {counted(corpus.total, corpus.unit)} of {corpus.name}."
        )
    empty = sum(not record.text.strip() for record in corpus.records) if corpus.has_texts else 0
    if empty:
        notes.append(f"{counted(empty, 'text')} {'is' if empty == 1 else 'are'} empty.")
    return notes


def about(corpus: Corpus, subject: str) -> str:
    """Return the line at the top of a page."""
    number = counted(len(corpus), corpus.unit)
    size = f"{len(corpus):,} of {corpus.total:,} {corpus.unit}s" if corpus.is_sampled else number
    return f"{corpus.name}, {size}, {subject}"
