"""Encoder of MTEB: its protocol, its prompts, and all of its mock tasks of texts."""

from __future__ import annotations

import numpy as np
import pytest

from layertap import InputError, SentenceEncoder
from tests.integrations.conftest import FEATURE, TEXTS

mteb = pytest.importorskip("mteb", reason="mteb is not installed (extra: mteb)")
pytestmark = pytest.mark.filterwarnings("default")

from mteb.mocks import ALL_MOCK_TASK_TEST_GRID  # noqa: E402
from mteb.models.models_protocols import EncoderProtocol  # noqa: E402
from mteb.results import TaskResult  # noqa: E402
from mteb.types import PromptType  # noqa: E402

from layertap.integrations.mteb import LayertapEncoder  # noqa: E402


def task():
    return mteb.get_task("STSBenchmark").metadata


def encode(encoder: LayertapEncoder, texts: list[str], prompt_type=None, **keywords):
    batches = [{"text": texts[i : i + 3]} for i in range(0, len(texts), 3)]
    return encoder.encode(
        batches, task_metadata=task(), hf_split="test", hf_subset="default", prompt_type=prompt_type, **keywords
    )


def test_vectors_are_those_of_the_encoder_with_the_prompt_of_the_task(folder, encoder):
    one = LayertapEncoder(str(folder), feature=FEATURE)
    assert isinstance(one, EncoderProtocol)
    assert np.array_equal(encode(one, TEXTS), encoder.encode(TEXTS))
    assert np.array_equal(encode(one, TEXTS, PromptType.query, batch_size=2), encoder.encode_query(TEXTS))
    assert np.array_equal(encode(one, TEXTS, PromptType.document), encoder.encode_document(TEXTS))
    assert encode(one, []).shape == (0, 32)
    told = LayertapEncoder(str(folder), feature=FEATURE, prompts={"STSBenchmark": "a dull one: "})
    assert np.array_equal(encode(told, TEXTS, PromptType.query), encoder.encode(TEXTS, prompt="a dull one: "))
    with pytest.raises(InputError, match="no column 'text' but image"):
        one.encode([{"image": []}], task_metadata=task(), hf_split="test", hf_subset="default")


def test_results_of_different_features_are_stored_apart(folder):
    names = [
        LayertapEncoder(str(folder), feature=feature, **options).mteb_model_meta.model_name_with_experiment
        for feature, options in (
            (FEATURE, {}),
            (None, {}),
            (FEATURE, {"prompts": {"query": "other: "}}),
            (FEATURE, {"max_length": 9}),
            (FEATURE, {"truncate_dim": 9}),
        )
    ]
    assert len(set(names)) == 5
    assert names[0].startswith("local/small (digest=")
    assert f"feature={FEATURE}" in names[0]


@pytest.mark.slow
def test_every_mock_task_of_texts_passes(folder):
    results = mteb.mock_run(LayertapEncoder(SentenceEncoder(folder, FEATURE)))
    ran = {name: status for name, status in results.items() if status is not None}
    assert set(ran) == {one.metadata.name for one in ALL_MOCK_TASK_TEST_GRID if one.metadata.modalities == ["text"]}
    assert {name: status.exception for name, status in ran.items() if not isinstance(status, TaskResult)} == {}
