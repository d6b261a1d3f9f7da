from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from layertap.checkpoints.load import ModelFiles, open_model
from layertap.checkpoints.source import Checkpoint, locate, sha256
from layertap.checkpoints.tensors import read_safetensors
from layertap.errors import BackendError, ConfigError, UnsupportedModelError, WeightsError
from layertap.stored_file import StoredFile
from layertap.tensors import TensorView

Make = Callable[..., Path]


def opened(folder: Path) -> ModelFiles:
    return open_model(locate(folder))


def edit_weights(folder: Path, edit: Callable[[dict[str, np.ndarray]], object]) -> None:
    arrays = {key: array.copy() for key, array in load_file(folder / "model.safetensors").items()}
    edit(arrays)
    save_file(arrays, folder / "model.safetensors")


def edit_config(folder: Path, **fields: object) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | fields))


@pytest.mark.parametrize("model_type", ["bert", "camembert", "roberta", "xlm-roberta"])
@pytest.mark.parametrize("prefixed", [False, True])
@pytest.mark.parametrize("gamma_beta", [False, True])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_form_holds_the_same_weights(tmp_path, make_checkpoint, model_type, prefixed, gamma_beta, shards):
    prefix = ("bert." if model_type == "bert" else "roberta.") if prefixed else ""
    plain = opened(make_checkpoint(tmp_path / "plain", model_type))
    files = opened(make_checkpoint(tmp_path / "form", model_type, prefix=prefix, gamma_beta=gamma_beta, shards=shards))
    assert len(files.weight_files) == shards
    assert len(files.key_rules) == prefixed + 2 * gamma_beta
    assert (files.ignored_keys, files.unused_keys, files.missing) == ((), (), ())
    names = list(files.spec.parameters())
    found, expected = files.weights(names), plain.weights(names)
    assert list(found) == names
    for name in names:
        np.testing.assert_array_equal(found[name].to_float32(), expected[name].to_float32())


@pytest.mark.parametrize(("dtype", "error"), [("F32", 0), ("F64", 0), ("F16", 2**-11), ("BF16", 2**-8)])
def test_stored_precisions(tmp_path, make_checkpoint, dtype, error):
    plain = opened(make_checkpoint(tmp_path / "a"))
    files = opened(make_checkpoint(tmp_path / "b", dtype=dtype))
    assert list(files.stored_dtypes) == [dtype]
    assert files.num_parameters == plain.num_parameters == sum(files.stored_dtypes.values())
    assert files.num_bytes == files.num_parameters * {"F64": 8, "F32": 4}.get(dtype, 2)
    name = "encoder.layer.1.output.dense.weight"
    found, expected = (each.weights([name])[name].to_float32() for each in (files, plain))
    np.testing.assert_allclose(found, expected, rtol=error, atol=1e-7 if error else 0)


@pytest.mark.parametrize("state", ["trained", "untrained", "absent"])
def test_pooler_states(tmp_path, make_checkpoint, state):
    files = opened(make_checkpoint(tmp_path, "roberta", pooler=state))
    assert files.pooler == state
    assert files.missing == ()
    if state == "absent":
        with pytest.raises(WeightsError, match=r"pooler.dense.bias: expected a weight of shape \[32\], found none"):
            files.weights(["pooler.dense.bias"])
    else:
        assert files.weights(["pooler.dense.bias"])


@pytest.mark.parametrize("lost", ["weight", "bias"])
def test_half_a_pooler_is_refused(tmp_path, make_checkpoint, lost):
    folder = make_checkpoint(tmp_path)
    edit_weights(folder, lambda arrays: arrays.pop(f"pooler.dense.{lost}"))
    with pytest.raises(WeightsError, match=rf"pooler.dense.{lost}: expected beside pooler.dense"):
        opened(folder)


def test_heads_are_ignored_and_unknown_keys_reported(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path, prefix="bert.")
    more = {
        "cls.predictions.bias": np.zeros(3, np.float32),
        "bert.embeddings.position_ids": np.arange(64)[None],
        "bert.extra.weight": np.zeros(2, np.float32),
        "another": np.zeros(2, np.int8),
    }
    edit_weights(folder, lambda arrays: arrays.update(more))
    files = opened(folder)
    assert files.ignored_keys == ("bert.embeddings.position_ids", "cls.predictions.bias")
    assert files.unused_keys == ("another", "bert.extra.weight")
    assert set(files.tensors) == set(files.spec.parameters())
    everything = [*files.ignored_keys, *files.unused_keys, *(stored.key for stored in files.tensors.values())]
    assert sorted(everything) == sorted(load_file(folder / "model.safetensors"))


