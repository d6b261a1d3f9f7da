"""Heads over HTTP: those of `layertap fit`, and those that checkpoints store."""

from __future__ import annotations

import numpy as np
import pytest

from layertap import Extractor
from layertap.learn.heads.classifier import Classifier

TEXTS = ["the good bank", "was", "the film was good"]


def test_labels_and_scores(moods):
    classifier = Classifier.from_pretrained(moods.extractor.reference.name)
    expected = classifier.predict(TEXTS)
    answer = moods.post("/v1/predict", {"texts": TEXTS}).json()
    assert answer["heads"][0]["labels"] == ["good", "bad", "none"]
    for item, label, scores in zip(answer["data"], expected.labels, expected.scores, strict=True):
        own = item["predictions"]["moods"]
        assert own["label"] == label
        np.testing.assert_array_equal(np.float32(list(own["scores"].values())), scores)
        assert np.float32(own["score"]) == scores.max()


def test_tags_and_entities(tagger):
    classifier = Classifier.from_pretrained(tagger.extractor.reference.name)
    answer = tagger.post("/v1/predict", {"texts": TEXTS, "heads": ["tagger"]}).json()
    for item, text, expected in zip(answer["data"], TEXTS, classifier.predict(TEXTS), strict=True):
        own = item["predictions"]["tagger"]
        assert tuple(word["tag"] for word in own["words"]) == expected.tags
        assert [word["text"] for word in own["words"]] == text.split()
        assert [entity["text"] for entity in own["entities"]] == [entity.text for entity in expected.entities]
        for entity in own["entities"]:
            assert text[entity["begin"] : entity["end"]] == entity["text"]
    assert tagger.post("/predict", {"inputs": "the"}).status_code == 424


def test_numbers(reranker):
    answer = reranker.post("/v1/predict", {"pairs": [["the", "bank"]]}).json()
    (own,) = answer["data"]
    head = reranker.state.model.reranker
    logits = head.head.logits(head.extractor.extract([("the", "bank")], head.head.feature))
    assert np.float32(own["predictions"]["reranker"]["number"]) == logits[0, 0]


def test_fitted_heads_in_one_pass(serve, make_checkpoint, tmp_path, watch_runs):
    learn = pytest.importorskip("layertap.learn")
    pytest.importorskip("sklearn")
    folder = make_checkpoint(tmp_path / "m")
    labelled = [("the good bank", "good"), ("bank was the", "bad")] * 12
    names = ("mood", "other")
    for name, feature in zip(names, ("last_hidden_state.mean", "hidden_states[1].mean"), strict=True):
        texts, labels = [text for text, _ in labelled], [label for _, label in labelled]
        head = learn.fit_head(texts, labels, feature, extractor=Extractor.from_pretrained(folder), name=name)
        head.save(tmp_path / name)
    served = serve(folder, heads=[str(tmp_path / "mood"), f"second={tmp_path / 'other'}"])
    runs: list[int] = []
    watch_runs(lambda program, _: runs.append(program.stop))
    answer = served.post("/v1/predict", {"texts": TEXTS}).json()
    assert len(runs) == 1
    assert [head["name"] for head in answer["heads"]] == ["mood", "second"]
    expected = learn.Head.load(tmp_path / "mood").predict(TEXTS)
    for item, own in zip(answer["data"], expected, strict=True):
        assert item["predictions"]["mood"]["label"] == own.label
        assert np.float32(item["predictions"]["mood"]["score"]) == np.float32(own.score)
    assert served.post("/predict", {"inputs": TEXTS[0]}).json()[0]["label"] == expected[0].label
    wrong = served.post("/v1/predict", {"texts": "x", "heads": ["moods"]})
    assert (wrong.status_code, "did you mean 'mood'" in wrong.text) == (400, True)


def test_a_server_without_heads(tiny):
    answer = tiny.post("/v1/predict", {"texts": "x"})
    assert (answer.status_code, "--head" in answer.text) == (424, True)
