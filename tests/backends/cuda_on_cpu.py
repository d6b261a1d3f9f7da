"""The code for CUDA on a machine without it: torch's operators, implemented on the processor by their definition.

`aten::_flash_attention_forward`, `aten::_efficient_attention_forward` and their gradients have no kernel for the
processor. Here they get one, with the checks that the CUDA kernels make, so that the code for CUDA runs with the exact
signatures and derivatives of the installed torch, and its results can be compared with the plain path.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

SEED = 20_240_501


def _kept(seed: int, shape: tuple[int, ...], dropout: float) -> Tensor | float:
    """Factors of the attention weights: zero where dropped; the same for one seed, as the kernels' generator is."""
    if dropout == 0.0:
        return 1.0
    numbers = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return (numbers >= dropout).float() / (1 - dropout)


def attention(
    query_qAD: Tensor,
    key_tAD: Tensor,
    value_tAD: Tensor,
    *,
    scale: float,
    bias_Aqt: Tensor | None = None,
    window: tuple[int, int] = (-1, -1),
    dropout: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """Attention of one sequence in float32, [q, A, D], by its definition; windows count from the last query."""
    times = query_qAD.shape[1] // key_tAD.shape[1]
    key_tAD, value_tAD = (rows.float().repeat_interleave(times, dim=1) for rows in (key_tAD, value_tAD))
    scores = torch.einsum("qad,tad->aqt", query_qAD.float(), key_tAD) * scale
    if bias_Aqt is not None:
        scores = scores + bias_Aqt.float()
    queries, length = scores.shape[1:]
    place = torch.arange(queries)[:, None] + length - queries
    keys = torch.arange(length)
    left, right = window
    if left >= 0:
        scores = scores.masked_fill(keys < place - left, float("-inf"))
    if right >= 0:
        scores = scores.masked_fill(keys > place + right, float("-inf"))
    weights = torch.softmax(scores, -1) * _kept(seed, tuple(scores.shape), dropout)
    return torch.einsum("aqt,tad->qad", weights, value_tAD).to(query_qAD.dtype)


def _each(query: Tensor, key: Tensor, value: Tensor, cu_q: Tensor, cu_k: Tensor, **options: Any) -> Tensor:
    assert cu_q.dtype == cu_k.dtype == torch.int32
    assert cu_q.is_contiguous()
    assert cu_k.is_contiguous()
    assert int(cu_q[-1]) == len(query)
    assert int(cu_k[-1]) == len(key) == len(value)
    bounds = list(zip(cu_q.tolist(), cu_q.tolist()[1:], cu_k.tolist(), cu_k.tolist()[1:], strict=False))
    parts = [
        attention(query[q0:q1], key[k0:k1], value[k0:k1], seed=SEED + i, **options)
        for i, (q0, q1, k0, k1) in enumerate(bounds)
    ]
    return torch.cat(parts)


def _aligned(*tensors: Tensor, elements: int) -> None:
    for tensor in tensors:
        assert tensor.stride(-1) == 1, "the last dimension has to be contiguous"
        strides = [stride for stride, size in zip(tensor.stride()[:-1], tensor.shape[:-1], strict=True) if size > 1]
        assert all(stride % elements == 0 for stride in strides), tensor.stride()
        assert tensor.storage_offset() % elements == 0


def _flash_out(query, key, value, cu_q, cu_k, max_q, max_k, dropout, scale, left, right) -> Tensor:
    assert query.dtype in (torch.float16, torch.bfloat16), "the flash kernel takes half precision only"
    assert query.ndim == 3
    assert query.shape[2] % 8 == 0
    assert query.shape[2] <= 256
    assert query.shape[1] % key.shape[1] == 0
    _aligned(query, key, value, elements=8)
    counts = (cu_q[1:] - cu_q[:-1]).tolist()
    assert max(counts) <= max_q
    assert max((cu_k[1:] - cu_k[:-1]).tolist()) <= max_k
    if max_q == 1 and key.shape[1] != query.shape[1] and (left, right) == (-1, -1) and dropout == 0.0:
        assert len(query) == len(counts), f"shape {list(query.shape)} is invalid: a sequence without a query"
    windows = tuple(-1 if side is None else side for side in (left, right))
    return _each(query, key, value, cu_q, cu_k, scale=scale, window=windows, dropout=dropout)


def _flash(
    query, key, value, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, return_debug_mask,
    *, scale=None, window_size_left=None, window_size_right=None, **others,
):  # fmt: skip
    assert not is_causal
    assert not return_debug_mask
    assert not any(value is not None for value in others.values())
    out = _flash_out(
        query.detach(), key.detach(), value.detach(), cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, scale,
        window_size_left, window_size_right,
    )  # fmt: skip
    empty = torch.empty(0)
    return out, torch.empty(query.shape[1], len(query)), torch.zeros(2, dtype=torch.int64), empty, empty


def _flash_backward(
    grad_out, query, key, value, out, logsumexp, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, is_causal, rng_state,
    unused, *, scale=None, window_size_left=None, window_size_right=None,
):  # fmt: skip
    return _gradients(
        grad_out,
        lambda *inputs: _flash_out(
            *inputs, cum_seq_q, cum_seq_k, max_q, max_k, dropout_p, scale, window_size_left, window_size_right
        ),
        query, key, value,
    )  # fmt: skip


def _efficient_out(query, key, value, bias, cu_q, cu_k, max_q, max_k, dropout, scale) -> Tensor:
    assert query.ndim == 4
    assert query.shape[2] == key.shape[2] == value.shape[2], "it has no shared heads"
    _aligned(query, key, value, elements=4 if query.dtype == torch.float32 else 8)
    if cu_q is not None:
        assert bias is None, "packed sequences go without a bias"
        assert len(query) == 1
        assert max_q >= max((cu_q[1:] - cu_q[:-1]).tolist())
        assert max_k >= max((cu_k[1:] - cu_k[:-1]).tolist())
        return _each(query[0], key[0], value[0], cu_q, cu_k, scale=scale, dropout=dropout)[None]
    n, q, heads, _ = query.shape
    assert bias is None or (bias.shape == (n, heads, q, key.shape[1]) and bias.dtype == query.dtype)
    if bias is not None:
        _aligned(bias, elements=16)
    parts = [
        attention(
            query[i],
            key[i],
            value[i],
            scale=scale,
            bias_Aqt=None if bias is None else bias[i],
            dropout=dropout,
            seed=SEED + i,
        )
        for i in range(n)
    ]
    return torch.stack(parts)


def _efficient(
    query, key, value, bias, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, custom_mask_type,
    compute_log_sumexp=False, *, scale=None, seqlen_k=None, window_size=None,
):  # fmt: skip
    assert custom_mask_type == 0
    assert seqlen_k is None
    assert window_size is None, "its gradients know no window"
    out = _efficient_out(
        query.detach(), key.detach(), value.detach(), None if bias is None else bias.detach(), cu_seqlens_q,
        cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, scale,
    )  # fmt: skip
    sums = torch.full((1,), 1.0 if compute_log_sumexp else 0.0)
    state = torch.zeros((), dtype=torch.int64)
    return out, sums, state, state.clone(), max_seqlen_q or query.shape[1], max_seqlen_k or key.shape[1]


def _efficient_backward(
    grad_out, query, key, value, bias, out, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, logsumexp,
    dropout_p, philox_seed, philox_offset, custom_mask_type, bias_requires_grad, *, scale=None, num_splits_key=None,
    window_size=None, shared_storage_dqdkdv=False,
):  # fmt: skip
    assert float(logsumexp) == 1.0, "the forward pass was not told to keep what gradients need"
    inputs = (query, key, value) if bias is None else (query, key, value, bias)
    found = _gradients(
        grad_out,
        lambda q, k, v, b=None: _efficient_out(
            q, k, v, b, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, scale
        ),
        *inputs,
    )
    return (*found, None) if bias is None else found


def _gradients(grad_out: Tensor, call: Any, *inputs: Tensor) -> tuple[Tensor, ...]:
    def compute() -> tuple[Tensor, ...]:
        leaves = []
        for each in inputs:  # with strides as they are, so that the checks see them
            leaf = each if 0 in each.stride() else torch.empty_strided(each.shape, each.stride(), dtype=each.dtype)
            leaves.append((leaf if leaf is each else leaf.copy_(each)).detach().requires_grad_())
        return torch.autograd.grad(call(*leaves), leaves, grad_out)

    # Inside a kernel, torch records nothing for gradients; another thread is not inside one.
    with ThreadPoolExecutor(1) as other:
        return other.submit(compute).result()


@contextmanager
def cuda_kernels_on_cpu(monkeypatch: Any, *, capability: tuple[int, int] = (9, 0)) -> Iterator[None]:
    """Run the code for CUDA on tensors of the processor."""
    from layertap.backends.torch import devices

    library = torch.library.Library("aten", "IMPL")
    with monkeypatch.context() as patch:
        pretend_cuda(patch, capability=capability)
        library.impl("_flash_attention_forward", _flash, "CPU")
        library.impl("_flash_attention_backward", _flash_backward, "CPU")
        library.impl("_efficient_attention_forward", _efficient, "CPU")
        library.impl("_efficient_attention_backward", _efficient_backward, "CPU")
        assert devices.kind_of(torch.device("cpu")) == "cuda"
        try:
            yield
        finally:
            library._destroy()


def pretend_cuda(patch: Any, *, capability: tuple[int, int] = (9, 0)) -> None:
    """Let every decision be made as on CUDA, whatever the device of tensors is."""
    import importlib
    import pkgutil

    import layertap.backends.torch as room

    for module in pkgutil.iter_modules(room.__path__, f"{room.__name__}."):
        loaded = importlib.import_module(module.name)
        for name, replacement in (("kind_of", lambda _: "cuda"), ("capability_of", lambda _: capability)):
            if hasattr(loaded, name):
                patch.setattr(loaded, name, replacement)


class Counts(TorchDispatchMode):
    """Operations on a device that is "meta": kernels, copies to it, and copies from it, which wait.

    Attributes:
        kernels: names of the operations that are no views, in order.
        uploads: for each copy to the device, the number of kernels before it.
        waits: for each copy to the processor, the number of kernels before it.
        peak_bytes: largest size of the memory that results of operations held at once, if `memory` was asked for.
    """

    def __init__(self, *, memory: bool = False) -> None:
        super().__init__()
        self.memory = memory
        self.kernels: list[str] = []
        self.uploads: list[int] = []
        self.waits: list[int] = []
        self.peak_bytes = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [each for each in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        results = [each for each in torch.utils._pytree.tree_leaves(out) if isinstance(each, Tensor)]
        given, found = ({each.device.type for each in some} for some in (tensors, results))
        name = func.overloadpacket._qualified_op_name.removeprefix("aten::")
        if "meta" not in given | found:
            return out
        if self.memory:
            self._measure(results)
        if "meta" in found and "cpu" in given and name in ("_to_copy", "copy_", "to"):
            self.uploads.append(len(self.kernels))
        elif ("cpu" in found and "meta" in given) or name in ("_local_scalar_dense", "nonzero"):
            self.waits.append(len(self.kernels))
        elif not _is_view(func) and not name.startswith(("empty", "new_empty")) and name not in ("detach",):
            self.kernels.append(name)
        return out

    def _measure(self, results: list[Tensor]) -> None:
        self._alive = {key: each for key, each in self._alive.items() if not each[0].expired()}
        for result in results:
            storage = result.untyped_storage()
            if result.device.type == "meta":
                self._alive[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self.peak_bytes = max(self.peak_bytes, sum(size for _, size in self._alive.values()))


def _is_view(func: Any) -> bool:
    returns = func._schema.returns
    return bool(returns) and all(each.alias_info is not None and not each.alias_info.is_write for each in returns)
