"""Divisions of tiny, repeated and lopsided data: sound, or refused in words that say what is needed."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import InputError, OptionError
from layertap.learn.fitting.fit import MIX_SHARE
from layertap.learn.fitting.task import FitOptions, checked_task
from layertap.learn.labelled import LabelledDataset
from layertap.learn.probing.logistic import probe_split
from layertap.learn.probing.splits import cross_validation, given_split
from layertap.learn.splitting import dataset_units, draw_held_out
from layertap.text.units import UnitFinder

FINDER = UnitFinder(words=True)
REMEDIES = ("add examples", "at least two", "give other", "draw more", "give more", "add examples, remove the class")

TEXTS = st.lists(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("xyz")), min_size=1, max_size=16)
SENTENCES = st.lists(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), min_size=1, max_size=3), min_size=1, max_size=9
)


def texts_of(rows, source="data.csv"):
    return LabelledDataset.of_texts([text for text, _ in rows], [label for _, label in rows], FINDER, source=source)


def sentences_of(sentences, source="data.conll"):
    words = [[word for word, _ in sentence] for sentence in sentences]
    tags = [[tag for _, tag in sentence] for sentence in sentences]
    return LabelledDataset.of_texts(words, tags, FINDER, source=source)


def check(data):
    """See that no text is on both sides of any border, and that every part can be learned from."""
    texts = [data.records[row].text for row in (range(len(data.texts)) if data.owners is None else data.owners)]
    for split in data.splits:
        for one, other in ((split.train, split.test), (split.fit, split.validate)):
            assert len(one)
            assert len(other)
            assert not {texts[row] for row in one} & {texts[row] for row in other}
        assert len(np.unique(data.classes[split.fit])) > 1
    # equal texts have equal vectors
    by_text = {text: np.random.default_rng(i).normal(size=3) for i, text in enumerate(sorted({*data.texts}))}
    vectors = np.array([by_text[text] for text in data.texts], dtype=np.float32)
    split = data.splits[0]
    result = probe_split(vectors, data.classes, split, lambda rows, guess: float((data.classes[rows] == guess).mean()))
    assert len(result.predicted) == len(split.test)


def divided(divide):
    """Divide, and check the result; a refusal must say what to do."""
    said = ""
    try:
        check(divide())
    except InputError as refusal:
        said = str(refusal)
    assert not said or any(remedy in said for remedy in REMEDIES), said


@settings(max_examples=60, deadline=None)
@given(st.one_of(TEXTS.map(texts_of), SENTENCES.map(sentences_of)), st.integers(2, 5), st.integers(1, 30))
def test_folds_of_tiny_data_are_sound_or_refused(dataset, folds, max_words):
    divided(lambda: cross_validation(dataset, finder=FINDER, folds=folds, seed=0, max_words=max_words))


@settings(max_examples=40, deadline=None)
@given(TEXTS.map(texts_of), st.lists(st.tuples(st.sampled_from("fghij"), st.sampled_from("xyz")), min_size=1))
def test_given_parts_are_sound_or_refused(train, rows):
    test = texts_of([*rows], source="test.csv")
    try:
        given_split(train, test, None, finder=FINDER, seed=0)
    except InputError as refusal:
        if "do not occur in" in str(refusal) or "does not occur in" in str(refusal):
            return
    divided(lambda: given_split(train, test, None, finder=FINDER, seed=0))


@settings(max_examples=60, deadline=None)
@given(st.one_of(TEXTS.map(texts_of), SENTENCES.map(sentences_of)), st.floats(0.05, 0.95))
def test_held_out_parts_of_a_fit_share_no_text(dataset, share):
    try:
        task = checked_task(dataset, None, None, FitOptions(validation_share=share))
    except (InputError, OptionError):
        return
    held = task.held_out
    sides: tuple[set[str], set[str]] = (set(), set())
    for record, out in zip(dataset.records, held, strict=True):
        sides[int(out)].add(record.text)
    assert all(sides)
    assert not sides[0] & sides[1]
    left = {label for own, out in zip(dataset.labels.values, held, strict=True) if not out for label in own}
    assert left == set(dataset.labels.counts)
    units = dataset_units(dataset, task.encoder)
    assert len(draw_held_out(units, MIX_SHARE, 0, least=1)) < len(np.unique(units.groups))


def refused(match, dataset, folds):
    with pytest.raises(InputError, match=match):
        cross_validation(dataset, finder=FINDER, folds=folds, seed=0)


def test_the_refusals_count_what_is_split():
    repeated = [("the same", "b")] * 10 + [(f"text {i}", "a") for i in range(10)]
    refused("class 'b' has 1 distinct text, and 5-fold cross-validation needs 5 of each", texts_of(repeated), 5)
    refused(
        "data.conll: 3 distinct sentences, and 5-fold cross-validation needs 5; reduce --folds to 3",
        sentences_of([[(f"a{i}", "x"), (f"b{i}", "y")] for i in range(3)]),
        5,
    )
    four = [("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")]
    refused("2 distinct texts to learn from in a fold of a 2-fold cross-validation: too few", texts_of(four), 2)
    tags = [[("w", "x"), (f"v{i}", "y"), *([("r", "z")] * 7 if i == 0 else [])] for i in range(8)]
    refused("class 'z' has 1 distinct sentence, and 4-fold cross-validation needs 4 of each", sentences_of(tags), 4)


def test_a_class_keeps_a_sentence_when_others_are_held_out():
    sentences = [[("rare", "r"), (f"a{i}", "x")] if i == 0 else [(f"a{i}", "x"), (f"b{i}", "y")] for i in range(6)]
    sentences[0].append(("also", "r"))
    for seed in range(20):
        task = checked_task(sentences_of(sentences), None, None, FitOptions(validation_share=0.5, seed=seed))
        assert task.held_out is not None
        assert task.held_out.sum() == 3
        assert not task.held_out[0]


def test_copies_are_resampled_together():
    from layertap.learn.bootstrap import Gold

    classes = np.array([0, 1] * 40)
    predicted = np.where(np.arange(80) % 8 < 2, 1 - classes, classes)
    groups = np.arange(80) // 8
    alone = Gold(classes=classes, names=("a", "b")).scored("accuracy", np.arange(80), predicted, seed=0)
    copies = Gold(classes=classes, names=("a", "b"), groups=groups)
    assert copies.scored("accuracy", np.arange(80), predicted, seed=0).error < 1e-9 < alone.error
