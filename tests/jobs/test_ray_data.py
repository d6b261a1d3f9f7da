"""The callable for Ray Data, on batches as Ray makes them, and with Ray itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from layertap import Extractor
from layertap.errors import InputError, OptionError
from layertap.jobs.ray_data import ExtractFeatures

FEATURES = {"v": "hidden_states[1].mean", "t": "hidden_states[2].tokens"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("ray_data") / "tiny-bert")


def test_columns_stay_and_features_are_added(model):
    texts = ["one text", "another text of more words", ""]
    batch = {"text": np.array(texts, dtype=object), "n": np.arange(3)}
    out = ExtractFeatures(FEATURES, model=model)(batch)
    expected = Extractor.from_pretrained(model).extract(texts, FEATURES)
    assert list(out) == ["text", "n", "v", "t"]
    np.testing.assert_array_equal(out["v"], expected["v"])
    for row, tokens in zip(out["t"], expected["t"], strict=True):
        np.testing.assert_array_equal(row, tokens)


def test_pairs(model):
    batch = {"q": np.array(["one", "two"], dtype=object), "d": np.array(["a b", "c"], dtype=object)}
    out = ExtractFeatures("v = pooler_output", model=model, text_column="q", pair_column="d")(batch)
    pairs = Extractor.from_pretrained(model).extract([("one", "a b"), ("two", "c")], "pooler_output")
    np.testing.assert_array_equal(out["v"], pairs)


def test_the_default_feature(model):
    (name,) = set(ExtractFeatures(model=model)({"text": ["a"]})) - {"text"}
    assert name == "last_hidden_state.mean"


def test_refuses_columns_that_are_not_there_or_taken(model):
    extract = ExtractFeatures("v = hidden_states[1].mean", model=model)
    with pytest.raises(InputError, match="no column 'text'; it has 'sentence'"):
        extract({"sentence": ["a"]})
    with pytest.raises(OptionError, match="'v' is the name of a feature and of a column"):
        extract({"text": ["a"], "v": [1]})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("one_ray_at_a_time")
def test_on_ray(model):
    ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'layertap[ray]'")
    data = pytest.importorskip("ray.data")
    texts = [f"text {i}" for i in range(40)]
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        rows = (
            data.from_items([{"text": text} for text in texts])
            .map_batches(
                ExtractFeatures,
                fn_constructor_kwargs={"features": "v = hidden_states[1].mean", "model": str(model)},
                compute=data.ActorPoolStrategy(size=1),
                batch_size=16,
            )
            .take_all()
        )
    finally:
        ray.shutdown()
    found = {row["text"]: row["v"] for row in rows}
    expected = Extractor.from_pretrained(model).extract(texts, "hidden_states[1].mean")
    np.testing.assert_array_equal(np.stack([found[text] for text in texts]), expected)
