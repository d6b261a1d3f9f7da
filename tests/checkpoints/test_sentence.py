from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from layertap.checkpoints.load import open_model
from layertap.checkpoints.sentence import MODEL_CONFIG
from layertap.checkpoints.sentence_modules import OLD_POOLING_KEYS, POOLING_MODES
from layertap.checkpoints.source import locate
from layertap.errors import ConfigError
from layertap.models.sentence import SentenceEmbeddingSpec
from tests.writing import write

OLD = "sentence_transformers.models."
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
}
PATHS = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "2_Dense"}
LIMIT_FILE = "sentence_bert_config.json"
POOLING_CONFIG = "1_Pooling/config.json"

Write = Callable[[str, object], None]
Read = Callable[[], SentenceEmbeddingSpec | None]


@pytest.fixture
def put(sentence_folder) -> Write:
    """Writes a JSON file; a sentence-transformers folder with mean pooling is there to begin with."""

    def put(name: str, value: object) -> None:
        write(sentence_folder / name, value)

    put("modules.json", modules("Transformer", "Pooling"))
    put(POOLING_CONFIG, {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True})
    return put


@pytest.fixture
def read(sentence_folder) -> Read:
    return lambda: open_model(locate(sentence_folder)).sentence_embedding


def modules(*kinds: str, names: dict[str, str] | None = None) -> list[dict[str, Any]]:
    types = names or {kind: OLD + kind for kind in kinds}
    return [
        {"idx": i, "name": str(i), "path": PATHS.get(kind, kind), "type": types[kind]} for i, kind in enumerate(kinds)
    ]


def refusal(found: SentenceEmbeddingSpec | None) -> str:
    assert found is not None
    assert found.refusal is not None
    return found.refusal


def test_a_plain_folder_has_none(read):
    assert read() is None


@pytest.mark.parametrize("names", [None, NEW])
@pytest.mark.parametrize("normalize", [False, True])
def test_old_and_new_type_names(put, read, names, normalize):
    kinds = ["Transformer", "Pooling", *(["Normalize"] if normalize else [])]
    put("modules.json", modules(*kinds, names=names))
    assert read() == SentenceEmbeddingSpec(steps=("normalize",) if normalize else ())


@pytest.mark.parametrize(("key", "pooling"), OLD_POOLING_KEYS.items())
def test_old_pooling_keys(put, read, key, pooling):
    flags = dict.fromkeys(OLD_POOLING_KEYS, False)
    put(POOLING_CONFIG, {"word_embedding_dimension": 32, **flags, key: True})
    assert read() == SentenceEmbeddingSpec(poolings=(pooling,))


def test_old_pooling_keys_join_in_a_fixed_order_and_none_means_mean(put, read):
    put(POOLING_CONFIG, dict.fromkeys(reversed(OLD_POOLING_KEYS), True))
    assert read() == SentenceEmbeddingSpec(poolings=tuple(OLD_POOLING_KEYS.values()))
    put(POOLING_CONFIG, dict.fromkeys(OLD_POOLING_KEYS, False))
    assert read() == SentenceEmbeddingSpec(poolings=("mean",))


@pytest.mark.parametrize(("mode", "pooling"), POOLING_MODES.items())
def test_new_pooling_key(put, read, mode, pooling):
    put(POOLING_CONFIG, {"embedding_dimension": 32, "pooling_mode": mode, "include_prompt": True})
    assert read() == SentenceEmbeddingSpec(poolings=(pooling,))
    put(POOLING_CONFIG, {"embedding_dimension": 32, "pooling_mode": [mode]})
    assert read() == SentenceEmbeddingSpec(poolings=(pooling,))


def test_new_pooling_lists_keep_their_order_and_go_before_old_keys(put, read):
    put(POOLING_CONFIG, {"pooling_mode": ["mean", "cls"], "pooling_mode_max_tokens": True, "include_prompt": False})
    assert read() == SentenceEmbeddingSpec(poolings=("mean", "cls"), include_prompt=False)


@pytest.mark.parametrize(("stated", "limit"), [(16, 16), (1, 1), (64, None), (5000, None), (None, None)])
def test_max_seq_length(put, read, stated, limit):
    put(LIMIT_FILE, {"max_seq_length": stated, "do_lower_case": False})
    assert read() == SentenceEmbeddingSpec(max_length=limit)


