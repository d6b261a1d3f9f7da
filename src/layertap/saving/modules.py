"""Writes the files of sentence-transformers beside an encoder: the inverse of `checkpoints.sentence`.

The files have the spelling of sentence-transformers before version 6, which later versions read as well. Poolings that
are joined in another order than its own need the spelling of version 6.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from layertap.checkpoints.sentence import MODEL_CONFIG, MODULES, TRANSFORMER_CONFIGS
from layertap.checkpoints.sentence_modules import ACTIVATIONS, OLD_POOLING_KEYS, POOLING_MODES
from layertap.checkpoints.tensors import SAFETENSORS
from layertap.checkpoints.writing import as_json, write_tensors
from layertap.files import StagedFolder
from layertap.models.sentence import Dense, LayerNorm, SentenceEmbeddingSpec
from layertap.tensors import TensorView

KIND = "sentence_transformers.models."

Arrays = Mapping[str, np.ndarray[Any, np.dtype[np.float32]]]


def write_modules(
    folder: StagedFolder,
    sentence: SentenceEmbeddingSpec,
    *,
    hidden_size: int,
    num_layers: int,
    pooler: bool,
    similarity: str | None,
) -> None:
    """Write the modules that make a sentence embedding of hidden states.

    Args:
        folder: folder under construction, which holds the encoder.
        sentence: the recipe; `truncate` is not set.
        hidden_size: H of the encoder.
        num_layers: L of the encoder.
        pooler: the family has a pooler, which the folder does not store.
        similarity: name of the function by which embeddings are compared, or None: cosine.
    """
    assert sentence.truncate is None, "a step does it"
    places: list[tuple[str, str]] = [("Transformer", "")]

    def add(kind: str, config: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        place = f"{len(places)}_{kind}"
        places.append((kind, place))
        folder.write(f"{place}/config.json", as_json(config))
        if arrays is not None:
            views = {name: _view(array) for name, array in arrays.items()}
            write_tensors(folder, f"{place}/{SAFETENSORS}", {name: (name,) for name in views}, views.__getitem__)

    if sentence.layer_weights is not None:
        add(*_weighted_layers(sentence.layer_weights, hidden_size, num_layers))
    add("Pooling", _pooling(sentence, hidden_size))
    size = hidden_size * len(sentence.poolings)
    for step in sentence.steps:
        if isinstance(step, Dense):
            add("Dense", _dense(step, size), _dense_arrays(step))
        elif isinstance(step, LayerNorm):
            add("LayerNorm", {"dimension": step.size}, {"norm.weight": step.weight, "norm.bias": step.bias})
        else:
            add("Normalize", {})
        size = size if step == "normalize" else step.size
    modules = [{"idx": i, "name": str(i), "path": place, "type": KIND + kind} for i, (kind, place) in enumerate(places)]
    folder.write(MODULES, as_json(modules))
    encoder: dict[str, Any] = {"max_seq_length": sentence.max_length, "do_lower_case": sentence.lowercase}
    if pooler:
        # Else transformers makes a random one, which nothing reads, and reports it.
        encoder["model_args"] = {"add_pooling_layer": False}
    folder.write(TRANSFORMER_CONFIGS[0], as_json(encoder))
    prompts = {
        "prompts": dict(sentence.prompts),
        "default_prompt_name": sentence.default_prompt,
        "similarity_fn_name": similarity or "cosine",
    }
    folder.write(MODEL_CONFIG, as_json(prompts))


def _weighted_layers(
    weights: Mapping[int, float], hidden_size: int, num_layers: int
) -> tuple[str, dict[str, Any], Arrays]:
    start = min(weights)
    # Equal weights are ones: their sum is exact, and so is the division by it.
    equal = len(set(weights.values())) == 1
    stored = [1.0 if equal and layer in weights else weights.get(layer, 0.0) for layer in range(start, num_layers + 1)]
    config = {"word_embedding_dimension": hidden_size, "layer_start": start, "num_hidden_layers": num_layers}
    return "WeightedLayerPooling", config, {"layer_weights": np.array(stored, dtype=np.float32)}


def _pooling(sentence: SentenceEmbeddingSpec, hidden_size: int) -> dict[str, Any]:
    config: dict[str, Any] = {"word_embedding_dimension": hidden_size, "include_prompt": sentence.include_prompt}
    in_order = tuple(pooling for pooling in OLD_POOLING_KEYS.values() if pooling in sentence.poolings)
    if in_order == sentence.poolings:
        return config | {key: pooling in sentence.poolings for key, pooling in OLD_POOLING_KEYS.items()}
    names = {pooling: name for name, pooling in POOLING_MODES.items()}
    return config | {"pooling_mode": [names[pooling] for pooling in sentence.poolings]}


def _dense(step: Dense, size: int) -> dict[str, Any]:
    classes = {activation: name for name, activation in ACTIVATIONS.items()}
    name = classes[step.activation]
    module = "linear" if name == "Identity" else "activation"
    config = {
        "in_features": size,
        "out_features": step.size,
        "bias": step.bias is not None,
        "activation_function": f"torch.nn.modules.{module}.{name}",
    }
    residual = not (isinstance(step.residual, str) and step.residual == "none")
    return config | ({"use_residual": True} if residual else {})


def _dense_arrays(step: Dense) -> Arrays:
    arrays = {"linear.weight": step.weight}
    if step.bias is not None:
        arrays["linear.bias"] = step.bias
    if not isinstance(step.residual, str):
        arrays["residual.weight"] = step.residual
    return arrays


def _view(array: np.ndarray[Any, np.dtype[np.float32]]) -> TensorView:
    data = np.ascontiguousarray(array, dtype="<f4")
    return TensorView("F32", data.shape, memoryview(data.tobytes()))
