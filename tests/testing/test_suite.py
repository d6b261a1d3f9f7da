"""The suite itself: passes what is right, and fails on each kind of mistake in the column where it belongs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from layertap.testing import candidate as candidate_module  # noqa: E402 - the skips come first
from layertap.testing.candidate import Candidate  # noqa: E402
from layertap.testing.families import FamilyRow, in_words, random_sequences, two_token_types  # noqa: E402
from layertap.testing.scores import Scores, markdown  # noqa: E402
from layertap.testing.suite import SmallModels, attention_errors, gradient_errors, make_family  # noqa: E402
from layertap.verify.reference import Reference  # noqa: E402

SMALL = {
    "vocab_size": 50,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
}
ROW = FamilyRow(
    name="BERT",
    model_type="bert",
    config_class="BertConfig",
    model_class="BertModel",
    head_class="BertForMaskedLM",
    small=SMALL,
    real_size=SMALL,
    pooler=True,
    token_types=True,
    normed="all",
    first_state="",
    limit=24,
)
SUITE = SmallModels()


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def family(tmp_path):
    folder = tmp_path / "checkpoint"
    return make_family(ROW, folder, real_size=False, longest=24, short=(5, 1, 9))


def failed_checks(family, folder) -> set[str]:
    """Names of the suite's checks that do not pass; the columns say the same."""
    scores = Scores()
    checks = {
        "states": lambda: SUITE.test_states(family, scores),
        "pooler": lambda: SUITE.test_pooler(family, scores),
        "attentions": lambda: SUITE.test_attentions(family, scores),
        "bfloat16": lambda: SUITE.test_bfloat16(family, scores),
        "early stop": lambda: SUITE.test_early_stop(family, scores),
        "top rows": lambda: SUITE.test_top_rows(family, scores),
        "encoder": lambda: SUITE.test_encoder(family, scores),
        "gradients": lambda: SUITE.test_gradients(family, scores, folder / "gradients"),
        "round trip": lambda: SUITE.test_round_trip(family, scores, folder / "plain", with_head=False),
        "round trip with head": lambda: SUITE.test_round_trip(family, scores, folder / "head", with_head=True),
        "normed": lambda: SUITE.test_which_states_are_normed(family),
    }
    failed = set()
    for name, check in checks.items():
        (folder / {"round trip": "plain", "round trip with head": "head"}.get(name, "unused")).mkdir(exist_ok=True)
        try:
            check()
        except AssertionError:
            failed.add(name)
    of_column = {
        "states": {"states", "early stop", "top rows", "encoder"},
        "pooler": {"pooler"},
        "attentions": {"attentions"},
        "bfloat16": {"bfloat16"},
        "gradients": {"gradients"},
        "round trip": {"round trip", "round trip with head"},
    }
    for column, names in of_column.items():
        assert (scores.text("BERT", column) == "FAILED") == bool(names & failed), column
    return failed


def test_what_is_right_passes(family, tmp_path):
    assert failed_checks(family, tmp_path) == set()


def test_one_changed_weight(family, tmp_path):
    with torch.no_grad():
        family.reference.module.encoder.layer[1].output.dense.bias[0] += 0.01
    assert failed_checks(family, tmp_path) == {"states", "pooler", "attentions", "encoder", "gradients"}


def test_a_changed_pooler(family, tmp_path):
    with torch.no_grad():
        family.reference.module.pooler.dense.bias[0] += 0.01
    assert failed_checks(family, tmp_path) - {"gradients"} == {"pooler"}


def test_heads_in_another_order(family, tmp_path, monkeypatch):
    right = Candidate.attentions

    def wrong(self, *arguments):
        return [[layer[::-1] for layer in layers] for layers in right(self, *arguments)]

    monkeypatch.setattr(Candidate, "attentions", wrong)
    assert failed_checks(family, tmp_path) == {"attentions"}


def test_attention_that_is_not_finite():
    ones = np.ones((2, 3, 3), dtype=np.float32)
    assert attention_errors([ones, ones * np.nan], [ones * 0.5, ones]) == [0.5, np.inf]
    with pytest.raises(AssertionError, match="shapes"):
        attention_errors([ones], [ones[:1]])


def test_a_very_wrong_weight_shows_in_bfloat16_too(family, tmp_path):
    with torch.no_grad():
        family.reference.module.encoder.layer[0].attention.self.value.weight.mul_(-1)
    assert failed_checks(family, tmp_path) >= {"states", "pooler", "bfloat16", "encoder", "gradients"}


