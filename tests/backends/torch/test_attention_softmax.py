"""The in-place softmax of the quick attention path against torch's own, at every kind of length."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from layertap.backends.torch.attention import _softmax  # noqa: E402 - after the skip


@pytest.mark.parametrize("length", [1, 7, 15, 16, 27, 32, 96, 100, 256, 257, 512])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_equals_float64_softmax(length: int, dtype: torch.dtype, bound: float) -> None:
    scores = (torch.randn(5, 3, length, generator=torch.Generator().manual_seed(length)) * 20).to(dtype)
    expected = scores.double().softmax(-1)
    _softmax(scores)
    assert scores.dtype == dtype
    assert (scores.double() - expected).abs().max() <= bound


def test_large_scores_do_not_overflow() -> None:
    scores = torch.full((1, 1, 8), 1e4)
    _softmax(scores)
    torch.testing.assert_close(scores, torch.full((1, 1, 8), 0.125))
