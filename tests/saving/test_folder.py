"""Saved folders of every family, beside transformers and sentence-transformers."""

from __future__ import annotations

import json
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import layertap
from layertap import Extractor
from layertap.errors import FeatureError, OptionError, OutputError, UsageError, WeightsError
from layertap.features.naming import parsed
from tests.adapters import write_adapter
from tests.faults import ACTS, faults
from tests.tiny_models import write_checkpoint
from tests.writing import write

pytest.importorskip("transformers")

from tests.conformance.test_families import ROWS
from tests.saving.families import TEXTS, write_family

POSTNORM = [row for row in ROWS if row.spec(row.small).norm_position == "post"]
PRENORM = [row for row in ROWS if row.spec(row.small).norm_position == "pre"]


def transformers_states(folder: Path, ids: list[int]) -> list[np.ndarray]:
    """Hidden states of one sequence, by transformers."""
    import torch

    from layertap.verify.reference import Reference

    reference = Reference.load(folder, without=("pooler.",))
    with torch.no_grad():
        outputs = reference.module(input_ids=torch.tensor([ids]), output_hidden_states=True)
    return [state[0].numpy() for state in outputs.hidden_states]


@pytest.mark.parametrize("row", POSTNORM, ids=[row.name for row in POSTNORM])
def test_an_inner_layer_becomes_a_model(row, tmp_path):
    source = write_family(tmp_path / "source", row)
    saved = layertap.save("hidden_states[2].mean.normalize", tmp_path / "small", model=source)
    assert saved.certificate.same_bits
    assert saved.blocks == (2, row.spec(row.small).num_hidden_layers)
    small = Extractor.from_pretrained(tmp_path / "small")
    whole = Extractor.from_pretrained(source)
    expected = whole.extract(TEXTS, "hidden_states[2].mean.normalize")
    np.testing.assert_array_equal(small.extract(TEXTS), expected)
    assert small.files.num_bytes < whole.files.num_bytes or row.spec(row.small).blocks
    # transformers finds every weight under its name, and has the same last hidden state
    ids = [int(i) for i in whole.tokenizer.encode([TEXTS[0]])[0].input_ids]
    (_, _, last), before = transformers_states(tmp_path / "small", ids), transformers_states(source, ids)[2]
    np.testing.assert_allclose(last, before, rtol=0, atol=1e-6 * np.abs(before).max())
    config = json.loads((tmp_path / "small/config.json").read_text())
    assert not any(isinstance(value, list) and len(value) > 2 for value in config.values()), config


@pytest.mark.parametrize("row", PRENORM, ids=[row.name for row in PRENORM])
def test_families_with_a_final_norm(row, tmp_path):
    source = write_family(tmp_path / "source", row)
    layers = row.spec(row.small).num_hidden_layers
    assert layertap.save("last_hidden_state.cls", tmp_path / "whole", model=source).certificate.same_bits
    mixed = f"hidden_states[[1, {layers}]].layer_mean.mean"
    assert layertap.save(mixed, tmp_path / "mixed", model=source).certificate.same_bits
    for feature, step in (
        ("hidden_states[2].mean", r"hidden_states\[2\]"),
        ("last_hidden_state.unnormed.mean", r"\.unnormed"),
        ("hidden_states[:-1].layer_mean.mean", rf"hidden_states\[{layers - 1}\]"),
    ):
        with pytest.raises(FeatureError, match=rf"{step} cannot be saved in a model folder.*--to onnx"):
            layertap.save(feature, tmp_path / "no", model=source)
    assert not (tmp_path / "no").exists()


FEATURES = [
    "hidden_states[2].mean",
    "hidden_states[0].mean",
    "hidden_states[-2].cls.normalize",
    "hidden_states[1].first",
    "hidden_states[1].last",
    "hidden_states[1].max",
    "hidden_states[1].mean_sqrt_len",
    "hidden_states[1].weighted_mean.normalize",
    "hidden_states[1:].layer_mean.mean",
    "hidden_states[[0, 2]].layer_mean.mean.normalize",
    "hidden_states[[1, 3]].layer_mix(0.3, 0.7).cls",
    "hidden_states[2].mean.truncate(8).normalize",
    "concat(hidden_states[2].cls, hidden_states[2].mean)",
    "concat(hidden_states[2].mean, hidden_states[2].max).normalize",
]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("saving") / "bert")


