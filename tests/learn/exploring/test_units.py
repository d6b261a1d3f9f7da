from __future__ import annotations

import numpy as np
import pytest

from layertap.errors import InputError
from layertap.learn.exploring.units import finder_of, item, unit_chars, units_of
from layertap.records import Record


def test_units_are_characters_of_their_texts_and_some_of_them_keep_theirs():
    texts = ["a good film", "\U0001f600 b", "c"]
    chars = [unit_chars(Record(row=i, text=text), finder_of("word"), "data") for i, text in enumerate(texts)]
    units = units_of("word", owners=[0, 0, 1, 1, 2], numbers=[1, 2, 0, 1, 0], chars=chars, texts=texts)
    assert units.names == ("good", "film", "\U0001f600", "b", "c")
    assert units.chars.tolist() == [[2, 6], [7, 11], [0, 1], [2, 3], [0, 1]]
    assert units.counts.tolist() == [3, 2, 1]
    used, some = units.at([1, 4])
    assert used == [0, 2]
    assert some.owners.tolist() == [0, 1]
    assert some.counts.tolist() == [3, 1]
    assert some.numbers.tolist() == [2, 0]
    assert some.names == ("film", "c")


def test_spans_that_are_not_there_are_refused():
    spans = unit_chars(Record(row=0, text="a good film", spans=((2, 6),)), finder_of("span"), "data")
    assert np.array_equal(spans, [[2, 6]])
    with pytest.raises(InputError, match="data, row 7: it has no spans"):
        unit_chars(Record(row=7, text="a"), finder_of("span"), "data")


def test_a_list_of_values_is_of_the_units_only_where_it_has_one_for_each():
    assert item(["O", "B"], 1, 2) == "B"
    assert item(["O", "B"], 1, 3) is None
    assert item("up", 1, 3) == "up"