BIAS = "encoder.layer.1.output.dense.bias"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda a: a.pop(BIAS), rf"{BIAS}: expected a weight of shape \[32\], found none"),
        (lambda a: a.update({BIAS: np.zeros(31, np.float32)}), r"expected shape \[32\] .*, found \[31\]"),
        (lambda a: a.update({BIAS: np.zeros((32, 1), np.float32)}), r"expected shape \[32\] .*, found \[32, 1\]"),
        (lambda a: a.update({BIAS: np.zeros(32, np.int64)}), "expected one of F64, F32, F16, BF16, found I64"),
        (lambda a: a[BIAS].__setitem__(3, np.nan), "expected finite .*, found NaN or infinity"),
        (lambda a: a[BIAS].__setitem__(31, -np.inf), "expected finite .*, found NaN or infinity"),
    ],
)
def test_a_bad_weight_is_refused_when_it_is_asked_for(tmp_path, make_checkpoint, edit, says):
    folder = make_checkpoint(tmp_path)
    edit_weights(folder, edit)
    files = opened(folder)
    others = [name for name in files.spec.parameters() if name != BIAS]
    assert len(files.weights(others)) == len(others)
    for _ in range(2):  # a refusal is no check that was passed
        with pytest.raises(WeightsError, match=says) as caught:
            files.weights([BIAS])
    assert str(folder) in str(caught.value)
    assert BIAS in str(caught.value)


def test_a_missing_weight_names_what_was_not_used(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)
    edit_weights(folder, lambda arrays: arrays.update({"module." + BIAS: arrays.pop(BIAS)}))
    files = opened(folder)
    assert files.missing == (BIAS,)
    with pytest.raises(WeightsError, match=rf"not used are module.{BIAS}"):
        files.weights([BIAS])


@pytest.mark.parametrize("key", ["encoder.layer.1.attention.self.distance_embedding.weight", "embeddings.norm.weight"])
def test_a_weight_that_the_encoder_has_no_place_for_is_refused(tmp_path, make_checkpoint, key):
    folder = make_checkpoint(tmp_path)
    edit_weights(folder, lambda arrays: arrays.update({key: arrays[BIAS]}))
    with pytest.raises(WeightsError, match=rf"{key}: expected only weights of bert .*, F32 \[32\]$"):
        opened(folder)
    edit_weights(folder, lambda arrays: arrays.pop(BIAS))
    with pytest.raises(WeightsError, match=rf"{key}: .*; not found are {BIAS}"):
        opened(folder)


def test_weights_are_looked_at_once(tmp_path, make_checkpoint, monkeypatch):
    files = opened(make_checkpoint(tmp_path))
    looked: list[tuple[int, ...]] = []
    is_finite = TensorView.is_finite
    monkeypatch.setattr(TensorView, "is_finite", lambda self: looked.append(self.shape) or is_finite(self))
    files.weights([BIAS])
    assert looked == [(32,)]
    files.weights([BIAS, "pooler.dense.weight"])
    assert looked == [(32,), (32, 32)]


def test_vocabulary_and_position_tables_must_have_the_configs_rows(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)
    edit_config(folder, vocab_size=999, max_position_embeddings=512)
    files = opened(folder)
    for name, rows in (("word", 999), ("position", 512)):
        key = f"embeddings.{name}_embeddings.weight"
        with pytest.raises(WeightsError, match=rf"{key}: expected shape \[{rows}, 32\] \(as config.json says\)"):
            files.weights([key])


@pytest.mark.parametrize("says", [1, 2, 4, 2**31 - 1])
def test_more_or_fewer_blocks_than_the_config_says(tmp_path, make_checkpoint, says):
    folder = make_checkpoint(tmp_path)
    edit_config(folder, num_hidden_layers=says)
    expected = f"expected num_hidden_layers {says} .*, found encoder.layer.0 to encoder.layer.2"
    with pytest.raises(WeightsError, match=expected):
        opened(folder)


def test_no_block_at_all(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)
    edit_weights(folder, lambda a: [a.pop(key) for key in list(a) if key.startswith("encoder.")])
    with pytest.raises(WeightsError, match=r"found no encoder.layer"):
        opened(folder)


def test_an_unknown_prefix_is_named(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path, prefix="model.bert.")
    with pytest.raises(WeightsError, match=r"found model.bert.embeddings.*prefix 'model.bert.' .*none, or 'bert.'"):
        opened(folder)


