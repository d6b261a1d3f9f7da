from __future__ import annotations

import numpy as np
import pytest

from layertap.checkpoints import merging
from layertap.checkpoints.merging import LowRankChange, MergedBytes
from layertap.tensors import TensorView

RANDOM = np.random.default_rng(5)


def view(values: np.ndarray) -> TensorView:
    values = np.ascontiguousarray(values, dtype=np.float32)
    return TensorView("F32", values.shape, memoryview(values).cast("B"))


def values_of(merged: MergedBytes, columns: int) -> np.ndarray:
    return np.frombuffer(merged.read(), dtype="<f4").reshape(-1, columns)


@pytest.mark.parametrize("is_table", [False, True])
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("row_values", [1, 20, 1 << 20])
def test_the_definition(monkeypatch, is_table, dora, row_values):
    monkeypatch.setattr(merging, "ROW_VALUES", row_values)
    base = RANDOM.normal(size=(9, 5))
    a, b = RANDOM.normal(size=(2, 9 if is_table else 5)), RANDOM.normal(size=(5 if is_table else 9, 2))
    norms = np.abs(RANDOM.normal(size=5 if is_table else 9))
    change = LowRankChange(a=view(a), b=view(b), scale=1.5, is_table=is_table, magnitude=view(norms) if dora else None)
    assert change.shape == (9, 5)
    expected = base + 1.5 * ((b @ a).T if is_table else b @ a)
    if dora:
        axis = 0 if is_table else 1
        lengths = np.linalg.norm(expected, axis=axis)
        expected *= norms / lengths if is_table else (norms / lengths)[:, np.newaxis]
    merged = MergedBytes.of(view(base), change)
    assert merged.nbytes == 9 * 5 * 4
    np.testing.assert_allclose(values_of(merged, 5), expected, rtol=1e-5, atol=1e-6)
    whole = values_of(merged, 5)
    part = merged.part(2 * 20, 7 * 20)
    assert part.nbytes == 5 * 20
    np.testing.assert_array_equal(values_of(part, 5), whole[2:7])
    np.testing.assert_array_equal(values_of(part.part(20, 60), 5), whole[3:5])


def test_a_row_without_length_is_not_finite():
    change = LowRankChange(
        a=view(np.zeros((1, 3))), b=view(np.zeros((2, 1))), scale=1.0, is_table=False, magnitude=view(np.ones(2))
    )
    merged = MergedBytes.of(view(np.array([[0, 0, 0], [3, 0, 4]])), change)
    assert not TensorView("F32", (2, 3), merged).is_finite()
    np.testing.assert_allclose(values_of(merged, 3)[1], [0.6, 0, 0.8], rtol=1e-6)


def test_a_weight_of_bfloat16_is_widened():
    bits = np.array([[0x3F80, 0x4000]], dtype="<u2")  # 1 and 2
    base = TensorView("BF16", (1, 2), memoryview(bits).cast("B"))
    change = LowRankChange(a=view([[1, 1]]), b=view([[0.001]]), scale=1.0, is_table=False)
    np.testing.assert_allclose(values_of(MergedBytes.of(base, change), 2), [[1.001, 2.001]], rtol=1e-7)
