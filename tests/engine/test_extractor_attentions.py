"""`attentions[...]` from texts to `AttentionMaps`, against transformers' eager attention."""

from __future__ import annotations

import numpy as np
import pytest

from layertap import AttentionMaps, Extractor, attentions, last_hidden_state
from layertap.engine import pipeline as pipeline_module
from layertap.errors import FeatureError, NonFiniteError, OptionError
from layertap.features.rules import Rules
from layertap.records import Ragged

L, A, LIMIT = 3, 4, 64
BOUND = 1e-6


@pytest.fixture(scope="module")
def eager(bert_folder):
    """texts -> float32 [L, A, t, t] each, from transformers."""
    transformers = pytest.importorskip("transformers")
    import torch

    module = transformers.AutoModel.from_pretrained(bert_folder, attn_implementation="eager").eval()
    extractor = Extractor.from_pretrained(bert_folder)

    def maps(texts):
        found = []
        for text in texts:
            ids = torch.as_tensor(extractor.tokenizer.encode([text])[0].limited(LIMIT).input_ids, dtype=torch.long)
            with torch.inference_mode():
                layers = module(ids[None], torch.ones_like(ids)[None], output_attentions=True).attentions
            found.append(torch.cat(layers).numpy())
        return found

    return maps


@pytest.fixture(scope="module")
def texts(random_texts):
    """Some empty, one far over the limit, in no order of length."""
    return ["the " * 100, *random_texts(20, seed=5), "", "good"]


@pytest.mark.parametrize("batch_tokens", [1, 40, 4096])
@pytest.mark.parametrize("rules", [Rules(), Rules.without(*Rules.names())], ids=["rules", "no rules"])
def test_against_eager_attention(bert_folder, texts, eager, batch_tokens, rules):
    extractor = Extractor.from_pretrained(bert_folder, batch_tokens=batch_tokens, rules=rules)
    found = extractor.extract(
        texts,
        {
            "all": attentions[:],
            "last": attentions[-1],
            "some": attentions[[2, 0]].heads(3, 1),
            "mean": attentions[1].heads_mean,
            "of_two": attentions[:2].heads(2, 0).heads_mean,
            "layers": attentions[:].layer_mean,
            "half": attentions[0].astype("float16"),
            "v": last_hidden_state.mean,
        },
    )
    expected = eager(texts)
    wanted = {
        "all": lambda maps: maps,
        "last": lambda maps: maps[-1],
        "some": lambda maps: maps[[2, 0]][:, [3, 1]],
        "mean": lambda maps: maps[1].mean(axis=0),
        "of_two": lambda maps: maps[:2, [2, 0]].mean(axis=1),
        "layers": lambda maps: maps.mean(axis=0),
        "half": lambda maps: maps[0],
    }
    assert found["v"].shape == (len(texts), 32)
    for name, of in wanted.items():
        maps = found[name]
        assert isinstance(maps, AttentionMaps)
        assert len(maps) == len(texts)
        assert maps.values.dtype == (np.float16 if name == "half" else np.float32)
        for own, other in zip(maps, expected, strict=True):
            assert own.shape == of(other).shape
            assert np.abs(own - of(other)).max() <= (5e-4 if name == "half" else BOUND), name
    assert found["all"][0].shape == (L, A, LIMIT, LIMIT)


def test_shapes_of_results(extractor):
    one = extractor.extract("the film", attentions[0])
    assert one.shape == (A, 4, 4)
    np.testing.assert_allclose(one.sum(axis=-1), 1, atol=1e-6)
    assert extractor.extract("the film", attentions[:].heads_mean).shape == (L, 4, 4)
    nothing = extractor.extract([], attentions[0])
    assert (len(nothing), nothing.leading, nothing.values.shape) == (0, (A,), (0,))
    both = extractor.extract(["the film"], {"a": attentions[0]}, details=["token_ids"])
    assert isinstance(both["token_ids"], Ragged)
    assert both["a"].lengths.tolist() == [4]


def test_a_stream_is_cut_by_the_squares_of_lengths(extractor, random_texts, monkeypatch):
    lengths = [len(text) for text in extractor.tokenizer.encode(random_texts(12))]
    one = max(lengths) ** 2 * L * A * 4
    monkeypatch.setattr(pipeline_module, "CHUNK_RESULT_BYTES", 2 * one)
    batches = list(extractor.stream(random_texts(12), attentions[:]))
    assert len(batches) > 2
    assert sum(len(batch) for batch in batches) == 12
    for batch in batches:
        (maps,) = batch.features.values()
        assert maps.values.nbytes <= 2 * one
    whole = extractor.extract(random_texts(12), attentions[:])
    np.testing.assert_allclose(
        np.concatenate([next(iter(batch.features.values())).values for batch in batches]), whole.values, atol=BOUND
    )


def test_refused_with_windows(bert_folder):
    extractor = Extractor.from_pretrained(bert_folder, long="window")
    with pytest.raises(OptionError, match=r"attentions of windows are not defined"):
        extractor.plan(attentions[0])
    with pytest.raises(OptionError, match=r"a: attentions of windows"):
        extractor.extract(["short"], {"v": last_hidden_state.mean, "a": attentions[0].heads_mean})
    assert extractor.extract(["short"], last_hidden_state.mean).shape == (1, 32)


def test_out_of_range(extractor):
    with pytest.raises(FeatureError, match=r"layers are 0 \(first block\) to 2 \(last\)"):
        extractor.extract(["a"], "attentions[3]")
    with pytest.raises(FeatureError, match="heads are 0 to 3"):
        extractor.extract(["a"], "attentions[0].heads(4)")


def test_not_finite(tmp_path, make_checkpoint):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    folder = make_checkpoint(tmp_path / "model")
    file = folder / "model.safetensors"
    weights = load_file(file)
    extractor = Extractor.from_pretrained(folder)
    token = int(extractor.tokenizer.encode(["good"])[0].input_ids[1])
    key = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[key][token] = torch.finfo(torch.float32).max
    save_file(weights, file, metadata={"format": "pt"})
    texts = ["the film", "good", "the river", "good film"]
    with pytest.raises(NonFiniteError, match=r"attentions\[1\]: NaN or infinity in the result of record row 1, row 3;"):
        Extractor.from_pretrained(folder).extract(texts, attentions[1])
    kept = Extractor.from_pretrained(folder, non_finite="keep").extract(texts, attentions[1])
    assert [bool(np.isfinite(maps).all()) for maps in kept] == [True, False, True, False]
