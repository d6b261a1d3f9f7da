"""Schemes of tags, and the entities they mark, against seqeval."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layertap.errors import InputError, OptionError
from layertap.learn.tags import entities, in_scheme, scheme_of

TAGS = st.lists(st.sampled_from(["O", "B-a", "I-a", "B-b", "I-b"]), max_size=12)


def test_entities_of_bioes_and_bilou():
    tags = ["B-x", "I-x", "E-x", "S-x", "S-x", "O", "B-y", "L-y", "U-y", "I-y"]
    assert entities(tags) == [(0, 3, "x"), (3, 4, "x"), (4, 5, "x"), (6, 8, "y"), (8, 9, "y"), (9, 10, "y")]


@given(TAGS)
@settings(max_examples=200)
def test_entities_are_those_of_seqeval(tags):
    get_entities = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities
    assert entities(tags) == [(begin, end + 1, kind) for kind, begin, end in get_entities(tags)]


@given(TAGS)
def test_io_joins_neighbours_of_one_type(tags):
    found = entities([in_scheme(tag, "io") for tag in tags])
    inside = {place for begin, end, _ in found for place in range(begin, end)}
    assert inside == {place for place, tag in enumerate(tags) if tag != "O"}
    assert all(end < begin or kind != other for (_, end, kind), (begin, _, other) in pairwise(found))


@pytest.mark.parametrize(
    ("tags", "asked", "scheme"),
    [
        ({"O", "B-x", "I-x"}, "auto", "bio"),
        ({"O", "I-x"}, "auto", "io"),
        ({"O"}, "auto", "tags"),
        ({"NOUN", "VERB"}, "auto", "tags"),
        ({"O", "B-x"}, "io", "io"),
        ({"O", "B-x", "I-x"}, "tags", "tags"),
    ],
)
def test_schemes(tags, asked, scheme):
    assert scheme_of(tags, asked) == scheme


def test_tags_that_a_scheme_does_not_have():
    with pytest.raises(InputError, match="'S-x' are BIOES or BILOU"):
        scheme_of({"O", "B-x", "S-x"})
    with pytest.raises(InputError, match="scheme bio: 'NOUN': expected O, B-type and I-type"):
        scheme_of({"NOUN"}, "bio")
    with pytest.raises(OptionError, match="expected auto, bio, io, tags"):
        scheme_of({"O"}, "bilou")
