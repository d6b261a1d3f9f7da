"""What a mix of layers learns, and from which examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")

from layertap.learn.fitting import linear, mix
from layertap.learn.fitting.linear import SolverOptions, TrainingData, cross_entropy, fit_linear
from layertap.learn.fitting.mix import learn_mix


def examples(signal: list[float], *, count: int = 600, width: int = 8, seed: int = 0, same: bool = False):
    """Layers that hold the label as clearly as `signal` says, each with noise of its own."""
    random = np.random.default_rng(seed)
    classes = random.integers(0, 3, count)
    directions = np.random.default_rng(99).standard_normal((len(signal), 3, width))
    directions = directions[:1].repeat(len(signal), axis=0) if same else directions
    noise = random.standard_normal((len(signal), count, width))
    vectors = np.stack(
        [strength * own[classes] + each for strength, own, each in zip(signal, directions, noise, strict=True)]
    )
    return TrainingData(vectors=vectors.astype(np.float32), classes=classes, weights=np.ones(count))


def apart(count: int = 600) -> np.ndarray:
    return np.arange(count) % 5 == 0


def test_the_layer_that_tells_gets_the_largest_share_whatever_its_size():
    data = examples([0.0, 0.2, 1.2, 0.2])
    sizes = np.array([100, 1, 0.01, 10], dtype=np.float32)
    scaled = replace(data, vectors=data.vectors * sizes[:, None, None])
    for given, training in ((data, SolverOptions(l2=1.0)), (scaled, SolverOptions(l2=1e-4))):
        found = learn_mix(given, None, 3, training, held_out=apart())
        assert found.shares.argmax() == found.losses.argmin() == 2
        assert found.shares[2] > 0.5
        assert found.shares.sum() == pytest.approx(1)


def test_layers_whose_noise_is_their_own_are_mixed():
    data = examples([0.6, 0.5, 0.5], same=True)
    found = learn_mix(data, None, 3, SolverOptions(), held_out=apart())
    assert found.sharpness is not None
    assert found.loss < 0.9 * found.losses.min()
    test = examples([0.6, 0.5, 0.5], seed=5, same=True)
    fitted = fit_linear(found.apply(data), 3, SolverOptions())
    alone = [fit_linear(replace(data, vectors=data.vectors[i : i + 1]), 3, SolverOptions()) for i in range(3)]
    losses = [cross_entropy(one.parameters, replace(test, vectors=test.vectors[[i]])) for i, one in enumerate(alone)]
    assert cross_entropy(fitted.parameters, found.apply(test)) < min(losses)


def test_a_layer_that_is_learnt_by_heart_is_not_taken():
    data = examples([0.0, 0.7])
    # As wide a layer as there are examples fits any labels.
    random = np.random.default_rng(1)
    wide = np.zeros((2, 600, 500), dtype=np.float32)
    wide[0] = 5 * random.standard_normal((600, 500))
    wide[1, :, :8] = data.vectors[1]
    given = replace(data, vectors=wide)
    losses = [fit_linear(replace(given, vectors=wide[i : i + 1]), 3, SolverOptions()).loss for i in range(2)]
    assert losses[0] < losses[1]  # on what it learns from
    found = learn_mix(given, None, 3, SolverOptions(), held_out=apart())
    assert found.shares[1] > 0.95


def test_a_mix_is_never_worse_than_the_best_layer_where_it_was_learnt():
    for seed in range(4):
        signal = np.random.default_rng(seed).uniform(0, 0.8, 5).tolist()
        found = learn_mix(examples(signal, seed=seed), None, 3, SolverOptions(), held_out=apart())
        assert found.loss <= found.losses.min()


def test_a_validation_part_is_what_shares_are_learnt_on(monkeypatch):
    monkeypatch.setattr(linear, "BLOCK_VALUES", 4000)  # several blocks
    data, held = examples([0.9, 0.1]), examples([0.1, 0.9], seed=1)
    turned = replace(data, vectors=np.concatenate([data.vectors, data.vectors[::-1]], axis=1)[:, ::2])
    turned = replace(turned, classes=np.concatenate([data.classes, data.classes])[::2])
    found = learn_mix(turned, held, 3, SolverOptions())
    assert found.shares.argmax() == found.losses.argmin()
    np.testing.assert_allclose(
        found.apply(held).vectors[0], np.tensordot(found.factors, held.vectors, axes=1), rtol=1e-4, atol=1e-5
    )


def test_many_examples_are_sampled_and_the_same_numbers_come_again(monkeypatch):
    monkeypatch.setattr(mix, "MAX_EXAMPLES", 100)
    seen = []
    inner = mix.fit_linear

    def counting(given, *arguments, **named):
        seen.append(len(given.classes))
        return inner(given, *arguments, **named)

    monkeypatch.setattr(mix, "fit_linear", counting)
    first, again, other = (
        learn_mix(examples([0.3, 0.6]), None, 3, SolverOptions(), held_out=apart(), seed=seed) for seed in (0, 0, 1)
    )
    assert set(seen) == {100}
    np.testing.assert_array_equal(first.factors, again.factors)
    assert first.loss == again.loss
    assert first.losses.tolist() != other.losses.tolist()