@pytest.mark.parametrize("feature", FEATURES)
def test_features_as_sentence_transformers_computes_them(feature, source, tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    assert layertap.save(feature, tmp_path / "m", model=source).certificate.same_bits
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = sentence_transformers.SentenceTransformer(str(tmp_path / "m"), device="cpu")
        found = model.encode(TEXTS)
    expected = np.asarray(Extractor.from_pretrained(source).extract(TEXTS, feature))
    assert model.max_seq_length == 64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.sqrt(np.square(expected).mean()))


def test_a_mix_whose_weights_are_rounded(source, tmp_path):
    saved = layertap.save(
        "hidden_states[1:].layer_mix(0.333333, 0.333333, 0.333334).mean", tmp_path / "m", model=source
    )
    assert saved.certificate.error < 1e-6


def test_pooler_output_is_a_dense_module(source, tmp_path):
    saved = layertap.save("pooler_output", tmp_path / "m", model=source)
    assert saved.certificate.error < 1e-6
    assert (tmp_path / "m/2_Dense/model.safetensors").exists()


REFUSED = {
    "hidden_states[2].tokens": "a feature of tokens",
    "last_hidden_state": "a feature of tokens",
    "hidden_states[2].words(mean)": r"\.words\(\.\.\.\)",
    "hidden_states[2].words(mean).mean": r"\.words\(\.\.\.\)",
    "hidden_states[2].spans(mean)": r"\.spans\(\.\.\.\)",
    "hidden_states[2].mean(special=False)": "special=False",
    "hidden_states[2].min": r"\.min",
    "hidden_states[2].sum": r"\.sum",
    "hidden_states[1:].mean": "a feature with an axis of layers",
    "hidden_states[1:].layer_sum.mean": r"\.layer_sum.*write \.layer_mean",
    "hidden_states[1:].layer_max.mean": r"\.layer_max",
    "hidden_states[1:].layer_concat.mean": r"\.layer_concat",
    "hidden_states[1:3].layer_mix(0.5, 0.4).mean": r"\.layer_mix.*which is 0\.9",
    "hidden_states[2].mean.astype(float16)": r"\.astype\(float16\)",
    "concat(hidden_states[1].mean, hidden_states[2].mean)": "concat",
    "concat(hidden_states[1].mean.normalize, hidden_states[1].cls)": "concat",
    "attentions[0]": "one vector for each text",
}


@pytest.mark.parametrize("feature", REFUSED)
def test_what_a_folder_cannot_say_is_refused_by_its_step(feature, source, tmp_path):
    with pytest.raises(FeatureError, match=rf"{REFUSED[feature]}.*") as caught:
        layertap.save(feature, tmp_path / "m", model=source)
    assert "cannot be saved in a model folder" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_other_refusals(source, tmp_path):
    with pytest.raises(FeatureError, match="out of range"):
        layertap.save("hidden_states[9].mean", tmp_path / "m", model=source)
    with pytest.raises(UsageError, match="hidden_state"):
        layertap.save("hidden_state[2].mean", tmp_path / "m", model=source)
    (tmp_path / "there").mkdir()
    with pytest.raises(UsageError, match="exists"):
        layertap.save("hidden_states[2].mean", tmp_path / "there", model=source)
    with pytest.raises(OptionError, match="inside the model's own folder"):
        layertap.save("hidden_states[2].mean", source / "small", model=source)
    write_adapter(tmp_path / "adapter", source)
    with pytest.raises(OptionError, match="inside the base model's own folder"):
        layertap.save("hidden_states[2].mean", source / "small", model=tmp_path / "adapter")
    assert not (source / "small").exists()
    with pytest.raises(OptionError, match="standard output"):
        layertap.save("hidden_states[2].mean", "-", model=source)
    with pytest.raises(OptionError, match="there is no option 'precision'"):
        layertap.save("hidden_states[2].mean", tmp_path / "m", model=source, precision="int8")
    with pytest.raises(OptionError, match="expected folder or onnx"):
        layertap.save("hidden_states[2].mean", tmp_path / "m", model=source, to="gguf")
    with pytest.raises(OutputError, match="no folder"):
        layertap.save("hidden_states[2].mean", tmp_path / "a/b", model=source)