def test_a_state_of_the_wrong_layer(family, tmp_path, monkeypatch):
    right = Candidate.state
    monkeypatch.setattr(Candidate, "state", lambda self, ids, layer: right(self, ids, max(0, layer - 1)))
    assert failed_checks(family, tmp_path) == {"early stop"}


def test_rows_of_the_wrong_edge(family, tmp_path, monkeypatch):
    right = Candidate.edge_rows
    monkeypatch.setattr(Candidate, "edge_rows", lambda self, ids, layer, _: right(self, ids, layer, "first"))
    assert failed_checks(family, tmp_path) == {"top rows"}


def test_order_that_matters(family, tmp_path, monkeypatch):
    right = Candidate.outputs

    def wrong(self, sequences, token_types=None, **more):
        found = right(self, sequences, token_types, **more)
        if len(sequences) > 1 and len(sequences[-1]) != 24:  # right only where the longest is last
            return replace(found, states=[state * 1.001 for state in found.states])
        return found

    monkeypatch.setattr(Candidate, "outputs", wrong)
    assert "states" in failed_checks(family, tmp_path)


def test_a_parameter_without_gradient(family, tmp_path, monkeypatch):
    right = Candidate.encoder

    def wrong(self):
        encoder = right(self)
        encoder.embeddings.LayerNorm.bias.requires_grad_(False)
        return encoder

    monkeypatch.setattr(Candidate, "encoder", wrong)
    assert failed_checks(family, tmp_path) == {"gradients"}


def test_a_key_under_the_wrong_name(family, tmp_path, monkeypatch):
    right = candidate_module.stored_layout

    def wrong(*arguments):
        return {key.replace("bert.embeddings", "embeddings"): names for key, names in right(*arguments).items()}

    monkeypatch.setattr(candidate_module, "stored_layout", wrong)
    assert failed_checks(family, tmp_path) == {"round trip with head"}


def test_a_documentation_that_is_not_true(family, tmp_path):
    family.row = replace(ROW, normed="0 and L")
    assert failed_checks(family, tmp_path) == {"normed"}


def test_the_same_seed_gives_the_same_model():
    one, again = (ROW.random_model(SMALL, seed=4).state_dict() for _ in range(2))
    other = ROW.random_model(SMALL, seed=5).state_dict()
    for name, value in one.items():
        assert value.equal(again[name])
        if value.is_floating_point():
            assert not value.equal(other[name])
            assert value.isfinite().all()
            # nothing is left at zero or one, where a mistake could hide
            assert value.std() > 0


def test_the_reference_runs_each_sequence_alone():
    reference = Reference(ROW.random_model(SMALL))
    sequences = random_sequences([3, 7], 50)
    together = reference.outputs(sequences, two_token_types(sequences))
    alone = [reference.outputs([ids], two_token_types([ids])) for ids in sequences]
    for layer, state in enumerate(together.states):
        assert np.array_equal(state, np.concatenate([one.states[layer] for one in alone]))
    assert not np.array_equal(together.states[0], reference.outputs(sequences).states[0]), "types change it"


@pytest.mark.parametrize(
    ("normed", "words"),
    [
        ([True] * 4, "all"),
        ([False, True, True, True], "1 to L"),
        ([True, False, False, True], "0 and L"),
        ([False, False, False, True], "L"),
        ([True, True, False, True], "not known: 0, 1, 3"),
    ],
)
def test_normed_states_in_words(normed, words):
    assert in_words(normed) == words


def test_gradients_that_are_rounding_are_measured_by_the_others():
    expected = {"weight": torch.ones(4), "other": torch.ones(4), "key.bias": torch.full((4,), 1e-7)}
    found = expected | {"key.bias": torch.zeros(4)}
    assert gradient_errors(found, expected)["key.bias"] < 1e-4
    assert gradient_errors(expected | {"weight": torch.zeros(4)}, expected)["weight"] == 1


def test_scores_keep_the_worst():
    scores = Scores()
    with scores.check("BERT", "states") as figures:
        figures += [1e-6, 3e-6]
    with scores.check("BERT", "states") as figures:
        figures.append(2e-6)
    with scores.check("BERT", "bfloat16") as figures:
        figures += [0.9999, 0.9995]
    with scores.check("BERT", "round trip"):
        pass
    with pytest.raises(ZeroDivisionError), scores.check("other", "states"):
        _ = 1 / 0
    assert scores.rows()[1:] == [
        ("BERT", "3.0e-06", "-", "-", "0.99950", "-", "yes"),
        ("other", "FAILED", "-", "-", "-", "-", "-"),
    ]


def test_markdown():
    assert markdown([("a", "b"), ("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
