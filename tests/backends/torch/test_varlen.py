"""Attention on CUDA against its definition, through torch's operators as `tests.backends.cuda_on_cpu` has them."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from layertap.backends.torch import attention, varlen  # noqa: E402 - needs torch
from layertap.backends.torch.layout import Layout  # noqa: E402
from layertap.backends.torch.varlen import path_of  # noqa: E402
from tests.backends.cuda_on_cpu import attention as by_definition  # noqa: E402
from tests.backends.cuda_on_cpu import cuda_kernels_on_cpu  # noqa: E402

LENGTHS = (5, 5, 1, 17, 3, 150, 17, 17)
HALF = {"float32": 1e-5, "bfloat16": 3e-2, "float16": 4e-3}


@pytest.mark.parametrize(
    ("dtype", "capability", "head_size", "window", "biased", "path"),
    [
        ("bfloat16", (9, 0), 64, None, False, "flash"),
        ("float16", (8, 0), 64, 64, False, "flash"),
        ("bfloat16", (8, 9), 12, None, False, "flash"),  # padded to 16
        ("float16", (8, 0), 256, None, False, "flash"),
        ("float16", (8, 0), 264, None, False, "efficient"),
        ("float16", (8, 0), 264, 64, False, "blocks"),
        ("float16", (7, 5), 64, None, False, "efficient"),
        ("float16", (7, 5), 64, 64, False, "blocks"),
        ("float32", (9, 0), 64, None, False, "efficient"),
        ("float32", (9, 0), 64, 64, False, "blocks"),
        ("float32", (9, 0), 64, None, True, "runs"),
        ("bfloat16", (9, 0), 64, None, True, "runs"),
    ],
)
def test_the_path_follows_from_precision_device_head_size_window_and_bias(
    monkeypatch, dtype, capability, head_size, window, biased, path
):
    monkeypatch.setattr(varlen, "capability_of", lambda _: capability)
    found = path_of(getattr(torch, dtype), torch.device("cuda"), head_size, window=window, biased=biased)
    assert found == path


def packed(dtype: str, layout: Layout, *, heads: int = 4, shared: int = 4, head_size: int = 8, grad: bool = False):
    generator = torch.Generator().manual_seed(0)
    rows, queries = sum(layout.lengths), sum(layout.queries)
    sizes = ((queries, heads * head_size), (rows, shared * head_size), (rows, shared * head_size))
    tensors = [torch.randn(size, generator=generator).to(getattr(torch, dtype)) for size in sizes]
    return [tensor.requires_grad_() for tensor in tensors] if grad else tensors


def plainly(query, key, value, layout, *, heads, head_size, window=None, dropout=0.0, scale=None, bias=None):
    """Each sequence by the definition, from the rows and positions of its queries."""
    starts, q_starts = layout.cu_seqlens, layout.cu_queries
    parts = []
    for i, length in enumerate(layout.lengths):
        if layout.queries[i] == 0:
            continue
        own = slice(int(q_starts[i]), int(q_starts[i + 1]))
        rows = slice(int(starts[i]), int(starts[i + 1]))
        places = np.arange(length) if layout.query_positions is None else layout.query_positions[own]
        far = np.abs(places[:, None] - np.arange(length)) > (length if window is None else window)
        mask = torch.zeros(far.shape).masked_fill(torch.as_tensor(far), float("-inf"))
        added = mask if bias is None else mask + bias(i, length, places)
        out = by_definition(
            query[own].view(-1, heads, head_size),
            key[rows].view(length, -1, head_size),
            value[rows].view(length, -1, head_size),
            scale=head_size**-0.5 if scale is None else scale,
            bias_Aqt=added,
            dropout=dropout,
            seed=20_240_501 + i,
        )
        parts.append(out.flatten(1))
    return torch.cat(parts)


def few_rows(layout: Layout) -> Layout:
    """Some queries: of the first sequence none, of others one or several."""
    rows = [6, 9, 10, 12, 30, 40, 41, 170, 180, int(layout.cu_seqlens[-1]) - 1]
    return layout.with_queries(np.array(rows, dtype=np.int32))


@pytest.mark.parametrize("pruned", [False, True], ids=["all rows", "few rows"])
@pytest.mark.parametrize("window", [None, 4, 100])
@pytest.mark.parametrize("head_size", [8, 12])
@pytest.mark.parametrize("shared", [4, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_packed_attention_against_the_definition(monkeypatch, dtype, shared, head_size, window, pruned):
    layout = Layout.of(LENGTHS)
    layout = few_rows(layout) if pruned else layout
    tensors = packed(dtype, layout, shared=shared, head_size=head_size)
    expected = plainly(*tensors, layout, heads=4, head_size=head_size, window=window)
    with cuda_kernels_on_cpu(monkeypatch):
        found = attention.attend(*tensors, layout, num_heads=4, window=window)
    assert found.dtype == getattr(torch, dtype)
    torch.testing.assert_close(found.float(), expected.float(), rtol=HALF[dtype], atol=HALF[dtype])


def test_one_query_each_with_shared_heads_and_a_sequence_without_a_query(monkeypatch):
    """The flash kernel takes this for one query of every sequence, and fails, unless it is told of longer ones."""
    layout = Layout.of(LENGTHS).with_queries(np.array([0, 10, 11, 40], dtype=np.int32))
    assert max(layout.queries) == 1
    assert min(layout.queries) == 0
    tensors = packed("bfloat16", layout, shared=2)
    expected = plainly(*tensors, layout, heads=4, head_size=8)
    with cuda_kernels_on_cpu(monkeypatch):
        found = attention.attend(*tensors, layout, num_heads=4)
    torch.testing.assert_close(found.float(), expected.float(), rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("own", [False, True], ids=["shared bias", "own bias"])
@pytest.mark.parametrize("pruned", [False, True], ids=["all rows", "few rows"])
def test_a_bias_against_the_definition(monkeypatch, own, pruned):
    monkeypatch.setattr(varlen, "BIAS_BYTES", 3 * 17 * 4 * 4 * 17)  # three sequences at once, or some queries of one
    layout = Layout.of(LENGTHS)
    layout = few_rows(layout) if pruned else layout
    tensors = packed("float32", layout)
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(4, 300, generator=generator)

    def bias_of(run, query, key):
        places = torch.as_tensor(layout.positions_in(run))
        distances = places[:, :, None] - torch.arange(run.length) + 150
        return table[:, distances].transpose(0, 1).contiguous()

    expected = plainly(
        *tensors,
        layout,
        heads=4,
        head_size=8,
        bias=lambda _, length, places: table[:, torch.as_tensor(places)[:, None] - torch.arange(length) + 150],
    )
    with cuda_kernels_on_cpu(monkeypatch):
        found = attention.attend(*tensors, layout, num_heads=4, bias=bias_of, own_bias=own)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "dropout", "window"),
    [
        ("float32", 0.0, None),
        ("float32", 0.0, 4),
        ("float32", 0.3, None),  # in windows its blocks draw other numbers than sequences do; see the test below
        ("bfloat16", 0.0, None),
        ("bfloat16", 0.0, 4),
        ("bfloat16", 0.3, None),
        ("bfloat16", 0.3, 4),
    ],
)
def test_gradients_with_and_without_dropout(monkeypatch, dtype, dropout, window):
    """The operators' own derivatives; the reference drops the same weights."""
    layout = Layout.of((5, 17, 3, 40))
    grads = []
    for on_cuda in (False, True):
        tensors = packed(dtype, layout, shared=2, grad=True)
        if on_cuda:
            with cuda_kernels_on_cpu(monkeypatch):
                out = attention.attend(*tensors, layout, num_heads=4, window=window, dropout=dropout)
                weights = torch.linspace(-1, 1, out.numel()).view_as(out)
                (out.float() * weights).sum().backward()
        else:
            out = plainly(*tensors, layout, heads=4, head_size=8, window=window, dropout=dropout)
            weights = torch.linspace(-1, 1, out.numel()).view_as(out)
            (out.float() * weights).sum().backward()
        grads.append([tensor.grad.float() for tensor in tensors])
    for found, expected in zip(grads[1], grads[0], strict=True):
        torch.testing.assert_close(found, expected, rtol=5 * HALF[dtype], atol=5 * HALF[dtype])


def test_dropout_in_windows_drops_and_has_finite_gradients(monkeypatch):
    layout = Layout.of((5, 17, 3, 150))
    tensors = packed("float32", layout, grad=True)
    with cuda_kernels_on_cpu(monkeypatch):
        plain = attention.attend(*tensors, layout, num_heads=4, window=4)
        dropped = attention.attend(*tensors, layout, num_heads=4, window=4, dropout=0.5)
        dropped.square().sum().backward()
    assert not torch.allclose(plain, dropped)
    assert all(torch.isfinite(tensor.grad).all() for tensor in tensors)


def test_everything_about_rows_is_copied_once(monkeypatch):
    """Layers share it; a second layer copies nothing."""
    from layertap.backends.torch import layout as layout_module

    copies = []
    upload = layout_module.upload
    monkeypatch.setattr(layout_module, "upload", lambda *args: copies.append(1) or upload(*args))
    layout = few_rows(Layout.of(LENGTHS))
    tensors = packed("bfloat16", layout)
    with cuda_kernels_on_cpu(monkeypatch):
        for _ in range(3):
            attention.attend(*tensors, layout, num_heads=4)
    assert len(copies) == 3  # bounds of sequences, bounds of queries, rows and positions of queries
