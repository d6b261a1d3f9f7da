"""Content of a page: computed from texts with a model, in one pass over the texts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from layertap.engine.extractor import Extractor
from layertap.engine.progress import status_on
from layertap.engine.variants import lengths_of
from layertap.errors import InputError, OptionError
from layertap.features.expr import Expr
from layertap.features.parse import parse
from layertap.learn.arrays import Float32Array
from layertap.learn.blas import blas_threads, idle_processors
from layertap.learn.exploring.corpus import Colours, Corpus, colours_of, labelled_rows
from layertap.learn.exploring.nearest import nearest
from layertap.learn.exploring.planes import Plane, extent, planes
from layertap.learn.exploring.sentences import Sentence, gives_attentions, sentence_bytes, sentence_of
from layertap.learn.labelled import LabelledDataset
from layertap.learn.probing.findings import ClassDetails, Findings, sample_of
from layertap.learn.probing.geometry import similarity
from layertap.learn.probing.probe import probe_vectors
from layertap.learn.probing.splits import cross_validation
from layertap.learn.vectors.sweep import sweep, width_of
from layertap.page.content import PageArray, PageContent
from layertap.text.units import UnitFinder
from layertap.words import counted

MOST_BYTES = 60_000_000
"""Size of a page."""

SENTENCE_BYTES = 20_000_000
"""Part of it that texts with tokens may take."""

MOST_SENTENCES = 50
MOST_TOKENS = 128
"""Tokens of a text that is asked for with its tokens."""

USUAL_TOKENS = 48
"""Tokens of those that are drawn."""

PROBED = 3000
"""Labelled texts that probes learn from and predict."""


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


def layers_of(extractor: Extractor, pooling: str) -> list[Expr]:
    """Return a feature for each hidden state.

    Raises:
        FeatureError: a pooling that gives no vector for a text of this model.
    """
    features = [parse(f"hidden_states[{i}].{pooling}") for i in range(extractor.facts.spec.num_hidden_layers + 1)]
    width_of(extractor, features[0])
    return features


def explored(
    extractor: Extractor,
    corpus: Corpus,
    options: PageOptions,
    *,
    commands: Mapping[str, str],
    progress: bool = False,
) -> PageContent:
    """Compute the content of a page.

    Args:
        extractor: the model.
        corpus: texts; where they would make a page of more than 60 MB, a random sample of them is taken.
        options: what to compute.
        commands: name of a view -> the command, or the Python lines, that give its numbers.
        progress: show progress on standard error.

    Raises:
        OptionError: rows with tokens that are too long.
    """
    return exploration(extractor, corpus, options, commands=commands, progress=progress).content


def exploration(
    extractor: Extractor,
    corpus: Corpus,
    options: PageOptions,
    *,
    commands: Mapping[str, str],
    progress: bool = False,
) -> Exploration:
    """Compute the content of a page as `explored` does, and return the vectors, too."""
    features = layers_of(extractor, options.pooling)
    corpus = fitting(corpus, num_layers=len(features), options=options)
    notes: list[str] = []
    vectors = sweep(extractor, corpus.texts, features, None, progress=progress, notes=notes)
    lengths = lengths_of(extractor.tokenizer, corpus.records)
    with status_on(sys.stderr, shown=progress) as say:
        say("explore: tokens and attentions")
        sentences = sentences_of(extractor, corpus, lengths, options)
    findings, reason = probed(vectors, corpus, features, extractor, options, progress=progress)
    layers = [vectors[feature] for feature in features]
    with (
        status_on(sys.stderr, shown=progress) as say,
        blas_threads(idle_processors(extractor.runtime.threads)),
    ):
        near = []
        for number, layer in enumerate(layers, start=1):
            say(f"explore: neighbours at layer {number} of {len(layers)}")
            near.append(nearest(layer, options.neighbours))
        say("explore: maps")
        made = planes(layers)
        alike = similarity([layer[sample_of(len(corpus), options.seed)] for layer in layers])
    names = [f"hidden_states[{i}]" for i in range(len(features))]
    views = [
        layer_facts(name, str(feature), plane, layer)
        for name, feature, plane, layer in zip(names, features, made, layers, strict=True)
    ]
    colours = colours_of(corpus, lengths)
    spec = extractor.facts.spec
    facts: dict[str, Any] = {
        **corpus_facts(corpus, colours, start=_best_layer(findings, len(features)), planes_=made),
        "about": about(corpus, str(extractor.provenance(features)["model"]), options.pooling),
        "notes": [*notes_on(corpus), *(f"{note}." for note in notes)],
        "layers": views,
        "layer_names": names,
        "blocks": spec.num_hidden_layers,
        "heads": spec.num_attention_heads,
        "probe": None if findings is None else probe_facts(findings),
        "why_no_probe": reason,
        **sentence_facts(sentences, gives_attentions(extractor)),
        "commands": dict(commands),
    }
    arrays: dict[str, PageArray] = {"alike": alike.astype(np.float32), **colour_arrays(colours)}
    for i, (plane, (indices, cosines)) in enumerate(zip(made, near, strict=True)):
        arrays |= {f"points{i}": plane.points, f"near{i}": indices, f"cosine{i}": cosines}
    for i, sentence in enumerate(sentences):
        arrays |= {f"s{i}-{name}": values for name, values in sentence.arrays.items()}
    content = PageContent(title=f"{corpus.name}: what each layer sees", facts=facts, arrays=arrays)
    return Exploration(content=content, layers=tuple(layers), planes=tuple(made))


def fitting(corpus: Corpus, *, num_layers: int, options: PageOptions) -> Corpus:
    """Return the texts, or a random sample of them that fits into a page of 60 MB."""
    text_bytes = sum(len(record.text.encode(errors="replace")) + 40 for record in corpus.records)
    each = num_layers * (8 + 8 * options.neighbours) * 4 / 3 + text_bytes / max(1, len(corpus))
    room = MOST_BYTES - 500_000 - (SENTENCE_BYTES if options.sentences or options.rows else 0)
    return corpus.drawn(max(1, int(room / each)), options.seed, options.rows)


def sentences_of(extractor: Extractor, corpus: Corpus, lengths: Sequence[int], options: PageOptions) -> list[Sentence]:
    """Compute the texts with tokens: those asked for, then a random sample of others, as far as there is room.

    Raises:
        OptionError: a text that is asked for has more than 128 tokens.
    """
    limit = extractor.facts.max_length_override or extractor.facts.max_length
    counts = [min(length, limit) for length in lengths]
    asked = [i for i, row in enumerate(corpus.rows) if row in options.rows]
    for i in asked:
        if counts[i] > MOST_TOKENS:
            raise OptionError(
                f"row {corpus.rows[i]} has {counts[i]:,} tokens, and a page keeps attentions of at most {MOST_TOKENS} "
                "tokens; choose another row, or cut texts with --max-length"
            )
    drawn = np.random.default_rng(options.seed).permutation(len(corpus)).tolist()
    usual = [i for i in drawn if i not in asked and 3 <= counts[i] <= USUAL_TOKENS]
    if not asked and not usual:
        usual = [i for i in sorted(drawn, key=counts.__getitem__) if counts[i] <= MOST_TOKENS]
    chosen, room = list(asked), SENTENCE_BYTES - sum(sentence_bytes(extractor, counts[i]) for i in asked)
    for i in usual:
        room -= sentence_bytes(extractor, counts[i])
        if len(chosen) >= max(options.sentences, len(asked)) or room < 0:
            break
        chosen.append(i)
    return [sentence_of(extractor, corpus.records[i].text, i) for i in sorted(chosen)]


def probed(
    vectors: Mapping[Expr, Float32Array],
    corpus: Corpus,
    features: Sequence[Expr],
    extractor: Extractor,
    options: PageOptions,
    *,
    progress: bool = False,
) -> tuple[Findings | None, str]:
    """Fit a probe on each layer, or return the reason why there is none."""
    if corpus.label is None:
        return None, "With a column of labels (--label), this shows what a linear probe scores at each layer."
    rows = labelled_rows(corpus, PROBED, options.seed)
    part, column = corpus.at(rows.tolist()), corpus.column(corpus.label)
    finder = UnitFinder(words=False)
    try:
        labels = [column[i] for i in rows.tolist()]
        dataset = LabelledDataset.of_texts(part.records, labels, finder, source=corpus.name)
        data = cross_validation(dataset, finder=finder, folds=5, seed=options.seed)
    except (InputError, OptionError) as error:
        return None, f"No probe was fitted: {error}."
    kept = {feature: vectors[feature][rows] for feature in features}
    provenance = extractor.provenance(features)
    return probe_vectors(kept, data, features, provenance=provenance, seed=options.seed, progress=progress), ""


def probe_facts(findings: Findings) -> dict[str, Any]:
    """Return the scores of all layers as JSON values, with a sentence that says what they are."""
    details = findings.details
    assert isinstance(details, ClassDetails)
    low, high = findings.axis
    best, frugal = findings.winner, findings.frugal
    texts = counted(findings.settings["texts"], "text")
    near = "" if frugal is None else f" Layer {frugal.layer} is within one standard error of it, with fewer blocks."
    sentence = (
        f"5-fold cross-validation on {texts}. Bars start at the most frequent class ({details.chance.value:.3f}); "
        "dark lines are 95 % intervals, grey marks what the same probe reaches on random labels. Layer "
        f"{best.layer} is best.{near} A probe says what can be read off a layer, not what the model uses."
    )
    return {
        "metric": findings.metric,
        "axis": [min(low, details.chance.value), high],
        "chance": details.chance.value,
        "sentence": sentence,
        "rows": [
            {
                "value": row.score.value,
                "low": row.score.low,
                "high": row.score.high,
                "control": row.control,
                "selectivity": row.selectivity,
            }
            for row in findings.rows
        ],
    }


def corpus_facts(corpus: Corpus, colours: Sequence[Colours], *, start: int, planes_: list[Plane]) -> dict[str, Any]:
    """Return the facts of a page on its texts, as JSON values."""
    has_ids = any(record.id is not None for record in corpus.records)
    return {
        "count": len(corpus),
        "total": corpus.total,
        "sampled": corpus.is_sampled,
        "texts": corpus.texts,
        "rows": list(corpus.rows),
        "ids": [record.id for record in corpus.records] if has_ids else None,
        "columns": [column.as_facts() for column in colours],
        "label": 0 if corpus.label is not None and colours and colours[0].name == corpus.label else None,
        "start": start,
        "extent": list(extent(planes_)),
    }


def layer_facts(name: str, feature: str, plane: Plane, vectors: Float32Array) -> dict[str, Any]:
    """Return the facts of a page on one layer, as JSON values."""
    return {"name": name, "feature": feature, "variance": list(plane.variance), "dimensions": vectors.shape[1]}


def sentence_facts(sentences: Sequence[Sentence], has_attentions: bool) -> dict[str, Any]:
    """Return the facts of a page on its texts with tokens, as JSON values."""
    return {
        "sentences": [sentence.as_facts() for sentence in sentences],
        "why_no_sentences": f"No text of at most {MOST_TOKENS} tokens is kept with its tokens in this page.",
        "why_not_this_sentence": (
            f"This page holds tokens and attentions of {counted(len(sentences), 'text')}, and this text is not among "
            "them; --sentence ROW of layertap explore adds it."
        ),
        "why_no_attention": "" if has_attentions else "This model, as it was run, gives no attention probabilities.",
    }


def colour_arrays(colours: Sequence[Colours]) -> dict[str, PageArray]:
    """Return the arrays of a page for the columns."""
    return {f"column{i}": column.values for i, column in enumerate(colours)}


def notes_on(corpus: Corpus) -> list[str]:
    """Return remarks on the texts of a page."""
    notes = ["This page contains the texts. Share it only where the texts may be shared."]
    if corpus.is_sampled:
        notes.append(
            f"It shows a random sample of {len(corpus):,} of the {counted(corpus.total, 'text')} of {corpus.name}."
        )
    empty = sum(not record.text.strip() for record in corpus.records)
    if empty:
        notes.append(f"{counted(empty, 'text')} {'is' if empty == 1 else 'are'} empty.")
    return notes


def about(corpus: Corpus, model: str, pooling: str) -> str:
    """Return the line at the top of a page."""
    size = f"{len(corpus):,} of {corpus.total:,} texts" if corpus.is_sampled else counted(len(corpus), "text")
    return f"{corpus.name}, {size}, {model.rpartition('/')[2]}, {pooling} over tokens"


def _best_layer(findings: Findings | None, num_layers: int) -> int:
    return num_layers - 1 if findings is None else findings.rows.index(findings.winner)
