"""Rows of OpenVINO: float32, bfloat16 and post-training int8, each with either performance hint."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.batches import (
    FloatArray,
    IntArray,
    load_tokenizer,
    read_pad_id,
    sorted_batches,
    token_ids,
)
from benchmarks.peers.export import mean_pooled_model
from benchmarks.peers.row import Embed, Precision, Row, Settings, every_batch_size

_HINTS = {f"sorted, {hint.lower()} hint": hint for hint in ("THROUGHPUT", "LATENCY")}


def _plain_file(settings: Settings) -> Path:
    return settings.cache / "openvino-float32.xml"


def _int8_file(settings: Settings) -> Path:
    return settings.cache / "openvino-int8.xml"


def prepare_plain(settings: Settings) -> None:
    """Convert the torch model unless the cache holds the result."""
    if _plain_file(settings).is_file():
        return
    import openvino

    model, example = mean_pooled_model(settings.folder, attention="sdpa")
    converted = openvino.convert_model(model, example_input=example)
    for node, name in zip(converted.inputs, ("input_ids", "attention_mask"), strict=True):
        node.get_tensor().set_names({name})
    openvino.save_model(converted, _plain_file(settings), compress_to_fp16=False)


def prepare_int8(settings: Settings) -> None:
    """Quantise after training, in NNCF's transformer mode, on texts of the same kind as those that are timed."""
    prepare_plain(settings)
    if _int8_file(settings).is_file():
        return
    import nncf
    import openvino

    tokenizer = load_tokenizer(settings.folder, settings.max_length)
    batches = sorted_batches(token_ids(tokenizer, settings.calibration), 1, read_pad_id(settings.folder))
    examples = [{"input_ids": batch.input_ids, "attention_mask": batch.attention_mask} for batch in batches]
    quantized = nncf.quantize(
        openvino.Core().read_model(_plain_file(settings)),
        nncf.Dataset(examples),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(examples),
    )
    openvino.save_model(quantized, _int8_file(settings), compress_to_fp16=False)


def load(settings: Settings, setup: str, *, precision: Precision) -> Embed:
    """Load a compiled model behind an asynchronous queue, so that the throughput hint can use its streams."""
    import openvino

    core = openvino.Core()
    can_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bfloat16" and not can_bfloat16:
        raise RuntimeError("OpenVINO computes no bfloat16 on this processor")
    # by OpenVINO's default, the unquantised parts of an int8 model run in bfloat16 if the processor supports it
    rest = "bf16" if precision != "float32" and can_bfloat16 else "f32"
    compiled = core.compile_model(
        _int8_file(settings) if precision == "int8" else _plain_file(settings),
        "CPU",
        {
            "PERFORMANCE_HINT": _HINTS[setup],
            "INFERENCE_PRECISION_HINT": rest,
            "INFERENCE_NUM_THREADS": settings.threads,
        },
    )
    queue = openvino.AsyncInferQueue(compiled)
    tokenizer = load_tokenizer(settings.folder, settings.max_length)
    pad_id = read_pad_id(settings.folder)

    def embed(texts: Sequence[str], batch_size: int) -> FloatArray:
        results: list[tuple[IntArray, FloatArray]] = []

        def keep(request: Any, which: IntArray) -> None:
            results.append((which, request.get_output_tensor(0).data.copy()))

        queue.set_callback(keep)
        for batch in sorted_batches(token_ids(tokenizer, texts), batch_size, pad_id):
            feed = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
            queue.start_async(feed, batch.which)
        queue.wait_all()
        vectors = np.empty((len(texts), results[0][1].shape[1]), dtype=np.float32)
        for which, part in results:
            vectors[which] = part
        return vectors

    return embed


def _row(precision: Precision) -> Row:
    return Row(
        name=f"openvino-{precision}",
        library="openvino",
        precision=precision,
        variants=every_batch_size(*_HINTS),
        prepare=prepare_int8 if precision == "int8" else prepare_plain,
        load=partial(load, precision=precision),
    )


ROWS = (_row("float32"), _row("bfloat16"), _row("int8"))
