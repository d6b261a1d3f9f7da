"""The command ``python -m benchmarks device``: what a device does with layertap, step by step (see `device.sh`).

Models have random weights of their usual shape, made on the spot; MiniLM's tokenizer is used where it is found. Times
on the device are those of its own clock (CUDA events), wall times those of the caller. Every figure is printed as soon
as it is known.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import read_machine, read_versions
from benchmarks.models import ModelNotFoundError, minilm_folder, model_spec, read_shape
from layertap.backends.facts import ROWS, Precision
from layertap.backends.torch.backend import TorchBackend
from layertap.backends.torch.devices import device_named, kind_of
from layertap.backends.torch.varlen import path_of
from layertap.engine.segments import segments_of
from layertap.errors import LayertapError
from layertap.features.program import Capture, Program, SegmentKind
from layertap.models.spec import EncoderSpec
from layertap.packing import PackedBatch, Segments, pack
from layertap.tensors import TensorView

COPIED_BYTES = 256 << 20
LENGTHS = {"64": (64, 64), "mixed": (5, 512), "512": (512, 512)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Options of all steps.

    Attributes:
        device: name of the device.
        model: name of the model in `benchmarks.models`.
        tokens: number of tokens of a batch.
        layers: number of blocks, or None for the model's own; a rehearsal takes few.
        texts: number of texts of an end-to-end run.
        rounds: number of measured rounds.
        steps: number of training steps.
        product: size of the square matrices whose product gives the peak.
        precisions: precisions to measure.
        minilm: folder of all-MiniLM-L6-v2, or None for the installed package.
    """

    device: str
    model: str
    tokens: int
    layers: int | None
    texts: int
    rounds: int
    steps: int
    product: int
    precisions: tuple[Precision, ...]
    minilm: Path | None = None


def say(name: str, value: object) -> None:
    """Print one figure with its name."""
    print(f"{name:<58} {value}", flush=True)


@contextmanager
def clocks(device: str) -> Iterator[Callable[[], tuple[float, float]]]:
    """Measure a block; the function gives its seconds on the device (on a processor, wall) and its wall seconds."""
    import torch

    on_cuda = kind_of(device_named(device)) == "cuda"
    taken: list[float] = []
    if on_cuda:
        torch.cuda.synchronize()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
    start = time.perf_counter()
    yield lambda: (taken[0], taken[1])
    if on_cuda:
        end.record()
        torch.cuda.synchronize()
    wall = time.perf_counter() - start
    taken += [begin.elapsed_time(end) / 1000 if on_cuda else wall, wall]


