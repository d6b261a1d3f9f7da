"""Labelled data: what is refused, and how it is divided."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

from layertap.errors import InputError, OptionError
from layertap.learn.labelled import LabelledDataset
from layertap.learn.probing.splits import check_for_probe, cross_validation, given_split
from layertap.text.units import UnitFinder

FINDER = UnitFinder(words=True)


def part(labels, texts=None, source="data.csv"):
    texts = [f"text {i} of {source}" for i in range(len(labels))] if texts is None else texts
    return LabelledDataset.of_texts(texts, labels, FINDER, source=source)


def crossed(part, *, folds=5, seed=0):
    return cross_validation(part, finder=FINDER, folds=folds, seed=seed)


def divided(train, test, dev=None):
    return given_split(train, test, dev, finder=FINDER, seed=0)


def test_labels_are_words_or_numbers():
    assert part(["a", 1, 2.0, True, 2.5]).labels.values == (("a",), ("1",), ("2",), ("true",), ("2.5",))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, r"data.csv, text 1: column 'label' is empty; fill it in, or remove the row"),
        ("", "is empty"),
        (float("nan"), "is empty"),
        (float("inf"), "data.csv, text 1: column 'label' is inf; expected a string, a number, or true or false"),
        (["a"], "holds a list, and single labels in the rows before"),
    ],
)
def test_labels_that_are_no_classes_are_refused(label, message):
    with pytest.raises(InputError, match=message):
        part(["a", label])


def test_no_text_is_refused():
    with pytest.raises(InputError, match=r"data.csv: there are no rows"):
        part([])


def test_one_class_and_rare_classes_are_refused():
    with pytest.raises(InputError, match=r"data.csv: every row has the label 'a'; at least two classes are needed"):
        crossed(part(["a"] * 9))
    with pytest.raises(InputError, match="only one example of 'b'"):
        crossed(part(["a"] * 9 + ["b"]))
    with pytest.raises(InputError, match="class 'b' has 2 distinct texts, and 3-fold cross-validation needs 3 of each"):
        crossed(part(["a"] * 9 + ["b"] * 2), folds=3)
    with pytest.raises(OptionError, match="expected at least 2"):
        crossed(part(["a", "b"] * 9), folds=1)
    with pytest.raises(InputError, match="only one example of 'b'"):
        divided(part(["a", "a", "b"]), part(["a"], source="test.csv"))
    with pytest.raises(InputError, match="every row has the label 'a'"):
        divided(part(["a", "a"]), part(["a"], source="test.csv"))


def test_labels_that_are_new_in_a_test_part_are_refused():
    train = part(["a", "b"] * 3)
    with pytest.raises(InputError, match=r"test.csv: 2 labels do not occur in data.csv: 'c'; known are 'a', 'b'"):
        divided(train, part(["a", "c", "c"], source="test.csv"))
    with pytest.raises(InputError, match=r"dev.csv: one label does not occur in data.csv"):
        divided(train, part(["a"], source="test.csv"), part(["c"], source="dev.csv"))


@pytest.mark.parametrize("copies", [False, True])
def test_folds_cover_every_row_once_and_keep_copies_together(copies):
    labels = [str(i % 3) for i in range(60)]
    texts = [f"text {i // 2 if copies else i}" for i in range(60)]
    examples = crossed(part(labels, texts), folds=5, seed=1)
    assert sorted(examples.tested) == list(range(60))
    assert examples.names == ("0", "1", "2")
    for split in examples.splits:
        assert not set(split.train) & set(split.test)
        assert set(split.fit) | set(split.validate) == set(split.train)
        assert not set(split.fit) & set(split.validate)
        assert set(examples.classes[split.fit]) == set(examples.classes[split.validate]) == {0, 1, 2}
        assert not {texts[row] for row in split.train} & {texts[row] for row in split.test}
    assert bool(examples.notes) == copies
    other = crossed(part(labels, texts), folds=5, seed=2)
    assert any((one.test.tolist() != two.test.tolist()) for one, two in zip(examples.splits, other.splits, strict=True))


def test_a_given_split_leaves_out_what_was_learned_from():
    train = part(["a", "b"] * 5)
    test = part(["b", "a", "b"], [train.records[1].text, "new 1", "new 2"], source="test.csv")
    examples = divided(train, test)
    (split,) = examples.splits
    assert [examples.texts[row] for row in split.test] == ["new 1", "new 2"]
    assert examples.classes[split.test].tolist() == [0, 1]
    assert examples.notes == ("1 text of test.csv also occurs in data.csv and was left out",)
    assert len(split.validate) == 2
    with pytest.raises(InputError, match=r"test.csv: every text also occurs in data.csv"):
        divided(train, part(["a"], [train.records[0].text], source="test.csv"))


def test_a_dev_part_is_what_c_is_chosen_on():
    train, dev, test = (part(["a", "b"] * n, source=name) for n, name in ((4, "train"), (2, "dev"), (3, "test")))
    examples = divided(train, test, dev)
    (split,) = examples.splits
    assert [rows.tolist() for rows in (split.train, split.fit, split.validate, split.test)] == [
        list(range(8)),
        list(range(8)),
        list(range(8, 12)),
        list(range(12, 18)),
    ]


def test_numbers_are_sorted_as_numbers():
    labels = [str(i % 11) for i in range(33)]
    assert crossed(part(labels), folds=3, seed=0).names == tuple(map(str, range(11)))
    assert np.bincount(crossed(part(labels), folds=3, seed=0).classes).tolist() == [3] * 11


def words_part(*given, source="data.conll"):
    """Given words and their tags: `("a/X b/Y", ...)`."""
    sentences = [[word.split("/") for word in sentence.split()] for sentence in given]
    texts = [[word for word, _ in words] for words in sentences]
    return LabelledDataset.of_texts(texts, [[tag for _, tag in words] for words in sentences], FINDER, source=source)


def test_words_of_sentences():
    found = crossed(words_part("the/D film/N", "good/D film/N", "a/D b/N", "c/D d/N"), folds=2)
    assert found.texts[:4] == ("the", "film", "good", "film")
    assert found.owners.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert found.names == ("D", "N")
    assert found.classes.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert [record.row for record in found.records] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["D"], r"data.conll, text 0: column 'label' has 1 label, and the text has 3 words; give one label per word"),
        (None, "data.conll, text 0: column 'label' is empty"),
        ("D N", "its texts are given as words, and have one label each"),
        (["D", None, "N"], "text 0: item 2 of column 'label' is empty"),
    ],
)
def test_tags_that_do_not_fit_their_words_are_refused(tags, message):
    with pytest.raises(InputError, match=message):
        check_for_probe(LabelledDataset.of_texts([["the", "dull", "film"]], [tags], FINDER, source="data.conll"))


def test_of_many_words_whole_sentences_are_drawn():
    given = [f"w{i}/A v{i}/B" for i in range(50)]

    def drawn(most, seed=0):
        return cross_validation(words_part(*given), finder=FINDER, folds=2, seed=seed, max_words=most)

    found = drawn(21)
    assert len(found.texts) == 20
    assert {record.text for record in found.records} <= {f"w{i} v{i}" for i in range(50)}
    assert found.notes == ("of the 100 words of data.conll 20 were drawn, in 10 sentences (--max-words)",)
    assert drawn(21, seed=1).texts != found.texts


def test_a_draw_refuses_nothing():
    given = ["rare/R", "other/R", *(f"w{i}/A v{i}/B" for i in range(50))]
    found = cross_validation(words_part(*given), finder=FINDER, folds=2, seed=0, max_words=40)
    assert found.names == ("A", "B", "R")
    assert np.bincount(found.classes, minlength=3)[2] < 2
    test = words_part("new/R w/A x/B", source="test.conll")
    found = given_split(words_part(*given), test, None, finder=FINDER, seed=0, max_words=40)
    assert len(found.splits[0].test) == 3


def test_folds_and_held_out_parts_keep_sentences_whole():
    part_ = words_part(*[f"w{i}/A v{i}/B u{i}/A" for i in range(30)], "w1/A v1/B u1/A")
    examples = crossed(part_, folds=5, seed=0)
    assert sorted(examples.tested) == list(range(93))
    for split in examples.splits:
        for one, other in ((split.train, split.test), (split.fit, split.validate)):
            assert len(one)
            assert len(other)
            assert not set(examples.owners[one]) & set(examples.owners[other])
        texts = [
            {examples.records[place].text for place in examples.owners[rows]} for rows in (split.train, split.test)
        ]
        assert not texts[0] & texts[1]
    assert examples.notes == ("1 sentence is a copy of another; copies were kept in one fold",)


def test_a_given_split_of_words():
    train = words_part(*[f"w{i}/A v{i}/B" for i in range(10)])
    test = words_part("w3/A v3/B", "w3/B x/A", source="test.conll")
    examples = divided(train, test)
    assert [examples.texts[row] for row in examples.splits[0].test] == ["w3", "x"]
    assert examples.records[-1].words == ("w3", "x")
    assert "1 sentence of test.conll also occurs in data.conll" in examples.notes[0]
    with pytest.raises(InputError, match=r"test.csv has one label per row, and data.conll has lists of labels"):
        divided(train, part(["A"], source="test.csv"))
    with pytest.raises(InputError, match=r"test.conll: one label does not occur"):
        divided(train, words_part("w/C", source="test.conll"))
