"""DistilBERT, ELECTRA and ALBERT through transformers' door: names, numbers, training, files."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tokenizers import Tokenizer  # noqa: E402
from tokenizers import models as tokenizer_models  # noqa: E402

import layertap.hf as hf  # noqa: E402
from layertap.errors import ConfigError, OptionError, TokenizerError, UntrainedPoolerError  # noqa: E402
from tests.tiny_models import random_model  # noqa: E402

SIZES = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
}
DISTIL = {"vocab_size": 90, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40}
CASES = {
    "distilbert": ("DistilBert", DISTIL),
    "electra": ("Electra", SIZES | {"embedding_size": 12}),
    "electra base": ("Electra", SIZES | {"embedding_size": 32}),
    "albert": ("Albert", SIZES | {"embedding_size": 12, "num_hidden_groups": 2}),
}
QUIET = {
    "distilbert": {"dropout": 0.0, "attention_dropout": 0.0},
    "electra": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
}


@pytest.fixture(params=CASES)
def case(request):
    return request.param


def pair(case, **fields):
    """(transformers' model, ours) with the same random weights, in eval mode."""
    name, values = CASES[case]
    theirs = random_model(name, values | fields)
    ours = getattr(hf, f"{name}Model")(getattr(hf, f"{name}Config")(**values, **fields))
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours.eval()


def batch(seed=0):
    """Ids and a mask: whole, padded on the right, with holes."""
    torch.manual_seed(seed)
    ids = torch.randint(5, 90, (3, 12))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    mask[2, [2, 3, 8]] = 0
    return ids, mask


def assert_close(ours, theirs, bound=2e-5):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() / theirs.pow(2).mean().sqrt() <= bound


def test_every_state_and_the_outputs_that_there_are(case):
    theirs, ours = pair(case)
    ids, mask = batch()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask, output_hidden_states=True)
        found = ours(ids, attention_mask=mask, output_hidden_states=True)
    assert list(found.keys()) == list(expected.keys())
    assert len(found.hidden_states) == len(expected.hidden_states) == 4
    where = mask.bool()
    for a, b in zip(found.hidden_states, expected.hidden_states, strict=True):
        assert_close(a[where], b[where])
        assert not a[~where].any()
    assert ("pooler_output" in found) == (case == "albert")
    if case == "albert":
        assert_close(found.pooler_output, expected.pooler_output)
    else:
        assert found[1] is found.hidden_states


def test_token_types_positions_and_embeddings(case):
    theirs, ours = pair(case)
    ids, mask = batch()
    where = mask.bool()
    types = (torch.arange(12) > 5).long().expand(3, -1)
    positions = torch.arange(12).flip(0)[None] + 3
    embeds = ours.get_input_embeddings()(ids)
    for inputs in (
        {"input_ids": ids, "token_type_ids": types},  # DistilBERT's model takes no notice of them
        {"input_ids": ids, "position_ids": positions},
        {"inputs_embeds": embeds},
    ):
        expected = theirs(attention_mask=mask, **inputs)[0]
        assert_close(ours(attention_mask=mask, **inputs)[0][where], expected[where])
    with pytest.raises(OptionError, match=rf"inputs_embeds: expected floats \[batch, sequence, {embeds.shape[2]}\]"):
        ours(inputs_embeds=torch.ones(1, 2, 33))


def test_state_dicts_and_random_weights(case):
    name, values = CASES[case]
    torch.manual_seed(0)
    theirs = getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**values))
    ours = getattr(hf, f"{name}Model")(getattr(hf, f"{name}Config")(**values))
    expected, found = theirs.state_dict(), ours.state_dict()
    assert list(found) == list(expected)
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert ours.num_parameters() == theirs.num_parameters()
    for key, value in found.items():
        assert value.shape == expected[key].shape
        assert abs(value.mean() - expected[key].mean()) < 0.01, key
        assert abs(value.std() - expected[key].std()) < 0.01, key
        assert torch.equal((value == 0).all(-1), (expected[key] == 0).all(-1)), key
    theirs.load_state_dict(found)


def test_sinusoidal_positions_of_random_weights():
    theirs = transformers.DistilBertModel(transformers.DistilBertConfig(**DISTIL, sinusoidal_pos_embds=True))
    ours = hf.DistilBertModel(hf.DistilBertConfig(**DISTIL, sinusoidal_pos_embds=True))
    expected = theirs.embeddings.position_embeddings.weight
    assert torch.allclose(ours.embeddings.position_embeddings.weight, expected, atol=1e-6)
    assert ours.embeddings.position_embeddings.weight.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_files_go_both_ways(case, tmp_path, dtype):
    theirs, _ = pair(case)
    theirs.to(dtype).save_pretrained(tmp_path / "theirs")
    ours = hf.AutoModel.from_pretrained(tmp_path / "theirs")
    assert type(ours).__name__ == type(theirs).__name__
    assert ours.dtype == dtype
    assert not ours.training
    ours.save_pretrained(tmp_path / "ours")
    again = transformers.AutoModel.from_pretrained(tmp_path / "ours")
    for key, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value)
        assert torch.equal(again.state_dict()[key], value)
    other = hf.BertModel.config_class
    with pytest.raises(ConfigError, match=f"use {type(ours).__name__}, or AutoModel"):
        hf.BertModel.from_pretrained(tmp_path / "ours")
    with pytest.raises(ConfigError, match=f"use {type(ours.config).__name__}, or AutoConfig"):
        other.from_pretrained(tmp_path / "ours")