def median_times(device: str, call: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Run once unmeasured and then some rounds; return the median seconds on the device and of the wall."""
    call()
    times = []
    for _ in range(rounds):
        with clocks(device) as taken:
            call()
        times.append(taken())
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times)


def versions(options: Options) -> None:
    """Say what is installed, and which attention kernel each precision takes."""
    import torch

    device = device_named(options.device)
    say("machine", read_machine().processor)
    for name, version in read_versions().items():
        say(name, version)
    if kind_of(device) == "cuda":
        say(
            "device",
            f"{torch.cuda.get_device_name(device)}, compute capability {torch.cuda.get_device_capability(device)}",
        )
        say("memory of the device", f"{torch.cuda.mem_get_info(device)[1] / 1e9:.1f} GB")
        say("CUDA", torch.version.cuda)
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            say(f"attention in {dtype}, head size 64", path_of(dtype, device, 64))
            say(f"attention in {dtype}, head size 64, windows", path_of(dtype, device, 64, window=64))
    for name in ("_flash_attention_forward", "_efficient_attention_forward", "_fused_rms_norm"):
        say(f"aten::{name}", "there" if hasattr(torch.ops.aten, name) else "MISSING")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Peak rates of a device as torch reaches them: products in operations a second, copies in bytes a second."""

    products: float
    copies: float


def measure_rates(options: Options, precision: Precision) -> Rates:
    """Measure the rates of a precision with one large product and one large copy."""
    import torch

    from layertap.backends.torch.devices import dtype_on
    from layertap.backends.torch.tf32 import float32_products

    device, size = device_named(options.device), options.product
    one, other = (torch.randn(size, size, device=device).to(dtype_on(precision, device)) for _ in range(2))
    with float32_products(tf32=precision == "float32-high"):
        seconds, _ = median_times(options.device, partial(torch.matmul, one, other), options.rounds)
    block = torch.empty(COPIED_BYTES, dtype=torch.uint8, device=device)
    copying, _ = median_times(options.device, block.clone, options.rounds)
    return Rates(products=2 * size**3 / seconds, copies=2 * COPIED_BYTES / copying)


def floor_seconds(spec: EncoderSpec, batch: PackedBatch, precision: Precision, rates: Rates) -> float:
    """Compute the least time of a batch: its products at the peak, and 18 passes over hidden states in each block."""
    flops = read_shape(spec).flops(batch.lengths.tolist())
    width = 4 if precision.startswith("float32") else 2
    passes = 18 * spec.num_hidden_layers * batch.num_tokens * spec.hidden_size * width
    return flops / rates.products + passes / rates.copies


def floors(options: Options) -> None:
    """Measure products, copies on the device, and copies to and from it."""
    import torch

    device, size = device_named(options.device), options.product
    for precision in options.precisions:
        rates = measure_rates(options, precision)
        say(f"product {size} x {size} x {size}, {precision}", f"{rates.products / 1e12:.3f} TFLOP/s")
    block = torch.empty(COPIED_BYTES, dtype=torch.uint8, device=device)
    seconds, _ = median_times(options.device, lambda: block.clone(), options.rounds)
    say("copy on the device, read and written", f"{2 * COPIED_BYTES / seconds / 1e9:.1f} GB/s")
    for kind in ("pageable", "pinned") if kind_of(device) == "cuda" else ("pageable",):
        host = torch.empty(COPIED_BYTES, dtype=torch.uint8, pin_memory=kind == "pinned")
        _, wall = median_times(options.device, partial(host.to, device, non_blocking=True, copy=True), options.rounds)
        say(f"copy to the device, {kind}", f"{COPIED_BYTES / wall / 1e9:.1f} GB/s")
        _, wall = median_times(options.device, partial(host.copy_, block), options.rounds)
        say(f"copy from the device, {kind}", f"{COPIED_BYTES / wall / 1e9:.1f} GB/s")


def random_weights(spec: EncoderSpec) -> Callable[[Any], dict[str, TensorView]]:
    """Return a source of small random float32 weights for a spec, by canonical name."""
    import torch

    from layertap.backends.torch.encoder import Encoder

    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in Encoder(spec, pooler=False).state_dict().items()}

    def weights(names: Any) -> dict[str, TensorView]:
        random = np.random.default_rng(0)
        views = {}
        for name in names:
            values = random.standard_normal(shapes[name], dtype=np.float32) * np.float32(0.02)
            values += 1.0 if len(shapes[name]) == 1 and name.endswith("weight") else 0.0
            views[name] = TensorView("F32", shapes[name], memoryview(values.data).cast("B"))
        return views

    return weights


def random_batch(spec: EncoderSpec, tokens: int, lengths: tuple[int, int]) -> PackedBatch:
    """Pack texts of random ids, sorted by length as a chunk gives them."""
    random = np.random.default_rng(0)
    drawn: list[int] = []
    while sum(drawn) + lengths[1] <= max(tokens, lengths[1]):
        drawn.append(int(random.integers(lengths[0], lengths[1] + 1)))
    sequences = [random.integers(0, spec.vocab_size, length).astype(np.int32) for length in sorted(drawn)]
    return pack(sequences, position_ids=spec.positions.position_ids)


def programs(spec: EncoderSpec) -> dict[str, Program]:
    """List the programs that are measured: the mean of the last layer, all states, and attention maps of one layer."""
    last = spec.num_hidden_layers
    return {
        "mean": Program(captures=(Capture(layers=(last,), segments="tokens", reduce="sum"),), stop=last),
        "all states": Program(captures=tuple(Capture(layers=(i,)) for i in range(last + 1)), stop=last),
        "attentions": Program(captures=(Capture(layers=(last,), attention="mean"),), stop=last),
    }


def measure_batch(
    options: Options, model: str, precision: Precision, lengths: str, program: str, rates: Rates | None = None
) -> None:
    """Measure one batch: time on the device and wall, also as shares of the floor, kernels, waits, peak memory."""
    import torch

    spec = model_spec(model, layers=options.layers)
    batch = random_batch(spec, options.tokens, LENGTHS[lengths])
    backend = TorchBackend(spec, random_weights(spec), device=options.device, precision=precision)
    segments: dict[SegmentKind, Segments] = {"tokens": segments_of(batch, "tokens")}
    asked = programs(spec)[program]

    def run() -> object:
        return backend.run(asked, batch, segments)

    label = f"{model}, {precision}, {program}, lengths {lengths}"
    with clocks(options.device) as first:
        run()
    on_cuda = backend.overlaps
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds, wall = median_times(options.device, run, options.rounds)
    flops = read_shape(spec).flops(batch.lengths.tolist())
    say(f"{label}: first run", f"{first()[1]:.3f} s")
    say(f"{label}: device", f"{seconds * 1000:.2f} ms, {batch.num_tokens / seconds / 1e6:.3f} M tokens/s")
    say(f"{label}: wall", f"{wall * 1000:.2f} ms, {batch.num_tokens / wall / 1e6:.3f} M tokens/s")
    say(f"{label}: products", f"{flops / seconds / 1e12:.2f} TFLOP/s")
    if rates is not None:
        least = floor_seconds(spec, batch, precision, rates)
        say(
            f"{label}: floor",
            f"{least * 1000:.2f} ms: {least / seconds:.0%} of the device, {least / wall:.0%} of the wall",
        )
    if on_cuda:
        say(f"{label}: peak memory", f"{torch.cuda.max_memory_allocated() / 1e9:.2f} GB")
        kernels, waits = count_kernels(run)
        say(f"{label}: kernels, waits", f"{kernels}, {waits}")