def test_weights_of_something_else(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)
    save_file({"wte.weight": np.zeros((2, 2), np.float32)}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"word_embeddings.weight: expected for bert, found wte.weight"):
        opened(folder)
    save_file({}, folder / "model.safetensors")
    with pytest.raises(WeightsError, match="no weights at all"):
        opened(folder)


def edit_index(folder: Path, edit: Callable[[dict[str, str]], object]) -> dict[str, str]:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    edit(index["weight_map"])
    path.write_text(json.dumps(index))
    return dict(index["weight_map"])


def test_a_missing_shard(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path, shards=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"index.json: expected the file model-00002-of-00002.safetensors beside it"):
        opened(folder)


def test_an_index_that_leads_outside(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path, shards=2)
    edit_index(folder, lambda index: index.update({BIAS: "../x.safetensors"}))
    with pytest.raises(WeightsError, match="expected the name of a file beside the index"):
        opened(folder)


def test_a_key_that_its_shard_does_not_hold(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path, shards=2)
    edit_index(folder, lambda index: index.update({"gone": "model-00001-of-00002.safetensors"}))
    with pytest.raises(WeightsError, match=r"model-00001-of-00002.safetensors: gone: expected by .*index.json"):
        opened(folder)


def test_what_the_index_does_not_name_is_reported(tmp_path, make_checkpoint, write_tensors):
    folder = make_checkpoint(tmp_path, shards=2)
    names = edit_index(folder, lambda index: index.pop("pooler.dense.weight"))
    assert "pooler.dense.weight" not in names
    assert opened(folder).pooler == "trained"
    for file in set(names.values()):
        arrays = load_file(folder / file)
        save_file(arrays | {"stray": np.zeros(1, np.float32)}, folder / file)
    with pytest.raises(WeightsError, match="stray: expected once, found in two shards"):
        opened(folder)


def test_configs(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)
    edit_config(folder, hidden_act="quick_gelu")
    with pytest.raises(ConfigError, match=f"^{folder}/config.json: hidden_act: expected one of"):
        opened(folder)
    edit_config(folder, model_type="gpt2")
    with pytest.raises(UnsupportedModelError, match="model_type: found 'gpt2': a decoder"):
        opened(folder)
    (folder / "config.json").write_text('{\n"a": }')
    with pytest.raises(ConfigError, match="line 2"):
        opened(folder)


def test_folders_without_a_config(tmp_path, make_checkpoint):
    with pytest.raises(ConfigError, match=r"no config.json$"):
        opened(tmp_path)
    inner = make_checkpoint(tmp_path / "0_Transformer")
    with pytest.raises(ConfigError, match=f"the encoder itself is in {inner}"):
        opened(tmp_path)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    with pytest.raises(ConfigError, match="base_model_name_or_path: expected the folder or the hub id of the base mod"):
        opened(adapter)
    with pytest.raises(ConfigError, match="an adapter without its base model"):
        open_model(Checkpoint(name="a", origin="folder", folder=adapter))


