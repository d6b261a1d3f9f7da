from __future__ import annotations

import pytest

from layertap.errors import InputError, UsageError
from layertap.learn.exploring.corpus import coloured, colours_of, labelled_points, sampled, sampled_units
from layertap.records import Record


def records(number: int) -> list[Record]:
    columns = [{"mood": "up" if i % 2 else "", "size": i, "name": f"n{i}"} for i in range(number)]
    return [Record(row=i, text=f"text {i}", id=f"id{i}", columns=columns[i]) for i in range(number)]


def test_a_sample_is_in_order_and_holds_the_rows_asked_for():
    corpus = sampled(records(500), "data", "mood", most=20, seed=3, kept=(7, 499))
    assert len(corpus) == 20
    assert corpus.total == 500
    assert {7, 499} <= set(corpus.rows)
    assert list(corpus.rows) == sorted(corpus.rows)
    assert corpus.texts == [f"text {row}" for row in corpus.rows]
    assert [record.row for record in corpus.records] == list(range(20))
    assert (
        sampled(records(500), "data", None, most=20, seed=4).rows
        != sampled(records(500), "data", None, most=20, seed=3).rows
    )
    assert set(corpus.drawn(3, 0, (499,)).rows) > {499}


def test_what_is_not_there_is_refused():
    with pytest.raises(UsageError, match="no column 'moood' for labels; beside the texts there are 'mood'"):
        sampled(records(3), "data", "moood", most=9, seed=0)
    with pytest.raises(UsageError, match="no row 3; it has 3 rows"):
        sampled(records(3), "data", None, most=9, seed=0, kept=(3,))
    with pytest.raises(InputError, match="no texts"):
        sampled([], "data", None, most=9, seed=0)


def test_columns_become_classes_or_numbers():
    corpus = sampled(records(30), "data", "mood", most=30, seed=0)
    mood, size, length = colours_of(corpus, list(range(30)))
    assert (mood.name, mood.names, mood.values[:2].tolist()) == ("mood", ("(none)", "up"), [0, 1])
    assert size.names is None
    assert size.as_facts() == {"name": "size", "kind": "numbers", "low": 0.0, "high": 29.0, "carried": True}
    assert not length.is_carried
    assert labelled_points(corpus, 99, 0).tolist() == list(range(1, 30, 2))


def test_numbers_as_texts_are_sorted_as_numbers():
    assert coloured("stars", ["10", "9", "9"], is_label=True).names == ("9", "10")  # type: ignore[union-attr]
    assert coloured("free", [f"text {i}" for i in range(21)], is_label=False) is None
    assert coloured("nan", ["nan"] * 3, is_label=False).names == ("nan",)  # type: ignore[union-attr]


def test_a_sample_of_words_has_the_labels_of_its_words_and_the_texts_that_they_stand_in():
    rows = [
        Record.of_words(
            i, ["a", f"w{i}", "c"][: 1 + i % 3], columns={"tag": ["x", "y", "z"][: 1 + i % 3], "kind": i % 2}
        )
        for i in range(30)
    ]
    corpus = sampled_units(rows, "data", "tag", kind="word", most=20, seed=0, kept=(29,))
    assert (len(corpus), corpus.total) == (20, 60)
    assert corpus.units is not None
    tag = {"a": "x", "c": "z"}
    assert corpus.column("tag") == [tag.get(name, "y") for name in corpus.units.names]
    assert corpus.column("kind") == [row % 2 for row in corpus.point_rows]
    assert corpus.point_rows.count(29) == 3
    assert all(text in {row.text for row in rows} for text in corpus.texts)
    wrong = [Record.of_words(0, ["a", "b"], columns={"tag": ["x"]})]
    with pytest.raises(
        InputError, match="row 0: column 'tag' has 1 label, and the text has 2 words; give one label per"
    ):
        sampled_units(wrong, "data", "tag", kind="word", most=9, seed=0)
    with pytest.raises(InputError, match="there are no words to show"):
        sampled_units([Record(row=0, text=" ")], "data", None, kind="word", most=9, seed=0)