def test_a_checkpoint_with_a_head(tmp_path):
    theirs = transformers.ElectraForPreTraining(transformers.ElectraConfig(**CASES["electra"][1]))
    theirs.save_pretrained(tmp_path)
    ours = hf.ElectraModel.from_pretrained(tmp_path)
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in theirs.electra.state_dict().items())


def test_poolers(tmp_path):
    for case in ("distilbert", "electra"):
        theirs, _ = pair(case)
        theirs.save_pretrained(tmp_path / case)
        with pytest.raises(OptionError, match=f"{type(theirs).__name__} has no pooler"):
            hf.AutoModel.from_pretrained(tmp_path / case, untrained_pooler="init")
    theirs, ours = pair("albert")
    assert hf.AlbertModel(ours.config, add_pooling_layer=False).pooler is None
    ids, _ = batch()
    ours.save_pretrained(tmp_path / "albert")
    assert "pooler_output" not in hf.AlbertModel.from_pretrained(tmp_path / "albert", add_pooling_layer=False)(ids)
    headless = transformers.AlbertModel(theirs.config, add_pooling_layer=False)
    headless.save_pretrained(tmp_path / "headless")
    found = hf.AlbertModel.from_pretrained(tmp_path / "headless")(ids)
    with pytest.raises(UntrainedPoolerError):
        _ = found.pooler_output
    made = hf.AlbertModel.from_pretrained(tmp_path / "headless", untrained_pooler="init")
    assert made(ids).pooler_output.abs().max() < 1


def test_ten_training_steps(case):
    theirs, ours = pair(case, **QUIET["distilbert" if case == "distilbert" else "electra"])
    losses = []
    for model in (theirs, ours):
        model.train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        losses.append([])
        for step in range(10):
            ids, mask = batch(step)
            outputs = model(ids, attention_mask=mask)
            loss = (outputs.last_hidden_state[mask.bool()] - 1).pow(2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0][-1] < losses[0][0]
    assert max(abs(a - b) for a, b in zip(*losses, strict=True)) <= 1e-4


def test_dropout_follows_train_and_eval(case):
    fields = {"attention_dropout": 0.5} if case == "distilbert" else {"attention_probs_dropout_prob": 0.5}
    _, ours = pair(case, **fields)
    ids, _ = batch()
    assert torch.equal(ours(ids)[0], ours(ids)[0])
    ours.train()
    for module in ours.modules():
        if isinstance(module, torch.nn.Dropout) and module.p != 0.5:
            module.p = 0.0
    assert not torch.equal(ours(ids)[0], ours(ids)[0])  # attention's dropout alone
    for module in ours.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    assert torch.equal(ours(ids)[0], ours(ids)[0])
    ours.eval()
    assert torch.equal(ours(ids)[0], ours(ids)[0])


def test_dropout_is_where_transformers_has_it(case):
    """At a probability of 1 it is not random: what passes through it is zero."""
    theirs, ours = pair(case, **{"dropout" if case == "distilbert" else "hidden_dropout_prob": 1.0})
    for model in (theirs, ours):
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout) and module.p != 1.0:
                module.p = 0.0
    for model in (theirs, ours):
        model.embeddings.dropout.p = 0.0  # otherwise every token is the same from here on
    ids, _ = batch()
    with torch.no_grad():
        expected = theirs(ids, output_hidden_states=True).hidden_states
        found = ours(ids, output_hidden_states=True).hidden_states
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b)


def test_copies_work_alike(case):
    _, ours = pair(case)
    ids, mask = batch()
    expected = ours(ids, attention_mask=mask)[0]
    for twin in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert torch.equal(twin(ids, attention_mask=mask)[0], expected)
        for parameter in twin.parameters():
            parameter.data.zero_()
        assert not twin(ids, attention_mask=mask)[0].any()
        twin.to(torch.float64)
        assert twin(ids)[0].dtype == torch.float64
    assert torch.equal(ours(ids, attention_mask=mask)[0], expected)


