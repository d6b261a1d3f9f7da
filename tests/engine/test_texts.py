"""Containers of texts, pairs and given words, and what a list of two strings means."""

from __future__ import annotations

import numpy as np
import pytest

from layertap.engine.texts import as_records, check_iterable
from layertap.errors import InputError, UsageError
from layertap.records import Record

TEXTS = ["a good film", "hello"]


def columns():
    """The same two texts in every kind of column, by name; those whose library is missing are left out."""
    made = {"numpy": np.array(TEXTS), "numpy objects": np.array(TEXTS, dtype=object), "one column": np.array([TEXTS]).T}
    for name, make in {
        "pyarrow": lambda: pytest.importorskip("pyarrow").array(TEXTS),
        "pyarrow chunks": lambda: pytest.importorskip("pyarrow").chunked_array([TEXTS[:1], TEXTS[1:]]),
        "pyarrow dictionary": lambda: pytest.importorskip("pyarrow").array(TEXTS).dictionary_encode(),
        "pandas": lambda: pytest.importorskip("pandas").Series(TEXTS, index=[7, 3]),
        "pandas categories": lambda: pytest.importorskip("pandas").Series(TEXTS, dtype="category"),
        "polars": lambda: pytest.importorskip("polars").Series(TEXTS),
    }.items():
        try:
            made[name] = make()
        except pytest.skip.Exception:
            continue
    return made


@pytest.mark.parametrize("column", columns().values(), ids=columns().keys())
def test_every_kind_of_column(column):
    check_iterable(column)
    assert [(record.row, record.text, record.words) for record in as_records(column)] == [
        (0, TEXTS[0], None),
        (1, TEXTS[1], None),
    ]


def test_columns_of_words():
    words = [["a", "good"], ["film"]]
    made = [np.array([["a", "good"], ["dull", "film"]])]
    made.append(pytest.importorskip("pyarrow").array(words))
    made.append(pytest.importorskip("polars").Series(words))
    made.append(pytest.importorskip("pandas").Series([np.array(own, dtype=object) for own in words]))
    for column in made:
        assert next(as_records(column)).words == ("a", "good"), type(column)


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_missing_text_is_named(missing):
    with pytest.raises(InputError, match=r"text 1 is missing \((None|nan)\); expected a str"):
        list(as_records(["a", missing]))


def test_given_words_with_white_space_are_noted_once():
    with pytest.warns(UserWarning, match="text 1 is a list, which means given words, and 'good film' holds") as noted:
        records = list(as_records([["a", "film"], ["a", "good film"], ["b c"], ["d e", "f"]]))
    assert len(noted) == 1
    assert records[1] == Record.of_words(1, ["a", "good film"])


def test_a_list_of_two_where_texts_are_classified():
    given = [["a question", "answer"], ["question", "an answer"], ["three", "given", "words"], ("q", "d")]
    assert [(record.text, record.pair, record.words) for record in as_records(given, lists="either")] == [
        ("a question", "answer", None),
        ("question", "an answer", None),
        ("three given words", None, ("three", "given", "words")),
        ("q", "d", None),
    ]
    with pytest.raises(InputError, match=r"text 1 is the list \['good', 'film'\], which could be a pair"):
        list(as_records(["a", ["good", "film"]], lists="either"))
    table = np.array([["q", "d"], ["a question", "an answer"]], dtype=object)
    assert [(record.text, record.pair) for record in as_records(table, lists="either")] == list(map(tuple, table))
    assert [record.pair for record in as_records([["q", "d"]], lists="pairs")] == ["d"]


def test_a_table_is_refused_with_both_remedies():
    frame = pytest.importorskip("pandas").DataFrame({"q": ["a"], "d": ["b"]})
    with pytest.raises(UsageError, match=r"df\['text'\], or give pairs of two columns, as in list\(zip"):
        check_iterable(frame)


def test_the_summary_of_a_run_counts_texts_of_spaced_words(make_checkpoint, tmp_path):
    from layertap import Extractor

    extractor = Extractor.from_pretrained(make_checkpoint(tmp_path / "model"))
    stream = extractor.stream([Record.of_words(0, ["a good", "film"]), Record.of_words(1, ["a"])])
    assert sum(len(batch.records) for batch in stream) == 2
    assert stream.summary.notes() == [
        "1 text of given words that hold white space; is each a word, or a text of a pair?"
    ]


def test_a_row_of_a_table_is_named():
    with pytest.raises(InputError, match=r"text 0 is a row with the columns text, label, of which a text is one"):
        list(as_records([{"text": "a", "label": 1}]))
