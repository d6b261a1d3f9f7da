"""The numbers of a page are those of `extract`, within 1e-5."""

from __future__ import annotations

import numpy as np
import pytest

from layertap.engine.extractor import Extractor
from layertap.errors import OptionError
from layertap.learn.exploring import contents, text_views
from layertap.learn.exploring.contents import PageOptions, exploration, fitting
from layertap.learn.exploring.corpus import sampled, sampled_units
from layertap.learn.probing.geometry import similarity
from layertap.page.content import PageContent
from layertap.records import Record

pytest.importorskip("sklearn")

TEXTS = [f"a good film {i} world" if i % 2 else f"the dull movie {i} bank" for i in range(24)] + [
    "",
    "\U0001f600 <b>it</b>",
]


def corpus_of(label: str | None = "mood"):
    rows = [Record(row=i, text=text, columns={"mood": "up" if i % 2 else "down"}) for i, text in enumerate(TEXTS)]
    return sampled(rows, "data", label, most=99, seed=0)


@pytest.fixture(scope="module")
def extractor(make_checkpoint, tmp_path_factory) -> Extractor:
    return Extractor.from_pretrained(make_checkpoint(tmp_path_factory.mktemp("page") / "m", pooler="untrained"))


@pytest.fixture(scope="module")
def content(extractor) -> PageContent:
    return exploration(extractor, corpus_of(), PageOptions(neighbours=5, sentences=4, rows=(25,)), commands={}).content


def test_neighbours_and_similarities_are_those_of_extract(content, extractor):
    every = extractor.extract(TEXTS, "hidden_states[:].mean")
    for layer in range(every.shape[1]):
        vectors = every[:, layer].astype(np.float64)
        units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        indices = content.arrays[f"near{layer}"].astype(int)
        exact = np.take_along_axis(units @ units.T, indices, axis=1)
        np.testing.assert_allclose(content.arrays[f"cosine{layer}"], exact, atol=1e-5)
        assert content.facts["layers"][layer]["feature"] == f"hidden_states[{layer}].mean"
        centred = vectors - vectors.mean(axis=0)
        values = np.linalg.svd(centred, compute_uv=False) ** 2
        np.testing.assert_allclose(content.facts["layers"][layer]["variance"], values[:2] / values.sum(), atol=1e-5)
    layers = [every[:, layer] for layer in range(every.shape[1])]
    np.testing.assert_allclose(content.arrays["alike"], similarity(layers), atol=1e-5)


def test_tokens_attentions_and_outputs_are_those_of_extract(content, extractor):
    number = next(i for i, sentence in enumerate(content.facts["sentences"]) if sentence["index"] == 25)
    sentence = content.facts["sentences"][number]
    text = TEXTS[25]
    wanted = {
        "h": "hidden_states[:]",
        "a": "attentions[:]",
        "m": "last_hidden_state.mean",
        "c": "last_hidden_state.cls",
    }
    exact = extractor.extract(text, wanted, details=["token_strings", "token_offsets"])
    assert sentence["tokens"] == exact["token_strings"].tolist()
    assert list(zip(sentence["begins"], sentence["ends"], strict=True)) == [
        tuple(o) for o in exact["token_offsets"].tolist()
    ]
    hidden = exact["h"].swapaxes(0, 1).astype(np.float64)
    lengths = np.linalg.norm(hidden, axis=-1)
    units = hidden / lengths[..., None]
    arrays = {name: content.arrays[f"s{number}-{name}"] for name in ("last", "norm", "cosines", "attention")}
    np.testing.assert_allclose(arrays["norm"], lengths, rtol=1e-5)
    np.testing.assert_allclose(arrays["last"], (units * units[-1]).sum(axis=-1), atol=1e-5)
    np.testing.assert_allclose(arrays["cosines"], units @ units.swapaxes(1, 2), atol=1e-5)
    np.testing.assert_allclose(arrays["attention"] / 65535, exact["a"], atol=1e-5)
    outputs = {output["name"]: output for output in sentence["outputs"]}
    np.testing.assert_allclose(outputs["last_hidden_state.mean"]["values"], exact["m"][:4], atol=1e-5)
    np.testing.assert_allclose(outputs["last_hidden_state.cls"]["values"], exact["c"][:4], atol=1e-5)
    assert outputs["last_hidden_state"]["shape"] == f"float32 [{hidden.shape[1]}, {hidden.shape[2]}]"
    assert "never trained" in outputs["pooler_output"]["says"]
    able = Extractor.from_pretrained(extractor.reference.name, untrained_pooler="use")
    np.testing.assert_allclose(outputs["pooler_output"]["values"], able.extract(text, "pooler_output")[:4], atol=1e-5)