def test_the_limit_stands_where_versions_put_it(put, read, sentence_folder):
    put("sentence_roberta_config.json", {"max_seq_length": 20})
    assert read() == SentenceEmbeddingSpec(max_length=20)
    put("tokenizer_config.json", {"model_max_length": 30})
    assert read() == SentenceEmbeddingSpec(max_length=20)
    (sentence_folder / "sentence_roberta_config.json").unlink()
    assert read() == SentenceEmbeddingSpec(max_length=30)
    put(LIMIT_FILE, {"max_seq_length": None})
    assert read() == SentenceEmbeddingSpec(max_length=30)
    put("tokenizer_config.json", {"max_len": 40})
    assert read() == SentenceEmbeddingSpec(max_length=40)
    put("tokenizer_config.json", {"model_max_length": 1000000000000000019884624838656})
    assert read() == SentenceEmbeddingSpec(max_length=None)


@pytest.mark.parametrize(
    ("default", "name"),
    [
        ({}, None),
        ({"default_prompt_name": None}, None),
        ({"default_prompt_name": "none"}, None),
        ({"default_prompt_name": "document"}, None),
        ({"default_prompt_name": "query"}, "query"),
    ],
)
def test_prompts(put, read, default, name):
    config = {"__version__": {}, "prompts": {"query": "query: ", "none": "", "null": None}, "similarity_fn_name": "dot"}
    put(MODEL_CONFIG, config | default | {"model_type": "SentenceTransformer", "truncate_dim": None})
    assert read() == SentenceEmbeddingSpec(prompts={"query": "query: "}, default_prompt=name)


@pytest.mark.parametrize(("stated", "kept"), [(8, 8), (31, 31), (32, None), (1000, None), (None, None)])
def test_truncate_dim(put, read, stated, kept):
    put(MODEL_CONFIG, {"truncate_dim": stated})
    assert read() == SentenceEmbeddingSpec(truncate=kept)


def test_lower_case(put, read):
    put(LIMIT_FILE, {"do_lower_case": True})
    assert read() == SentenceEmbeddingSpec(lowercase=True)


@pytest.mark.parametrize(
    ("file", "value", "says"),
    [
        ("modules.json", modules("Transformer", "Pooling", "Dense"), "2_Dense/config.json is missing"),
        ("modules.json", modules("Transformer", "Pooling", "CNN"), "modules are Transformer, Pooling, CNN"),
        ("modules.json", modules("Transformer", "Dense", "Pooling"), "modules are Transformer, Dense, Pooling"),
        ("modules.json", modules("Transformer", "Pooling", "WeightedLayerPooling"), "Pooling, WeightedLayerPooling;"),
        ("modules.json", modules("Router"), "modules are Router;"),
        ("modules.json", modules("Transformer"), "modules are Transformer;"),
        ("modules.json", modules("Pooling", "Transformer"), "modules are Pooling, Transformer"),
        ("modules.json", [], "modules are none"),
        (
            "modules.json",
            modules("Transformer", names={"Transformer": "custom.Transformer"}),
            "custom.Transformer is code",
        ),
        ("modules.json", [{**modules("Transformer")[0], "kwargs": ["task"]}], r"takes arguments \(\['task'\]\)"),
        (
            "modules.json",
            [{**modules("Transformer")[0], "path": "0_Transformer"}, modules("Transformer", "Pooling")[1]],
            "Transformer is in '0_Transformer', expected in ''",
        ),
        (
            "modules.json",
            [modules("Transformer")[0], {**modules("Pooling")[0], "path": "../p"}],
            r"\.\./p/config.json is missing",
        ),
        (POOLING_CONFIG, {"word_embedding_dimension": 33}, "word_embedding_dimension is 33, hidden_size 32"),
        (POOLING_CONFIG, {"embedding_dimension": "x"}, "embedding_dimension is 'x', hidden_size 32"),
        (POOLING_CONFIG, {"pooling_mode": "mean", "temperature": 1}, "temperature: not known"),
        (LIMIT_FILE, {"max_seq_length": 16, "do_lower_case": "yes"}, "do_lower_case is 'yes'"),
        (LIMIT_FILE, {"config_args": {"hidden_act": "relu"}}, "config_args is"),
        (LIMIT_FILE, {"config_kwargs": {"output_hidden_states": 1}}, "config_kwargs is"),
        ("tokenizer_config.json", {"truncation_side": "left"}, "long texts are cut on the 'left'"),
        (LIMIT_FILE, {"model_args": {"attn_implementation": "eager"}}, "model_args is"),
        (LIMIT_FILE, {"transformer_task": "fill-mask"}, "transformer_task is 'fill-mask'"),
        (LIMIT_FILE, {"module_output_name": "scores"}, "module_output_name is 'scores'"),
        (LIMIT_FILE, {"processing_kwargs": {"text": {"max_length": 4}}}, "processing_kwargs is"),
        (LIMIT_FILE, {"query_length": 32}, "query_length is 32"),
        (LIMIT_FILE, {"modality_config": {"message": {}}}, "modality_config is"),
        (LIMIT_FILE, {"something": 1}, "something: not known"),
        (MODEL_CONFIG, {"model_type": "SparseEncoder"}, "model_type is 'SparseEncoder'"),
        (MODEL_CONFIG, {"something": 1}, "something: not known"),
    ],
)
def test_what_would_change_the_result_is_refused(put, read, file, value, says):
    put(file, value)
    found = refusal(read())
    assert found.startswith(file)
    assert re.search(says, found), found