def test_shared_blocks_stay_shared_where_the_config_can_say_it(tmp_path):
    row = next(row for row in ROWS if row.name == "ALBERT")
    source = write_family(tmp_path / "source", row, num_hidden_layers=6, num_hidden_groups=2)
    stored = {}
    for layers in (2, 4, 6):
        saved = layertap.save(f"hidden_states[{layers}].mean", tmp_path / f"{layers}", model=source)
        assert saved.certificate.same_bits
        stored[layers] = json.loads((tmp_path / f"{layers}/config.json").read_text())["num_hidden_groups"]
    # 0 0 0 1: no number of groups says it, so that each layer has a copy of its own
    assert stored == {2: 1, 4: 4, 6: 2}


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F64"])
def test_weights_keep_their_dtype(dtype, tmp_path):
    source = write_checkpoint(tmp_path / "m", dtype=dtype, prefix="bert.", gamma_beta=True, shards=2)
    assert layertap.save("hidden_states[1].mean", tmp_path / "small", model=source).certificate.same_bits
    assert list(Extractor.from_pretrained(tmp_path / "small").files.stored_dtypes) == [dtype]


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_the_weights_of_an_adapter_are_merged(dtype, tmp_path):
    source = write_checkpoint(tmp_path / "base")
    modules = ("encoder.layer.0.attention.self.query", "encoder.layer.2.output.dense")
    merged = write_adapter(tmp_path / "adapter", source, modules, tables=["embeddings.word_embeddings"])
    shutil.rmtree(source)
    write_checkpoint(source, dtype=dtype)
    saved = layertap.save("hidden_states[1].mean", tmp_path / "small", model=tmp_path / "adapter")
    assert saved.certificate.same_bits
    assert saved.adapted == "base"
    card = (tmp_path / "small/README.md").read_text()
    assert "merged into the weights of base" in card
    assert "unchanged" not in card
    changed = {f"{modules[0]}.weight", "embeddings.word_embeddings.weight"}
    files = Extractor.from_pretrained(tmp_path / "small").files
    assert files.adapter is None
    for name, view in files.weights(files.tensors).items():
        assert view.dtype == ("F32" if name in changed else dtype)
        atol = 1e-6 if dtype == "F32" else 0.01
        np.testing.assert_allclose(view.to_float32(), merged[name], rtol=1e-6, atol=atol, err_msg=name)


@pytest.mark.parametrize("stated", ["dtype", "torch_dtype"])
def test_other_libraries_compute_the_feature_in_float32(stated, tmp_path):
    from transformers import AutoModel

    source = write_checkpoint(tmp_path / "m", dtype="BF16")
    config = json.loads((source / "config.json").read_text())
    write(source / "config.json", config | {stated: "bfloat16"})
    layertap.save("hidden_states[1].mean", tmp_path / "small", model=source)
    model = AutoModel.from_pretrained(tmp_path / "small", add_pooling_layer=False)
    assert {str(weight.dtype) for weight in model.parameters()} == {"torch.float32"}