def pickled(folder: Path) -> Path:
    """The folder with its weights under the name of a pickle file (its content is the test's reader's business)."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    return folder


def test_pickle_files_only_when_asked_for(tmp_path, make_checkpoint):
    checkpoint = locate(pickled(make_checkpoint(tmp_path)))
    with pytest.raises(WeightsError, match=r"only pytorch_model.bin.*--allow-pickle"):
        open_model(checkpoint, read_pickle=read_safetensors)
    with pytest.raises(BackendError, match="needs the torch backend"):
        open_model(checkpoint, allow_pickle=True)
    files = open_model(checkpoint, allow_pickle=True, read_pickle=read_safetensors)
    assert len(files.weights(files.spec.parameters())) == len(files.tensors)
    assert next(iter(files.hashes())) == "pytorch_model.bin"


def test_sharded_pickle_files(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path, shards=2)
    (folder / "model.safetensors.index.json").rename(folder / "pytorch_model.bin.index.json")
    files = open_model(locate(folder), allow_pickle=True, read_pickle=read_safetensors)
    assert len(files.weight_files) == 2
    with pytest.raises(WeightsError, match="--allow-pickle"):
        open_model(locate(folder))


def test_safetensors_are_preferred_to_pickle_files(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)
    (folder / "pytorch_model.bin").write_bytes(b"never read")

    def read_pickle(path: Path) -> dict[str, TensorView]:
        raise AssertionError(path)

    files = open_model(locate(folder), allow_pickle=True, read_pickle=read_pickle)
    assert [path.name for path in files.weight_files] == ["model.safetensors"]


def test_real_pickle_files(tmp_path, make_checkpoint):
    torch = pytest.importorskip("torch")
    weights = pytest.importorskip("layertap.backends.torch.weights")
    folder = make_checkpoint(tmp_path)
    plain = load_file(folder / "model.safetensors")
    torch.save({key: torch.from_numpy(array) for key, array in plain.items()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    files = open_model(locate(folder), allow_pickle=True, read_pickle=weights.read_pickle)
    for name, view in files.weights(files.spec.parameters()).items():
        np.testing.assert_array_equal(view.to_float32(), plain[name])


def test_hashes(tmp_path, make_checkpoint):
    folder = make_checkpoint(tmp_path)
    files = opened(folder)
    names = ["model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"]
    assert files.hashes() == {name: sha256(folder / name) for name in names}
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("a")
    assert list(opened(folder).hashes()) == ["model.safetensors", "config.json", "vocab.txt", "tokenizer_config.json"]
    (folder / "modules.json").write_text("[]")
    assert "modules.json" in opened(folder).hashes()


def test_hashes_known_from_finding_the_model_are_not_worked_out_again(minilm_folder, monkeypatch):
    files = open_model(locate(None))
    with monkeypatch.context() as patch:
        patch.setattr(StoredFile, "sha256", lambda file: pytest.fail(f"{file.path} hashed again"))
        hashes = files.hashes()
    assert hashes["model.safetensors"].startswith("53aa5117")
    assert hashes["1_Pooling/config.json"] == sha256(minilm_folder / "1_Pooling/config.json")


def test_minilm(minilm_folder):
    files = open_model(Checkpoint(name="m", origin="folder", folder=minilm_folder))
    assert files.pooler == "untrained"
    assert files.ignored_keys == ("embeddings.position_ids",)
    assert files.unused_keys == files.missing == files.key_rules == ()
    assert files.stored_dtypes == {"F32": 22_713_216}
    assert (files.spec.hidden_size, files.spec.num_hidden_layers, files.spec.positions.max_length) == (384, 6, 512)
    assert files.sentence_embedding is not None
    assert files.sentence_embedding.refusal is None
    assert files.sentence_embedding.max_length == 256
    assert files.sentence_embedding.poolings == ("mean",)
    assert files.sentence_embedding.steps == ("normalize",)
    assert len(files.weights(files.spec.parameters())) == len(files.tensors)


def test_a_config_of_an_adapter_without_weights_is_noted(make_checkpoint, tmp_path):
    folder = make_checkpoint(tmp_path / "model")
    assert open_model(locate(folder)).notes == ()
    (folder / "adapter_config.json").write_text("{}")
    (note,) = open_model(locate(folder)).notes
    assert note.startswith("adapter_config.json is not used")
    (folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"no adapter_model.safetensors, only adapter_model.bin, a pickle file"):
        open_model(locate(folder))


@pytest.mark.parametrize(
    ("entry", "wrapper"),
    [("state_dict", "model."), ("state_dict", ""), ("model_state_dict", "net.bert."), ("module", "x.")],
)
def test_weights_of_a_training_checkpoint(tmp_path, make_checkpoint, entry, wrapper):
    """As Lightning and others write them: nested, with the name of the wrapper's attribute before each name."""
    torch = pytest.importorskip("torch")
    weights = pytest.importorskip("layertap.backends.torch.weights")
    folder = make_checkpoint(tmp_path)
    plain = load_file(folder / "model.safetensors")
    named = {wrapper + key: torch.from_numpy(array) for key, array in plain.items()}
    named["net.classifier.weight" if wrapper == "net.bert." else "classifier.weight"] = torch.ones(2, 32)
    torch.save({"epoch": 3, "global_step": 7, entry: named, "optimizer_states": [{}]}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    files = open_model(locate(folder), allow_pickle=True, read_pickle=weights.read_pickle)
    assert files.ignored_keys == ("classifier.weight",)
    for name, view in files.weights(files.spec.parameters()).items():
        np.testing.assert_array_equal(view.to_float32(), plain[name])
    torch.save({"epoch": 3, "loss": [1.0]}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"entries of other kinds: epoch \(int\), loss \(list\).*state_dict"):
        open_model(locate(folder), allow_pickle=True, read_pickle=weights.read_pickle)
