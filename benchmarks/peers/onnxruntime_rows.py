"""Rows of ONNX Runtime: graph fused by its transformer optimiser, float32 and dynamically quantised int8."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.peers.batches import FloatArray, load_tokenizer, read_pad_id, sorted_batches, token_ids
from benchmarks.peers.export import INPUT_NAMES, OUTPUT_NAME, mean_pooled_model
from benchmarks.peers.row import Embed, Precision, Row, Settings, every_batch_size


def _files(settings: Settings) -> dict[str, Path]:
    return {name: settings.cache / f"onnx-{name}.onnx" for name in ("plain", "float32", "int8")}


def prepare(settings: Settings) -> None:
    """Export, fuse and quantise the model unless the cache holds the result."""
    files = _files(settings)
    if files["int8"].is_file():
        return
    _export(settings.folder, files["plain"])
    _fuse(settings.folder, files["plain"], files["float32"])
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        files["float32"],
        files["int8"],
        weight_type=QuantType.QInt8,
        per_channel=True,
        # shape inference fails on the fused operators
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )


def _export(folder: Path, target: Path) -> None:
    import torch

    # The fusions recognise only the graph of eager attention as the tracing exporter writes it.
    model, example = mean_pooled_model(folder, attention="eager")
    sequences = {0: "batch", 1: "tokens"}
    torch.onnx.export(
        model,
        example,
        str(target),
        input_names=list(INPUT_NAMES),
        output_names=[OUTPUT_NAME],
        dynamic_axes={**dict.fromkeys(INPUT_NAMES, sequences), OUTPUT_NAME: {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )


def _fuse(folder: Path, source: Path, target: Path) -> None:
    from onnxruntime.transformers import optimizer

    config = json.loads((folder / "config.json").read_text("utf-8"))
    fused = optimizer.optimize_model(
        str(source),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=0,
    )
    counts = fused.get_fused_operator_statistics()
    if counts["Attention"] != config["num_hidden_layers"]:
        raise RuntimeError(f"ONNX Runtime's optimiser fused {counts['Attention']} attentions: not its best")
    fused.save_model_to_file(str(target))


def load(settings: Settings, setup: str, *, precision: Precision) -> Embed:  # noqa: ARG001 - rows share one signature; here is one set-up
    """Load a session on all threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(_files(settings)[precision]), options, providers=["CPUExecutionProvider"]
    )
    tokenizer = load_tokenizer(settings.folder, settings.max_length)
    pad_id = read_pad_id(settings.folder)

    def embed(texts: Sequence[str], batch_size: int) -> FloatArray:
        vectors: list[FloatArray] = []
        order = []
        for batch in sorted_batches(token_ids(tokenizer, texts), batch_size, pad_id):
            feed = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
            vectors.append(session.run(None, feed)[0])
            order.append(batch.which)
        result = np.empty((len(texts), vectors[0].shape[1]), dtype=np.float32)
        result[np.concatenate(order)] = np.concatenate(vectors)
        return result

    return embed


def _row(precision: Precision) -> Row:
    return Row(
        name=f"onnxruntime-{precision}",
        library="onnxruntime",
        precision=precision,
        variants=every_batch_size("sorted"),
        prepare=prepare,
        load=partial(load, precision=precision),
    )


ROWS = (_row("float32"), _row("int8"))