def test_the_curve_is_that_of_probe(content):
    facts = content.facts
    assert len(facts["probe"]["rows"]) == len(facts["layers"])
    assert all(row["selectivity"] == pytest.approx(row["value"] - row["control"]) for row in facts["probe"]["rows"])
    assert facts["start"] == max(range(len(facts["layers"])), key=lambda i: facts["probe"]["rows"][i]["value"])


def test_a_probe_that_cannot_be_fitted_is_named(extractor):
    few = sampled(
        [Record(row=i, text=t, columns={"mood": str(i)}) for i, t in enumerate(TEXTS[:3])],
        "data",
        "mood",
        most=9,
        seed=0,
    )
    facts = exploration(extractor, few, PageOptions(sentences=0), commands={}).content.facts
    assert facts["probe"] is None
    assert facts["why_no_probe"].startswith("No probe was fitted: ")
    assert facts["sentences"] == []


def test_a_large_corpus_is_sampled_and_the_page_says_so(extractor, monkeypatch):
    monkeypatch.setattr(contents, "MOST_BYTES", 500_000 + 8_000)
    options = PageOptions(sentences=0)
    assert len(fitting(corpus_of(), num_layers=3, options=options)) < len(TEXTS)
    facts = exploration(extractor, corpus_of(None), options, commands={}).content.facts
    assert facts["count"] < len(TEXTS)
    assert f"a random sample of {facts['count']} of the 26 texts" in " ".join(facts["notes"])


def test_a_text_that_is_too_long_for_attentions_is_refused(extractor, monkeypatch):
    monkeypatch.setattr(text_views, "MOST_TOKENS", 4)
    with pytest.raises(OptionError, match=r"row 3 has \d tokens"):
        exploration(extractor, corpus_of(), PageOptions(rows=(3,)), commands={})


@pytest.mark.parametrize("kind", ["word", "span"])
def test_words_and_spans_have_the_vectors_of_extract_and_are_probed(extractor, kind):
    texts = [text for text in TEXTS if len(text) > 10]
    spans = [((0, len(text.split()[0])), (2, len(text))) for text in texts]
    rows = [
        Record(row=i, text=text, spans=own, columns={"tag": ["det", "rest"] if kind == "span" else None, "n": i % 2})
        for i, (text, own) in enumerate(zip(texts, spans, strict=True))
    ]
    label = "tag" if kind == "span" else "n"
    corpus = sampled_units(rows, "data", label, kind=kind, most=30, seed=0)
    assert corpus.units is not None
    made = exploration(extractor, corpus, PageOptions(neighbours=3, sentences=1), commands={})
    exact = extractor.extract(rows, f"hidden_states[:].{kind}s(mean)")
    for point, (owner, number) in enumerate(zip(corpus.units.owners, corpus.units.numbers, strict=True)):
        for layer, vectors in enumerate(made.layers):
            np.testing.assert_allclose(vectors[point], exact[corpus.rows[owner]][number, layer], atol=1e-5)
    facts = made.content.facts
    assert facts["layers"][2]["feature"] == f"hidden_states[2].{kind}s(mean)"
    assert facts["texts"] == list(corpus.units.names)
    assert facts["probe"] is not None
    assert f"on 30 {kind}s." in facts["probe"]["sentence"]


def test_rare_classes_are_left_out_of_the_probe_and_named(extractor):
    rows = [Record(row=i, text=t, columns={"k": "rare" if i < 2 else "ab"[i % 2]}) for i, t in enumerate(TEXTS)]
    facts = exploration(
        extractor, sampled(rows, "data", "k", most=99, seed=0), PageOptions(sentences=0), commands={}
    ).content.facts
    assert facts["columns"][0]["names"] == ["a", "b", "rare"]
    assert "24 texts" in facts["probe"]["sentence"]
    assert "Left out, as they have fewer than 5 texts: 'rare'." in facts["probe"]["sentence"]
