"""A model three times: transformers' module, our `Encoder`, and `TorchBackend` over the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from layertap.features.program import Capture, Program
from layertap.models.config import ConfigReader
from layertap.models.registry import architecture
from layertap.models.spec import EncoderSpec
from layertap.packing import PackedBatch, pack
from layertap.tensors import TensorView
from tests.tiny_models import random_model

FAMILIES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert"}
SMALL = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
}


FIGURES = pytest.StashKey[dict[str, float]]()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """`report("largest |error| / RMS", 1e-6)`: a figure that `pytest -v` prints at its end, the largest of a test."""
    figures = request.config.stash.setdefault(FIGURES, {})

    def put(what: str, value: float) -> None:
        key = f"{request.node.nodeid}: {what}"
        figures[key] = max(value, figures.get(key, value))

    return put


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    figures = config.stash.get(FIGURES, {})
    if figures and config.get_verbosity() >= 0:  # pyproject.toml has one -q
        terminalreporter.section("figures")
        for what, value in figures.items():
            terminalreporter.line(f"{what} {value:.7g}")


def native_sets() -> list[str]:
    """The instruction sets of the native kernels here, slowest first; none where they are not built."""
    try:
        from layertap.backends.native import _native
    except ImportError:
        return []
    return _native.instruction_sets()[::-1]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)


@dataclass
class WeightsSpy:
    """A `Weights` callable that remembers what was asked of it."""

    views: Mapping[str, TensorView]
    asked: list[str] = field(default_factory=list)

    def __call__(self, names: Iterable[str]) -> dict[str, TensorView]:
        names = list(names)
        self.asked += names
        return {name: self.views[name] for name in names}


def views_of(state_dict: Mapping[str, Any]) -> dict[str, TensorView]:
    """Float32 views of a torch state dict."""
    arrays = {name: tensor.detach().float().numpy() for name, tensor in state_dict.items()}
    return {name: TensorView("F32", array.shape, memoryview(array).cast("B")) for name, array in arrays.items()}


class Model:
    """One set of weights under its three forms."""

    def __init__(self, spec: EncoderSpec, reference: Any, views: dict[str, TensorView]) -> None:
        self.spec = spec
        self.reference = reference
        self.views = views

    def encoder(self, *, pooler: bool = True) -> Any:
        """Our `Encoder` with these weights, in eval mode."""
        import torch

        from layertap.backends.torch.encoder import Encoder

        with torch.device("meta"):
            encoder = Encoder(self.spec, pooler=pooler)
        state = self.reference.state_dict()
        encoder.load_state_dict({name: state[name].clone() for name in encoder.state_dict()}, assign=True)
        return encoder.eval()

    def weights(self) -> WeightsSpy:
        return WeightsSpy(self.views)

    def backend(self, **options: Any) -> Any:
        from layertap.backends.torch.backend import TorchBackend

        return TorchBackend(self.spec, self.weights(), **options)

    def native(self, **options: Any) -> Any:
        """`NativeBackend`; float32, one thread, the best instruction set where nothing else is said."""
        pytest.importorskip("layertap.backends.native._native", reason="the native kernels are not built")
        from layertap.backends.native import _native
        from layertap.backends.native.backend import NativeBackend

        defaults = {"precision": "float32", "threads": 1, "instruction_set": _native.instruction_sets()[0]}
        return NativeBackend(self.spec, self.weights(), **(defaults | options))

    def pack(self, sequences: Sequence[np.ndarray], token_types: Sequence[np.ndarray] | None = None) -> PackedBatch:
        return pack(sequences, position_ids=self.spec.positions.position_ids, token_type_ids=token_types)

    def random_sequences(self, lengths: Sequence[int], seed: int = 0) -> list[np.ndarray]:
        """Ids of any value, the padding id among them."""
        random = np.random.default_rng(seed)
        return [random.integers(0, self.spec.vocab_size, length).astype(np.int32) for length in lengths]

    def expected(
        self, sequences: Sequence[np.ndarray], token_types: Sequence[np.ndarray] | None = None
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """transformers, one sequence at a time: every state [T, H], and pooler_output [B, H]."""
        import torch

        states: list[list[np.ndarray]] = [[] for _ in range(self.spec.num_states)]
        pooled = []
        for i, ids in enumerate(sequences):
            inputs = {"input_ids": torch.as_tensor(ids, dtype=torch.long)[None]}
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
            if token_types is not None:
                inputs["token_type_ids"] = torch.as_tensor(token_types[i], dtype=torch.long)[None]
            with torch.inference_mode():
                found = self.reference(**inputs, output_hidden_states=True)
            for layer, state in enumerate(found.hidden_states):
                states[layer].append(state[0].double().numpy())
            pooled.append(found.pooler_output[0].double().numpy())
        return [np.concatenate(layer) for layer in states], np.stack(pooled)


def everything(spec: EncoderSpec) -> Program:
    """Every hidden state whole, and the pooler."""
    states = tuple(Capture(layers=(i,)) for i in range(spec.num_states))
    pooler = Capture(layers=(spec.num_hidden_layers,), segments="tokens", reduce="first", pooler=True)
    return Program(captures=(*states, pooler), stop=spec.num_hidden_layers)


@pytest.fixture(scope="session")
def wrap_model() -> Callable[[Any], Model]:
    """A module of transformers -> `Model`."""

    def wrap(reference: Any) -> Model:
        config = reference.config.to_dict()
        spec = architecture(config["model_type"]).spec(ConfigReader(config))
        return Model(spec, reference.eval(), views_of(reference.state_dict()))

    return wrap


@pytest.fixture(scope="session")
def make_model(wrap_model: Callable[[Any], Model]) -> Callable[..., Model]:
    """`make_model("roberta", hidden_size=64)`: small where nothing else is said, float32, random."""

    def make(model_type: str = "bert", *, seed: int = 0, **config: Any) -> Model:
        pytest.importorskip("transformers")
        values = SMALL | {"pad_token_id": 0 if model_type == "bert" else 1, "layer_norm_eps": 1e-5} | config
        return wrap_model(random_model(FAMILIES[model_type], values, seed=seed))

    return make


@pytest.fixture(scope="session")
def run_everything() -> Callable[..., tuple[list[np.ndarray], np.ndarray]]:
    """(backend, model, sequences) -> every state [T, H] and pooler_output [B, H], in one packed batch."""
    from layertap.engine.segments import segments_of

    def run(backend: Any, model: Model, sequences: Any, token_types: Any = None) -> tuple[list[np.ndarray], np.ndarray]:
        batch = model.pack(sequences, token_types)
        program = everything(model.spec)
        found = backend.run(program, batch, {"tokens": segments_of(batch, "tokens")})
        results = [found[capture] for capture in program.captures]
        return results[:-1], results[-1]

    return run


@pytest.fixture(scope="session")
def error_over_rms() -> Callable[[np.ndarray, np.ndarray], float]:
    """Largest |error| over the expected array's root mean square."""

    def error(found: np.ndarray, expected: np.ndarray) -> float:
        assert found.shape == expected.shape
        assert np.isfinite(found).all()
        return float(np.abs(found - expected).max() / np.sqrt(np.square(expected).mean()))

    return error


@pytest.fixture(scope="session")
def smallest_cosine() -> Callable[[np.ndarray, np.ndarray], float]:
    """Of the rows of two matrices."""

    def cosine(found: np.ndarray, expected: np.ndarray) -> float:
        assert found.shape == expected.shape
        one, other = found.astype(np.float64), expected.astype(np.float64)
        lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
        return float(((one * other).sum(axis=1) / lengths).min())

    return cosine


@pytest.fixture(scope="session")
def tiny_spec() -> EncoderSpec:
    """BERT, of three small blocks."""
    config = {"model_type": "bert", "vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 3}
    config |= {"num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 64}
    return architecture("bert").spec(ConfigReader(config))
