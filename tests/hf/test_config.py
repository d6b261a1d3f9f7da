"""Configs: defaults, fields, files, and what becomes of impossible values."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import layertap.hf as hf  # noqa: E402
from layertap.errors import ConfigError, OptionError, OutputError, UsageError  # noqa: E402
from layertap.hf.config import BERT, COMMON, CONFIG_CLASSES, encoder_spec  # noqa: E402
from layertap.models.registry import ARCHITECTURES  # noqa: E402

NAMES = ["Bert", "Roberta", "XLMRoberta", "Camembert"]


@pytest.mark.parametrize("name", NAMES)
def test_defaults_are_transformers(name):
    ours = getattr(hf, f"{name}Config")()
    theirs = getattr(transformers, f"{name}Config")()
    for field in (*COMMON, *BERT):
        if field != "transformers_version":
            assert getattr(ours, field) == getattr(theirs, field), field
    assert ours.model_type == theirs.model_type
    assert ours.num_labels == theirs.num_labels == 2


def test_every_config_class_has_an_architecture():
    assert set(CONFIG_CLASSES) <= set(ARCHITECTURES)


def test_fields_are_attributes_also_unknown_ones():
    config = hf.BertConfig(hidden_size=48, num_attention_heads=6, my_field={"a": [1]})
    assert config.my_field == {"a": [1]}
    config.my_field["a"].append(2)
    config.other = 3
    assert config.to_dict()["my_field"] == {"a": [1, 2]}
    assert config.to_dict()["other"] == 3
    config.update({"hidden_size": 24})
    assert encoder_spec(config).hidden_size == 24
    with pytest.raises(AttributeError, match="no field 'hiden_size'"):
        _ = config.hiden_size
    with pytest.raises(TypeError):
        hf.BertConfig(30522)


def test_two_configs_share_nothing():
    a, b = hf.BertConfig(), hf.BertConfig()
    assert a == b
    a.id2label[0] = "x"
    assert a != b
    assert b.id2label == {0: "LABEL_0", 1: "LABEL_1"}


@pytest.mark.parametrize("field", ["dtype", "torch_dtype"])
def test_dtype_under_both_names(field):
    config = hf.BertConfig(**{field: "bfloat16"})
    assert config.dtype is config.torch_dtype is torch.bfloat16
    # as in transformers, where the class itself takes torch's default dtype
    assert hf.BertModel(_small(config)).dtype == torch.float32
    assert hf.AutoModel.from_config(config).dtype == torch.bfloat16
    setattr(config, field, torch.float16)
    assert config.dtype is torch.float16
    assert config.to_dict()["dtype"] == "float16"
    with pytest.raises(OptionError, match="dtype: expected"):
        config.dtype = "floaty"


def _small(config):
    config.update({"hidden_size": 8, "num_attention_heads": 2, "vocab_size": 9, "num_hidden_layers": 1})
    config.intermediate_size = 8
    return config


def test_labels():
    assert hf.BertConfig(num_labels=3).id2label == transformers.BertConfig(num_labels=3).id2label
    config = hf.BertConfig(id2label={"0": "no", "1": "yes", "2": "maybe"})
    assert config.num_labels == 3
    assert config.id2label[2] == "maybe"


@pytest.mark.parametrize("name", NAMES)
def test_files_are_read_by_both(name, tmp_path):
    ours = getattr(hf, f"{name}Config")(hidden_size=48, num_labels=5, extra=[1, 2], dtype="bfloat16")
    ours.save_pretrained(tmp_path / "ours")
    theirs = getattr(transformers, f"{name}Config").from_pretrained(tmp_path / "ours")
    assert (theirs.hidden_size, theirs.num_labels, theirs.extra, theirs.dtype) == (48, 5, [1, 2], torch.bfloat16)
    theirs.save_pretrained(tmp_path / "theirs")
    again = hf.AutoConfig.from_pretrained(tmp_path / "theirs")
    assert type(again) is type(ours)
    assert (again.hidden_size, again.id2label, again.extra, again.dtype) == (
        48,
        ours.id2label,
        [1, 2],
        torch.bfloat16,
    )
    assert getattr(hf, f"{name}Config").from_pretrained(tmp_path / "ours" / "config.json") == ours
    assert getattr(hf, f"{name}Config").from_json_file(tmp_path / "ours" / "config.json") == ours
    assert getattr(hf, f"{name}Config").from_dict(ours.to_dict()) == ours


def test_what_a_file_does_not_state_takes_the_class_defaults(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 24}')
    config = hf.AutoConfig.from_pretrained(tmp_path)
    assert config.hidden_size == 24
    assert config.num_hidden_layers == 12
    assert config.name_or_path == str(tmp_path)


def test_keywords(checkpoint):
    folder = checkpoint("roberta")
    config = hf.RobertaConfig.from_pretrained(folder, output_hidden_states=True, num_labels=4)
    assert config.output_hidden_states is True
    assert config.num_labels == 4
    config, rest = hf.AutoConfig.from_pretrained(folder, hidden_size=8, foo=1, return_unused_kwargs=True)
    assert config.hidden_size == 8
    assert rest == {"foo": 1}
    for keywords in ({"foo": 1}, {"trust_remote_code": True}, {"_private": 1}):
        with pytest.raises(OptionError, match=next(iter(keywords))):
            hf.RobertaConfig.from_pretrained(folder, **keywords)


def test_for_model():
    assert hf.AutoConfig.for_model("xlm-roberta", hidden_size=24).hidden_size == 24
    with pytest.raises(OptionError, match="expected one of bert"):
        hf.AutoConfig.for_model("gpt2")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "config.json: line 1"),
        ("[]", "expected a JSON object"),
        ('{"model_type": "gpt2"}', "found 'gpt2': a decoder attends to the left only"),
    ],
)
def test_files_that_are_no_config(tmp_path, text, says):
    (tmp_path / "config.json").write_text(text)
    for load in (hf.BertConfig, hf.AutoConfig, hf.AutoModel):
        with pytest.raises(ConfigError, match=says):
            load.from_pretrained(tmp_path)


def test_a_config_that_states_no_family_is_of_the_class_that_loads_it(tmp_path):
    original = _small(hf.BertConfig())
    model = hf.BertModel(original).eval()
    model.save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())
    del stated["model_type"], stated["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(stated))
    assert hf.BertConfig.from_pretrained(tmp_path).hidden_size == original.hidden_size
    ids = torch.tensor([[5, 6]])
    loaded = hf.BertModel.from_pretrained(tmp_path, add_pooling_layer=False)
    assert torch.equal(loaded(ids)[0], model(ids)[0])
    for load in (hf.AutoConfig, hf.AutoModel):
        with pytest.raises(ConfigError, match="model_type"):
            load.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(stated | {"architectures": ["RobertaModel"]}))
    with pytest.raises(ConfigError, match="roberta"):
        hf.BertModel.from_pretrained(tmp_path)


def test_a_folder_without_config(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json"):
        hf.AutoConfig.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        {"hidden_size": 33},
        {"hidden_size": "768"},
        {"hidden_act": "mish"},
        {"position_embedding_type": "relative_key"},
        {"is_decoder": True},
        {"torchscript": True},
        {"chunk_size_feed_forward": 4},
    ],
)
def test_what_cannot_be_built_is_refused_by_name(fields):
    with pytest.raises((ConfigError, UsageError), match=next(iter(fields))):
        hf.BertModel(hf.BertConfig(**fields))


def test_fields_of_old_checkpoints_that_change_nothing():
    config = hf.BertConfig(gradient_checkpointing=False, position_embedding_type="absolute", pruned_heads={})
    assert hf.BertModel(_small(config)).config is config


def test_the_field_of_old_configs_that_computes_layers_again(tmp_path):
    config = _small(hf.BertConfig(gradient_checkpointing=True))
    model = hf.BertModel(config)
    assert model.is_activation_checkpointing
    model.save_pretrained(tmp_path)
    assert "gradient_checkpointing" not in json.loads((tmp_path / "config.json").read_text())
    assert not hf.BertModel.from_pretrained(tmp_path, add_pooling_layer=False).is_activation_checkpointing
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict() | {"gradient_checkpointing": True}))
    assert hf.BertModel.from_pretrained(tmp_path, add_pooling_layer=False).is_activation_checkpointing


def test_iteration_yields_the_names_of_the_fields():
    config = hf.BertConfig(my_field=1)
    names = list(config)
    assert {"my_field", "hidden_size", "dtype"} < set(names)
    assert set(names) - {"my_field", "output_attentions"} <= set(transformers.BertConfig())
    assert {name: getattr(config, name) for name in names} | {"model_type": "bert"} == config.to_dict()


def test_a_dictionary_of_another_family():
    with pytest.raises(ConfigError, match="is for model_type 'bert', found 'roberta'"):
        hf.BertConfig.from_dict({"model_type": "roberta"})


def test_saving_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        hf.BertConfig().save_pretrained(tmp_path / "file")


def test_text_form():
    config = hf.RobertaConfig(hidden_size=48)
    assert repr(config).startswith("RobertaConfig {")
    assert json.loads(config.to_json_string())["hidden_size"] == 48
    assert "id2label" not in config.to_json_string()
