"""How many bytes results take, said before they are computed; refused past a limit."""

from __future__ import annotations

from inspect import signature

import pytest

from layertap import attentions, hidden_states, last_hidden_state
from layertap.engine import preparing
from layertap.engine.forecast import MAX_OUTPUT_BYTES, Forecast, result_bytes
from layertap.errors import OptionError
from layertap.records import AttentionMaps, FeatureSchema, Ragged

FEATURES = {
    "maps": attentions[:].heads(1, 2),
    "half": attentions[0].heads_mean.astype("float16"),
    "tokens": hidden_states[:2],
    "vector": last_hidden_state.mean,
    "small": last_hidden_state.astype("int8"),
}


def nbytes(value) -> int:
    return value.values.nbytes if isinstance(value, Ragged | AttentionMaps) else value.nbytes


def test_the_forecast_is_what_results_take(extractor, random_texts):
    texts = ["the " * 100, *random_texts(15)]
    lengths = [min(len(text), 64) for text in extractor.tokenizer.encode(texts)]
    schemas = extractor.schema(FEATURES)
    found = extractor.extract(texts, FEATURES)
    forecast = Forecast.of(schemas, lengths)
    for name, value in found.items():
        # where each record's values end, and of maps their shape, comes to it
        ends = 16 * 8 * (3 + len(value.leading) if isinstance(value, AttentionMaps) else isinstance(value, Ragged))
        assert forecast.by_name[name] == nbytes(value) + ends, name
    assert forecast.total == sum(result_bytes(schemas, length) for length in lengths)
    assert forecast.num_records == 16


def test_a_sample_stands_for_all():
    schemas = (
        FeatureSchema(name="a", dtype="float32", shape=(2,), ragged=False, maps=True),
        FeatureSchema(name="v", dtype="float16", shape=(8,), ragged=False),
    )
    forecast = Forecast.of(schemas, [1, 3], num_records=100)
    assert forecast.by_name == {"a": (4 * 2 * 5 + 8 * 4) * 100, "v": 2 * 8 * 100}
    assert Forecast.of(schemas, [], num_records=0).total == 0


def test_refused_past_the_limit_and_not_before(extractor, random_texts, monkeypatch):
    texts = random_texts(10)
    found = extractor.extract(texts, FEATURES)
    lengths = [len(text) for text in extractor.tokenizer.encode(texts)]
    exact = Forecast.of(extractor.schema(FEATURES), lengths).total
    assert list(extractor.extract(texts, FEATURES, max_output_bytes=exact)) == list(found)

    def never(*_):
        raise AssertionError("nothing may run")

    monkeypatch.setattr(type(extractor.backend), "run", never)
    with pytest.raises(OptionError, match=r"about .* for 10 texts \(maps .*, tokens .*, .*max_output_bytes=.*--max-ou"):
        extractor.extract(texts, FEATURES, max_output_bytes=exact - 1)


def test_texts_are_tokenized_for_it_only_where_they_might_pass(extractor, random_texts, monkeypatch):
    prepared = []
    right = preparing.Preparation.prepare_group

    def spy(self, records):
        prepared.append(1)
        return right(self, records)

    monkeypatch.setattr(preparing.Preparation, "prepare_group", spy)
    texts = random_texts(10)
    extractor.extract(texts, attentions[0])
    assert len(prepared) == 1
    at_most = 10 * (4 * 4 * 64 * 64 + 8 * 4)  # were each of them at the limit
    extractor.extract(texts, attentions[0], max_output_bytes=at_most)
    assert len(prepared) == 2
    extractor.extract(texts, attentions[0], max_output_bytes=at_most - 1)
    assert len(prepared) == 4


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "8GB"])
def test_a_limit_is_a_whole_number(extractor, limit):
    with pytest.raises(OptionError, match="max_output_bytes"):
        extractor.extract(["a"], max_output_bytes=limit)


def test_the_default_is_8_gib(extractor):
    assert MAX_OUTPUT_BYTES == 8 * 2**30
    assert signature(extractor.extract).parameters["max_output_bytes"].default == MAX_OUTPUT_BYTES
