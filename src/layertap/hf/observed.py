"""Whether a model has to run padded: someone looks into its parts, has replaced one, or traces the call.

A packed run gives the same outputs in less time, but its parts see [1, T, H] instead of [B, S, H].
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.jit._trace import is_tracing
from torch.nn.modules import module as nn_module

from layertap.errors import OptionError

ROWWISE = frozenset(
    {
        nn.Dropout,
        nn.Embedding,
        nn.GELU,
        nn.Identity,
        nn.LayerNorm,
        nn.Linear,
        nn.ModuleList,
        nn.ReLU,
        nn.SiLU,
        nn.Tanh,
    }
)
"""Modules of torch that treat each row by itself, so that packing changes nothing."""

OWN = frozenset({"layertap.hf.albert", "layertap.hf.distilbert", "layertap.hf.layers"})
"""Modules of this package whose classes compute packed and padded batches."""


def is_plain(parts: Iterable[nn.Module | None]) -> bool:
    """Whether all modules below `parts` are of known classes, and none has a hook or a replaced forward."""
    if nn_module._has_any_global_hook():  # type: ignore[no-untyped-call]  # torch has no public name for it
        return False
    # Not `nn.Module.modules`: every call of a model comes here, and that takes twice the time.
    left = [part for part in parts if part is not None]
    while left:
        module = left.pop()
        if _is_special(module):
            return False
        left += [child for child in module._modules.values() if child is not None]
    return True


def _is_special(module: nn.Module) -> bool:
    kind = type(module)
    return bool(
        (kind not in ROWWISE and kind.__module__ not in OWN)
        or module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or module._compiled_call_impl is not None
    )


def is_traced(*values: Tensor | None) -> bool:
    """Whether a call is compiled, exported or transformed, so that nothing can be read from its tensors."""
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return True
    if torch._C._functorch.maybe_current_level() is not None:  # vmap, grad and others of torch.func
        return True
    return any(value is not None and (value.is_meta or type(value) not in (Tensor, nn.Parameter)) for value in values)


def refuse_tracing(name: str) -> None:
    """Refuse `torch.jit.trace`, which would keep the shape of the example batch as it is packed.

    Raises:
        OptionError: the call is traced.
    """
    if is_tracing():  # type: ignore[no-untyped-call]
        raise OptionError(
            f"{name}: torch.jit.trace is not supported, since it records a single batch; use torch.export.export or "
            "torch.compile, or trace a part of the model, as model.encoder.layer[0]"
        )
