"""The modules of a sentence-transformers folder that follow the encoder, one function each.

Follows sentence-transformers 6 (`WeightedLayerPooling`, `Pooling`, `Dense`, `LayerNorm`, `Normalize`) and the file
forms of every version before it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from layertap.checkpoints.json_file import read_array, read_object
from layertap.checkpoints.source import Checkpoint
from layertap.checkpoints.tensors import PICKLE, SAFETENSORS, read_safetensors
from layertap.errors import ConfigError, WeightsError
from layertap.models.config import ConfigReader, short
from layertap.models.sentence import Dense, DenseActivation, LayerNorm, SentencePooling
from layertap.tensors import FLOAT_BITS, TensorView

POOLING_MODES: dict[str, SentencePooling] = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last",
}
# Old keys, in the order in which their vectors are joined.
OLD_POOLING_KEYS: dict[str, SentencePooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}
SIZE_KEYS = ("embedding_dimension", "word_embedding_dimension")
# Classes of torch.nn, wherever they are imported from.
ACTIVATIONS: dict[str, DenseActivation] = {
    "Identity": "identity",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
}
ON_SENTENCES = {"module_input_name": "sentence_embedding", "module_output_name": ("sentence_embedding", None)}


class RefusedError(Exception):
    """Carries a refusal out of the readers of sentence-transformers files; never leaves them."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SentenceFolder:
    """A folder of sentence-transformers as its readers see it.

    Attributes:
        checkpoint: where it is.
        read_pickle: what reads a `pytorch_model.bin`, or None: it is not allowed, or nothing does.
        files: names of the files that were read.
    """

    checkpoint: Checkpoint
    read_pickle: Callable[[Path], Mapping[str, TensorView]] | None = None
    files: list[str] = field(default_factory=list)

    def find(self, name: str) -> Path | None:
        """Return a file's path, or None where it is not there; it counts as read."""
        path = self.checkpoint.file(name)
        if path is not None and name not in self.files:
            self.files.append(name)
        return path

    def object(self, name: str) -> dict[str, Any] | None:
        """Return the JSON object in a file, or None where it is not there."""
        path = self.find(name)
        return None if path is None else read_object(path)

    def array(self, name: str) -> list[Any] | None:
        """Return the JSON array in a file, or None where it is not there."""
        path = self.find(name)
        return None if path is None else read_array(path)

    def config(self, place: str) -> tuple[str, dict[str, Any]]:
        """Return name and content of the `config.json` of a module, which it cannot do without."""
        name = inside(place, "config.json")
        config = self.object(name)
        if config is None:
            raise RefusedError(f"modules.json: {shown(name)} is missing")
        return name, config

    def weights(self, place: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, npt.NDArray[np.float32]]:
        """Read a module's weights as float32 arrays: exactly these keys, of these shapes."""
        path = self.find(inside(place, SAFETENSORS))
        if path is not None:
            views: Mapping[str, TensorView] = read_safetensors(path)
        else:
            if self.checkpoint.file(inside(place, PICKLE)) is None:
                raise RefusedError(f"modules.json: {shown(inside(place, SAFETENSORS))} is missing")
            if self.read_pickle is None:
                raise RefusedError(
                    f"{shown(inside(place, PICKLE))}: a pickle file, which could run code when read, and no "
                    f"{SAFETENSORS} beside it; pass --allow-pickle (allow_pickle=True) if you trust its source"
                )
            path = self.find(inside(place, PICKLE))
            assert path is not None
            views = self.read_pickle(path)
        return _checked(path, views, shapes)


def _checked(
    path: Path, views: Mapping[str, TensorView], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, npt.NDArray[np.float32]]:
    if set(views) != set(shapes):
        raise WeightsError(f"{path}: expected {', '.join(shapes)}, found {listed(sorted(views))}")
    for key, shape in shapes.items():
        view = views[key]
        if view.shape != shape:
            raise WeightsError(
                f"{path}: {key}: expected shape {list(shape)} (as its config.json says), found {list(view.shape)}"
            )
        if view.dtype not in FLOAT_BITS:
            raise WeightsError(f"{path}: {key}: expected one of {', '.join(FLOAT_BITS)}, found {view.dtype}")
        if not view.is_finite():
            raise WeightsError(f"{path}: {key}: expected finite float32 values, found NaN or infinity")
    return {key: views[key].to_float32() for key in shapes}


def read_pooling(folder: SentenceFolder, place: str, size: int) -> tuple[tuple[SentencePooling, ...], bool]:
    """Return the poolings in the order in which they are joined, and whether the prompt's tokens are pooled too."""
    name, config = folder.config(place)
    refuse_unknown(config, name, (*SIZE_KEYS, *OLD_POOLING_KEYS, "pooling_mode", "include_prompt"))
    _check_size(config, name, size, "hidden_size")
    path = folder.checkpoint.folder / name
    for key in (*OLD_POOLING_KEYS, "include_prompt"):
        if not isinstance(config.get(key, False), bool):
            raise ConfigError(f"{path}: {key}: expected true or false, found {short(config[key])}")
    include_prompt = bool(config.get("include_prompt", True))
    if "pooling_mode" not in config:
        old = tuple(pooling for key, pooling in OLD_POOLING_KEYS.items() if config.get(key))
        return old or ("mean",), include_prompt
    value = config["pooling_mode"]
    modes = value if isinstance(value, list) else [value]
    if not modes or not all(isinstance(mode, str) and mode in POOLING_MODES for mode in modes):
        allowed = ", ".join(POOLING_MODES)
        raise ConfigError(f"{path}: pooling_mode: expected one or more of {allowed}, found {short(value)}")
    return tuple(POOLING_MODES[mode] for mode in modes), include_prompt


