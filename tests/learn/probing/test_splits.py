"""Labelled data: what is refused, and how it is divided."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

from layertap.errors import InputError, OptionError
from layertap.learn.probing.splits import cross_validation, given_split, read_part
from layertap.records import Record
from layertap.text.units import UnitFinder

FINDER = UnitFinder(words=True)


def part(labels, texts=None, source="data.csv"):
    texts = [f"text {i} of {source}" for i in range(len(labels))] if texts is None else texts
    records = [
        Record(row=row, text=text, columns={"y": label})
        for row, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    return read_part(records, "y", source, finder=FINDER)


def crossed(part, *, folds=5, seed=0):
    return cross_validation(part, finder=FINDER, folds=folds, seed=seed)


def divided(train, test, dev=None):
    return given_split(train, test, dev, finder=FINDER, seed=0)


def test_labels_are_words_or_whole_numbers():
    assert part(["a", 1, 2.0, True]).labels.values == (("a",), ("1",), ("2",), ("true",))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, r"data.csv: 1 of 2 rows have no label in column 'y', the first of them row 2; label them or"),
        ("", "have no label"),
        (float("nan"), "have no label"),
        (2.5, "data.csv: row 2: the label in column 'y' is 2.5; expected a string or a whole number"),
        (float("inf"), "is inf; expected"),
        (["a"], "holds lists in some rows and single labels in others"),
    ],
)
def test_labels_that_are_no_classes_are_refused(label, message):
    with pytest.raises(InputError, match=message):
        part(["a", label])


def test_no_text_is_refused():
    with pytest.raises(InputError, match=r"data.csv: there are no rows"):
        part([])


def test_one_class_and_rare_classes_are_refused():
    with pytest.raises(InputError, match=r"data.csv: every row has the label 'a'; to learn a difference takes two"):
        crossed(part(["a"] * 9))
    with pytest.raises(InputError, match="one example only of 'b'"):
        crossed(part(["a"] * 9 + ["b"]))
    with pytest.raises(InputError, match="class 'b' has 2 examples, and 3-fold cross-validation needs 3 of each"):
        crossed(part(["a"] * 9 + ["b"] * 2), folds=3)
    with pytest.raises(OptionError, match="expected at least 2"):
        crossed(part(["a", "b"] * 9), folds=1)
    with pytest.raises(InputError, match="one example only of 'b'"):
        divided(part(["a", "a", "b"]), part(["a"], source="test.csv"))
    with pytest.raises(InputError, match="every row has the label 'a'"):
        divided(part(["a", "a"]), part(["a"], source="test.csv"))


def test_labels_that_are_new_in_a_test_part_are_refused():
    train = part(["a", "b"] * 3)
    with pytest.raises(InputError, match=r"test.csv: 2 labels are not among those of data.csv: 'c'; only 'a', 'b' can"):
        divided(train, part(["a", "c", "c"], source="test.csv"))
    with pytest.raises(InputError, match=r"dev.csv: one label is not among those"):
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
    assert examples.notes == ("1 texts of test.csv stand in data.csv, too, and were left out",)
    assert len(split.validate) == 2
    with pytest.raises(InputError, match=r"test.csv: every text of it stands in data.csv"):
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


def sentences(*given):
    """Records of given words: `("a/X b/Y", ...)`."""
    pairs = [[word.split("/") for word in sentence.split()] for sentence in given]
    return [
        Record.of_words(row, [word for word, _ in words], columns={"tag": [tag for _, tag in words]})
        for row, words in enumerate(pairs)
    ]


def words_part(*given, source="data.conll"):
    return read_part(sentences(*given), "tag", source, finder=FINDER)


def test_words_of_sentences():
    found = crossed(words_part("the/D film/N", "good/D film/N"), folds=2)
    assert found.texts == ("the", "film", "good", "film")
    assert found.owners.tolist() == [0, 0, 1, 1]
    assert found.names == ("D", "N")
    assert found.classes.tolist() == [0, 1, 0, 1]
    assert [record.row for record in found.records] == [0, 1]


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (["D"], r"data.conll: row 1: 1 label in column 'tag', and 2 words; each word needs one"),
        (None, "1 of 1 rows have no label in column 'tag'"),
        ("D N", "it has given words, and column 'tag' one label for all"),
        (["D", None], "row 1: item 2: the label in column 'tag' is empty"),
    ],
)
def test_tags_that_do_not_fit_their_words_are_refused(tags, message):
    record = Record.of_words(0, ["the", "film"], columns={"tag": tags})
    with pytest.raises(InputError, match=message):
        read_part([record], "tag", "data.conll", finder=FINDER)


def test_of_many_words_whole_sentences_are_drawn():
    given = [f"w{i}/A v{i}/B" for i in range(50)]

    def drawn(most, seed=0):
        return cross_validation(words_part(*given), finder=FINDER, folds=2, seed=seed, most=most)

    found = drawn(21)
    assert len(found.texts) == 20
    assert {record.text for record in found.records} <= {f"w{i} v{i}" for i in range(50)}
    assert found.notes == ("of the 100 words of data.conll 20 were drawn, in 10 sentences (--max-words)",)
    assert drawn(21, seed=1).texts != found.texts


def test_a_draw_refuses_nothing():
    given = ["rare/R", "other/R", *(f"w{i}/A v{i}/B" for i in range(50))]
    found = cross_validation(words_part(*given), finder=FINDER, folds=2, seed=0, most=40)
    assert found.names == ("A", "B", "R")
    assert np.bincount(found.classes, minlength=3)[2] < 2
    test = words_part("new/R w/A x/B", source="test.conll")
    found = given_split(words_part(*given), test, None, finder=FINDER, seed=0, most=40)
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
    assert examples.notes == ("1 sentences repeat others word for word; these were kept in one fold",)


def test_a_given_split_of_words():
    train = words_part(*[f"w{i}/A v{i}/B" for i in range(10)])
    test = words_part("w3/A v3/B", "w3/B x/A", source="test.conll")
    examples = divided(train, test)
    assert [examples.texts[row] for row in examples.splits[0].test] == ["w3", "x"]
    assert examples.records[-1].words == ("w3", "x")
    assert "1 sentences of test.conll stand in data.conll" in examples.notes[0]
    with pytest.raises(InputError, match=r"test.csv has one label a row, and data.conll has lists of labels"):
        divided(train, part(["A"], source="test.csv"))
    with pytest.raises(InputError, match=r"test.conll: one label is not among"):
        divided(train, words_part("w/C", source="test.conll"))
