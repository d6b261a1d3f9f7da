"""Saves a feature as an ONNX graph, exported from the model's class in transformers and compared in onnxruntime.

Shape letters: B sequences, S columns of the padded batch, L layers, H hidden size.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from layertap.checkpoints.keys import to_stored
from layertap.checkpoints.load import POOLER
from layertap.engine.extractor import Extractor
from layertap.engine.variants import InputVariants
from layertap.errors import BackendError, OutputError, one_line
from layertap.features.concat import Concat
from layertap.features.expr import Apply, Expr, LayerFold, Normalize, Pool, Tokens, Truncate, Unnormed
from layertap.features.plan import Plan
from layertap.features.rewrite import sources
from layertap.features.sources import HiddenLayers, PoolerOutput
from layertap.files import StagedFolder, scratch_folder, write_file
from layertap.models.positions import PositionTable
from layertap.models.sentence import Dense, LayerNorm
from layertap.records import Ragged, Record
from layertap.saving.card import SavedModel
from layertap.saving.check import Certificate, sample_texts
from layertap.saving.cut import CutEncoder, cut
from layertap.saving.recipe import check_graph
from layertap.text.encoded import EncodedText
from layertap.verify.reference import Reference, require_transformers

BOUND = 1e-4
"""Largest error of a graph: onnxruntime adds up in another order, and its activations are approximations of its own."""

OPSET = 17
MAX_BYTES = 2**31 - 2**20
"""Bytes of one ONNX file, which protobuf limits to 2 GB; the graph itself takes some of them."""

LIBRARIES = ("onnx", "onnxruntime")
NAMES = ("input_ids", "attention_mask", "token_type_ids")
ACTIVATIONS: dict[str, nn.Module] = {
    "identity": nn.Identity(),
    "tanh": nn.Tanh(),
    "relu": nn.ReLU(),
    "gelu": nn.GELU(),
    "sigmoid": nn.Sigmoid(),
    "silu": nn.SiLU(),
}

Ids = npt.NDArray[np.int64]


def save_graph(extractor: Extractor, feature: str | Expr, output: Path) -> SavedModel:
    """Save a feature as an ONNX graph from token ids to its value.

    Inputs are int64 [B, S] under the names that tokenizers of transformers give them; padding may be on either side.
    The output has the name of the feature: float32 [B, H], [B, L, H] with several layers, [B, S, H] for tokens, where
    rows of padding are zeros.

    Raises:
        FeatureError: the feature has a step that is not exported.
        BackendError: a library is missing, or torch cannot export the model.
        OutputError: the graph differs from the feature by more than rounding, or cannot be written.
    """
    require_transformers()
    for library in LIBRARIES:
        try:
            metadata.version(library)
        except metadata.PackageNotFoundError:
            raise BackendError(
                f"{library}, which graphs need, is not installed: pip install 'layertap[onnx]'"
            ) from None
    plan = extractor.plan(feature)
    (name,) = plan.features
    check_graph(plan.features[name], plan.resolved[name])
    spec = extractor.files.spec
    top = max(_highest(source, spec.num_hidden_layers) for source in sources(plan.resolved[name]))
    # State `top` of a family with a final norm is read before it, so that another block has to stand between.
    encoder = cut(extractor.files, min(spec.num_hidden_layers, max(top + spec.final_norm, 1)))
    _check_size(encoder)
    with scratch_folder(None, "layertap-onnx") as scratch:
        encoder.write(StagedFolder(scratch))
        module = _module(scratch, extractor, plan.resolved[name])
        batches = _batches(extractor, plan)
        inputs = NAMES if _has_token_types(extractor) else NAMES[:2]
        content = _exported(module, inputs, name, batches[0], scratch / "graph.onnx")
    certificate = _checked(content, inputs, batches, extractor, plan)
    certificate.require("the graph")
    saved = SavedModel(
        feature=str(plan.features[name]),
        blocks=(encoder.spec.num_hidden_layers, spec.num_hidden_layers),
        parameters=(encoder.num_parameters, extractor.files.num_parameters),
        size=plan.schemas[0].shape[-1],
        max_length=plan.inputs[0].max_length,
        modules=(f"{', '.join(inputs)} -> {name}",),
        default_prompt=plan.inputs[0].prompt,
        lowercase=plan.inputs[0].lowercase,
        adapted=extractor.files.adapted,
        certificate=certificate,
    )
    write_file(output, _described(content, saved, extractor, feature), overwrite=False)
    return saved


def _highest(source: Expr, num_hidden_layers: int) -> int:
    """Return the highest hidden state that a resolved source reads."""
    if isinstance(source, HiddenLayers):
        return max(_numbers(source))
    return num_hidden_layers


def _numbers(layers: HiddenLayers) -> tuple[int, ...]:
    """Return the layers that a resolved source selects, in their order."""
    selection = layers.selection
    assert isinstance(selection, int | tuple), "resolved"
    return (selection,) if isinstance(selection, int) else selection


def _check_size(encoder: CutEncoder) -> None:
    size = 4 * encoder.num_parameters
    if size > MAX_BYTES:
        raise OutputError(
            f"the graph would take {size:,} bytes, and an ONNX file has at most {MAX_BYTES:,}; save a folder instead "
            "(--to folder)"
        )


class FeatureModule(nn.Module):
    """A feature as a module from padded ids to its value.

    Args:
        model: the encoder, in transformers.
        feature: the resolved feature.
        pooler: the pooler head, or None where the feature reads none.
        final_norm: the norm after the last block, or None.
        num_layers: L of the whole encoder.
        counts_columns: positions are numbers of columns, which are counted from the mask instead.
    """

    def __init__(
        self,
        model: nn.Module,
        feature: Expr,
        *,
        pooler: nn.Module | None,
        final_norm: nn.Module | None,
        num_layers: int,
        counts_columns: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.pooler = pooler
        self.feature = feature
        self.num_layers = num_layers
        self.counts_columns = counts_columns
        self._unnormed: Tensor | None = None
        if final_norm is not None:
            final_norm.register_forward_pre_hook(self._take)

    def _take(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._unnormed = inputs[0]

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """Compute the feature of a padded batch; all arguments are int64 [B, S]."""
        keywords: dict[str, Any] = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        if self.counts_columns:
            # Counted from the mask, so that padding may be on the left, too.
            keywords["position_ids"] = (attention_mask.cumsum(1) - 1).clamp(min=0)
        outputs = self.model(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True, return_dict=True, **keywords
        )
        return self._value(self.feature, outputs.hidden_states, attention_mask)

    def _value(self, expr: Expr, states: tuple[Tensor, ...], mask: Tensor) -> Tensor:
        match expr:
            case Concat():
                return torch.cat([self._value(part, states, mask) for part in expr.parts], dim=-1)
            case Normalize():
                value = self._value(expr.of, states, mask)
                length = value.square().sum(-1, keepdim=True).sqrt()
                return value / torch.where(length == 0, torch.ones_like(length), length)
            case Apply(step=step):
                return _applied(step, self._value(expr.of, states, mask))
            case Truncate(size=size):
                return self._value(expr.of, states, mask)[..., :size]
            case PoolerOutput():
                assert self.pooler is not None
                pooled: Tensor = self.pooler(_pooled("first", self._states(self.num_layers, states), mask))
                return pooled
            case Pool():
                of = expr.of
                several = isinstance(of, HiddenLayers | Unnormed) and of.form.layers
                value = self._states_of(of, states)
                return (
                    torch.stack([_pooled(expr.op, layer, mask) for layer in value.unbind(1)], dim=1)
                    if several
                    else _pooled(expr.op, value, mask)
                )
        value = self._states_of(expr, states)
        cells = mask.to(value.dtype)
        return value * (cells[:, None, :, None] if value.dim() == 4 else cells[..., None])

    def _states_of(self, expr: Expr, states: tuple[Tensor, ...]) -> Tensor:
        """Return [B, S, H], or [B, L, S, H] where the layers axis is kept."""
        match expr:
            case Tokens():
                return self._states_of(expr.of, states)
            case LayerFold(op=op, weights=weights):
                layers = self._states_of(expr.of, states)
                if op == "mix":
                    own = torch.tensor(weights, dtype=layers.dtype)
                    return (layers * own[None, :, None, None]).sum(1)
                if op == "concat":
                    return torch.cat(layers.unbind(1), dim=-1)
                return layers.amax(1) if op == "max" else layers.sum(1) if op == "sum" else layers.mean(1)
            case Unnormed():
                assert isinstance(expr.of, HiddenLayers)
                return self._selected(expr.of, states, unnormed=True)
        assert isinstance(expr, HiddenLayers)
        return self._selected(expr, states, unnormed=False)

    def _selected(self, layers: HiddenLayers, states: tuple[Tensor, ...], *, unnormed: bool) -> Tensor:
        states_of_layers = [self._states(layer, states, unnormed=unnormed) for layer in _numbers(layers)]
        return torch.stack(states_of_layers, dim=1) if layers.form.layers else states_of_layers[0]

    def _states(self, layer: int, states: tuple[Tensor, ...], *, unnormed: bool = False) -> Tensor:
        if unnormed and layer == self.num_layers:
            assert self._unnormed is not None
            return self._unnormed
        return states[layer]


def _applied(step: Dense | LayerNorm, value: Tensor) -> Tensor:
    weight = torch.from_numpy(step.weight.copy())
    bias = None if step.bias is None else torch.from_numpy(step.bias.copy())
    if isinstance(step, LayerNorm):
        return nn.functional.layer_norm(value, (step.size,), weight, bias, step.eps)
    result: Tensor = ACTIVATIONS[step.activation](nn.functional.linear(value, weight, bias))
    if isinstance(step.residual, str):
        return result if step.residual == "none" else result + value
    return result + nn.functional.linear(value, torch.from_numpy(step.residual.copy()))


def _pooled(op: str, value: Tensor, mask: Tensor) -> Tensor:
    """Pool [B, S, H] over the cells of a mask [B, S] to [B, H]."""
    cells = mask.to(value.dtype)[..., None]
    counted = mask.cumsum(1)
    count = cells.sum(1)
    match op:
        case "cls" | "first":
            return (value * (cells * (counted == 1)[..., None])).sum(1)
        case "last":
            return (value * (cells * (counted == counted[:, -1:])[..., None])).sum(1)
        case "max":
            return value.masked_fill(cells == 0, torch.finfo(value.dtype).min).amax(1)
        case "min":
            return value.masked_fill(cells == 0, torch.finfo(value.dtype).max).amin(1)
        case "weighted_mean":
            weights = cells * counted.to(value.dtype)[..., None]
            return (value * weights).sum(1) / weights.sum(1)
    total = (value * cells).sum(1)
    return {"sum": total, "mean": total / count, "mean_sqrt_len": total / count.sqrt()}[op]


def _module(folder: Path, extractor: Extractor, feature: Expr) -> FeatureModule:
    """Load the cut encoder with transformers, and put the feature on it."""
    files, spec = extractor.files, extractor.files.spec
    model = Reference.load(folder, without=("pooler.",)).module
    model.set_attn_implementation("eager")
    pooler = None
    if any(isinstance(source, PoolerOutput) for source in sources(feature)):
        weight, bias = (torch.from_numpy(view.to_float32().copy()) for view in files.weights(POOLER).values())
        dense = nn.Linear(*weight.shape)
        dense.load_state_dict({"weight": weight, "bias": bias})
        pooler = nn.Sequential(dense, nn.Tanh())
    norm = None
    if spec.final_norm:
        rules = files.architecture.class_rules
        norm = model.get_submodule(to_stored("encoder.final_norm.weight", rules).removesuffix(".weight"))
    return FeatureModule(
        model,
        feature,
        pooler=pooler,
        final_norm=norm,
        num_layers=spec.num_hidden_layers,
        counts_columns=isinstance(spec.positions, PositionTable) and spec.positions.padding_id is None,
    ).eval()


def _has_token_types(extractor: Extractor) -> bool:
    """Return whether the tokenizer tells the second text of a pair by token types that the model has."""
    if extractor.files.spec.type_vocab_size < 2:
        return False
    types = extractor.tokenizer.encode(["a"], ["b"])[0].token_type_ids
    return types is not None and bool(types.any())


class Batch:
    """Texts that run together in one padded batch.

    Attributes:
        rows: numbers of the texts.
        encoded: their tokens.
    """

    def __init__(self, rows: Sequence[int], encoded: Sequence[EncodedText], pad: int) -> None:
        self.rows = list(rows)
        self.encoded = list(encoded)
        self._pad = pad

    def padded(self, side: str) -> dict[str, Ids]:
        """Return int64 [B, S] by name, padded on the right or left, with one column more than the longest text."""
        width = max(len(text.input_ids) for text in self.encoded) + 1
        arrays = {name: np.zeros((len(self.rows), width), dtype=np.int64) for name in NAMES}
        arrays["input_ids"][:] = self._pad
        for row, text in enumerate(self.encoded):
            length = len(text.input_ids)
            cells = slice(0, length) if side == "right" else slice(width - length, width)
            arrays["input_ids"][row, cells] = text.input_ids
            arrays["attention_mask"][row, cells] = 1
            if text.token_type_ids is not None:
                arrays["token_type_ids"][row, cells] = text.token_type_ids
        return arrays


def _batches(extractor: Extractor, plan: Plan) -> list[Batch]:
    """Return texts, cut to the limit, in two batches of different shapes."""
    limit = plan.inputs[0].max_length
    variants = InputVariants(inputs=plan.inputs, tokenizer=extractor.tokenizer, lowercased=extractor.lowercased)
    records = [Record(text=text, row=i) for i, text in enumerate(sample_texts(extractor, limit))]
    encoded = [own.limited(limit) for (own,) in variants.encode(records)]
    rows = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    middle = len(rows) // 3
    pad = extractor.files.spec.pad_token_id or 0
    return [Batch(part, [encoded[i] for i in part], pad) for part in (rows[:middle], rows[middle:])]


def _exported(module: FeatureModule, inputs: Sequence[str], name: str, batch: Batch, file: Path) -> bytes:
    """Export a module with both axes of its inputs dynamic."""
    example = batch.padded("right")
    axes = {own: {0: "batch", 1: "sequence"} for own in inputs}
    with torch.inference_mode():
        arguments = tuple(torch.from_numpy(example[own]) for own in inputs)
        shape = module(*arguments).shape
        names = {0: "batch"} | {i: "sequence" for i in range(1, len(shape)) if shape[i] == arguments[0].shape[1]}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about tracing, whose result is compared below
                torch.onnx.export(
                    module,
                    arguments,
                    file,
                    input_names=list(inputs),
                    output_names=[name],
                    dynamic_axes=axes | {name: names},
                    opset_version=OPSET,
                    dynamo=False,
                )
        except Exception as error:  # the exporter raises errors of any kind
            raise BackendError(f"torch cannot export this model as an ONNX graph: {one_line(error)}") from error
    return file.read_bytes()


def _checked(
    content: bytes, inputs: Sequence[str], batches: Sequence[Batch], extractor: Extractor, plan: Plan
) -> Certificate:
    """Compare the graph in onnxruntime with the feature, in two shapes and with padding on either side."""
    import onnxruntime

    (feature,) = plan.features.values()
    session_options = onnxruntime.SessionOptions()
    session_options.log_severity_level = 3
    texts = sample_texts(extractor, plan.inputs[0].max_length)
    actual, expected = [], []
    try:
        session = onnxruntime.InferenceSession(content, session_options, providers=["CPUExecutionProvider"])
        for batch in batches:
            values = extractor.extract([texts[row] for row in batch.rows], feature)
            for side in ("right", "left"):
                arrays = batch.padded(side)
                (value,) = session.run(None, {name: arrays[name] for name in inputs})
                if isinstance(values, Ragged):
                    rows = arrays["attention_mask"].astype(bool)
                    # [B, L, S, H] where layers are kept, and features have tokens first
                    cells = np.moveaxis(value, 1, 2)[rows] if value.ndim == 4 else value[rows]
                    actual.append(cells.reshape(-1, cells.shape[-1]))
                    expected.append(np.asarray(values.values).reshape(-1, cells.shape[-1]))
                else:
                    actual.append(value.reshape(-1, value.shape[-1]))
                    expected.append(np.asarray(values).reshape(-1, value.shape[-1]))
    except Exception as error:
        if type(error).__module__.startswith("onnxruntime"):
            raise BackendError(f"onnxruntime cannot run the graph: {one_line(error)}") from error
        raise
    certificate = Certificate.of(np.concatenate(actual), np.concatenate(expected), bound=BOUND)
    return replace(certificate, texts=2 * len(texts))


def _described(content: bytes, saved: SavedModel, extractor: Extractor, feature: str | Expr) -> bytes:
    """Add the feature, its check and its provenance to the metadata of a graph."""
    import onnx

    model = onnx.load_model_from_string(content)
    facts = {
        "feature": saved.feature,
        "max_length": str(saved.max_length),
        "prompt": saved.default_prompt,
        "check": json.dumps(dict(saved.certificate.values())),
        "layertap": json.dumps(extractor.provenance(feature).as_dict()),
    }
    onnx.helper.set_model_props(model, facts)
    described: bytes = model.SerializeToString()
    return described
