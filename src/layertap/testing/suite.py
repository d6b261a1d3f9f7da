"""The checks of the conformance suite, as classes for pytest to subclass with `rows`.

Bounds are those of `verify.measure`. Figures go into `scores_of(config)`, for a table at the end of the run.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from layertap.testing.candidate import (
    Candidate,
    LossWeights,
    gradients_of_encoder,
    gradients_of_reference,
)
from layertap.testing.families import (
    FamilyRow,
    IntRow,
    in_words,
    normed_states,
    random_sequences,
    two_token_types,
    without_norm_weights,
)
from layertap.testing.scores import Scores
from layertap.verify.measure import HALF_COSINE, OWN_ERROR_FACTOR, Difference, float32_bound
from layertap.verify.reference import Outputs, Reference, quiet_transformers

GRADIENT_BOUND = 2e-4
"""Gradients pass through twice the products that states do, and are sums over tokens with cancellation."""

ATTENTION_BOUND = 2e-5
"""Largest |error| of an attention probability in float32."""

LONGEST = 512
"""Tokens of the longest sequence for a model of real size whose limit is not lower."""

SCORES = pytest.StashKey[Scores]()


def scores_of(config: pytest.Config) -> Scores:
    """Returns the figures that the tests of this run have collected so far."""
    return config.stash.setdefault(SCORES, Scores())


@dataclass(eq=False)
class Family:
    """A random model of a family, in transformers and in layertap, with sequences and their expected outputs.

    Attributes:
        row: the family.
        label: name of the family in the table of figures.
        reference: the model in transformers.
        candidate: its checkpoint, opened with layertap.
        lengths: tokens of each sequence.
        exact: whether the reference is in float64.
    """

    row: FamilyRow
    label: str
    reference: Reference
    candidate: Candidate
    lengths: tuple[int, ...]
    exact: bool = False

    @cached_property
    def sequences(self) -> list[IntRow]:
        """Sequences of random ids, one of them a single token and one at the limit."""
        return random_sequences(self.lengths, self.candidate.files.spec.vocab_size)

    @cached_property
    def token_types(self) -> list[IntRow] | None:
        """Token types of the sequences, both types in each; None if the model has fewer than two types."""
        has_two = getattr(self.reference.module.config, "type_vocab_size", 0) > 1
        return two_token_types(self.sequences) if self.row.token_types and has_two else None

    @cached_property
    def expected(self) -> Outputs:
        """Outputs of transformers, computed one sequence at a time."""
        return self.reference.outputs(self.sequences, self.token_types)

    def expected_of(self, order: Sequence[int]) -> Outputs:
        """Selects the expected outputs of these sequences, in this order."""
        ends = np.cumsum(self.lengths)
        rows = np.concatenate([np.arange(ends[i] - self.lengths[i], ends[i]) for i in order])
        pooled = self.expected.pooled
        return Outputs(
            states=[state[rows] for state in self.expected.states],
            pooled=None if pooled is None else pooled[list(order)],
        )

    def outputs_of(self, order: Sequence[int], precision: str = "float32") -> Outputs:
        """Computes layertap's outputs of these sequences in one packed batch, in this order."""
        types = None if self.token_types is None else [self.token_types[i] for i in order]
        return self.candidate.outputs([self.sequences[i] for i in order], types, precision=precision)

    @cached_property
    def arrangements(self) -> list[tuple[Outputs, Outputs]]:
        """Pairs of (actual, expected) outputs of the sequences together, each alone, and shuffled."""
        everything = range(len(self.lengths))
        # The longest is the last of them; here it comes first.
        shuffled = [everything[-1], *np.random.default_rng(0).permutation(len(self.lengths) - 1).tolist()]
        orders = [everything, *([i] for i in everything), shuffled]
        return [(self.outputs_of(order), self.expected_of(order)) for order in orders]

    @property
    def bound(self) -> float:
        """Largest |error| over RMS in float32."""
        return float32_bound(self.candidate.files.spec.num_hidden_layers)


