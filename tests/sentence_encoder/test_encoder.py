"""SentenceEncoder beside transformers and sentence-transformers."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layertap import Extractor, SentenceEncoder
from layertap.errors import InputError, OptionError, UsageError

TEXTS = ["a good film", "The river bank. " * 60, "", "caf\u00e9 and \U0001f600"]
PROMPTS = {"query": "find the film: ", "document": "", "note": "river: "}


def write_folder(folder: Path, *, include_prompt: bool, default: str | None = None, steps: bool = True) -> Path:
    """Write what makes a checkpoint a sentence-transformers folder: mean over 12 tokens, normalised, with prompts."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling", **({"2_Normalize": "Normalize"} if steps else {})}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    files = {
        "modules.json": modules,
        "1_Pooling/config.json": {
            "word_embedding_dimension": 32,
            "pooling_mode_mean_tokens": True,
            "include_prompt": include_prompt,
        },
        "sentence_bert_config.json": {"max_seq_length": 12, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": PROMPTS,
            "default_prompt_name": default,
            "similarity_fn_name": "dot",
        },
    }
    for name, value in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(value))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_checkpoint) -> Path:
    return write_folder(make_checkpoint(tmp_path_factory.mktemp("st") / "m"), include_prompt=False, default="note")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SentenceEncoder:
    return SentenceEncoder(folder)


def assert_close(found: Any, expected: Any) -> None:
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=1e-5)


def test_vectors_of_minilm_are_the_normalised_means_of_transformers(minilm_folder: Path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokens = transformers.AutoTokenizer.from_pretrained(minilm_folder)(
        TEXTS, padding=True, truncation=True, max_length=256, return_tensors="pt"
    )
    model = transformers.AutoModel.from_pretrained(minilm_folder).eval()
    with torch.no_grad():
        states = model(**tokens).last_hidden_state
    mask = tokens["attention_mask"][:, :, None]
    expected = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)
    encoder = SentenceEncoder(minilm_folder)
    assert_close(encoder.encode(TEXTS), expected)
    assert_close(encoder.similarity(encoder.encode(TEXTS), encoder.encode(TEXTS)), expected @ expected.T)


@pytest.mark.filterwarnings("ignore")  # the peer's own
@pytest.mark.parametrize(
    ("call", "keywords"),
    [
        ("encode", {}),  # with the folder's default prompt, which its pooling leaves out
        ("encode", {"prompt": ""}),
        ("encode", {"prompt": "one of the user's own: ", "batch_size": 1}),
        ("encode", {"prompt_name": "query", "truncate_dim": 8, "normalize_embeddings": True}),
        ("encode", {"precision": None}),  # as evaluators of sentence-transformers call it
        ("encode", {"precision": "binary"}),
        ("encode", {"precision": "ubinary", "convert_to_tensor": True}),
        ("encode", {"convert_to_numpy": False}),
        ("encode_query", {}),
        ("encode_document", {}),
    ],
)
def test_calls_give_what_those_of_sentence_transformers_give(
    folder: Path, encoder: SentenceEncoder, call: str, keywords: dict[str, Any]
):
    peer = pytest.importorskip("sentence_transformers").SentenceTransformer(str(folder), device="cpu")
    for inputs in (TEXTS, TEXTS[0]):
        found, expected = (getattr(one, call)(inputs, **keywords) for one in (encoder, peer))
        assert type(found) is type(expected)
        if isinstance(found, list):
            assert {type(one) for one in found} == {type(one) for one in expected}
            found, expected = np.stack(found), np.stack(expected)
        assert found.dtype == expected.dtype
        assert_close(found, expected)


@pytest.mark.filterwarnings("ignore")  # the peer's own
def test_other_members_are_those_of_sentence_transformers(folder: Path):
    peer = pytest.importorskip("sentence_transformers").SentenceTransformer(str(folder), device="cpu")
    encoder = SentenceEncoder(folder)
    a, b = encoder.encode(TEXTS), encoder.encode(TEXTS[:2])
    assert encoder.similarity_fn_name == peer.similarity_fn_name == "dot"
    for name in ("cosine", "dot", "euclidean", "manhattan"):
        encoder.similarity_fn_name = peer.similarity_fn_name = name  # type: ignore[assignment]
        assert_close(encoder.similarity(a, b), peer.similarity(a, b))
        assert_close(encoder.similarity_pairwise(a, a[::-1].copy()), peer.similarity_pairwise(a, a[::-1].copy()))
    for name in ("prompts", "default_prompt_name", "max_seq_length"):
        assert getattr(encoder, name) == getattr(peer, name)
    assert encoder.get_embedding_dimension() == peer.get_embedding_dimension() == 32
    tokens, expected = encoder.preprocess(TEXTS), peer.preprocess(TEXTS)
    for name in tokens:
        assert tokens[name].tolist() == expected[name].tolist()
    encoder.max_seq_length = peer.max_seq_length = 7
    assert encoder.max_seq_length == 7
    assert_close(encoder.encode(TEXTS), peer.encode(TEXTS))


