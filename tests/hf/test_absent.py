"""Everything public of transformers' models, configs, tokenizers and batches: there, or refused with a reason."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

import layertap.hf as hf  # noqa: E402
from layertap.errors import OptionError  # noqa: E402
from layertap.hf import absent  # noqa: E402

SIZES = {"vocab_size": 9, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 4}


@pytest.fixture(scope="module")
def folder(make_checkpoint, tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("absent") / "bert")


def objects(kind, folder):
    """(transformers' object, ours, methods that are refused, attributes that do not exist)."""
    if kind == "model":
        pair = (module.BertModel(module.BertConfig(**SIZES)) for module in (transformers, hf))
        return *pair, absent.MODEL_METHODS, absent.MODEL_ATTRIBUTES
    if kind == "config":
        return transformers.BertConfig(), hf.BertConfig(), absent.CONFIG_METHODS, absent.CONFIG_ATTRIBUTES
    pair = (module.BertTokenizer.from_pretrained(folder) for module in (transformers, hf))
    return *pair, absent.TOKENIZER_METHODS, absent.TOKENIZER_ATTRIBUTES


@pytest.mark.parametrize("kind", ["model", "config", "tokenizer"])
def test_every_public_name(folder, kind):
    theirs, ours, methods, attributes = objects(kind, folder)
    public = {name for name in dir(theirs) if not name.startswith("_")}
    missing = sorted(name for name in public if not hasattr(ours, name) and name not in attributes)
    assert missing == []
    assert not sorted((set(methods) | set(attributes)) - public - {"prune_heads"}), "rows of nothing in transformers"
    for name, why in methods.items():
        with pytest.raises(OptionError, match=f"{type(ours).__name__}.{name} is not supported: ") as caught:
            getattr(ours, name)(1, two=2)
        assert why in str(caught.value)
    for name in attributes:
        with pytest.raises(AttributeError, match=f"{name} is not supported: "):
            getattr(ours, name)
        assert not hasattr(ours, name)


def test_methods_that_only_tell():
    theirs, ours = (module.BertModel(module.BertConfig(**SIZES)) for module in (transformers, hf))
    for name in ("get_memory_footprint", "num_parameters", "can_generate", "get_output_embeddings"):
        assert getattr(ours, name)() == getattr(theirs, name)(), name
    assert ours.get_encoder() is ours.encoder
    assert [name for name, _ in ours.named_non_persistent_buffers()] == [
        name for name, _ in theirs.named_non_persistent_buffers()
    ]
    assert ours.get_parameter_or_buffer("pooler.dense.bias") is ours.pooler.dense.bias
    assert ours.get_parameter_or_buffer("embeddings.position_ids") is ours.embeddings.position_ids
    names = ["encoder.layer.0.output.dense.weight"]
    assert ours.retrieve_modules_from_names(names) == [ours.encoder.layer[0].output.dense]
    with pytest.warns(UserWarning, match="holds padding and there is no attention_mask"):
        ours.warn_if_padding_and_no_attention_mask(torch.tensor([[5, 0]]), None)
    before = ours.embeddings.word_embeddings.weight.clone()
    ours.init_weights()
    assert not torch.equal(before, ours.embeddings.word_embeddings.weight)


def test_gradients_of_frozen_embeddings():
    model = hf.BertModel(hf.BertConfig(**SIZES))
    model.requires_grad_(False)
    model.enable_input_require_grads()
    assert model(torch.tensor([[1, 2]])).last_hidden_state.requires_grad
    model.disable_input_require_grads()
    assert not model(torch.tensor([[1, 2]])).last_hidden_state.requires_grad


def test_config_methods(folder, tmp_path):
    config = hf.BertConfig(hidden_size=48, num_labels=3)
    assert config.to_diff_dict()["hidden_size"] == 48
    assert "num_hidden_layers" not in config.to_diff_dict()
    config.to_json_file(tmp_path / "config.json")
    assert hf.BertConfig.from_json_file(tmp_path / "config.json") == config
    values, others = hf.BertConfig.get_config_dict(folder, made_up=1)
    assert values["hidden_size"] == hf.BertConfig.from_pretrained(folder).hidden_size
    assert others == {"made_up": 1}
    assert config.get_text_config() is config
    config.validate()


def test_added_tokens(folder, tmp_path):
    """A vocabulary grows, the model grows with it, and both are read back."""
    theirs, ours = (module.BertTokenizer.from_pretrained(folder) for module in (transformers, hf))
    model = hf.BertModel.from_pretrained(folder)
    for tokenizer in (theirs, ours):
        assert tokenizer.add_tokens(["filmography", "the"]) == 2
        assert tokenizer.add_special_tokens({"additional_special_tokens": ["[E1]", "[/E1]"]}) == 2
    text = "[E1] a filmography [/E1] of the story"
    assert ours(text).input_ids == theirs(text).input_ids
    assert len(ours) == len(theirs)
    assert ours.get_added_vocab() == theirs.get_added_vocab()
    assert ours.added_tokens_encoder == theirs.added_tokens_encoder
    assert set(ours.added_tokens_decoder) == set(theirs.added_tokens_decoder)
    assert ours.decode(ours(text).input_ids, skip_special_tokens=True) == theirs.decode(
        theirs(text).input_ids, skip_special_tokens=True
    )
    with pytest.raises(ValueError, match=r"call model.resize_token_embeddings\(len\(tokenizer\)\)"):
        model(**ours(text, return_tensors="pt"))
    model.resize_token_embeddings(len(ours))
    expected = model(**ours(text, return_tensors="pt")).last_hidden_state
    model.save_pretrained(tmp_path)
    ours.save_pretrained(tmp_path)
    again = hf.AutoTokenizer.from_pretrained(tmp_path)(text, return_tensors="pt")
    assert torch.equal(hf.AutoModel.from_pretrained(tmp_path)(**again).last_hidden_state, expected)
    with pytest.raises(OptionError, match="cls_token='x' is not supported"):
        ours.add_special_tokens({"cls_token": "x"})
    with pytest.raises(OptionError, match="'made_up' is not one of"):
        ours.add_special_tokens({"made_up": "x"})
    with pytest.raises(OptionError, match="expected a str or an AddedToken"):
        ours.add_tokens([7])
    assert ours.save_vocabulary(tmp_path / "vocabulary")[0].endswith("vocab.txt")


def test_a_class_says_that_it_does_not_generate():
    assert [kind.can_generate() for kind in (hf.BertModel, hf.RobertaModel, hf.DistilBertModel)] == [False] * 3