def make_family(
    row: FamilyRow, folder: Path, *, real_size: bool, seed: int = 0, longest: int, short: Sequence[int]
) -> Family:
    """Makes a random model, saves it with transformers and opens it with layertap.

    Args:
        row: the family.
        folder: an empty folder for the checkpoint.
        real_size: whether to make the row's large model instead of its small one.
        seed: seed of its weights.
        longest: tokens of the longest sequence; the model's limit if that is lower.
        short: tokens of each other sequence.
    """
    module = row.random_model(row.real_size if real_size else row.small, seed=seed)
    with quiet_transformers():
        module.save_pretrained(folder)
    exact = real_size and row.exact
    if exact:
        module = module.double()
    candidate = Candidate.open(folder)
    limit = min(longest, candidate.files.spec.positions.max_length)
    return Family(
        row=row,
        label=f"{row.name}, real size" if real_size else row.name,
        reference=Reference(module),
        candidate=candidate,
        lengths=(*(min(length, limit) for length in short), limit),
        exact=exact,
    )


class ModelChecks:
    """Checks for a model of either size; abstract, since `SmallModels` and `RealSizeModels` make the models."""

    rows: ClassVar[Sequence[FamilyRow]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Runs the class once for each row."""
        metafunc.parametrize("family", self.rows, ids=[row.name for row in self.rows], scope="class", indirect=True)

    @pytest.fixture
    def scores(self, request: pytest.FixtureRequest) -> Scores:
        """Table that collects the figures of this run."""
        return scores_of(request.config)

    def test_states(self, family: Family, scores: Scores) -> None:
        """Hidden states equal transformers' in float32, together, one at a time, and shuffled."""
        with scores.check(family.label, "states") as figures:
            if family.exact:
                scores.note(family.label, "states", "float64")
            for actual, expected in family.arrangements:
                errors = state_errors(actual, expected)
                figures.append(max(errors))
                assert max(errors) <= family.bound, in_scientific(errors)

    def test_pooler(self, family: Family, scores: Scores) -> None:
        """The pooler's output equals transformers' in float32; a family without a pooler has none on either side."""
        if not family.row.pooler:
            assert family.expected.pooled is None
            assert not family.candidate.has_pooler
            return
        with scores.check(family.label, "pooler") as figures:
            for actual, expected in family.arrangements:
                assert actual.pooled is not None
                assert expected.pooled is not None
                error = Difference.of(actual.pooled, expected.pooled).error_over_rms
                figures.append(error)
                assert error <= family.bound

    def test_attentions(self, family: Family, scores: Scores) -> None:
        """Attention probabilities of every layer and head equal transformers' in one packed batch in another order."""
        order = list(reversed(range(len(family.lengths))))
        sequences = [family.sequences[i] for i in order]
        types = None if family.token_types is None else [family.token_types[i] for i in order]
        with scores.check(family.label, "attentions") as figures:
            actual = family.candidate.attentions(sequences, types)
            for i, layers in enumerate(actual):
                expected = family.reference.attentions(sequences[i : i + 1], types and types[i : i + 1])[0]
                errors = attention_errors(layers, expected)
                figures.append(max(errors))
                assert max(errors) <= ATTENTION_BOUND, in_scientific(errors)

    def test_bfloat16(self, family: Family, scores: Scores) -> None:
        """Hidden states and the pooler's output in bfloat16 point where they do in float32."""
        order = range(len(family.lengths))
        with scores.check(family.label, "bfloat16") as figures:
            actual = family.outputs_of(order, "bfloat16")
            cosines = [Difference.of(*pair).cosine for pair in zip(actual.states, family.expected.states, strict=True)]
            if family.expected.pooled is not None:
                assert actual.pooled is not None
                cosines.append(Difference.of(actual.pooled, family.expected.pooled).cosine)
            figures.append(min(cosines))
            own = None if min(cosines) >= HALF_COSINE else own_cosine(family)
            if own is not None:
                scores.note(family.label, "bfloat16", f"transformers {own:.5f}")
            allowed = HALF_COSINE if own is None else 1 - OWN_ERROR_FACTOR * (1 - own)
            assert min(cosines) >= allowed, [f"{cosine:.5f}" for cosine in cosines]


class SmallModels(ModelChecks):
    """All checks, on a model of a few thousand parameters."""

    @pytest.fixture(scope="class")
    @classmethod
    def family(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
        """Small random model of the row."""
        folder = tmp_path_factory.mktemp("small")
        return make_family(request.param, folder, real_size=False, longest=LONGEST, short=(5, 1, 17, 5, 1))

    def test_early_stop(self, family: Family, scores: Scores) -> None:
        """A state is the same if no block above it runs, and no weight of those blocks is read."""
        with scores.check(family.label, "states"):
            everything = family.candidate.outputs(family.sequences).states
            for layer, expected in enumerate(everything):
                actual = family.candidate.state(family.sequences, layer)
                assert Difference.of(actual, expected).error_over_rms <= family.bound, layer

    def test_top_rows(self, family: Family, scores: Scores) -> None:
        """The first and last rows of each state are the same if the top block computes no other row."""
        ends = np.cumsum(family.lengths)
        with scores.check(family.label, "states"):
            for layer, expected in enumerate(family.candidate.outputs(family.sequences).states):
                first = family.candidate.edge_rows(family.sequences, layer, "first")
                last = family.candidate.edge_rows(family.sequences, layer, "last")
                assert Difference.of(first, expected[ends - family.lengths]).error_over_rms <= family.bound, layer
                assert Difference.of(last, expected[ends - 1]).error_over_rms <= family.bound, layer

    def test_encoder(self, family: Family, scores: Scores) -> None:
        """The differentiable encoder gives the same states as the backend."""
        import torch

        with scores.check(family.label, "states") as figures, torch.no_grad():
            packed = family.candidate.packed_tensors(family.sequences, family.token_types)
            states = [state.numpy() for _, state in family.candidate.encoder().states(packed)]
            errors = state_errors(Outputs(states=states, pooled=None), family.expected)
            figures.append(max(errors))
            assert max(errors) <= family.bound, in_scientific(errors)

    def test_gradients(self, family: Family, scores: Scores, tmp_path: Path) -> None:
        """The gradient of every parameter equals transformers', for a loss of every state and the pooler."""
        weights = LossWeights.random(family.candidate, family.sequences)
        with scores.check(family.label, "gradients") as figures:
            loss, actual = gradients_of_encoder(family.candidate, family.sequences, family.token_types, weights)
            expected_loss, stored = gradients_of_reference(
                family.reference.module, family.sequences, family.token_types, weights, tmp_path
            )
            errors = gradient_errors(actual, stored.tensors(actual))
            figures.append(max(errors.values()))
            assert max(errors.values()) <= GRADIENT_BOUND, {
                name: f"{error:.1e}" for name, error in errors.items() if error > GRADIENT_BOUND
            }
            assert abs(loss - expected_loss) <= GRADIENT_BOUND * weights.states.numel() ** 0.5

    @pytest.mark.parametrize("with_head", [False, True], ids=["encoder", "with head"])
    def test_round_trip(self, family: Family, scores: Scores, tmp_path: Path, with_head: bool) -> None:
        """A checkpoint written under its own keys loads completely in transformers and in layertap."""
        if with_head and family.row.head_class is None:
            pytest.skip("transformers has no class with a head for this family")
        with scores.check(family.label, "round trip"):
            check_round_trip(family, tmp_path, with_head=with_head)

    def test_which_states_are_normed(self, family: Family) -> None:
        """The row states correctly which hidden states are the output of a norm."""
        plain = without_norm_weights(family.reference)
        assert in_words(normed_states(plain.outputs(family.sequences))) == family.row.normed


class RealSizeModels(ModelChecks):
    """States, pooler, attentions and bfloat16 on a model as large as people use: seconds and gigabytes a family."""

    @pytest.fixture(scope="class")
    @classmethod
    def family(cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
        """Random model of real size; its folder is removed after the class."""
        folder = tmp_path_factory.mktemp("real-size")
        yield make_family(request.param, folder, real_size=True, longest=LONGEST, short=(5, 1, 17))
        shutil.rmtree(folder)


def check_round_trip(family: Family, folder: Path, *, with_head: bool) -> None:
    """Saves with transformers, writes the checkpoint again with layertap, and compares both as loaded by either."""
    module = family.row.random_model(family.row.small, seed=3, with_head=with_head)
    original, again = folder / "original", folder / "again"
    again.mkdir()
    with quiet_transformers():
        module.save_pretrained(original)
    first = Candidate.open(original)
    assert first.files.unused_keys == ()
    assert bool(first.files.ignored_keys) == with_head, first.files.ignored_keys
    first.write_again(again)

    without = () if first.has_pooler else ("pooler.",)
    one, other = (Reference.load(path, without=without) for path in (original, again))
    theirs = other.module.state_dict()
    for name, value in one.module.state_dict().items():
        # a pooler that is in neither file is random in both
        assert name.startswith(without or "no name") or value.equal(theirs[name]), name

    second = Candidate.open(again)
    assert second.files.unused_keys == second.files.ignored_keys == second.files.missing == ()
    assert {name: stored.key for name, stored in second.files.tensors.items()} == {
        name: stored.key for name, stored in first.files.tensors.items()
    }
    weights = second.tensors(second.files.tensors)
    assert all(value.equal(weights[name]) for name, value in first.tensors(first.files.tensors).items())
    assert max(state_errors(second.outputs(family.sequences), other.outputs(family.sequences))) <= family.bound


def own_cosine(family: Family) -> float:
    """Computes the smallest cosine of transformers' own states in bfloat16, the measure for what is below the bound.

    Random gated blocks between post-norms multiply errors; no arithmetic with bfloat16's rounding follows all of them.
    """
    own = family.reference.copy("bfloat16").outputs(family.sequences, family.token_types)
    return min(Difference.of(*pair).cosine for pair in zip(own.states, family.expected.states, strict=True))


def state_errors(actual: Outputs, expected: Outputs) -> list[float]:
    """Computes the largest |error| over RMS of each state."""
    assert len(actual.states) == len(expected.states), "the number of hidden states differs"
    return [Difference.of(*pair).error_over_rms for pair in zip(actual.states, expected.states, strict=True)]


def attention_errors(actual: Sequence[Any], expected: Sequence[Any]) -> list[float]:
    """Computes the largest |error| of each layer, infinity where a value is not finite."""
    assert [layer.shape for layer in actual] == [layer.shape for layer in expected], "the shapes of attentions differ"
    errors = [float(np.abs(one - other).max()) for one, other in zip(actual, expected, strict=True)]
    return [error if np.isfinite(error) else np.inf for error in errors]


def gradient_errors(actual: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
    """Computes the largest |error| of each gradient over its RMS.

    A bias on all keys alike changes no softmax: its gradient is rounding, and is measured by the others' RMS.
    """
    rms = {name: float(gradient.double().square().mean().sqrt()) for name, gradient in expected.items()}
    floor = 1e-2 * float(np.median(list(rms.values())))
    return {
        name: float((actual[name] - gradient).abs().max()) / max(rms[name], floor)
        for name, gradient in expected.items()
    }


def in_scientific(errors: Sequence[float]) -> list[str]:
    """Formats errors for the message of a failing check."""
    return [f"{error:.1e}" for error in errors]