def test_quantised_weights_are_refused(tmp_path):
    from safetensors.numpy import load_file, save_file

    source = write_checkpoint(tmp_path / "m")
    weights = load_file(source / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"] = weights["encoder.layer.0.output.dense.weight"].astype(np.int8)
    save_file(weights, source / "model.safetensors")
    with pytest.raises(WeightsError, match="found I8"):
        layertap.save("hidden_states[1].mean", tmp_path / "small", model=source)
    assert not (tmp_path / "small").exists()


def test_a_model_without_a_tokenizer_is_refused(tmp_path):
    source = write_checkpoint(tmp_path / "m", tokenizer=False)
    with pytest.raises(layertap.TokenizerError):
        layertap.save("hidden_states[1].mean", tmp_path / "small", model=source)


def sentence_folder(folder: Path) -> Path:
    """A folder with prompts, lower case, a limit of its own, and vectors that are compared by dot products."""
    write_checkpoint(folder)
    kinds = ("Transformer", "Pooling", "Normalize")
    places = ("", "1_Pooling", "2_Normalize")
    modules: list[dict[str, Any]] = [
        {"idx": i, "name": str(i), "path": places[i], "type": f"sentence_transformers.models.{kinds[i]}"}
        for i in range(3)
    ]
    write(folder / "modules.json", modules)
    (folder / "1_Pooling").mkdir()
    write(folder / "1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    write(folder / "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": True})
    settings = {"prompts": {"query": "find: "}, "default_prompt_name": None, "similarity_fn_name": "dot"}
    write(folder / "config_sentence_transformers.json", settings)
    return folder


def test_prompts_and_case_belong_to_sentence_embedding_alone(tmp_path):
    source = sentence_folder(tmp_path / "source")
    texts = [*TEXTS, "A GOOD FILM"]
    whole = Extractor.from_pretrained(source)
    for number, (feature, limit, lower, default) in enumerate(
        (
            ("sentence_embedding", 12, True, None),
            ("sentence_embedding(prompt=query)", 12, True, "query"),
            ("hidden_states[2].mean.normalize", 64, False, None),
        )
    ):
        folder = tmp_path / f"{number}"
        assert layertap.save(feature, folder, model=source).certificate.same_bits
        np.testing.assert_array_equal(Extractor.from_pretrained(folder).extract(texts), whole.extract(texts, feature))
        assert json.loads((folder / "sentence_bert_config.json").read_text()) == {
            "max_seq_length": limit,
            "do_lower_case": lower,
            "model_args": {"add_pooling_layer": False},
        }
        settings = json.loads((folder / "config_sentence_transformers.json").read_text())
        own = str(feature).startswith("sentence")
        assert settings["similarity_fn_name"] == ("dot" if own else "cosine")
        assert settings["default_prompt_name"] == default
        assert settings["prompts"] == ({"query": "find: "} if own else {})


def test_the_limit_is_the_features_own(source, tmp_path):
    layertap.save("hidden_states[1].mean", tmp_path / "m", model=source, max_length=9)
    small = Extractor.from_pretrained(tmp_path / "m")
    assert small.plan().inputs[0].max_length == 9


def test_card_and_provenance(source, tmp_path):
    layertap.save("v = hidden_states[1].mean", tmp_path / "m", model=source)
    facts = json.loads((tmp_path / "m/layertap.json").read_text())
    assert facts["feature"] == "hidden_states[1].mean"
    assert facts["num_hidden_layers"] == [1, 3]
    assert facts["check"]["same_bits"] is True
    assert facts["source"]["sha256"]["config.json"]
    card = (tmp_path / "m/README.md").read_text()
    assert "1 of 3 layers" in card
    assert "the same bits on 33 texts" in card
    assert str(tmp_path) not in card + json.dumps(facts)


def test_a_full_disk_leaves_nothing(source, tmp_path):
    for at in range(1, 100):
        with faults(at, ACTS["ENOSPC"], only="write") as calls, suppress(OutputError):
            layertap.save("hidden_states[1].mean", tmp_path / "m", model=source)
        if len(calls) < at:
            break
        assert list(tmp_path.iterdir()) == []
    assert at > 10
    assert np.shape(Extractor.from_pretrained(tmp_path / "m").extract("x")) == (32,)


def test_features_of_several_outputs_are_refused(source, tmp_path):
    assert list(parsed("a = hidden_states[1].mean")) == ["a"]
    with pytest.raises(UsageError):
        layertap.save("hidden_states[1].mean, hidden_states[2].mean", tmp_path / "m", model=source)
