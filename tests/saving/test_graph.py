"""Features as ONNX graphs, run by onnxruntime."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import layertap
from layertap import Extractor
from layertap.errors import BackendError, FeatureError, OutputError, UsageError
from tests.adapters import write_adapter
from tests.tiny_models import write_checkpoint

pytest.importorskip("transformers")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra: onnx)")
pytest.importorskip("onnx", reason="onnx is not installed (extra: onnx)")

from layertap.saving import graph  # noqa: E402
from tests.conformance.test_families import ROWS  # noqa: E402
from tests.saving.families import write_family  # noqa: E402

FOLDS = (
    "concat(hidden_states[1:].layer_mean.mean, hidden_states[1:].layer_sum.max, hidden_states[1:].layer_max.mean, "
    "hidden_states[1:].layer_concat.mean, hidden_states[1:3].layer_mix(0.5, 2.0).mean).normalize"
)
POOLINGS = ("cls", "first", "last", "mean", "max", "min", "sum", "mean_sqrt_len", "weighted_mean")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("graph") / "bert")


@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_every_family(row, tmp_path):
    source = write_family(tmp_path / "source", row)
    # an inner layer of a cut model, with a sum over tokens that would show any padding; both sides are compared
    saved = layertap.save("v = hidden_states[2].mean", tmp_path / "v.onnx", model=source)
    assert saved.certificate.error < 1e-5
    assert saved.certificate.cosine > 0.999999
    if row.spec(row.small).final_norm:
        both = "concat(last_hidden_state.unnormed.mean, last_hidden_state.mean)"
        assert layertap.save(both, tmp_path / "both.onnx", model=source).certificate.error < 1e-5


def session_of(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])


def test_inputs_and_outputs_have_the_names_of_tokenizer_and_feature(source, tmp_path):
    layertap.save("v = hidden_states[1].mean.normalize", tmp_path / "v.onnx", model=source)
    session = session_of(tmp_path / "v.onnx")
    assert [(own.name, own.type, own.shape) for own in session.get_inputs()] == [
        (name, "tensor(int64)", ["batch", "sequence"]) for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    (output,) = session.get_outputs()
    assert (output.name, output.type, output.shape) == ("v", "tensor(float)", ["batch", 32])
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["feature"] == "hidden_states[1].mean.normalize"
    assert json.loads(facts["layertap"])["model"] == "bert"
    assert json.loads(facts["check"])["texts"] == 66


def test_a_pair_has_its_token_types(source, tmp_path):
    layertap.save("v = last_hidden_state.mean", tmp_path / "v.onnx", model=source)
    extractor = Extractor.from_pretrained(source)
    (pair,) = extractor.tokenizer.encode(["a good film"], ["the river"])
    ids = pair.input_ids.astype(np.int64)[None]
    assert pair.token_type_ids is not None
    inputs = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "token_type_ids": pair.token_type_ids[None].astype(np.int64),
    }
    (vector,) = session_of(tmp_path / "v.onnx").run(None, inputs)
    expected = extractor.extract([("a good film", "the river")], "last_hidden_state.mean")
    np.testing.assert_allclose(vector, np.asarray(expected), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "feature",
    [
        "concat(" + ", ".join(f"hidden_states[1].{pooling}" for pooling in POOLINGS) + ")",
        FOLDS,
        "hidden_states[0].mean.truncate(8).normalize",
        "hidden_states[1:].mean",
        "hidden_states[2]",
        "hidden_states[:2].tokens",
        "pooler_output",
    ],
)
def test_every_step_but_words(feature, source, tmp_path):
    saved = layertap.save(f"v = {feature}", tmp_path / "v.onnx", model=source)
    assert saved.certificate.error < 1e-5


def test_a_sentence_embedding_with_a_prompt(tmp_path):
    from tests.saving.test_folder import sentence_folder

    source = sentence_folder(tmp_path / "source")
    saved = layertap.save("v = sentence_embedding(prompt=query)", tmp_path / "v.onnx", model=source)
    assert saved.certificate.error < 1e-5
    assert (saved.default_prompt, saved.lowercase, saved.max_length) == ("find: ", True, 12)
    assert session_of(tmp_path / "v.onnx").get_modelmeta().custom_metadata_map["prompt"] == "find: "


@pytest.mark.parametrize(
    ("feature", "step"),
    [
        ("hidden_states[1].words(mean)", r"\.words\(mean\)"),
        ("hidden_states[1].spans(mean)", r"\.spans\(mean\)"),
        ("attentions[0]", r"attentions\[0\]"),
        ("hidden_states[1].mean(special=False)", r"\.mean\(special=False\)"),
        ("hidden_states[1].tokens(special=False)", r"\.tokens\(special=False\)"),
        ("hidden_states[1].mean.astype(int8)", r"\.astype\(int8\)"),
    ],
)
def test_what_a_graph_cannot_say_is_refused_by_its_step(feature, step, source, tmp_path):
    with pytest.raises(FeatureError, match=f"{step} cannot be saved as a graph"):
        layertap.save(f"v = {feature}", tmp_path / "v.onnx", model=source)
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_is_merged(source, tmp_path):
    write_adapter(tmp_path / "adapter", source)
    saved = layertap.save("v = hidden_states[3].mean", tmp_path / "v.onnx", model=tmp_path / "adapter")
    assert saved.certificate.error < 1e-5
    assert saved.adapted == source.name
    plain = layertap.save("v = hidden_states[3].mean", tmp_path / "plain.onnx", model=source)
    assert plain.adapted is None
    ids = {name: np.ones((1, 5), dtype=np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}
    one, other = (session_of(tmp_path / name).run(None, ids)[0] for name in ("v.onnx", "plain.onnx"))
    assert np.abs(one - other).max() > 0.1


def test_a_graph_that_differs_is_not_written(source, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "BOUND", 1e-12)
    with pytest.raises(OutputError, match="the graph was not saved: on 66 texts it differs"):
        layertap.save("v = hidden_states[1].mean", tmp_path / "v.onnx", model=source)
    assert list(tmp_path.iterdir()) == []


def test_other_refusals(source, tmp_path, monkeypatch):
    (tmp_path / "there.onnx").write_bytes(b"mine")
    with pytest.raises(UsageError, match="exists"):
        layertap.save("hidden_states[1].mean", tmp_path / "there.onnx", model=source)
    assert (tmp_path / "there.onnx").read_bytes() == b"mine"
    monkeypatch.setattr(graph, "MAX_BYTES", 100)
    with pytest.raises(OutputError, match="an ONNX file has at most 100"):
        layertap.save("hidden_states[1].mean", tmp_path / "v", model=source, to="onnx")
    monkeypatch.setattr(graph, "LIBRARIES", ("onnx-of-nobody",))
    with pytest.raises(BackendError, match=r"pip install 'layertap\[onnx\]'"):
        layertap.save("hidden_states[1].mean", tmp_path / "v", model=source, to="onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]