def count_kernels(run: Callable[[], object]) -> tuple[int, int]:
    """Count the kernels that a call launches, and the calls in which the processor waits for the device."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        run()
    names = [event.name for event in seen.events() or ()]
    waits = sum(name in ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize") for name in names)
    return sum(name.startswith(("cudaLaunchKernel", "cuLaunchKernel")) for name in names), waits


def batch(options: Options) -> None:
    """Measure a batch of each mixture of lengths in each precision."""
    for precision in options.precisions:
        rates = measure_rates(options, precision)
        for lengths in LENGTHS:
            measure_batch(options, options.model, precision, lengths, "mean", rates)


def biases(options: Options) -> None:
    """Measure models with position terms in their scores, whose attention runs once for each length."""
    for model in ("mpnet-base", "deberta-base"):
        measure_batch(options, model, options.precisions[0], "mixed", "mean")


def states(options: Options) -> None:
    """Measure results that are large: all states, and attention maps."""
    for program in ("all states", "attentions"):
        measure_batch(options, options.model, options.precisions[0], "mixed", program)


def texts_of(folder: Path, count: int) -> list[str]:
    """Make texts of random words of the tokenizer, most of them short, some at the limit."""
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    words = sorted(word for word in vocabulary if word.isalpha() and word.isascii())
    random = np.random.default_rng(0)
    lengths = np.clip(np.exp(random.normal(4.0, 0.9, count)), 3, 600).astype(int)
    return [" ".join(random.choice(words, length)) for length in lengths]


def end_to_end(options: Options) -> None:
    """Compare the whole job, texts in and vectors out, with transformers and sentence-transformers, in turn."""
    from benchmarks.models import model_folder
    from benchmarks.peers import Settings, layertap_rows, sentence_transformers_rows, transformers_rows
    from benchmarks.speed import agreement

    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(
            options.model, cache=Path(scratch), data=Path(), layers=options.layers, minilm=options.minilm
        )
        texts = texts_of(folder, options.texts)
        settings = Settings(
            folder=folder, cache=Path(scratch), threads=4, max_length=512, calibration=(), device=options.device
        )
        precision: Any = options.precisions[0]
        loaded = {
            "layertap": (layertap_rows.load(settings, "", precision=precision, backend="torch"), 0),
            "transformers, sorted": (transformers_rows.load(settings, "sorted", precision=precision), 128),
            "sentence-transformers": (sentence_transformers_rows.load(settings, "encode", precision=precision), 128),
        }
        vectors = {name: embed(texts, size) for name, (embed, size) in loaded.items()}
        for name in list(loaded)[:2]:
            say(f"{name}: agreement with sentence-transformers", agreement(vectors[name], vectors[list(loaded)[2]]))
        seconds: dict[str, list[float]] = {name: [] for name in loaded}
        for _ in range(options.rounds):
            for name, (embed, size) in loaded.items():
                start = time.perf_counter()
                embed(texts, size)
                seconds[name].append(time.perf_counter() - start)
        for name, times in seconds.items():
            ratio = statistics.median(b / a for a, b in zip(seconds["layertap"], times, strict=True))
            say(
                f"{name}, {precision}, {len(texts)} texts",
                f"{len(texts) / statistics.median(times):.1f} texts/s, {ratio:.2f} x layertap's time",
            )


def parity(options: Options) -> None:
    """Compare MiniLM on the device with transformers in float32 on the processor."""
    import torch
    from transformers import AutoModel

    from layertap import Extractor
    from layertap.verify.measure import Difference

    folder = options.minilm or minilm_folder()
    texts = texts_of(folder, min(options.texts, 50))
    extractors = {
        precision: Extractor.from_pretrained(folder, backend="torch", device=options.device, precision=precision)
        for precision in options.precisions
    }
    tokenizer = next(iter(extractors.values())).tokenizer
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        encoded = [torch.as_tensor(text.input_ids[:512], dtype=torch.long)[None] for text in tokenizer.encode(texts)]
        expected = np.stack([model(input_ids=ids).last_hidden_state[0, 0].numpy() for ids in encoded])
    for precision, extractor in extractors.items():
        vectors = np.asarray(extractor.extract(texts, "last_hidden_state.first"))
        difference = Difference.of(vectors.astype(np.float64), expected.astype(np.float64))
        say(f"MiniLM, {precision}: |error| / RMS", f"{difference.error_over_rms:.2g}")


def training(options: Options) -> None:
    """Measure training steps of the encoder: AdamW, dropout, bfloat16 by autocast."""
    import torch

    from layertap.backends.torch.encoder import Encoder, PackedTensors
    from layertap.backends.torch.layout import Layout

    device, spec = device_named(options.device), model_spec(options.model, layers=options.layers)
    encoder = Encoder(spec, pooler=False).train().to(device)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-5, fused=kind_of(device) == "cuda")
    packed = random_batch(spec, max(64, options.tokens // 8), LENGTHS["mixed"])
    inputs = PackedTensors(
        input_ids=torch.as_tensor(packed.input_ids, dtype=torch.long, device=device),
        position_ids=torch.as_tensor(packed.position_ids, dtype=torch.long, device=device),
        token_type_ids=None,
        layout=Layout.of(packed.lengths.tolist()),
    )

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            *_, (_, last) = encoder.states(inputs)
        torch.autograd.backward(last.float().square().mean())
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    seconds, wall = median_times(options.device, step, options.steps)
    say(f"training step, {packed.num_tokens} tokens: device", f"{seconds * 1000:.2f} ms")
    say(f"training step, {packed.num_tokens} tokens: wall", f"{packed.num_tokens / wall:.0f} tokens/s")


def twice(options: Options) -> None:
    """Run one batch twice and compare bits, then with a fiftieth of the memory, where batches have to be halved."""
    import torch

    from benchmarks.models import model_folder
    from layertap import Extractor

    with tempfile.TemporaryDirectory() as scratch:
        folder = model_folder(
            options.model, cache=Path(scratch), data=Path(), layers=options.layers, minilm=options.minilm
        )
        texts = texts_of(folder, options.texts)
        extractor = Extractor.from_pretrained(
            folder, backend="torch", device=options.device, precision=options.precisions[0], batch_tokens=options.tokens
        )
        one, other = (np.asarray(extractor.extract(texts, "last_hidden_state.mean")) for _ in range(2))
        say("the same texts twice", "the same bits" if one.tobytes() == other.tobytes() else "OTHER BITS")
        if not extractor.backend.overlaps:
            return
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(0.02)
        stream = extractor.stream(texts, "last_hidden_state.mean")
        halved = np.concatenate([batch.features["last_hidden_state.mean"] for batch in stream])
        say("a fiftieth of the memory", f"largest difference {np.abs(halved - one).max():.2g}")
        say("what the summary says", "; ".join(stream.summary.notes()))


STEPS: dict[str, Callable[[Options], None]] = {
    "versions": versions,
    "floors": floors,
    "parity": parity,
    "batch": batch,
    "biases": biases,
    "end-to-end": end_to_end,
    "states": states,
    "training": training,
    "twice": twice,
}


def main(arguments: Sequence[str]) -> int:
    """Run the steps that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks device", description=__doc__)
    parser.add_argument(
        "steps", nargs="*", choices=[*STEPS, []], metavar="step", help=f"of {', '.join(STEPS)}; all without any"
    )
    parser.add_argument("--device", default="cuda", help="cpu, cuda or cuda:N; cpu is a rehearsal")
    parser.add_argument("--model", choices=("bert-base", "bert-large"), default="bert-base")
    parser.add_argument("--tokens", type=int, default=65_536, help="of a batch")
    parser.add_argument("--layers", type=int, help="blocks of the models; their own without it")
    parser.add_argument("--texts", type=int, default=20_000, help="of an end-to-end run")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minilm", type=Path, help="folder of all-MiniLM-L6-v2; without it, the installed package")
    parser.add_argument("--training-steps", type=int, default=30)
    parser.add_argument("--product", type=int, default=8_192, help="size of the matrices of the peak")
    parser.add_argument(
        "--precision",
        nargs="+",
        choices=sorted({name for row in ROWS if row.backend == "torch" for name in row.precisions}),
        default=["bfloat16", "float32", "float32-high"],
        help="the first one where one is enough",
    )
    given = parser.parse_args(arguments)
    options = Options(
        device=given.device,
        model=given.model,
        tokens=given.tokens,
        layers=given.layers,
        texts=given.texts,
        rounds=given.rounds,
        steps=given.training_steps,
        product=given.product,
        precisions=tuple(given.precision),
        minilm=given.minilm,
    )
    try:
        for name in given.steps or STEPS:
            print(f"== {name}", flush=True)
            start = time.perf_counter()
            STEPS[name](options)
            say(f"({name} took", f"{time.perf_counter() - start:.1f} s)")
    except (LayertapError, ModelNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0
