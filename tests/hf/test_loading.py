"""`from_pretrained` and `save_pretrained` of models: dtypes, poolers, classes, keywords, files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import huggingface_hub  # noqa: E402

import layertap.hf as hf  # noqa: E402
from layertap.errors import (  # noqa: E402
    BackendError,
    ConfigError,
    ModelNotFoundError,
    OptionError,
    OutputError,
    UntrainedPoolerError,
    WeightsError,
)
from tests.adapters import write_adapter  # noqa: E402

IDS = torch.tensor([[7, 8, 9, 10]])
CLASSES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}


@pytest.mark.parametrize("stored", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("stated", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("asked", [None, "auto", "float16", torch.bfloat16])
def test_dtypes_are_transformers(checkpoint, stored, stated, asked):
    config = {} if stated is None else {"torch_dtype": stated}
    folder = checkpoint("bert", dtype=stored, config=config)
    keywords = {} if asked is None else {"dtype": asked}
    theirs = transformers.AutoModel.from_pretrained(folder, **keywords)
    ours = hf.AutoModel.from_pretrained(folder, **keywords)
    assert ours.dtype == theirs.dtype == ours.config.dtype
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)


def test_the_older_name_of_dtype(checkpoint):
    assert hf.BertModel.from_pretrained(checkpoint("bert"), torch_dtype="bfloat16").dtype == torch.bfloat16
    assert hf.BertModel.from_pretrained(checkpoint("bert"), torch_dtype=torch.float16).dtype == torch.float16


@pytest.mark.parametrize("dtype", ["int8", "half-ish", torch.int64])
def test_dtypes_that_are_none(checkpoint, dtype):
    with pytest.raises(OptionError, match="dtype: expected"):
        hf.BertModel.from_pretrained(checkpoint("bert"), dtype=dtype)


@pytest.mark.parametrize("options", [{"prefix": "bert."}, {"gamma_beta": True}, {"shards": 3}])
def test_stored_names_and_shards(checkpoint, options):
    plain = hf.BertModel.from_pretrained(checkpoint("bert"))
    found = hf.BertModel.from_pretrained(checkpoint("bert", **options))
    assert all(torch.equal(value, found.state_dict()[key]) for key, value in plain.state_dict().items())


def test_models_come_in_eval_mode_with_gradients(checkpoint):
    model = hf.BertModel.from_pretrained(checkpoint("bert"))
    assert not any(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_model_is_loaded_inside_a_context_of_another_device(checkpoint):
    """transformers refuses the meta device here."""
    folder = checkpoint("bert")
    with torch.device("meta"):
        model = hf.BertModel.from_pretrained(folder)
    ids = torch.tensor([[2, 5, 6, 3]])
    assert torch.equal(model(ids)[0], hf.BertModel.from_pretrained(folder)(ids)[0])


def test_the_file_can_change_afterwards(make_checkpoint, tmp_path):
    folder = make_checkpoint(tmp_path / "model")
    model = hf.BertModel.from_pretrained(folder)
    expected = model(IDS)[0]
    file = folder / "model.safetensors"
    file.write_bytes(b"\0" * file.stat().st_size)
    assert torch.equal(model(IDS)[0], expected)


@pytest.mark.parametrize("model_type", CLASSES)
def test_auto_classes(checkpoint, model_type):
    folder = checkpoint(model_type)
    name = CLASSES[model_type]
    model = hf.AutoModel.from_pretrained(folder)
    assert type(model) is getattr(hf, f"{name}Model")
    assert type(model.config) is type(hf.AutoConfig.from_pretrained(folder)) is getattr(hf, f"{name}Config")
    assert type(hf.AutoModel.from_config(model.config)) is type(model)


@pytest.mark.parametrize("model_type", CLASSES)
def test_another_class_is_refused_by_name(checkpoint, model_type):
    folder = checkpoint(model_type)
    for other, name in CLASSES.items():
        model_class = getattr(hf, f"{name}Model")
        if other == model_type:
            assert type(model_class.from_pretrained(folder)) is model_class
            continue
        with pytest.raises(
            ConfigError, match=f"{name}Model does not fit: use {CLASSES[model_type]}Model, or AutoModel"
        ):
            model_class.from_pretrained(folder)
        with pytest.raises(ConfigError, match=f"use {CLASSES[model_type]}Config, or AutoConfig"):
            getattr(hf, f"{name}Config").from_pretrained(folder)


def test_a_config_without_model_type(make_checkpoint, tmp_path):
    folder = make_checkpoint(tmp_path / "old", "roberta")
    values = json.loads((folder / "config.json").read_text())
    del values["model_type"]
    (folder / "config.json").write_text(json.dumps(values))
    assert type(hf.AutoModel.from_pretrained(folder)) is hf.RobertaModel
    assert hf.AutoConfig.from_pretrained(folder).model_type == "roberta"
    with pytest.raises(ConfigError, match="use RobertaModel"):
        hf.BertModel.from_pretrained(folder)


def test_a_pooler_that_was_never_trained_warns_once(checkpoint):
    folder = checkpoint("bert", pooler="untrained")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = hf.BertModel.from_pretrained(folder)
        found = model(IDS).pooler_output
        assert torch.equal(model(IDS)[1], found)
    assert len(caught) == 1
    assert "never trained" in str(caught[0].message)
    assert str(folder) in str(caught[0].message)
    expected = transformers.BertModel.from_pretrained(folder)(IDS).pooler_output
    assert torch.allclose(found, expected, atol=1e-6)
    quiet = hf.BertModel.from_pretrained(folder, untrained_pooler="init")
    assert torch.equal(quiet.pooler.dense.weight, model.pooler.dense.weight)


def test_an_absent_pooler_can_be_made_to_train(checkpoint):
    folder = checkpoint("roberta", pooler="absent")
    with pytest.raises(UntrainedPoolerError, match=str(folder)):
        hf.RobertaModel.from_pretrained(folder)(IDS).pooler_output  # noqa: B018
    torch.manual_seed(0)
    model = hf.RobertaModel.from_pretrained(folder, untrained_pooler="init", dtype="bfloat16")
    assert model.pooler.dense.weight.dtype == torch.bfloat16
    assert not model.pooler.dense.bias.any()
    assert 0.01 < model.pooler.dense.weight.std() < 0.03
    model(IDS).pooler_output.sum().backward()
    assert model.pooler.dense.bias.grad.any()


def test_a_model_that_was_trained_here_has_a_trained_pooler(checkpoint, tmp_path):
    model = hf.RobertaModel.from_pretrained(checkpoint("roberta", pooler="absent"), untrained_pooler="init")
    optimizer = torch.optim.AdamW(model.parameters())
    model(IDS).pooler_output.sum().backward()
    optimizer.step()
    model.save_pretrained(tmp_path)
    assert torch.equal(hf.RobertaModel.from_pretrained(tmp_path)(IDS)[1], model(IDS)[1])


def test_values_of_untrained_pooler(checkpoint):
    with pytest.raises(OptionError, match="expected None or 'init', found 'use'"):
        hf.BertModel.from_pretrained(checkpoint("bert"), untrained_pooler="use")


def test_saved_models_are_read_by_both(family, models, checkpoint, tmp_path):
    theirs, ours = models(family)
    ours.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    again = transformers.AutoModel.from_pretrained(tmp_path)
    assert type(again) is type(theirs)
    for key, value in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)
    mine = hf.AutoModel.from_pretrained(tmp_path)
    assert torch.equal(mine(IDS)[1], ours(IDS)[1])
    theirs.save_pretrained(tmp_path / "theirs")
    assert torch.equal(hf.AutoModel.from_pretrained(tmp_path / "theirs")(IDS)[1], ours(IDS)[1])


def test_bfloat16_stays_through_save_and_load(checkpoint, tmp_path):
    hf.BertModel.from_pretrained(checkpoint("bert", dtype="BF16")).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    assert hf.BertModel.from_pretrained(tmp_path).dtype == torch.bfloat16
    assert transformers.BertModel.from_pretrained(tmp_path).dtype == torch.bfloat16


def test_saving_over_the_folder_that_was_loaded(make_checkpoint, tmp_path):
    folder = make_checkpoint(tmp_path / "model")
    model = hf.BertModel.from_pretrained(folder)
    model.embeddings.word_embeddings.weight.data += 1
    model.save_pretrained(folder)
    assert torch.equal(hf.BertModel.from_pretrained(folder)(IDS)[0], model(IDS)[0])


def test_saving_where_nothing_can_be_written(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        hf.BertModel.from_pretrained(checkpoint("bert")).save_pretrained(tmp_path / "file")
    (tmp_path / "there" / "model.safetensors").mkdir(parents=True)
    with pytest.raises(OutputError, match="cannot be written"):
        hf.BertModel.from_pretrained(checkpoint("bert")).save_pretrained(tmp_path / "there")
    assert not list((tmp_path / "there").glob("*.partial"))


@pytest.mark.parametrize(
    "keywords", [{"safe_serialization": False}, {"push_to_hub": True}, {"max_shard_size": "10KB"}, {"folder": 1}]
)
def test_saving_keywords(checkpoint, tmp_path, keywords):
    with pytest.raises(OptionError, match=next(iter(keywords))):
        hf.BertModel.from_pretrained(checkpoint("bert")).save_pretrained(tmp_path, **keywords)


def test_config_fields_as_keywords(checkpoint):
    folder = checkpoint("bert")
    model = hf.BertModel.from_pretrained(folder, output_hidden_states=True, hidden_dropout_prob=0.3)
    assert len(model(IDS).hidden_states) == 4
    assert model.embeddings.dropout.p == 0.3
    assert model.config.num_attention_heads == 4


def test_fewer_blocks_by_keyword(checkpoint):
    """transformers leaves the upper blocks out; a file with another number is refused by our own loading."""
    folder = checkpoint("bert")
    model = hf.BertModel.from_pretrained(folder, num_hidden_layers=2)
    expected = hf.BertModel.from_pretrained(folder)(IDS, output_hidden_states=True).hidden_states[2]
    assert torch.equal(model(IDS)[0], expected)


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"num_hidden_layers": 5}, "asks for 5 blocks, and the checkpoint has 3"),
        ({"vocab_size": 9}, r"word_embeddings.weight: the config asks for shape \[9, 32\]"),
    ],
)
def test_a_config_that_the_weights_do_not_fit(checkpoint, keywords, says):
    with pytest.raises(WeightsError, match=says):
        hf.BertModel.from_pretrained(checkpoint("bert"), **keywords)


def test_a_config_in_place_of_the_checkpoints(checkpoint, tmp_path):
    folder = checkpoint("bert")
    config = hf.BertConfig.from_pretrained(folder, output_hidden_states=True)
    model = hf.BertModel.from_pretrained(folder, config=config)
    assert len(model(IDS).hidden_states) == 4
    assert model.config is not config
    config.save_pretrained(tmp_path)
    assert len(hf.BertModel.from_pretrained(folder, config=tmp_path)(IDS).hidden_states) == 4
    assert len(hf.AutoModel.from_pretrained(folder, config=config)(IDS).hidden_states) == 4
    with pytest.raises(OptionError, match=r"expected a layertap\.hf\.BertConfig"):
        hf.BertModel.from_pretrained(folder, config=hf.RobertaConfig())
    with pytest.raises(OptionError, match="hidden_dropout_prob"):
        hf.BertModel.from_pretrained(folder, config=config, hidden_dropout_prob=0.0)


@pytest.mark.parametrize(
    ("keywords", "says"),
    [
        ({"trust_remote_code": True}, "never runs code"),
        ({"attn_implementation": "flash_attention_2"}, "packed sequences"),
        ({"state_dict": {}}, "state_dict=a dict is not supported"),
        ({"from_tf": True}, "TensorFlow"),
        ({"quantization_config": {"a": 1}}, "quantised"),
        ({"load_in_8bit": True}, "load_in_8bit=True"),
        ({"token": "hf_secret"}, "hf auth login"),
        ({"subfolder": "onnx"}, "subfolder"),
        ({"gradient_checkpointing": True}, "neither a keyword"),
        ({"output_hidden_state": True}, "did you mean 'output_hidden_states'"),
        ({"untrained_poler": "init"}, "did you mean 'untrained_pooler'"),
        ({"device_map": "auto"}, "one device"),
        ({"device_map": {"encoder": 0}}, "one device"),
        ({"chunk_size_feed_forward": 2}, "chunk_size_feed_forward=2"),
        ({"is_decoder": True}, "runs encoders"),
    ],
)
def test_keywords_that_are_refused(checkpoint, keywords, says):
    folder = checkpoint("bert")
    for model_class in (hf.BertModel, hf.AutoModel):
        with pytest.raises(ValueError, match=says):
            model_class.from_pretrained(folder, **keywords)


def test_keywords_that_ask_for_nothing(checkpoint):
    hf.AutoModel.from_pretrained(
        checkpoint("bert"),
        low_cpu_mem_usage=True,
        trust_remote_code=False,
        attn_implementation="sdpa",
        use_safetensors=True,
        output_attentions=False,
        device_map="cpu",
        token=None,
    )


def test_a_pickle_file_only_when_asked(checkpoint, tmp_path):
    folder = Path(shutil.copytree(checkpoint("bert"), tmp_path / "pickled"))
    expected = hf.BertModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    torch.save(expected.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="allow_pickle=True"):
        hf.BertModel.from_pretrained(folder)
    for asked in ({"allow_pickle": True}, {"use_safetensors": False}):
        assert torch.equal(hf.BertModel.from_pretrained(folder, **asked)(IDS)[0], expected(IDS)[0])


def test_damaged_weights(make_checkpoint, write_tensors, tmp_path):
    folder = make_checkpoint(tmp_path / "nan")
    weights = {key: value.numpy().copy() for key, value in hf.BertModel.from_pretrained(folder).state_dict().items()}
    weights["encoder.layer.1.output.dense.bias"][3] = np.nan
    write_tensors(folder, weights)
    with pytest.raises(WeightsError, match=r"encoder\.layer\.1\.output\.dense\.bias.*NaN"):
        hf.BertModel.from_pretrained(folder)


def test_no_such_model(tmp_path):
    for load in (hf.BertModel, hf.AutoModel, hf.AutoConfig, hf.AutoTokenizer, hf.BertTokenizer):
        with pytest.raises(ModelNotFoundError):
            load.from_pretrained(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "name", ["BertModel", "AutoModel", "BertConfig", "AutoConfig", "BertTokenizer", "AutoTokenizer"]
)
def test_no_name_is_no_default_model(name):
    with pytest.raises(OptionError, match="pretrained_model_name_or_path=None: expected a folder or a hub id"):
        getattr(hf, name).from_pretrained(None)


@pytest.mark.parametrize("family", ["Bert", "Roberta", "DistilBert", "Electra", "Albert"])
def test_init_weights_leaves_nothing_of_what_was_there(family):
    made = getattr(hf, f"{family}Model")(getattr(hf, f"{family}Config")(num_hidden_layers=1, vocab_size=50))
    with torch.device("meta"):
        model = type(made)(made.config)
    model.to_empty(device="cpu")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data.fill_(77)
    model.init_weights()
    for (name, tensor), expected in zip(model.named_buffers(), made.buffers(), strict=True):
        assert torch.equal(tensor, expected), name
    for (name, tensor), expected in zip(model.named_parameters(), made.parameters(), strict=True):
        assert tensor.std(correction=0).item() == pytest.approx(expected.std(correction=0).item(), rel=0.2), name
        assert tensor.mean().item() == pytest.approx(expected.mean().item(), abs=0.02), name


def test_auto_classes_are_not_instantiated():
    for auto in (hf.AutoModel, hf.AutoConfig, hf.AutoTokenizer):
        with pytest.raises(OptionError, match="from_pretrained"):
            auto()
    with pytest.raises(OptionError, match=r"expected a config of layertap\.hf"):
        hf.AutoModel.from_config(transformers.BertConfig())


def test_models_from_a_config():
    config = hf.RobertaConfig(hidden_size=8, num_attention_heads=2, intermediate_size=8, num_hidden_layers=1)
    assert hf.AutoModel.from_config(config, add_pooling_layer=False).pooler is None
    for keywords in ({"dtype": "bfloat16"}, {"torch_dtype": torch.bfloat16, "attn_implementation": "sdpa"}):
        assert hf.AutoModel.from_config(config, **keywords).dtype == torch.bfloat16
    assert hf.AutoModel.from_config(config, dtype="auto").dtype == torch.float32
    with pytest.raises(OptionError, match="trust_remote_code"):
        hf.AutoModel.from_config(config, trust_remote_code=True)


def test_without_torch():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from layertap.errors import BackendError\n"
        "try:\n    import layertap.hf\n"
        "except BackendError as error:\n    print(error)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "layertap.hf needs torch: pip install 'layertap[torch]'\n"


def test_loading_imports_no_compiler(checkpoint):
    """Random numbers on the meta device make torch import its compiler, which takes seconds."""
    code = "import sys, layertap.hf; layertap.hf.AutoModel.from_pretrained(sys.argv[1]); print(*sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code, checkpoint("bert")], capture_output=True, text=True, check=True)
    assert "torch" in ended.stdout.split()
    assert "torch._dynamo" not in ended.stdout.split()


def test_configs_and_tokenizers_fetch_no_weights(checkpoint, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(checkpoint("bert"), tmp_path / "0123abc"))
    asked: list[str] = []

    def snapshot_download(name, *, allow_patterns, **_):
        asked.extend(allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert hf.AutoConfig.from_pretrained("org/name").hidden_size == 32
    assert hf.AutoTokenizer.from_pretrained("org/name").cls_token == "[CLS]"
    assert "tokenizer.json" in asked
    assert "model.safetensors" not in asked
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError):
        hf.AutoModel.from_pretrained("org/name", local_files_only=True, revision="main")
    assert "model.safetensors" in asked


def test_the_default_model(minilm_folder):
    with pytest.warns(UserWarning, match="never trained"):
        ours = hf.AutoModel.from_pretrained("sentence-transformers/all-MiniLM-L6-v2")
    tokenizer = hf.AutoTokenizer.from_pretrained("all-MiniLM-L6-v2")
    theirs = transformers.AutoModel.from_pretrained(minilm_folder)
    encoded = tokenizer(["Hello world", "A much longer sentence, for padding."], padding=True, return_tensors="pt")
    with torch.no_grad():
        found = ours(**encoded, output_hidden_states=True)
        expected = theirs(**encoded, output_hidden_states=True)
    where = encoded.attention_mask.bool()
    for a, b in zip(found.hidden_states, expected.hidden_states, strict=True):
        assert (a - b)[where].abs().max() <= 1e-4
    assert (found[1] - expected[1]).abs().max() <= 1e-4


def test_loading_warns_of_nothing_else(checkpoint):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hf.BertModel.from_pretrained(checkpoint("bert"))
        hf.BertModel.from_pretrained(checkpoint("bert", pooler="absent"))
        hf.BertModel.from_pretrained(checkpoint("bert", pooler="untrained"), add_pooling_layer=False)


@pytest.mark.parametrize("device", ["mps", "meta", "xpu", torch.device("meta")])
def test_devices_of_other_kinds_are_refused_in_a_sentence(checkpoint, device):
    with pytest.raises(OptionError, match="expected cpu, cuda or cuda:N"):
        hf.BertModel.from_pretrained(checkpoint("bert"), device_map=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize("device", ["cuda", 0])
def test_a_device_that_is_not_there_is_refused_in_a_sentence(checkpoint, device):
    with pytest.raises(BackendError, match=r"device 'cuda.*use device='cpu'"):
        hf.BertModel.from_pretrained(checkpoint("bert"), device_map=device)


def test_an_adapter_is_merged(tmp_path, checkpoint):
    base = checkpoint("bert")
    weights = write_adapter(tmp_path / "adapter", base)
    model = hf.AutoModel.from_pretrained(tmp_path / "adapter")
    module = model.encoder.layer[1].attention.self.query
    assert np.abs(module.weight.detach().numpy() - weights["encoder.layer.1.attention.self.query.weight"]).max() < 1e-6
    assert hf.AutoTokenizer.from_pretrained(tmp_path / "adapter")("hello world")["input_ids"]
    # what is saved is the merged model
    model.save_pretrained(tmp_path / "saved")
    again = hf.AutoModel.from_pretrained(tmp_path / "saved")
    assert torch.equal(again(IDS).last_hidden_state, model(IDS).last_hidden_state)