def test_parts_have_transformers_names():
    _, ours = pair("distilbert")
    assert ours.transformer.layer[1].attention.q_lin.weight.shape == (32, 32)
    assert ours.transformer.layer[1].ffn.lin1.weight.shape == (48, 32)
    ours.transformer.layer = ours.transformer.layer[:2]
    assert len(ours(torch.tensor([[7, 8]]), output_hidden_states=True).hidden_states) == 3
    _, ours = pair("albert")
    layer = ours.encoder.albert_layer_groups[0].albert_layers[0]
    seen = []
    layer.register_forward_hook(lambda _module, _args, output: seen.append(output.shape))
    ours(torch.tensor([[7, 8]]))
    assert seen == [(1, 2, 32)] * 2  # layers 1 and 2 of three are of this group
    assert isinstance(ours.pooler, torch.nn.Linear)
    _, ours = pair("electra")
    assert ours.embeddings_project.weight.shape == (32, 12)


@pytest.mark.parametrize("name", ["DistilBert", "Electra", "Albert"])
def test_config_defaults_are_transformers(name):
    ours = getattr(hf, f"{name}Config")()
    theirs = getattr(transformers, f"{name}Config")()
    for field in type(ours).defaults:
        assert getattr(ours, field) == getattr(theirs, field), field
    stated = set(theirs.to_dict()) - set(transformers.PretrainedConfig().to_dict())
    assert stated <= set(ours.to_dict())


def test_sizes_of_distilbert_under_both_names():
    config = hf.DistilBertConfig(hidden_size=48, num_attention_heads=4, n_layers=2)
    assert (config.dim, config.hidden_size) == (48, 48)
    assert (config.n_heads, config.num_attention_heads) == (4, 4)
    assert (config.n_layers, config.num_hidden_layers) == (2, 2)
    config.num_hidden_layers = 5
    assert config.n_layers == 5
    assert not {"hidden_size", "num_attention_heads", "num_hidden_layers"} & set(config.to_dict())
    assert hf.AutoConfig.for_model("distilbert", dim=48, n_heads=4, n_layers=5) == config


def test_what_a_config_asks_for_and_is_not_computed():
    with pytest.raises(ConfigError, match="inner_group_num is 2"):
        hf.AlbertModel(hf.AlbertConfig(**SIZES, inner_group_num=2))


def bert_vocabulary(folder: Path, **config: object) -> Path:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", "##s"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("stated", [None, "DistilBertTokenizer", "DistilBertTokenizerFast", "ElectraTokenizerFast"])
@pytest.mark.parametrize("model_type", ["distilbert", "electra"])
def test_auto_tokenizers_return_what_transformers_do(tmp_path, stated, model_type):
    folder = bert_vocabulary(tmp_path, **({} if stated is None else {"tokenizer_class": stated}))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    ours = hf.AutoTokenizer.from_pretrained(folder)
    assert type(ours).__name__ == type(theirs).__name__
    assert {**ours("A film", "films")} == {**theirs("A film", "films")}


def test_classes_that_do_the_same_read_each_others_files(tmp_path):
    folder = bert_vocabulary(tmp_path)
    for where in ("no config.json", "a config.json"):
        assert list(hf.DistilBertTokenizer.from_pretrained(folder)("a")) == ["input_ids", "attention_mask"], where
        assert hf.ElectraTokenizerFast.from_pretrained(folder)("a films")["input_ids"] == [2, 5, 6, 7, 3]
        (folder / "config.json").write_text(json.dumps({"model_type": "distilbert"}))
    with pytest.raises(TokenizerError, match="its tokenizer is a BertTokenizer, so AlbertTokenizer does not fit"):
        hf.AlbertTokenizer.from_pretrained(folder)


def test_the_tokenizer_of_albert(tmp_path):
    special = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    pieces = ["\u2581", "\u2581a", "\u2581A", "f", "\u00e9", "e"]
    vocab = [*((piece, 0.0) for piece in special), *((piece, -2.0) for piece in pieces)]
    backend = Tokenizer(tokenizer_models.Unigram(vocab, unk_id=1))
    backend.add_special_tokens(special)
    backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "albert"}))
    for keywords in (
        {},
        {"do_lower_case": False},
        {"keep_accents": True},
        {"do_lower_case": False, "keep_accents": True},
    ):
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, **keywords)
        for ours in (hf.AutoTokenizer, hf.AlbertTokenizerFast):
            found = ours.from_pretrained(tmp_path, **keywords)
            assert {**found(["A f\u00e9", "``a"])} == {**theirs(["A f\u00e9", "``a"])}, keywords
    with pytest.raises(OptionError, match="strip_accents: not a setting of this kind of tokenizer"):
        hf.AutoTokenizer.from_pretrained(tmp_path, strip_accents=True)
    found.save_pretrained(tmp_path / "again")
    assert {**transformers.AutoTokenizer.from_pretrained(tmp_path / "again")("A f\u00e9")} == {**found("A f\u00e9")}
