"""The rule `repeat`: equal texts of a chunk run once, and all their records get the same bits as without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layertap.engine import repeats as repeats_module
from layertap.engine.batching import PlannedText
from layertap.engine.extractor import Extractor
from layertap.engine.length_policy import CutText
from layertap.engine.repeats import merge_repeats, repeated_share
from layertap.features.rules import Rules
from layertap.records import AttentionMaps, Ragged, Record
from layertap.text.encoded import EncodedText
from layertap.text.units import RecordUnits
from layertap.text.windows import Window

SINGLE = [
    "last_hidden_state.mean",
    "hidden_states[1]",
    "hidden_states[0:3].words(mean).mean",
    "last_hidden_state.words(max)",
    "hidden_states[2].spans(mean)",
    "hidden_states[:].layer_mean.cls",
    "last_hidden_state.weighted_mean(special=False)",
    "last_hidden_state.astype(int8)",
    "attentions[1].heads_mean",
    "pooler_output",
    "sentence_embedding",
]
PAIRED = [feature for feature in SINGLE if "words" not in feature and "spans" not in feature]
WORDS = ["the", "film", "was", "good", "river"]


def bits(features: dict) -> dict:
    """Bytes and dtypes of results, so that NaN and -0.0 count too."""
    parts = {}
    for name, result in features.items():
        if isinstance(result, Ragged):
            parts[name] = (result.values.tobytes(), result.values.dtype, result.offsets.tolist())
        elif isinstance(result, AttentionMaps):
            parts[name] = (result.values.tobytes(), result.lengths.tolist(), result.leading)
        else:
            parts[name] = (result.tobytes(), result.dtype, result.shape)
    return parts


@pytest.fixture(scope="module")
def extractors(sentence_folder):
    """An extractor with and without the rule, for each treatment of long texts."""
    pytest.importorskip("layertap.backends.native._native", reason="the native module is not built")

    def opened(long: str, rules: Rules | None) -> Extractor:
        return Extractor.from_pretrained(
            sentence_folder, backend="native", long=long, max_length=12, batch_tokens=50, rules=rules
        )

    return {long: (opened(long, None), opened(long, Rules.without("repeat"))) for long in ("truncate", "window")}


@st.composite
def corpora(draw) -> tuple[bool, list[Record]]:
    """Records of which many are equal, in all or in some of what a result depends on."""
    paired = draw(st.booleans())
    texts = draw(st.lists(st.lists(st.sampled_from(WORDS), max_size=16).map(" ".join), min_size=1, max_size=3))
    records = []
    for row in range(draw(st.integers(1, 14))):
        text = draw(st.sampled_from(texts))
        if paired:
            pair = draw(st.one_of(st.none(), st.sampled_from([text[:20] for text in texts])))
            records.append(Record(row=row, text=text[:20], pair=pair))
            continue
        spans = draw(st.sampled_from([(), ((0, 3),), ((0, 3), (1, len(text)))])) if len(text) > 3 else ()
        if draw(st.booleans()):
            records.append(Record(row=row, text=text, spans=spans))
        else:  # given words: the same ids, cut into other words
            words = tuple(text.split(" ")) if draw(st.booleans()) else (text,)
            records.append(Record(row=row, text=text, words=words))
    return paired, records


@given(corpus=corpora(), data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_rule_gives_the_same_bits(extractors, corpus, data):
    paired, records = corpus
    longs = ["truncate"] if paired else ["truncate", "window"]
    with_rule, without = extractors[data.draw(st.sampled_from(longs))]
    features = data.draw(st.lists(st.sampled_from(PAIRED if paired else SINGLE), min_size=1, max_size=4, unique=True))
    if (
        any(record.spans is None or record.words is not None for record in records)
        or with_rule.semantics.long == "window"
    ):
        features = [f for f in features if "spans" not in f and "attentions" not in f] or ["last_hidden_state.first"]
    found, plain = with_rule.stream(records, features), without.stream(records, features)
    for one, other in zip(found, plain, strict=True):
        assert bits(dict(one.features)) == bits(dict(other.features))
    assert (found.summary.records, found.summary.tokens) == (plain.summary.records, plain.summary.tokens)
    assert plain.summary.repeated_texts == plain.summary.repeated_tokens == 0


def test_the_model_runs_equal_texts_once(extractors, monkeypatch):
    with_rule, without = extractors["truncate"]
    texts = ["the film", "good", "the film", "THE  film", "good", "river " * 30, "river " * 31]
    ran = {}
    for name, extractor in (("on", with_rule), ("off", without)):
        batches = []
        run = type(extractor.backend).run
        with monkeypatch.context() as patch:
            patch.setattr(
                type(extractor.backend),
                "run",
                lambda self, program, batch, *more, run=run, batches=batches: (
                    batches.append(batch.num_tokens) or run(self, program, batch, *more)
                ),
            )
            calls = []
            stream = extractor.stream(texts, "last_hidden_state.mean", on_progress=lambda *c, to=calls: to.append(c))
            list(stream)
        ran[name] = sum(batches)
        assert [sum(column) for column in zip(*calls, strict=True)] == [7, stream.summary.tokens]
        assert stream.summary.tokens - stream.summary.repeated_tokens == ran[name]
        assert stream.summary.repeated_texts == (4 if name == "on" else 0)
    assert ran == {"on": 4 + 3 + 12, "off": 3 * 4 + 2 * 3 + 2 * 12}


CLS, SEP = 90, 91


def text(ids=(1, 2, 3), *, content=None, types=None, pair=None) -> EncodedText:
    return EncodedText(
        input_ids=np.array([CLS, *ids, SEP], dtype=np.int32),
        content=content or (1, 1 + len(ids)),
        token_type_ids=None if types is None else np.array(types, dtype=np.int32),
        pair_content=pair,
    )


def planned(index: int, *sequences: EncodedText, inputs=(0,), windows=(), **units) -> PlannedText:
    arrays = {name: np.array(rows, dtype=np.int32).reshape(-1, 2) for name, rows in units.items()}
    return PlannedText(
        index=index,
        cut=CutText(sequences=sequences or (text(),), windows=windows),
        units=RecordUnits(**arrays) if units else None,
        inputs=frozenset(inputs),
    )


def window(begin: int, own_end: int) -> Window:
    return Window(begin=begin, end=begin + 3, own_begin=begin, own_end=own_end)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"inputs": (1,)}),
        ({"words": [[0, 3]]}, {"words": [[0, 1], [1, 3]]}),
        ({"words": [[0, 3]]}, {}),
        ({"spans": [[0, 3]]}, {"spans": [[0, 2]]}),
        ({"spans": [[0, 3]]}, {"spans": [[0, 3]], "words": [[0, 3]]}),
        ({"sequences": [text()]}, {"sequences": [text((1, 2, 4))]}),
        ({"sequences": [text()]}, {"sequences": [text(content=(1, 3))]}),
        ({"sequences": [text()]}, {"sequences": [text(types=[0, 0, 1, 1, 1])]}),
        ({"sequences": [text(types=[0, 0, 0, 1, 1])]}, {"sequences": [text(types=[0, 0, 1, 1, 1])]}),
        ({"sequences": [text(content=(1, 2))]}, {"sequences": [text(content=(1, 2), pair=(3, 4))]}),
        (
            {"sequences": [text(), text()], "windows": (window(0, 3), window(2, 5))},
            {"sequences": [text(), text((1, 2, 4))], "windows": (window(0, 3), window(2, 5))},
        ),
        ({"sequences": [text(), text()], "windows": (window(0, 3), window(2, 5))}, {"sequences": [text()]}),
        ({"sequences": [text()], "windows": (window(0, 3),)}, {"sequences": [text()], "windows": (window(2, 5),)}),
        (
            {"sequences": [text(), text()], "windows": (window(0, 2), window(2, 5))},
            {"sequences": [text(), text()], "windows": (window(0, 3), window(2, 5))},
        ),
    ],
)
def test_texts_that_differ_in_anything_run_both(one, other):
    def made(index, sequences=(), **more):
        return planned(index, *sequences, **more)

    assert [t.positions for t in merge_repeats([made(0, **one), made(1, **other)])] == [(0,), (1,)]
    again = merge_repeats([made(0, **one), made(1, **other), made(2, **other), made(3, **one), made(4, **one)])
    assert [t.positions for t in again] == [(0, 3, 4), (1, 2)]


def test_nothing_is_compared_where_nothing_repeats(monkeypatch, extractors, random_texts):
    """What the rule costs then is one look at the ids of each text."""
    compared = []
    monkeypatch.setattr(repeats_module, "_are_equal", lambda *texts: compared.append(texts))
    texts = sorted({t for t in random_texts(300, longest=9) if t})
    with_rule, _ = extractors["truncate"]
    assert len(with_rule.extract(texts, "hidden_states[1].mean")) == len(texts)
    assert compared == []


def test_the_share_of_a_sample_that_repeats():
    records = [
        Record(row=0, text="a b"),
        Record(row=1, text="a b", words=("a", "b")),
        Record(row=2, text="a b", spans=((0, 1),)),
        Record(row=3, text="a b", pair="c"),
    ]
    assert repeated_share(records, [2, 2, 2, 4]) == 0
    again = [replace(record, row=record.row + 4, id="x") for record in records]
    assert repeated_share([*records, *again], [2, 2, 2, 4] * 2) == 0.5
    assert repeated_share([], []) == 0
