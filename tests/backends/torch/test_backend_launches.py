"""What a batch costs on CUDA beside its arithmetic: kernels, copies, waits and memory, counted on meta tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from layertap.backends.torch import backend as backend_module  # noqa: E402 - needs torch
from layertap.backends.torch.backend import TorchBackend  # noqa: E402
from layertap.engine.segments import segments_of  # noqa: E402
from layertap.features.program import Capture, Program  # noqa: E402
from layertap.models.config import ConfigReader  # noqa: E402
from layertap.models.registry import architecture  # noqa: E402
from layertap.models.spec import EncoderSpec  # noqa: E402
from layertap.packing import PackedBatch, pack  # noqa: E402
from tests.backends.cuda_on_cpu import Counts, pretend_cuda  # noqa: E402

TOKENS = 65_536
BASE = {
    "vocab_size": 30_522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3_072,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
LARGE = BASE | {"hidden_size": 1_024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4_096}
MODERN = BASE | {"vocab_size": 50_368, "num_hidden_layers": 4, "intermediate_size": 1_152, "pad_token_id": 0}
DEBERTA = BASE | {
    "relative_attention": True,
    "max_relative_positions": -1,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
    "position_buckets": 256,
    "num_hidden_layers": 2,
    "hidden_act": "gelu",
}


def spec_of(model_type: str, config: dict[str, Any]) -> EncoderSpec:
    return architecture(model_type).spec(ConfigReader({"model_type": model_type} | config))


def batch_of(spec: EncoderSpec, tokens: int = TOKENS) -> PackedBatch:
    """Texts of 154 lengths between 5 and 160, sorted, as a chunk gives them."""
    random = np.random.default_rng(0)
    lengths: list[int] = []
    while sum(lengths) < tokens - 160:
        lengths.append(int(random.integers(5, 160)))
    sequences = [np.zeros(length, np.int32) for length in sorted(lengths)]
    types = sequences if spec.type_vocab_size > 1 else None
    return pack(sequences, position_ids=spec.positions.position_ids, token_type_ids=types)


def programs_of(layers: int) -> dict[str, Program]:
    mean = (Capture(layers=(layers,), segments="tokens", reduce="sum"),)
    first = (Capture(layers=(layers,), segments="tokens", reduce="first"),)
    return {
        "mean": Program(captures=mean, stop=layers),
        "first": Program(captures=first, stop=layers, top_rows_only=True),
        "all states": Program(captures=tuple(Capture(layers=(i,)) for i in range(layers + 1)), stop=layers),
    }


@pytest.fixture
def counted(monkeypatch):
    """`counted(spec, precision, program)`: one batch, with the weights on the device already; and their bytes."""
    pretend_cuda(monkeypatch)
    monkeypatch.setattr(backend_module, "device_named", lambda _: torch.device("meta"))

    def load(self, kind, prefix):
        with torch.device("meta"):
            return kind(self.spec).eval().to(self.dtype).requires_grad_(False)

    monkeypatch.setattr(TorchBackend, "_load", load)

    def count(
        spec: EncoderSpec, precision: str, program: Program, *, tokens: int = TOKENS, memory: bool = False
    ) -> tuple[Counts, int]:
        backend = TorchBackend(spec, lambda _: {}, precision=precision)
        loaded = [backend._load_embeddings(), backend._load_relative(), backend._load_conv()]
        backend._load_block(spec.num_blocks - 1)
        with torch.device("meta"):
            blocks = [backend_module.Block(spec, i) for i in range(spec.num_blocks)]
        modules = [module for module in (*loaded, *blocks) if module is not None]
        weights = sum(p.numel() for module in modules for p in module.parameters()) * backend.dtype.itemsize
        batch = batch_of(spec, tokens)
        with Counts(memory=memory) as counts:
            backend._launched(program, batch, {"tokens": segments_of(batch, "tokens")})
        return counts, weights

    return count


def first_attention(counts: Counts) -> int:
    return next(i for i, name in enumerate(counts.kernels) if name.endswith("_attention_forward"))


@pytest.mark.parametrize("wanted", ["mean", "first", "all states"])
@pytest.mark.parametrize(("precision", "kernels"), [("bfloat16", 200), ("float32", 400)])
def test_a_batch_of_bert_base(counted, precision, kernels, wanted):
    spec = spec_of("bert", BASE)
    counts, _ = counted(spec, precision, programs_of(12)[wanted])
    assert len(counts.kernels) <= kernels
    name = "_flash_attention_forward" if precision == "bfloat16" else "_efficient_attention_forward"
    assert counts.kernels.count(name) == 12
    assert max(counts.uploads) < first_attention(counts)
    assert len(counts.uploads) <= 6
    assert counts.waits == []


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
@pytest.mark.parametrize(
    ("model_type", "config", "kernels"),
    [("modernbert", MODERN, 40), ("mpnet", BASE | {"num_hidden_layers": 2}, 170), ("deberta-v2", DEBERTA, 650)],
)
def test_other_families_copy_everything_before_the_layers(counted, model_type, config, kernels, precision):
    """Kernels of a layer; MPNet and DeBERTa have one attention for each of 73 lengths, with their biases."""
    spec = spec_of(model_type, config)
    for wanted in ("mean", "first"):
        counts, _ = counted(spec, precision, programs_of(spec.num_hidden_layers)[wanted], tokens=8_192)
        assert len(counts.kernels) / spec.num_hidden_layers <= kernels
        assert max(counts.uploads) < first_attention(counts)
        assert counts.waits == []


def test_attention_maps_are_computed_by_length_and_copied_once_a_layer(counted):
    spec = spec_of("bert", BASE)
    captures = tuple(Capture(layers=(i,), attention="mean") for i in (1, 2))
    counts, _ = counted(spec, "bfloat16", Program(captures=captures, stop=2), tokens=16_384)
    lengths = len(set(batch_of(spec, 16_384).lengths.tolist()))
    assert counts.kernels.count("softmax") <= 2 * (lengths + 8)
    assert max(counts.uploads) < first_attention(counts)


@pytest.mark.parametrize(
    ("config", "precision", "wanted", "gigabytes"),
    [
        (BASE, "bfloat16", "mean", 1.73),
        (BASE, "float32", "mean", 3.46),
        (BASE, "bfloat16", "all states", 2.73),
        (BASE, "float32", "all states", 5.47),
        (LARGE, "bfloat16", "mean", 2.68),
        (LARGE, "float32", "mean", 5.36),
    ],
)
def test_the_memory_of_a_batch(counted, config, precision, wanted, gigabytes):
    """Weights and the largest set of tensors held at once, as `docs/gpu.md` states them."""
    spec = spec_of("bert", config)
    counts, weights = counted(spec, precision, programs_of(spec.num_hidden_layers)[wanted], memory=True)
    assert (weights + counts.peak_bytes) / 1e9 == pytest.approx(gigabytes, abs=0.05)
