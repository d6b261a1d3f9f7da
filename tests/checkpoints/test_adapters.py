from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from layertap.checkpoints.load import ModelFiles, open_model, stored_tensors
from layertap.checkpoints.merging import MergedBytes
from layertap.checkpoints.source import Checkpoint, locate, sha256
from layertap.errors import BackendError, CheckpointError, UnsupportedModelError, WeightsError
from tests.adapters import write_adapter

QUERY = "encoder.layer.1.attention.self.query"
WORDS = "embeddings.word_embeddings"


@pytest.fixture
def base(tmp_path: Path, make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(tmp_path / "base")


def opened(folder: Path) -> ModelFiles:
    return open_model(locate(folder))


def edit(folder: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    file = folder / "adapter_model.safetensors"
    arrays = {key: array.copy() for key, array in load_file(file).items()}
    change(arrays)
    save_file(arrays, file)


def assert_weights(files: ModelFiles, expected: dict[str, np.ndarray], atol: float = 1e-6) -> None:
    for name, view in files.weights(files.tensors).items():
        np.testing.assert_allclose(view.to_float32(), expected[name], rtol=1e-6, atol=atol, err_msg=name)


@pytest.mark.parametrize("prefix", ["base_model.model.", "base_model.", "", "base_model.model.bert."])
def test_the_merged_weights(tmp_path, base, prefix):
    expected = write_adapter(tmp_path / "a", base, tables=[WORDS], prefix=prefix)
    files = opened(tmp_path / "a")
    assert (files.faults, files.missing, files.unused_keys) == ((), (), ())
    assert_weights(files, expected)
    assert files.notes == (f"adapter_model.safetensors (LoRA of rank 3 on 3 weights) is merged into {base}",)


def test_a_base_folder_that_contains_the_adapter(tmp_path, base):
    expected = write_adapter(base, base, base_model_name_or_path="an/other")
    files = opened(base)
    assert files.checkpoint.base is None
    assert_weights(files, expected)
    (note,) = files.notes
    assert note.endswith("is merged into the weights beside it")


@pytest.mark.parametrize("form", [{"prefix": "bert.", "gamma_beta": True}, {"shards": 3}, {"dtype": "BF16"}])
def test_every_form_of_the_base_model(tmp_path, make_checkpoint, form):
    plain = make_checkpoint(tmp_path / "plain")
    norm = "encoder.layer.0.output.LayerNorm"
    saved = {f"{norm}.{end}": np.full(32, 0.5, np.float32) for end in ("weight", "bias")}
    expected = write_adapter(tmp_path / "a", plain, whole=saved, modules_to_save=["layer.0.output.LayerNorm"])
    form_of_base = make_checkpoint(tmp_path / "form", **form)
    shutil.copy(tmp_path / "a/adapter_model.safetensors", form_of_base)
    shutil.copy(tmp_path / "a/adapter_config.json", form_of_base)
    files = opened(form_of_base)
    assert (files.faults, files.missing, files.unused_keys) == ((), (), ())
    assert_weights(files, expected, atol=0.01 if "dtype" in form else 1e-6)


def test_only_what_is_asked_for_is_merged(tmp_path, base, monkeypatch):
    write_adapter(tmp_path / "a", base)
    files = opened(tmp_path / "a")
    read: list[MergedBytes] = []
    merge = MergedBytes.read
    monkeypatch.setattr(MergedBytes, "read", lambda self: read.append(self) or merge(self))
    files.weights(name for name in files.tensors if not name.startswith(("encoder.layer.1.", "encoder.layer.2.")))
    assert not read
    files.weights([f"{QUERY}.weight", f"{QUERY}.bias"])
    assert len(read) == 1


def test_fused_weights_change_as_a_whole(tmp_path):
    pytest.importorskip("transformers")
    from tests.tiny_models import random_model, save_model

    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    model = random_model("ModernBert", {**sizes, "vocab_size": 90, "pad_token_id": 0})
    save_model(tmp_path / "base", model)
    fused = next(name for name in model.state_dict() if name.endswith("layers.1.attn.Wqkv.weight"))
    module = fused.removesuffix(".weight")
    expected = write_adapter(tmp_path / "a", tmp_path / "base", [module])
    files = opened(tmp_path / "a")
    parts = [f"encoder.layer.1.attention.self.{name}.weight" for name in ("query", "key", "value")]
    whole = np.concatenate([view.to_float32() for view in files.weights(parts).values()])
    np.testing.assert_allclose(whole, expected[fused], rtol=1e-6, atol=1e-6)


def test_hashes_hold_the_files_of_both(tmp_path, base):
    write_adapter(tmp_path / "a", base)
    files = opened(tmp_path / "a")
    hashes = files.hashes()
    for folder, names in {
        base: ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"),
        tmp_path / "a": ("adapter_model.safetensors", "adapter_config.json"),
    }.items():
        for name in names:
            assert hashes.pop(name) == sha256(folder / name)
    assert not hashes
    files = opened(tmp_path / "a")
    with (tmp_path / "a/adapter_model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors: it changed after it was opened"):
        files.hashes()


def test_the_head_of_a_classifier(tmp_path, base):
    head = {"classifier.weight": np.ones((3, 32), np.float32), "classifier.bias": np.zeros(3, np.float32)}
    write_adapter(tmp_path / "a", base, prefix="base_model.model.", whole=head, modules_to_save=["classifier", "score"])
    files = opened(tmp_path / "a")
    assert files.ignored_keys == ("classifier.bias", "classifier.weight")
    stored, adapter = stored_tensors(files.checkpoint, files.architecture, False, None)
    assert adapter is not None
    assert stored["classifier.weight"].file == tmp_path / "a/adapter_model.safetensors"


def test_biases_and_their_copies(tmp_path, base):
    bias = {f"{QUERY}.base_layer.bias": np.full(32, 2, np.float32)}
    write_adapter(tmp_path / "a", base, [QUERY], bias="lora_only", target_modules=["layer.1.attention.self.query"])
    edit(tmp_path / "a", lambda arrays: arrays.update({f"base_model.model.{key}": bias[key] for key in bias}))
    files = opened(tmp_path / "a")
    np.testing.assert_array_equal(files.weights([f"{QUERY}.bias"])[f"{QUERY}.bias"].to_float32(), 2)
    # PEFT stores a module with a bias that `bias` and `modules_to_save` both name three times.
    names = {name for name in files.tensors if name.endswith(".bias")}
    saved = {name: np.full(files.tensors[name].view.shape, 3, np.float32) for name in names}
    saved["pooler.dense.weight"] = np.ones((32, 32), np.float32)
    write_adapter(tmp_path / "b", base, [QUERY], bias="all", modules_to_save=["pooler"], whole=saved)
    copies = {f"pooler.dense.{kind}.bias": np.zeros(32) for kind in ("original_module", "modules_to_save")}
    edit(tmp_path / "b", lambda arrays: arrays.update(copies))
    files = opened(tmp_path / "b")
    assert {float(view.to_float32()[0]) for view in files.weights(names).values()} == {3.0}
    edit(tmp_path / "b", lambda arrays: arrays.update({"x.modules_to_save.bias": np.zeros(32)}))
    with pytest.raises(WeightsError, match=r"x.modules_to_save.bias: expected x.bias beside it"):
        opened(tmp_path / "b")


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        ({}, {"other.weight": (3,)}, "other.weight: expected only low-rank factors and what bias and modules_to_save"),
        ({}, {f"{QUERY}.bias": (32,)}, f"{QUERY}.bias: expected only low-rank factors"),
        ({}, {f"{QUERY}.lora_B.bias": (32,)}, "lora_B.bias: a tensor of an adapter of a kind that is not known"),
        ({}, {f"{QUERY}.ia3_l": (32,)}, "ia3_l: expected only low-rank factors"),
        ({}, {f"{QUERY}.lora_A.default.weight": (3, 32)}, "lora_A.default.weight: a tensor of an adapter of a kind"),
        ({}, {f"{QUERY}.lora_magnitude_vector": (32,)}, "expected lora_A, lora_B, found lora_A, lora_B, lora_magnit"),
        ({"use_dora": True}, {}, "expected lora_A, lora_B, lora_magnitude_vector, found lora_A, lora_B"),
        ({"r": 4}, {}, f"{QUERY}.lora_A: expected rank 4, found shape .3, 32."),
        ({"rank_pattern": {"query": 2}}, {}, f"{QUERY}.lora_A: expected rank 2"),
        ({}, {f"{QUERY}.lora_B.weight": (31, 3)}, "its factors change a weight of shape .31, 32., found .32, 32."),
        ({}, {f"{QUERY}.lora_B.weight": None}, f"{QUERY}: expected lora_A, lora_B, found lora_A"),
        (
            {},
            {f"{QUERY}.lora_A.weight": None, f"{QUERY}.lora_B.weight": None},
            f"{QUERY}.weight: the config says that it was trained, and nothing of it is stored",
        ),
        ({"target_modules": ["key"]}, {}, f"{QUERY}: its factors are stored, and target_modules"),
        (
            {"target_modules": None},
            {"encoder.layer.7.x.lora_A.weight": (3, 32), "encoder.layer.7.x.lora_B.weight": (32, 3)},
            "encoder.layer.7.x: the base model has no weight of this name",
        ),
        ({"bias": "lora_only"}, {}, f"{QUERY}.bias: the config says that it was trained"),
        ({"modules_to_save": ["embeddings.LayerNorm"]}, {}, "embeddings.LayerNorm.bias: the config says"),
        (
            {"modules_to_save": ["LayerNorm"]},
            {"encoder.layer.9.LayerNorm.bias": (32,)},
            "encoder.layer.9.LayerNorm.bias: the base model has no such weight",
        ),
        ({}, {f"{WORDS}.weight": (7, 32)}, "expected shape .*the vocabulary was changed in training"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(tmp_path, base, config, change, message):
    write_adapter(tmp_path / "a", base, [QUERY], **config)

    def apply(arrays: dict[str, np.ndarray]) -> None:
        for key, shape in change.items():
            if shape is None:
                del arrays[f"base_model.model.{key}"]
            else:
                arrays[f"base_model.model.{key}"] = np.zeros(shape, np.float32)

    edit(tmp_path / "a", apply)
    with pytest.raises(WeightsError, match=rf"adapter_model.safetensors: .*{message}"):
        opened(tmp_path / "a")


def test_an_adapter_of_the_output_layer(tmp_path, base):
    decoder = {f"cls.predictions.decoder.lora_{kind}.weight": np.zeros((3, 3), np.float32) for kind in "AB"}
    write_adapter(tmp_path / "a", base, target_modules=None, whole=decoder)
    with pytest.raises(UnsupportedModelError, match=r"cls.predictions.decoder, which shares its weight with the embed"):
        opened(tmp_path / "a")
    other = {f"cls.predictions.transform.dense.lora_{kind}.weight": np.zeros((3, 3), np.float32) for kind in "AB"}
    write_adapter(tmp_path / "a", base, target_modules=None, whole=other)
    assert opened(tmp_path / "a").faults == ()


def test_values_that_are_not_finite(tmp_path, base):
    write_adapter(tmp_path / "a", base)
    edit(tmp_path / "a", lambda arrays: arrays[f"base_model.model.{QUERY}.lora_A.weight"].fill(np.nan))
    files = opened(tmp_path / "a")
    files.weights(["encoder.layer.2.output.dense.weight"])
    with pytest.raises(WeightsError, match=rf"query.weight with {tmp_path}/a/adapter_model.safetensors merged into it"):
        files.weights([f"{QUERY}.weight"])


def test_a_pickled_adapter(tmp_path, base):
    torch = pytest.importorskip("torch")
    from layertap.backends.torch.weights import read_pickle

    expected = write_adapter(tmp_path / "a", base)
    safe = tmp_path / "a/adapter_model.safetensors"
    torch.save(
        {key: torch.from_numpy(array) for key, array in load_file(safe).items()}, tmp_path / "a/adapter_model.bin"
    )
    safe.unlink()
    with pytest.raises(WeightsError, match=r"no adapter_model.safetensors, only adapter_model.bin, a pickle file"):
        opened(tmp_path / "a")
    with pytest.raises(BackendError, match="reading a pickle file needs the torch backend"):
        open_model(locate(tmp_path / "a"), allow_pickle=True)
    files = open_model(locate(tmp_path / "a"), allow_pickle=True, read_pickle=read_pickle)
    assert_weights(files, expected)
    assert "adapter_model.bin" in files.hashes()


def test_weights_of_the_adapter_that_are_missing(tmp_path, base):
    write_adapter(tmp_path / "a", base)
    (tmp_path / "a/adapter_model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"adapter_config.json without adapter_model.safetensors"):
        opened(tmp_path / "a")
    alone = Checkpoint(name="a", origin="folder", folder=tmp_path / "a")
    with pytest.raises(CheckpointError, match="an adapter without its base model"):
        open_model(alone)


def peft_configs() -> list[dict[str, Any]]:
    dense = ["query", "dense"]
    return [
        {"r": 4, "lora_alpha": 16, "target_modules": dense},
        {
            "r": 4,
            "use_rslora": True,
            "target_modules": dense,
            "rank_pattern": {"query": 2},
            "alpha_pattern": {"dense": 7},
        },
        {"r": 3, "use_dora": True, "target_modules": [*dense, "word_embeddings"]},
        {"r": 2, "target_modules": ["query", "word_embeddings"], "bias": "all"},
        {"r": 2, "target_modules": dense, "bias": "lora_only", "layers_to_transform": [1]},
        {"r": 2, "target_modules": r".*\.[12]\..*query"},
        {"r": 2, "target_modules": "all-linear", "fan_in_fan_out": True},
        {"r": 2, "target_modules": ["query"], "modules_to_save": ["LayerNorm", "word_embeddings"], "bias": "all"},
    ]


@pytest.mark.parametrize("config", peft_configs())
@pytest.mark.filterwarnings("ignore")
def test_the_weights_are_those_that_peft_merges(tmp_path, config):
    peft = pytest.importorskip("peft")
    import torch
    from transformers import BertModel

    from tests.tiny_models import random_model, save_model

    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    save_model(tmp_path / "base", random_model("Bert", {**sizes, "vocab_size": 90}))
    torch.manual_seed(0)
    adapted = peft.get_peft_model(BertModel.from_pretrained(tmp_path / "base"), peft.LoraConfig(**config))
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn_like(parameter)
    adapted.save_pretrained(tmp_path / "a")
    base = BertModel.from_pretrained(tmp_path / "base")
    peft.PeftModel.from_pretrained(base, tmp_path / "a").merge_and_unload().save_pretrained(tmp_path / "merged")
    theirs = opened(tmp_path / "merged")
    assert json.loads((tmp_path / "a/adapter_config.json").read_text())["peft_type"] == "LORA"
    names = list(theirs.tensors)
    assert_weights(opened(tmp_path / "a"), {name: view.to_float32() for name, view in theirs.weights(names).items()})