def read_layer_weights(folder: SentenceFolder, place: str, size: int, num_hidden_layers: int) -> dict[int, float]:
    """Read number of a hidden state -> its share of the weighted mean over layers."""
    name, config = folder.config(place)
    refuse_unknown(config, name, (*SIZE_KEYS, "layer_start", "num_hidden_layers"))
    _check_size(config, name, size, "hidden_size")
    reader = ConfigReader(config, file=str(folder.checkpoint.folder / name))
    layers, start = reader.size("num_hidden_layers", 12), reader.size("layer_start", 4, minimum=0)
    if layers != num_hidden_layers or start > layers:
        raise RefusedError(
            f"{name}: it weighs hidden states {start} to {layers}, and the encoder has 0 to {num_hidden_layers}"
        )
    stored = folder.weights(place, {"layer_weights": (layers + 1 - start,)})["layer_weights"]
    # Rounded, so that weights that add up to 1 in float32 stay as they are.
    total = float(np.float32(stored.sum(dtype=np.float64)))
    if total == 0:
        raise RefusedError(f"{name}: its layer weights add up to zero")
    return {start + i: float(weight) / total for i, weight in enumerate(stored)}


def read_dense(folder: SentenceFolder, place: str, size: int) -> Dense:
    """Return a Dense module over vectors of `size` numbers."""
    name, config = folder.config(place)
    known = ("in_features", "out_features", "bias", "activation_function", "use_residual")
    refuse_unknown(config, name, (*known, *ON_SENTENCES))
    refuse_unless(config, name, ON_SENTENCES)
    reader = ConfigReader(config, file=str(folder.checkpoint.folder / name))
    if reader.size("in_features") != size:
        raise reader.fail("in_features", f"{size}, the size of the vectors before it")
    out = reader.size("out_features")
    for key in ("bias", "use_residual"):
        if not isinstance(config.get(key, False), bool):
            raise reader.fail(key, "true or false")
    bias, residual = config.get("bias", True), config.get("use_residual", False)
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (out, size)}
    if bias:
        shapes["linear.bias"] = (out,)
    if residual and out != size:
        shapes["residual.weight"] = (out, size)
    weights = folder.weights(place, shapes)
    return Dense(
        weight=weights["linear.weight"],
        bias=weights.get("linear.bias"),
        activation=_activation(config, name),
        residual=weights.get("residual.weight", "identity") if residual else "none",
    )


def _activation(config: Mapping[str, Any], name: str) -> DenseActivation:
    value = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    module, _, class_name = value.rpartition(".") if isinstance(value, str) else ("", "", "")
    if class_name not in ACTIVATIONS or module.split(".")[:2] != ["torch", "nn"]:
        raise RefusedError(
            f"{name}: activation_function is {short(value)}; computed are {', '.join(ACTIVATIONS)} of torch.nn"
        )
    return ACTIVATIONS[class_name]


def read_layer_norm(folder: SentenceFolder, place: str, size: int) -> LayerNorm:
    """Return a LayerNorm module over vectors of `size` numbers."""
    name, config = folder.config(place)
    refuse_unknown(config, name, ("dimension",))
    reader = ConfigReader(config, file=str(folder.checkpoint.folder / name))
    if reader.size("dimension") != size:
        raise reader.fail("dimension", f"{size}, the size of the vectors before it")
    weights = folder.weights(place, {"norm.weight": (size,), "norm.bias": (size,)})
    return LayerNorm(weight=weights["norm.weight"], bias=weights["norm.bias"])


def check_normalize(folder: SentenceFolder, place: str) -> None:
    """Refuses a Normalize of something else than the sentence embedding; old versions save no config."""
    config = folder.object(inside(place, "config.json"))
    if config is not None:
        refuse_unless(config, inside(place, "config.json"), ON_SENTENCES)


def _check_size(config: Mapping[str, Any], name: str, size: int, what: str) -> None:
    for key in SIZE_KEYS:
        if config.get(key, size) != size:
            raise RefusedError(f"{name}: {key} is {short(config[key])}, {what} {size}")


def inside(place: str, name: str) -> str:
    """Return the name of a module's file in the folder."""
    return str(PurePosixPath(place) / name)


def refuse_unknown(config: Mapping[str, Any], file: str, known: Sequence[str]) -> None:
    """Refuses a field that nothing here knows."""
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise RefusedError(f"{file}: {listed(unknown)}: not known, and might change the result")


def refuse_unless(config: Mapping[str, Any], file: str, harmless: Mapping[str, Any]) -> None:
    """Refuses a field whose value is none of the harmless ones (one, or a tuple)."""
    for key, values in harmless.items():
        allowed = values if isinstance(values, tuple) else (values,)
        if key in config and config[key] not in allowed:
            raise RefusedError(f"{file}: {key} is {short(config[key])}, which layertap does not compute")


def listed(names: Sequence[str]) -> str:
    """Return at most eight names, in plain characters."""
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(shown(name) for name in names[:8]) + more if names else "none"


def shown(name: str) -> str:
    """Return a name as it is where that can be printed on one line, else as `short` shows it."""
    return name if name.isprintable() and len(name) <= 80 else short(name)