def test_a_missing_pooling_config_is_refused(put, read, sentence_folder):
    (sentence_folder / POOLING_CONFIG).unlink()
    assert refusal(read()) == "modules.json: 1_Pooling/config.json is missing"


def test_normalize_of_something_else_is_refused(put, read):
    put("modules.json", modules("Transformer", "Pooling", "Normalize"))
    put("2_Normalize/config.json", {"module_input_name": "sentence_embedding", "module_output_name": None})
    assert read() == SentenceEmbeddingSpec(steps=("normalize",))
    put("2_Normalize/config.json", {"module_input_name": "token_embeddings"})
    assert "module_input_name is 'token_embeddings'" in refusal(read())


@pytest.mark.parametrize(
    ("file", "value", "says"),
    [
        ("modules.json", "{", "line 1"),
        ("modules.json", {}, "expected a JSON array, found an object"),
        ("modules.json", ["x"], "expected objects with type and path, found 'x'"),
        ("modules.json", [{"type": "t"}], "expected objects with type and path"),
        (POOLING_CONFIG, "[]", "expected a JSON object"),
        (POOLING_CONFIG, {"pooling_mode": "average"}, "pooling_mode: expected one or more of cls, .*found 'average'"),
        (POOLING_CONFIG, {"pooling_mode": []}, "pooling_mode: expected one or more"),
        (POOLING_CONFIG, {"pooling_mode": [["mean"]]}, "pooling_mode: expected one or more"),
        (POOLING_CONFIG, {"pooling_mode_cls_token": "no"}, "pooling_mode_cls_token: expected true or false"),
        (LIMIT_FILE, {"max_seq_length": 0}, "max_seq_length: expected a whole number"),
        (LIMIT_FILE, {"max_seq_length": "256"}, "max_seq_length: expected a whole number"),
        (MODEL_CONFIG, "nope", "line 1"),
        (MODEL_CONFIG, {"default_prompt_name": "gone"}, "default_prompt_name: expected one of document, query, found"),
        (MODEL_CONFIG, {"default_prompt_name": ["query"]}, "default_prompt_name: expected one of"),
        (MODEL_CONFIG, {"prompts": ["query: "]}, "prompts: expected an object of names and texts"),
        (MODEL_CONFIG, {"prompts": {"query": 3}}, "prompts: expected an object of names and texts"),
        (MODEL_CONFIG, {"truncate_dim": 0}, "truncate_dim: expected a whole number"),
        (MODEL_CONFIG, {"truncate_dim": -8}, "truncate_dim: expected a whole number"),
        ("tokenizer_config.json", {"model_max_length": "long"}, "model_max_length: expected a number of tokens"),
        ("tokenizer_config.json", '{"model_max_length": NaN}', "model_max_length: expected a number of tokens"),
        ("tokenizer_config.json", {"model_max_length": -1}, "model_max_length: expected a number of tokens"),
    ],
)
def test_damaged_files_are_errors(put, read, sentence_folder, file, value, says):
    put(file, value)
    with pytest.raises(ConfigError, match=says) as caught:
        read()
    assert str(caught.value).startswith(f"{sentence_folder / file}: ")


@pytest.mark.filterwarnings("ignore")  # the peer's own
def test_folders_that_sentence_transformers_saves(tmp_path, make_checkpoint):
    peer = pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import modules as kinds

    transformer = kinds.Transformer(str(make_checkpoint(tmp_path / "encoder")), max_seq_length=32)
    for modes in (*((mode,) for mode in POOLING_MODES), ("mean", "cls")):
        model = peer.SentenceTransformer(
            modules=[transformer, kinds.Pooling(32, modes), kinds.Normalize()], device="cpu"
        )
        model.save(str(tmp_path / "saved"), create_model_card=False)
        found = open_model(locate(tmp_path / "saved")).sentence_embedding
        expected = tuple(POOLING_MODES[mode] for mode in modes)
        assert found == SentenceEmbeddingSpec(poolings=expected, steps=("normalize",), max_length=32)
    model.truncate_dim = 8
    model.save(str(tmp_path / "saved"), create_model_card=False)
    found = open_model(locate(tmp_path / "saved")).sentence_embedding
    assert found is not None
    assert found.truncate == 8
