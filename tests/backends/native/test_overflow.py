"""Overflow inside a block: what torch makes NaN or infinite does not come out as a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("layertap.backends.native._native", reason="the native kernels are not built")
pytest.importorskip("torch")

from layertap.backends.native import _native
from layertap.backends.native.backend import NativeBackend
from layertap.backends.torch.backend import TorchBackend
from layertap.checkpoints.load import open_model
from layertap.checkpoints.source import locate
from layertap.features.program import Capture, Program
from layertap.packing import pack
from layertap.tensors import TensorView
from layertap.testing.families import random_sequences
from tests.tiny_models import random_model, save_model

SIZES: dict[str, Any] = {
    "vocab_size": 60,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 100,
    "pad_token_id": 1,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "norms after": ("Bert", {}),
    "norms before": ("MegatronBert", {}),
    "norms before, gated": ("ModernBert", {"local_attention": 20, "global_attn_every_n_layers": 2}),
    "norms by the root mean square": ("EuroBert", {"num_key_value_heads": 2}),
    "projected embeddings": ("Albert", {"embedding_size": 20}),
    "gelu_tanh": ("Bert", {"hidden_act": "gelu_new"}),
    "silu": ("Bert", {"hidden_act": "silu"}),
    "relu": ("Bert", {"hidden_act": "relu"}),
}
BLOCK = "encoder.layer.0."

Change = Callable[[dict[str, Any]], None]


def scale(by: float, *names: str) -> Change:
    """Large enough that what overflows does so whatever the order of sums."""

    def change(arrays: dict[str, Any]) -> None:
        for name in names:
            arrays[name] *= np.float32(by)

    return change


def minus_infinity_before_the_activation(arrays: dict[str, Any]) -> None:
    """Every sum is -inf where norms have biases, otherwise -inf or inf."""
    after = f"{BLOCK}attention.output.LayerNorm.weight" in arrays
    norm = f"{BLOCK}attention.output.LayerNorm" if after else f"{BLOCK}LayerNorm"
    weight = arrays[f"{BLOCK}intermediate.dense.weight"]
    weight *= np.float32(1e30)
    if f"{norm}.bias" in arrays:
        arrays[f"{norm}.weight"][:], arrays[f"{norm}.bias"][:] = 0, 1e10
        weight[:] = -np.abs(weight)
    else:
        arrays[f"{norm}.weight"][:] = 1e10


CHANGES: dict[str, Change] = {
    "squares of a norm": scale(1e25, f"{BLOCK}attention.output.dense.weight"),
    "squares of the second norm": scale(1e25, f"{BLOCK}output.dense.weight"),
    "scores": scale(1e30, f"{BLOCK}attention.self.query.weight", f"{BLOCK}attention.self.key.weight"),
    "values": scale(1e30, f"{BLOCK}attention.self.value.weight", f"{BLOCK}attention.output.dense.weight"),
    "before the activation": minus_infinity_before_the_activation,
    "after the activation": scale(1e30, f"{BLOCK}intermediate.dense.weight", f"{BLOCK}output.dense.weight"),
    "embeddings": scale(1e28, "embeddings.word_embeddings.weight"),
}


@pytest.fixture(scope="module", params=FAMILIES)
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    prefix, fields = FAMILIES[request.param]
    return open_model(locate(save_model(tmp_path_factory.mktemp(prefix), random_model(prefix, SIZES | fields))))


@pytest.mark.parametrize("what", CHANGES)
def test_what_overflows_in_torch_is_no_number_here(what, files):
    names = files.spec.parameters()
    stored = files.weights(names)
    arrays = {name: np.array(stored[name].to_float32()) for name in names}
    CHANGES[what](arrays)
    views = {name: TensorView("F32", array.shape, memoryview(array).cast("B")) for name, array in arrays.items()}

    def weights(wanted):
        return {name: views[name] for name in wanted}

    batch = pack(random_sequences((5, 1, 17), SIZES["vocab_size"]), position_ids=files.spec.positions.position_ids)
    last = files.spec.num_hidden_layers
    states = [Capture(layers=(i,)) for i in range(last + 1)]
    program = Program(captures=tuple(states), stop=last)
    with np.errstate(all="ignore"):
        reference = TorchBackend(files.spec, weights).run(program, batch, {})
    bad = [~np.isfinite(reference[state]).all(axis=1) for state in states]
    # A relu takes -inf to zero. Elsewhere torch need not agree: some of its norms make zeros of squares that overflow.
    overflows = (files.spec.hidden_act, what) != ("relu", "before the activation")
    for instruction_set in _native.instruction_sets():
        for precision in _native.precisions(instruction_set):
            for threads in (1, 2):
                backend = NativeBackend(
                    files.spec, weights, precision=precision, threads=threads, instruction_set=instruction_set
                )
                results = backend.run(program, batch, {})
                for state, own in zip(states, bad, strict=True):
                    assert not np.isfinite(results[state][own]).all(axis=1).any(), (instruction_set, precision, state)
                assert np.isfinite(results[states[-1]]).all() != overflows
