"""The card of an encoder, with the evaluators of sentence-transformers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

from layertap import SentenceEncoder

pytestmark = pytest.mark.filterwarnings("ignore")  # the peer's own

FEATURE = "hidden_states[4].mean.normalize"
FIRST = ["a good film", "Paris is a city.", "The river bank.", "a long walk by the sea"]
SECOND = ["a fine movie", "Rome is a town.", "Bread from an oven.", "a stroll on the beach"]
OTHERS = ["a dull play", "Bern is small.", "money in a bank", "a heavy stone"]


def evaluators(kinds: Any) -> dict[str, Any]:
    """Evaluators over a few texts, by the name of their class."""
    queries, corpus = ({str(i): text for i, text in enumerate(texts)} for texts in (FIRST, SECOND + OTHERS))
    relevant = {name: {name} for name in queries}
    samples = [{"query": a, "positive": [b], "negative": OTHERS} for a, b in zip(FIRST, SECOND, strict=True)]
    made = [
        kinds.EmbeddingSimilarityEvaluator(
            FIRST * 2,
            SECOND + OTHERS,
            [0.9, 0.7, 0.1, 0.8, 0.5, 0.3, 0.6, 0.0],
            similarity_fn_names=["cosine", "dot", "euclidean", "manhattan"],
        ),
        kinds.InformationRetrievalEvaluator(queries, corpus, relevant, accuracy_at_k=[1, 3], corpus_chunk_size=3),
        kinds.TripletEvaluator(FIRST, SECOND, OTHERS),
        kinds.BinaryClassificationEvaluator(FIRST * 2, SECOND + OTHERS, [1] * 4 + [0] * 4),
        kinds.RerankingEvaluator(samples),
        kinds.TranslationEvaluator(FIRST, SECOND),
        kinds.ParaphraseMiningEvaluator(
            {str(i): text for i, text in enumerate(FIRST + SECOND)}, [(str(i), str(i + 4)) for i in range(4)]
        ),
    ]
    return {type(one).__name__: one for one in made}


@pytest.mark.slow
@pytest.mark.parametrize(
    "keywords", [{}, {"truncate_dim": 64, "prompts": {"query": "film: "}}], ids=["plain", "truncated"]
)
def test_evaluators_find_what_they_find_for_a_model_of_sentence_transformers(
    minilm_folder: Path, keywords: dict[str, Any], tmp_path: Path
):
    library = pytest.importorskip("sentence_transformers")
    kinds = pytest.importorskip("sentence_transformers.evaluation")
    peer = library.SentenceTransformer(str(minilm_folder), device="cpu", **keywords)
    encoder = SentenceEncoder(minilm_folder, **keywords)
    for name, evaluator in evaluators(kinds).items():
        found = encoder.evaluate(evaluator, tmp_path / "files" / name)
        assert found == pytest.approx(evaluator(peer), abs=1e-4), name
        assert encoder.model_card_data.eval_results_dict[evaluator] == found
        assert list((tmp_path / "files" / name).iterdir())
    assert len(encoder.model_card_data.eval_results_dict) == len(evaluators(kinds))


def test_an_evaluator_measures_the_feature_and_its_truncation(minilm_folder: Path):
    kinds = pytest.importorskip("sentence_transformers.evaluation")
    encoder, evaluator = SentenceEncoder(minilm_folder, FEATURE), evaluators(kinds)["EmbeddingSimilarityEvaluator"]
    assert encoder.eval() is encoder
    whole = evaluator(encoder)
    with encoder.truncate_embeddings(16):
        assert encoder.get_embedding_dimension() == 16
        assert evaluator(encoder) != whole
    assert encoder.get_embedding_dimension() == 384
    assert evaluator(encoder) == whole != evaluator(SentenceEncoder(minilm_folder))


def test_files_of_a_cache_are_shared_by_equal_vectors_only(minilm_folder: Path):
    names = [
        SentenceEncoder(minilm_folder, feature, **keywords).model_card_data.base_model
        for feature, keywords in [
            (FEATURE, {}),
            ("hidden_states[5].mean.normalize", {}),
            (FEATURE, {"truncate_dim": 16}),
            (FEATURE, {"max_length": 16}),
            (FEATURE, {"prompts": {"query": "film: "}}),
        ]
    ]
    assert len(set(names)) == len(names)
    assert SentenceEncoder(minilm_folder, FEATURE).model_card_data.base_model == names[0]


def test_results_stay_with_their_encoder(minilm_folder: Path):
    encoder = SentenceEncoder(minilm_folder)
    before = pickle.dumps(encoder)
    encoder.model_card_data.set_evaluation_metrics("evaluator", {"spearman_cosine": 0.5}, epoch=-1, step=-1)
    assert pickle.dumps(encoder) == before
    assert pickle.loads(before).model_card_data.eval_results_dict == {}
    assert encoder.model_card_data.eval_results_dict == {"evaluator": {"spearman_cosine": 0.5}}


@pytest.mark.slow
def test_hard_negatives_of_two_features_are_found_with_one_cache(minilm_folder: Path, tmp_path: Path):
    library = pytest.importorskip("sentence_transformers.util")
    data = pytest.importorskip("datasets").Dataset.from_dict({"anchor": FIRST, "positive": SECOND})
    for count, feature in enumerate((FEATURE, "hidden_states[5].mean.normalize"), 1):
        encoder = SentenceEncoder(minilm_folder, feature)
        mined = library.mine_hard_negatives(
            data, encoder, corpus=OTHERS, num_negatives=1, cache_folder=str(tmp_path), verbose=False
        )
        assert set(mined["negative"]) <= {*OTHERS, *SECOND}
        assert len(list(tmp_path.iterdir())) == 2 * count
