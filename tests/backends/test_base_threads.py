"""One backend shared by threads: they load it together, and each gets the numbers of a run alone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from layertap.backends.torch.backend import TorchBackend
from layertap.engine.segments import segments_of
from layertap.errors import BackendError, WeightsError
from layertap.features.program import Capture, Program
from layertap.models.config import ConfigReader
from layertap.models.registry import architecture
from layertap.models.spec import EncoderSpec
from layertap.packing import PackedBatch, pack
from layertap.tensors import TensorView
from tests.selection import slow_except

THREADS = 8
COMMON = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4}
COMMON |= {"intermediate_size": 48, "max_position_embeddings": 48}
DISENTANGLED = {"relative_attention": True, "pos_att_type": "c2p|p2c", "norm_rel_ebd": "layer_norm"}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": COMMON | {"model_type": "bert", "type_vocab_size": 2},
    "mpnet": COMMON | {"model_type": "mpnet"},
    "modernbert": COMMON | {"model_type": "modernbert", "pad_token_id": 3, "local_attention": 9},
    "eurobert": COMMON | {"model_type": "eurobert", "pad_token_id": 3, "num_key_value_heads": 2},
    "deberta": COMMON
    | DISENTANGLED
    | {"model_type": "deberta-v2", "max_relative_positions": -1, "position_buckets": 16, "share_att_key": True}
    | {"position_biased_input": False, "type_vocab_size": 0, "conv_kernel_size": 3, "conv_act": "gelu"},
    "deberta-plain": COMMON
    | DISENTANGLED
    | {"model_type": "deberta-v2", "max_relative_positions": -1, "position_buckets": -1, "share_att_key": False}
    | {"position_biased_input": True, "type_vocab_size": 2},
}

Weights = Callable[[Any], dict[str, TensorView]]


def spec_of(family: str) -> EncoderSpec:
    config = CONFIGS[family]
    return architecture(config["model_type"]).spec(ConfigReader(config))


def weights_of(spec: EncoderSpec) -> Weights:
    random = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for name, shape in spec.parameters().items():
        arrays[name] = random.standard_normal(shape, dtype=np.float32) * np.float32(shape[-1] ** -0.5)
        if name.endswith("orm.weight"):
            arrays[name] += 1
    views = {name: TensorView("F32", array.shape, memoryview(array).cast("B")) for name, array in arrays.items()}
    return lambda names: {name: views[name] for name in names}


def programs_of(spec: EncoderSpec) -> list[Program]:
    """Features of every depth: states, means, folds, attention maps, and the pooler where there is one."""
    last = spec.num_hidden_layers
    programs = [Program(captures=(Capture(layers=(i,)),), stop=i) for i in range(last + 1)]
    for i in range(1, last + 1):
        mean = Capture(layers=(i - 1, i), segments="tokens", reduce="sum")
        first = Capture(layers=(i,), segments="tokens", reduce="first")
        maps = Capture(layers=(i,), attention="heads")
        programs.append(Program(captures=(mean, maps), stop=i))
        programs.append(Program(captures=(first,), stop=i, top_rows_only=True))
    if spec.pooler:
        pooler = Capture(layers=(last,), segments="tokens", reduce="first", pooler=True)
        programs.append(Program(captures=(pooler,), stop=last))
    return programs


def batches_of(spec: EncoderSpec) -> list[PackedBatch]:
    """Batches whose longest sequences differ, so that what depends on a length is made anew."""
    random = np.random.default_rng(1)
    return [
        pack(
            [random.integers(4, spec.vocab_size, length).astype(np.int32) for length in lengths],
            position_ids=spec.positions.position_ids,
        )
        for lengths in ((3, 7, 7), (1,), (21, 2, 40), (12, 12))
    ]


Job = tuple[Program, PackedBatch]


def jobs_of(spec: EncoderSpec) -> list[Job]:
    batches = batches_of(spec)
    return [(program, batches[i % len(batches)]) for i, program in enumerate(programs_of(spec))]


def run(backend: Any, job: Job) -> list[np.ndarray]:
    program, batch = job
    found = backend.run(program, batch, {"tokens": segments_of(batch, "tokens")})
    return [found[capture] for capture in program.captures]


def together(calls: list[Callable[[], Any]]) -> list[Any]:
    """The results of calls that begin at the same moment, a thread each."""
    barrier = threading.Barrier(len(calls))

    def started(call: Callable[[], Any]) -> Any:
        barrier.wait()
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(started, calls))


@pytest.fixture(params=slow_except(CONFIGS, "bert", "deberta"))
def spec(request: pytest.FixtureRequest) -> EncoderSpec:
    return spec_of(request.param)


def native_backend(spec: EncoderSpec, weights: Weights) -> Any:
    native = pytest.importorskip("layertap.backends.native._native", reason="the native kernels are not built")
    from layertap.backends.native.backend import NativeBackend
    from layertap.backends.native.supports import supports

    if (unsupported := supports(spec)) is not None:
        pytest.skip(f"native does not run {unsupported}")
    return NativeBackend(spec, weights, precision="float32", threads=2, instruction_set=native.instruction_sets()[0])


@pytest.fixture(params=[TorchBackend, native_backend], ids=["torch", "native"])
def open_backend(request: pytest.FixtureRequest) -> Callable[[EncoderSpec, Weights], Any]:
    """`open_backend(spec, weights)`: a backend that has loaded nothing."""
    return request.param


@pytest.fixture
def differing(open_backend: Callable[..., Any]) -> Callable[[list[np.ndarray], list[np.ndarray]], int]:
    """How many arrays differ: in a bit where native computed them, by more than rounding where torch did."""

    def same(one: np.ndarray, other: np.ndarray) -> bool:
        if open_backend is native_backend:
            return np.array_equal(one, other)
        return np.allclose(one, other, rtol=1e-5, atol=1e-6)

    def count(expected: list[np.ndarray], found: list[np.ndarray]) -> int:
        return sum(not same(one, other) for one, other in zip(expected, found, strict=True))

    return count


@pytest.fixture
def trial(spec: EncoderSpec, open_backend: Any, differing: Any) -> Callable[[int], int]:
    """`trial(seed)`: threads open a new backend together, each with other features; how many results are wrong."""
    weights, jobs = weights_of(spec), jobs_of(spec)
    expected = [run(open_backend(spec, weights), job) for job in jobs]

    def once(seed: int) -> int:
        order = np.random.default_rng(seed).permutation(np.arange(len(jobs)).repeat(2))
        shares = np.array_split(order, THREADS)
        backend = open_backend(spec, weights)
        calls = [lambda own=own: [(i, run(backend, jobs[i])) for i in own] for own in shares]
        return sum(differing(expected[i], found) for results in together(calls) for i, found in results)

    return once


def test_threads_that_load_a_backend_together(trial):
    assert [trial(seed) for seed in range(5)] == [0] * 5


@pytest.mark.parametrize(
    "trials", [pytest.param(4, marks=pytest.mark.slow), pytest.param(200, marks=pytest.mark.stress)]
)
def test_threads_that_load_a_backend_together_many_times(trial, trials):
    assert sum(trial(seed) for seed in range(trials)) == 0


def test_a_load_that_fails_in_one_thread_leaves_nothing_behind(spec, open_backend, differing):
    weights, jobs = weights_of(spec), jobs_of(spec)
    expected = [run(open_backend(spec, weights), job) for job in jobs]
    failures = iter([True, False, True, True])

    def unreliable(names: Any) -> dict[str, TensorView]:
        if next(failures, False):
            raise WeightsError("the file cannot be read now")
        return weights(names)

    backend = open_backend(spec, unreliable)

    def attempt(job: Job) -> list[np.ndarray] | None:
        try:
            return run(backend, job)
        except WeightsError:
            return None

    results = together([lambda job=job: attempt(job) for job in jobs[:THREADS]])
    assert sum(result is None for result in results) == 3
    assert [differing(one, run(backend, job)) for one, job in zip(expected, jobs, strict=True)] == [0] * len(jobs)


@pytest.fixture
def two_torch_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def in_child(call: Callable[[], bool], seconds: int = 60) -> int:
    """Exit status of a forked child: 0 where the call gives True; killed where it takes longer than allowed."""
    process = os.fork()
    if process == 0:
        signal.alarm(seconds)
        code = 1
        try:
            code = 0 if call() else 2
        finally:
            os._exit(code)
    return os.waitpid(process, 0)[1]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.usefixtures("two_torch_threads")
def test_a_forked_child_runs_the_model(open_backend, differing):
    """The threads of torch's pool do not exist in a child, which waited for them without end."""
    config = CONFIGS["bert"] | {"hidden_size": 256, "intermediate_size": 1024, "max_position_embeddings": 512}
    spec = architecture("bert").spec(ConfigReader(config))
    weights = weights_of(spec)
    ids = np.random.default_rng(2).integers(4, 60, 400).astype(np.int32)
    batch = pack([ids] * 4, position_ids=spec.positions.position_ids)
    shallow, deep = ((Program(captures=(Capture(layers=(i,)),), stop=i), batch) for i in (2, 4))
    backend = open_backend(spec, weights)
    expected, expected_deep = run(backend, shallow), run(open_backend(spec, weights), deep)

    def child() -> bool:
        again, deeper = run(backend, shallow), run(backend, deep)
        return differing(expected, again) == differing(expected_deep, deeper) == 0

    assert in_child(child) == 0
    assert differing(expected, run(backend, shallow)) == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_while_another_thread_loads(open_backend, differing):
    """A lock that a thread holds at a fork is held for ever in the child, unless it is renewed there."""
    spec = spec_of("bert")
    weights, job = weights_of(spec), jobs_of(spec)[2]
    loading, go_on = threading.Event(), threading.Event()
    parent = os.getpid()

    def slow(names: Any) -> dict[str, TensorView]:
        if os.getpid() == parent:
            loading.set()
            assert go_on.wait(300)
        return weights(names)

    backend = open_backend(spec, slow)
    expected = run(open_backend(spec, weights), job)
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(run, backend, job)
        assert loading.wait(120)
        try:
            assert in_child(lambda: differing(expected, run(backend, job)) == 0, seconds=120) == 0
        finally:
            go_on.set()
        assert differing(expected, result.result()) == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_model_on_cuda_is_refused_in_a_forked_child():
    """The driver does not survive a fork: torch would raise an error of its own, or hand out zeros."""
    spec = spec_of("bert")
    backend, job = TorchBackend(spec, weights_of(spec)), jobs_of(spec)[0]
    run(backend, job)
    backend.device = torch.device("cuda")  # as if it were there; nothing of it is touched before the refusal

    def child() -> bool:
        with pytest.raises(BackendError, match="CUDA cannot be used in a forked process"):
            run(backend, job)
        return True

    assert in_child(child) == 0
