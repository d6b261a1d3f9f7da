"""Labelled data: what is refused, and how it is divided."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

from layertap.errors import InputError, OptionError
from layertap.learn.probing.examples import Part, cross_validation, given_split, read_part, read_words
from layertap.records import Record


def part(labels, texts=None, source="data.csv"):
    texts = [f"text {i} of {source}" for i in range(len(labels))] if texts is None else texts
    return Part(source=source, texts=tuple(texts), labels=tuple(labels))


def read(*labels):
    records = [Record(row=row, text=f"t{row}", columns={"y": label}) for row, label in enumerate(labels)]
    return read_part(records, "y", "data.csv")


def test_labels_are_words_or_whole_numbers():
    assert read("a", 1, 2.0, True).labels == ("a", "1", "2", "True")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, r"data.csv: record 1: the label 'y' is missing; leave the row out"),
        ("", "is missing"),
        (float("nan"), "is missing"),
        (2.5, "is 2.5, a number and no class"),
        (float("inf"), "is inf, a number and no class"),
        (["a"], "is a list; a class is a word"),
    ],
)
def test_labels_that_are_no_classes_are_refused(label, message):
    with pytest.raises(InputError, match=message):
        read("a", label)


def test_no_text_is_refused():
    with pytest.raises(InputError, match=r"data.csv: there is no text in it"):
        read()


def test_one_class_and_rare_classes_are_refused():
    with pytest.raises(InputError, match="every label is 'a'; a probe needs at least two classes"):
        cross_validation(part(["a"] * 9), folds=3, seed=0)
    with pytest.raises(InputError, match="class 'b' has one example, and 3-fold cross-validation needs 3 of each"):
        cross_validation(part(["a"] * 9 + ["b"]), folds=3, seed=0)
    with pytest.raises(OptionError, match="expected at least 2"):
        cross_validation(part(["a", "b"] * 9), folds=1, seed=0)
    with pytest.raises(InputError, match="class 'b' has one example; C is chosen on held-out"):
        given_split(part(["a", "a", "b"]), part(["a"], source="test.csv"), None, seed=0)
    with pytest.raises(InputError, match="every label is 'a'"):
        given_split(part(["a", "a"]), part(["a"], source="test.csv"), None, seed=0)


def test_labels_that_are_new_in_a_test_part_are_refused():
    train = part(["a", "b"] * 3)
    with pytest.raises(InputError, match=r"test.csv: label 'c' \(2 examples .*record 1\) does not occur in data.csv"):
        given_split(train, part(["a", "c", "c"], source="test.csv"), None, seed=0)
    with pytest.raises(InputError, match=r"dev.csv: label 'c'"):
        given_split(train, part(["a"], source="test.csv"), part(["c"], source="dev.csv"), seed=0)


@pytest.mark.parametrize("copies", [False, True])
def test_folds_cover_every_row_once_and_keep_copies_together(copies):
    labels = [str(i % 3) for i in range(60)]
    texts = [f"text {i // 2 if copies else i}" for i in range(60)]
    examples = cross_validation(part(labels, texts), folds=5, seed=1)
    assert sorted(examples.tested) == list(range(60))
    assert examples.names == ("0", "1", "2")
    for split in examples.splits:
        assert not set(split.train) & set(split.test)
        assert set(split.fit) | set(split.validate) == set(split.train)
        assert not set(split.fit) & set(split.validate)
        assert set(examples.classes[split.fit]) == set(examples.classes[split.validate]) == {0, 1, 2}
        assert not {texts[row] for row in split.train} & {texts[row] for row in split.test}
    assert bool(examples.notes) == copies
    other = cross_validation(part(labels, texts), folds=5, seed=2)
    assert any((one.test.tolist() != two.test.tolist()) for one, two in zip(examples.splits, other.splits, strict=True))


def test_a_given_split_leaves_out_what_was_learned_from():
    train = part(["a", "b"] * 5)
    test = part(["b", "a", "b"], [train.texts[1], "new 1", "new 2"], source="test.csv")
    examples = given_split(train, test, None, seed=0)
    (split,) = examples.splits
    assert [examples.texts[row] for row in split.test] == ["new 1", "new 2"]
    assert examples.classes[split.test].tolist() == [0, 1]
    assert examples.notes == ("1 texts of test.csv stand in data.csv, too, and were left out",)
    assert len(split.validate) == 2
    with pytest.raises(InputError, match=r"test.csv: every text of it stands in data.csv"):
        given_split(train, part(["a"], [train.texts[0]], source="test.csv"), None, seed=0)


def test_a_dev_part_is_what_c_is_chosen_on():
    train, dev, test = (part(["a", "b"] * n, source=name) for n, name in ((4, "train"), (2, "dev"), (3, "test")))
    examples = given_split(train, test, dev, seed=0)
    (split,) = examples.splits
    assert [rows.tolist() for rows in (split.train, split.fit, split.validate, split.test)] == [
        list(range(8)),
        list(range(8)),
        list(range(8, 12)),
        list(range(12, 18)),
    ]
    assert given_split(part(["a", "b"]), test, dev, seed=0).trained == 2


def test_numbers_are_sorted_as_numbers():
    labels = [str(i % 11) for i in range(33)]
    assert cross_validation(part(labels), folds=3, seed=0).names == tuple(map(str, range(11)))
    assert np.bincount(cross_validation(part(labels), folds=3, seed=0).classes).tolist() == [3] * 11


def sentences(*given):
    """Records of given words: `("a/X b/Y", ...)`."""
    pairs = [[word.split("/") for word in sentence.split()] for sentence in given]
    return [
        Record.of_words(row, [word for word, _ in words], columns={"tag": [tag for _, tag in words]})
        for row, words in enumerate(pairs)
    ]


def words_part(*given, most=1000, source="data.conll"):
    return read_words(sentences(*given), "tag", source, most=most, seed=0)


def test_words_of_sentences():
    found = words_part("the/D film/N", "good/A")
    assert found.texts == ("the", "film", "good")
    assert found.labels == ("D", "N", "A")
    assert found.sentences == (("the", "film"), ("good",))
    assert found.owners.tolist() == [0, 0, 1]
    assert found.kept([1]).labels == ("A",)


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["D"], "record 0: the labels 'tag': 1 of them for 2 words"),
        (None, "record 0: the labels 'tag' are missing; a list is needed"),
        ("D N", "are 'D N'; a list is needed, one a word"),
        (["D", None], "the labels 'tag': number 1 is missing"),
    ],
)
def test_tags_that_do_not_fit_their_words_are_refused(tags, message):
    record = Record.of_words(0, ["the", "film"], columns={"tag": tags})
    with pytest.raises(InputError, match=message):
        read_words([record], "tag", "data.conll", most=10, seed=0)


def test_of_many_words_whole_sentences_are_drawn():
    given = [f"w{i}/A v{i}/B" for i in range(50)]
    found = words_part(*given, most=21)
    assert len(found.texts) == 20
    assert set(found.sentences) <= {(f"w{i}", f"v{i}") for i in range(50)}
    assert found.notes == ("of the 100 words of data.conll 20 were drawn, in 10 sentences (--max-words)",)
    assert read_words(sentences(*given), "tag", "data.conll", most=21, seed=1).sentences != found.sentences
    assert len(words_part(*given, most=1).sentences) == 1


def test_folds_and_held_out_parts_keep_sentences_whole():
    part_ = words_part(*[f"w{i}/A v{i}/B u{i}/A" for i in range(30)], "w1/A v1/B u1/A")
    examples = cross_validation(part_, folds=5, seed=0)
    assert sorted(examples.tested) == list(range(93))
    for split in examples.splits:
        for one, other in ((split.train, split.test), (split.fit, split.validate)):
            assert len(one)
            assert len(other)
            assert not set(examples.owners[one]) & set(examples.owners[other])
        texts = [{examples.sentences[place] for place in examples.owners[rows]} for rows in (split.train, split.test)]
        assert not texts[0] & texts[1]
    assert examples.notes == ("1 sentences repeat others word for word; these were kept in one fold",)


def test_a_given_split_of_words():
    train = words_part(*[f"w{i}/A v{i}/B" for i in range(10)])
    test = words_part("w3/A v3/B", "w3/B x/A", source="test.conll")
    examples = given_split(train, test, None, seed=0)
    assert [examples.texts[row] for row in examples.splits[0].test] == ["w3", "x"]
    assert examples.sentences[-1] == ("w3", "x")
    assert "1 sentences of test.conll stand in data.conll" in examples.notes[0]
    with pytest.raises(InputError, match="one has words with labels, the other whole texts"):
        given_split(train, part(["A"], source="test.csv"), None, seed=0)
    with pytest.raises(InputError, match=r"test.conll: label 'C'"):
        given_split(train, words_part("w/C", source="test.conll"), None, seed=0)
