"""`hidden_states[n]` is layer n of BERTScore: the output of the first n blocks, 0 being the embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from layertap.engine.extractor import Extractor

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="transformers, the oracle, is not installed")

TEXTS = ["the river and the bank", "a good film, and a dull one"]
OTHERS = ["the bank of the river is good", "a bad film"]


def first_blocks(folder, number):
    """Cut a model as bert-score 0.3.12 does, by the list of blocks."""
    model = transformers.AutoModel.from_pretrained(folder).eval()
    model.encoder.layer = model.encoder.layer[:number]
    return model


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_layer_is_the_output_of_as_many_blocks(make_checkpoint, tmp_path, family, number):
    folder = make_checkpoint(tmp_path / family, family)
    ours = Extractor.from_pretrained(folder).extract(TEXTS, f"hidden_states[{number}]")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = first_blocks(folder, number)
    for row, text in enumerate(TEXTS):
        with torch.no_grad():
            theirs = model(**tokenizer(text, return_tensors="pt"))[0][0].numpy()
        np.testing.assert_allclose(ours[row], theirs, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore")  # the peer's own
@pytest.mark.parametrize("number", [1, 2])
def test_scores_of_bert_score_follow_from_the_layer(make_checkpoint, tmp_path, number):
    peer = pytest.importorskip("bert_score", reason="bert-score is not installed")
    folder = make_checkpoint(tmp_path / "bert")
    scorer = peer.BERTScorer(model_type=str(folder), num_layers=number, device="cpu")
    theirs = [values.numpy() for values in scorer.score(TEXTS, OTHERS)[:2]]
    extractor = Extractor.from_pretrained(folder)
    states = [extractor.extract(texts, f"hidden_states[{number}]") for texts in (TEXTS, OTHERS)]
    for row in range(len(TEXTS)):
        one, other = (state[row] / np.linalg.norm(state[row], axis=1, keepdims=True) for state in states)
        cosines = one @ other.T
        # Special tokens may be matched, but have no weight in the mean.
        assert cosines.max(axis=1)[1:-1].mean() == pytest.approx(theirs[0][row], abs=1e-5)
        assert cosines.max(axis=0)[1:-1].mean() == pytest.approx(theirs[1][row], abs=1e-5)