def test_any_layer_is_a_feature(folder: Path):
    encoder = SentenceEncoder(folder, "v = hidden_states[1].mean", prompts={"film": "a film: "}, truncate_dim=5)
    expected = Extractor.from_pretrained(folder).extract(["a film: " + text for text in TEXTS], "hidden_states[1].mean")
    assert np.array_equal(encoder.encode(TEXTS, prompt_name="film"), np.asarray(expected)[:, :5])
    assert encoder.get_sentence_embedding_dimension() == 5
    with pytest.raises(UsageError, match="one vector per text is needed"):
        SentenceEncoder(folder, "hidden_states[1]")


def test_a_copy_and_an_open_extractor_give_the_same_bits(folder: Path, encoder: SentenceEncoder):
    expected = encoder.encode(TEXTS)
    assert np.array_equal(pickle.loads(pickle.dumps(encoder)).encode(TEXTS), expected)
    assert np.array_equal(SentenceEncoder(encoder.extractor).encode(sentences=TEXTS), expected)
    assert np.array_equal(encoder.encode(TEXTS, batch_size=np.int64(2)), expected)
    assert encoder.encode([]).shape == (0, 32)


def test_threads_with_more_prompts_than_are_kept_get_their_own_vectors(folder: Path):
    encoder = SentenceEncoder(folder)
    prompts = [f"{word} {other} " for word in ("film", "river", "bank", "good", "dull") for other in "abcd"]
    expected = [encoder.encode(TEXTS[0], prompt=prompt) for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        vectors = list(pool.map(lambda prompt: encoder.encode(TEXTS[0], prompt=prompt), prompts * 4))
    assert np.array_equal(vectors, expected * 4)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"pool": {}}, "pool=a dict is not supported: one process"),
        ({"output_value": "token_embeddings"}, "vectors of tokens are a feature"),
        ({"precision": "int8"}, "expected one of float32, binary, ubinary"),
        ({"device": "cuda"}, "the model is on cpu"),
        ({"prompt_name": "qery"}, "there is no prompt 'qery'; there are query, document, note"),
        ({"batch_size": 0}, "expected a whole number of at least 1"),
        ({"truncate_dim": -1}, "expected a whole number of at least 1"),
        ({"normalise_embeddings": True}, "did you mean 'normalize_embeddings'?"),
    ],
)
def test_what_is_not_supported_is_refused(encoder: SentenceEncoder, keywords: dict[str, Any], message: str):
    with pytest.raises(OptionError) as refusal:
        encoder.encode(TEXTS, **keywords)
    assert message in str(refusal.value)


def test_inputs_that_are_no_texts_are_refused(encoder: SentenceEncoder):
    with pytest.raises(InputError, match="input 1 is of type tuple; a SentenceEncoder takes texts"):
        encoder.encode(["a", ("b", "c")])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="expected a list of texts, found NoneType"):
        encoder.encode()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"trust_remote_code": True}, "layertap never runs code"),
        ({"model_kwargs": {}}, "model_kwargs=a dict is not supported"),
        ({"presision": "int8"}, "did you mean 'precision'?"),
        ({"similarity_fn_name": "maxsim"}, "expected one of cosine, dot"),
        ({"default_prompt_name": "nothing"}, "there is no prompt 'nothing'"),
    ],
)
def test_options_that_are_not_supported_are_refused(folder: Path, keywords: dict[str, Any], message: str):
    with pytest.raises(OptionError) as refusal:
        SentenceEncoder(folder, **keywords)
    assert message in str(refusal.value)


def test_a_feature_that_names_its_prompt_takes_no_other(folder: Path):
    encoder = SentenceEncoder(folder, "sentence_embedding(prompt=query)")
    assert np.array_equal(encoder.encode(TEXTS, prompt=""), SentenceEncoder(folder).encode_query(TEXTS))
    with pytest.raises(OptionError, match="does not fit the feature"):
        encoder.encode(TEXTS, prompt="other: ")


def test_a_prompt_that_is_no_text_and_texts_given_twice_are_refused(folder):
    own = SentenceEncoder(folder)
    with pytest.raises(OptionError, match="prompt=5"):
        own.encode(["a"], prompt=5)
    with pytest.raises(OptionError, match="both given"):
        own.encode("a", sentences="b")


@pytest.mark.parametrize("prompts", ["x", {"a": 5}, {5: "a"}])
def test_prompts_that_are_no_texts_by_name_are_refused(folder, prompts):
    with pytest.raises(OptionError, match="from names to texts"):
        SentenceEncoder(folder, prompts=prompts)


def test_a_model_that_is_none_is_refused():
    with pytest.raises(OptionError, match="expected a folder, a hub id or an Extractor"):
        SentenceEncoder(5)  # type: ignore[arg-type]


def test_similarities_of_what_is_no_vectors_are_refused(encoder: SentenceEncoder):
    pytest.importorskip("torch")
    vectors = np.ones((3, 4), np.float32)
    for compare in (encoder.similarity, encoder.similarity_pairwise):
        with pytest.raises(OptionError, match="4 and 5 numbers"):
            compare(vectors, np.ones((3, 5)))
        with pytest.raises(OptionError, match="vectors of numbers"):
            compare(vectors, ["a", "b"])
        with pytest.raises(OptionError, match=r"the shape is \[1, 3, 4\]"):
            compare(vectors[None], vectors)
    with pytest.raises(OptionError, match="3 and 2"):
        encoder.similarity_pairwise(vectors, vectors[:2])
    assert encoder.similarity(vectors[0], vectors).shape == (1, 3)
