"""`sentence_embedding` of folders that sentence-transformers saves, against its own `encode`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layertap import concat, last_hidden_state, sentence_embedding
from layertap.engine.extractor import Extractor
from layertap.errors import FeatureError
from layertap.features.rules import Rules
from tests.selection import slow_except

pytestmark = pytest.mark.filterwarnings("ignore")  # the peer's own
torch = pytest.importorskip("torch")
peer = pytest.importorskip("sentence_transformers")
kinds = pytest.importorskip("sentence_transformers.sentence_transformer.modules")

TEXTS = [
    "the river and the bank",
    "",
    "A Good Film, and a DULL one",
    "Hello [SEP] WORLD </s> the end",
    "word " * 60,
    "caf\u00e9 \u4f60\u597d \U0001f600 \u0130stanbul \u03a3\u0391\u03a3",
    "x",
    "token " * 23,
]
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
ACTIVATIONS = ("Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU")

Encoder = Callable[..., Path]


@pytest.fixture(scope="module", params=slow_except(["bert", "roberta"], "bert"))
def encoder(request, tmp_path_factory, make_checkpoint) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp(request.param) / "encoder", request.param)


def transformer(folder: Path, **options: Any) -> Any:
    return kinds.Transformer(str(folder), **options)


def random_weights(module: Any, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return module


def assert_equal(folder: Path, features: Any = sentence_embedding, **encode: Any) -> np.ndarray:
    """The folder's vectors of `TEXTS`, equal to `encode`'s within 1e-5 of their size."""
    expected = peer.SentenceTransformer(str(folder), device="cpu").encode(TEXTS, batch_size=3, **encode)
    found = Extractor.from_pretrained(folder).extract(TEXTS, features)
    assert isinstance(found, np.ndarray)
    assert found.shape == expected.shape
    scale = max(1.0, float(np.sqrt(np.mean(np.square(expected)))))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)
    assert not np.allclose(found[0], found[2], atol=1e-3), "texts that differ have vectors that differ"
    return found


def saved(tmp_path: Path, *modules: Any, **options: Any) -> Path:
    model = peer.SentenceTransformer(modules=list(modules), device="cpu", **options)
    model.save(str(tmp_path / "saved"), create_model_card=False)
    return tmp_path / "saved"


@pytest.mark.parametrize("modes", [*((mode,) for mode in POOLINGS), POOLINGS, ("lasttoken", "cls", "mean")])
@pytest.mark.parametrize("normalize", [False, True])
def test_every_pooling(tmp_path, encoder, modes, normalize):
    more = [kinds.Normalize()] if normalize else []
    found = assert_equal(saved(tmp_path, transformer(encoder, max_seq_length=24), kinds.Pooling(32, modes), *more))
    assert found.shape == (len(TEXTS), 32 * len(modes))


def test_old_type_names_and_old_pooling_keys(tmp_path, encoder):
    folder = saved(tmp_path, transformer(encoder), kinds.Pooling(32, ("cls", "max")), kinds.Normalize())
    modules = json.loads((folder / "modules.json").read_text())
    for module in modules:
        module["type"] = "sentence_transformers.models." + module["type"].rpartition(".")[2]
    (folder / "modules.json").write_text(json.dumps(modules))
    # whatever their order in the file, cls comes before max
    old = {"word_embedding_dimension": 32, "pooling_mode_max_tokens": True, "pooling_mode_cls_token": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(old | {"pooling_mode_mean_tokens": False}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20, "do_lower_case": False}))
    assert_equal(folder)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("bias", [False, True])
def test_dense(tmp_path, encoder, activation, bias):
    dense = random_weights(kinds.Dense(32, 12, bias=bias, activation_function=getattr(torch.nn, activation)()))
    assert_equal(saved(tmp_path, transformer(encoder), kinds.Pooling(32, "mean"), dense))


def test_a_chain_of_everything(tmp_path, encoder):
    steps = [
        random_weights(kinds.Dense(64, 12, activation_function=torch.nn.GELU(), use_residual=True)),
        random_weights(kinds.LayerNorm(12), 1),
        kinds.Dropout(0.5),
        random_weights(kinds.Dense(12, 12, activation_function=torch.nn.Tanh(), use_residual=True), 2),
        kinds.Normalize(),
        random_weights(kinds.Dense(12, 10, activation_function=torch.nn.Identity()), 3),
    ]
    pooling = kinds.Pooling(32, ("max", "weightedmean"))
    found = assert_equal(saved(tmp_path, transformer(encoder, max_seq_length=9), pooling, *steps, truncate_dim=7))
    assert found.shape == (len(TEXTS), 7)


@pytest.mark.parametrize("dim", [5, 32, 100])
def test_truncate_dim(tmp_path, encoder, dim):
    found = assert_equal(saved(tmp_path, transformer(encoder), kinds.Pooling(32), kinds.Normalize(), truncate_dim=dim))
    assert found.shape == (len(TEXTS), min(dim, 32))


@pytest.mark.parametrize("all_states", [False, True])
@pytest.mark.parametrize("start", [0, 2, 3])
def test_weighted_layer_pooling(tmp_path, encoder, all_states, start):
    options = {"config_kwargs": {"output_hidden_states": True}} if all_states else {}
    weights = torch.nn.Parameter(torch.linspace(0.5, 2, 4 - start))
    layers = kinds.WeightedLayerPooling(32, num_hidden_layers=3, layer_start=start, layer_weights=weights)
    folder = saved(tmp_path, transformer(encoder, **options), layers, kinds.Pooling(32, ("mean", "cls")))
    if all_states:
        edit(folder / "config.json", output_hidden_states=True)
    found = assert_equal(folder)
    plain = assert_equal(saved(tmp_path / "plain", transformer(encoder), kinds.Pooling(32, ("mean", "cls"))))
    assert np.allclose(found, plain, atol=1e-5) == (not all_states or start == 3)


PROMPTS = {"query": "Hello world: ", "passage": "the bank ", "none": ""}


@pytest.mark.parametrize("default", [None, "query", "passage", "none"])
@pytest.mark.parametrize("include_prompt", [False, True])
def test_prompts(tmp_path, encoder, default, include_prompt):
    pooling = kinds.Pooling(32, POOLINGS, include_prompt=include_prompt)
    folder = saved(
        tmp_path,
        transformer(encoder, max_seq_length=20),
        pooling,
        kinds.Normalize(),
        prompts=PROMPTS,
        default_prompt_name=default,
    )
    assert_equal(folder)
    assert_equal(folder, sentence_embedding(prompt="passage"), prompt_name="passage")
    assert_equal(folder, "sentence_embedding(prompt=query)", prompt_name="query")


@pytest.mark.parametrize("mode", POOLINGS)
@pytest.mark.parametrize("limit", [4, 6, 62])
def test_prompts_longer_than_the_limit(tmp_path, encoder, mode, limit):
    pooling = kinds.Pooling(32, mode, include_prompt=False)
    module = transformer(encoder, max_seq_length=limit)
    folder = saved(tmp_path, module, pooling, prompts={"long": "the good bank " * 3}, default_prompt_name="long")
    expected = peer.SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(
        Extractor.from_pretrained(folder).extract(TEXTS), expected, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("include_prompt", [False, True])
def test_left_padding_changes_nothing(tmp_path, encoder, include_prompt):
    """The vectors of a folder whose tokenizer pads on the left are those of its texts one by one."""
    pooling = kinds.Pooling(32, POOLINGS, include_prompt=include_prompt)
    folder = saved(tmp_path, transformer(encoder), pooling, prompts=PROMPTS, default_prompt_name="query")
    edit(folder / "tokenizer_config.json", padding_side="left")
    model = peer.SentenceTransformer(str(folder), device="cpu")
    assert model.tokenizer.padding_side == "left"
    expected = model.encode(TEXTS, batch_size=1)
    np.testing.assert_allclose(
        Extractor.from_pretrained(folder, max_length=model.max_seq_length).extract(TEXTS), expected, atol=1e-5
    )


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def lower_case(folder: Path) -> Path:
    edit(folder / "sentence_bert_config.json", do_lower_case=True)
    return folder


def test_lower_case(tmp_path, make_checkpoint):
    encoder = make_checkpoint(tmp_path / "encoder", "roberta")  # its tokenizer keeps case
    folder = saved(
        tmp_path, transformer(encoder), kinds.Pooling(32), prompts={"p": "The BANK: "}, default_prompt_name="p"
    )
    kept = assert_equal(folder)
    lowered = assert_equal(lower_case(folder))
    assert not np.allclose(kept[2], lowered[2], atol=1e-3)
    own = Extractor.from_pretrained(folder).extract(TEXTS, last_hidden_state.mean)
    np.testing.assert_array_equal(own, Extractor.from_pretrained(encoder).extract(TEXTS, last_hidden_state.mean))


@pytest.fixture(scope="module")
def prompted(tmp_path_factory, make_checkpoint) -> Path:
    folder = tmp_path_factory.mktemp("prompted")
    module = transformer(make_checkpoint(folder / "encoder"), max_seq_length=20)
    pooling = kinds.Pooling(32, "mean", include_prompt=False)
    made = saved(folder, module, pooling, prompts=PROMPTS, default_prompt_name="query")
    # the limit of the sentence embedding alone, as older versions write it
    edit(made / "sentence_bert_config.json", max_seq_length=20)
    edit(made / "tokenizer_config.json", model_max_length=64)
    return made


def test_other_features_see_no_prompt_and_all_come_from_one_call(prompted):
    extractor = Extractor.from_pretrained(prompted)
    features = {
        "own": "sentence_embedding",
        "passage": "sentence_embedding(prompt=passage)",
        "short": "sentence_embedding.truncate(4)",
        "mean": "last_hidden_state.mean",
        "tokens": "last_hidden_state",
        "content": "last_hidden_state.mean(special=False)",
    }
    together = extractor.extract(TEXTS, features)
    for name, feature in features.items():
        alone = extractor.extract(TEXTS, feature)
        for one, other in zip(alone, together[name], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)
    plain = Extractor.from_pretrained(prompted.parent / "encoder")
    np.testing.assert_allclose(together["mean"], plain.extract(TEXTS, "last_hidden_state.mean"), atol=1e-6)
    assert extractor.provenance(features)["prompt"] == {
        "own": "Hello world: ",
        "passage": "the bank ",
        "short": "Hello world: ",
    }
    stream = extractor.stream(TEXTS, features)
    assert sum(len(batch) for batch in stream) == len(TEXTS)
    assert stream.summary.records == len(TEXTS)
    assert stream.summary.empty_texts == 1
    assert stream.summary.cut_texts == {20: 2}  # 64 is enough for each of them
    assert "of at most 20 tokens after the prompt 'Hello world: '" in extractor.explain(features)


@pytest.mark.parametrize("rule", Rules.names())
def test_rules_change_nothing(prompted, rule):
    features = ["sentence_embedding", "sentence_embedding(prompt=passage)", "last_hidden_state.mean"]
    plain = Extractor.from_pretrained(prompted).extract(TEXTS, features)
    found = Extractor.from_pretrained(prompted, rules=Rules.without(rule)).extract(TEXTS, features)
    for name in features:
        np.testing.assert_allclose(found[name], plain[name], atol=1e-5)


def test_what_a_prompt_cannot_do(prompted):
    extractor = Extractor.from_pretrained(prompted)
    with pytest.raises(FeatureError, match="no prompt of this name; its prompts: query, passage"):
        extractor.extract(TEXTS, "sentence_embedding(prompt=gone)")
    with pytest.raises(FeatureError, match="its parts see different texts"):
        extractor.extract(TEXTS, concat(sentence_embedding, last_hidden_state.mean))
    joined = concat(sentence_embedding, sentence_embedding(prompt="query"))
    assert extractor.extract(TEXTS, joined).shape == (len(TEXTS), 64)


def test_a_folder_like_all_mpnet_base_v2(tmp_path):
    """Its modules are a Transformer of fewer tokens than the encoder takes, the mean and a norm."""
    transformers = pytest.importorskip("transformers", minversion="5")
    letters = "abcdefghijklmnopqrstuvwxyz0123456789,."
    words = ["<s>", "<pad>", "</s>", "<unk>", *letters, *(f"##{c}" for c in letters), "the", "film", "[UNK]", "<mask>"]
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    config = transformers.MPNetConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=514,
        layer_norm_eps=1e-5,
    )
    random_weights(transformers.MPNetModel(config)).save_pretrained(folder)
    transformers.MPNetTokenizer.from_pretrained(folder).save_pretrained(folder)
    saved_folder = saved(
        tmp_path, transformer(folder, max_seq_length=96), kinds.Pooling(32, ("mean",)), kinds.Normalize()
    )
    extractor = Extractor.from_pretrained(saved_folder)
    assert extractor.files.architecture.name == "mpnet"
    found = assert_equal(saved_folder)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
