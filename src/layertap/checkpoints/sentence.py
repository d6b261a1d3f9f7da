"""Reads what a sentence-transformers folder says of itself.

Follows sentence-transformers 6 (`SentenceTransformer._parse_model_config`, `Transformer.load_config`) and the file
forms of every version before it. What would change the result and is not understood ends as a `refusal`, not as an
error: other features of such a folder work. A damaged file is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from layertap.checkpoints.sentence_modules import (
    RefusedError,
    SentenceFolder,
    check_normalize,
    listed,
    read_dense,
    read_layer_norm,
    read_layer_weights,
    read_pooling,
    refuse_unknown,
    refuse_unless,
)
from layertap.checkpoints.source import Checkpoint
from layertap.errors import ConfigError
from layertap.models.config import ConfigReader, short
from layertap.models.sentence import Dense, LayerNorm, SentenceEmbeddingSpec, SentenceStep
from layertap.models.spec import EncoderSpec
from layertap.tensors import TensorView

# The first that exists counts.
TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
MODULES = "modules.json"
MODEL_CONFIG = "config_sentence_transformers.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
LOADING_KEYS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs")
LOADING_VALUES: tuple[dict[str, bool] | None, ...] = (
    {},
    {"trust_remote_code": True},
    {"trust_remote_code": False},
    {"add_pooling_layer": False},
    None,
)
CONFIG_KEYS = ("config_args", "config_kwargs")
TEXT_MODALITY = {"method": "forward", "method_output_name": "last_hidden_state"}
# What a dropout does outside training is nothing.
AFTER_POOLING = ("Dense", "LayerNorm", "Normalize", "Dropout")


def read_sentence_embedding(
    checkpoint: Checkpoint,
    spec: EncoderSpec,
    *,
    config: Mapping[str, Any] | None = None,
    read_pickle: Callable[[Path], Mapping[str, TensorView]] | None = None,
) -> SentenceEmbeddingSpec | None:
    """Return the folder's own sentence embedding, or None where it has no `modules.json`.

    Args:
        checkpoint: the folder.
        spec: its encoder.
        config: its `config.json`.
        read_pickle: what reads the `pytorch_model.bin` of a Dense module; None: it is refused.

    Raises:
        ConfigError: a damaged file, or a value that sentence-transformers would not take either.
        WeightsError: weights of a Dense or LayerNorm module that are damaged or not as its config says.
    """
    folder = SentenceFolder(checkpoint=checkpoint, read_pickle=read_pickle)
    try:
        modules = _read_modules(folder)
        if modules is None:
            return None
        spec_of_folder = _read_transformer(folder, spec, config or {}, modules)
    except RefusedError as refused:
        spec_of_folder = SentenceEmbeddingSpec(refusal=str(refused))
    return replace(spec_of_folder, files=tuple(folder.files))


def _read_modules(folder: SentenceFolder) -> list[tuple[str, str]] | None:
    """Read (kind, place) of each module, in order: Transformer, perhaps WeightedLayerPooling, Pooling, and what
    follows.
    """
    values = folder.array(MODULES)
    if values is None:
        return None
    modules: list[tuple[str, str]] = []
    for module in values:
        if not isinstance(module, dict) or not all(isinstance(module.get(key), str) for key in ("type", "path")):
            path = folder.checkpoint.folder / MODULES
            raise ConfigError(f"{path}: expected objects with type and path, found {short(module)}")
        kind = module["type"]
        if kind.partition(".")[0] != "sentence_transformers":
            raise RefusedError(f"{MODULES}: {listed([kind])} is code of the model's own, which layertap does not run")
        if module.get("kwargs"):
            raise RefusedError(f"{MODULES}: {listed([kind])} takes arguments ({short(module['kwargs'])})")
        modules.append((kind.rpartition(".")[2], module["path"]))
    kinds = [kind for kind, _ in modules]
    weighted = ["WeightedLayerPooling"] if "WeightedLayerPooling" in kinds else []
    start = ["Transformer", *weighted, "Pooling"]
    if kinds[: len(start)] != start or not set(kinds[len(start) :]) <= {*AFTER_POOLING}:
        raise RefusedError(
            f"{MODULES}: the modules are {listed(kinds)}; computed are Transformer, perhaps WeightedLayerPooling, "
            f"Pooling and then any of {', '.join(AFTER_POOLING)}"
        )
    if modules[0][1] != "":
        raise RefusedError(f"{MODULES}: Transformer is in {short(modules[0][1])}, expected in ''")
    return modules


def _read_transformer(
    folder: SentenceFolder, spec: EncoderSpec, config: Mapping[str, Any], modules: list[tuple[str, str]]
) -> SentenceEmbeddingSpec:
    limit, lowercase, all_states = _read_transformer_config(folder)
    prompts, default_prompt, truncate = _read_model_config(folder)
    size = spec.hidden_size
    layer_weights: dict[int, float] | None = None
    places = dict(modules[:3])
    if "WeightedLayerPooling" in places:
        layer_weights = read_layer_weights(folder, places["WeightedLayerPooling"], size, spec.num_hidden_layers)
        if not (all_states or config.get("output_hidden_states") is True):
            # Its Transformer then hands it the last state alone, which it passes on as it is.
            layer_weights = None
    poolings, include_prompt = read_pooling(folder, places["Pooling"], size)
    after = modules[3 if "WeightedLayerPooling" in places else 2 :]
    steps, size = _read_steps(folder, after, size * len(poolings))
    return SentenceEmbeddingSpec(
        layer_weights=layer_weights,
        poolings=poolings,
        include_prompt=include_prompt,
        steps=steps,
        truncate=None if truncate is None or truncate >= size else truncate,
        max_length=_limit(folder, spec, limit),
        lowercase=lowercase,
        prompts=prompts,
        default_prompt=default_prompt,
    )


def _read_steps(
    folder: SentenceFolder, modules: list[tuple[str, str]], size: int
) -> tuple[tuple[SentenceStep, ...], int]:
    """Read the steps that follow the pooling; return them and the size of the vector after them."""
    steps: list[SentenceStep] = []
    for kind, place in modules:
        step: SentenceStep | None = None
        if kind == "Dense":
            step = read_dense(folder, place, size)
        elif kind == "LayerNorm":
            step = read_layer_norm(folder, place, size)
        elif kind == "Normalize":
            check_normalize(folder, place)
            step = "normalize"
        if step is not None:
            steps.append(step)
        size = step.size if isinstance(step, Dense | LayerNorm) else size
    return tuple(steps), size


def _limit(folder: SentenceFolder, spec: EncoderSpec, stated: int | None) -> int | None:
    """Return tokens of a text, or None: the model's own limit."""
    values = folder.object(TOKENIZER_CONFIG) or {}
    if values.get("truncation_side", "right") != "right":
        raise RefusedError(f"{TOKENIZER_CONFIG}: long texts are cut on the {short(values['truncation_side'])}")
    # Where it is not stated, the tokenizer's own limit counts; recent versions save it only there.
    field = "model_max_length" if "model_max_length" in values else "max_len"
    limit = values.get(field) if stated is None else stated
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1):
        path = folder.checkpoint.folder / TOKENIZER_CONFIG
        raise ConfigError(f"{path}: {field}: expected a number of tokens, found {short(limit)}")
    # "no limit" is written as a number of 31 digits
    return None if limit is None or limit >= spec.positions.max_length else int(limit)


def _read_transformer_config(folder: SentenceFolder) -> tuple[int | None, bool, bool]:
    """Read `max_seq_length`, `do_lower_case`, and whether it asks for every hidden state."""
    name = next((name for name in TRANSFORMER_CONFIGS if folder.checkpoint.file(name) is not None), None)
    config = None if name is None else folder.object(name)
    if name is None or config is None:
        return None, False, False
    harmless: dict[str, Any] = {
        "do_lower_case": (True, False, None),
        "transformer_task": "feature-extraction",
        "module_output_name": "token_embeddings",
        "tokenizer_name_or_path": None,
        "processing_kwargs": ({}, None),
        "query_length": None,
        "document_length": None,
        "query_expansion": None,
        **dict.fromkeys(LOADING_KEYS, LOADING_VALUES),
    }
    refuse_unknown(config, name, (*harmless, *CONFIG_KEYS, "max_seq_length", "modality_config", "unpad_inputs"))
    refuse_unless(config, name, harmless)
    all_states = any(_all_states(config.get(key), name, key) for key in CONFIG_KEYS)
    modalities = config.get("modality_config")
    if modalities is not None and modalities != {"text": TEXT_MODALITY}:
        raise RefusedError(f"{name}: modality_config is {short(modalities)}")
    limit = None
    if config.get("max_seq_length") is not None:
        limit = ConfigReader(config, file=str(folder.checkpoint.folder / name)).size("max_seq_length")
    return limit, config.get("do_lower_case") is True, all_states


def _all_states(value: Any, name: str, key: str) -> bool:
    """Return whether changes to the config ask for every hidden state; other changes are refused."""
    if value is not None and (
        not isinstance(value, dict)
        or not set(value) <= {"trust_remote_code", "output_hidden_states"}
        or not all(isinstance(flag, bool) for flag in value.values())
    ):
        raise RefusedError(f"{name}: {key} is {short(value)}, which layertap does not compute")
    return bool(value and value.get("output_hidden_states"))


def _read_model_config(folder: SentenceFolder) -> tuple[dict[str, str], str | None, int | None]:
    """Prompts by name, the name of the default one, and `truncate_dim`."""
    config = folder.object(MODEL_CONFIG)
    if config is None:
        return {}, None, None
    known = ("__version__", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "model_type")
    refuse_unknown(config, MODEL_CONFIG, (*known, "requirements"))
    refuse_unless(config, MODEL_CONFIG, {"model_type": ("SentenceTransformer", None)})
    reader = ConfigReader(config, file=str(folder.checkpoint.folder / MODEL_CONFIG))
    values = {} if config.get("prompts") is None else config["prompts"]
    if not isinstance(values, dict) or not all(text is None or isinstance(text, str) for text in values.values()):
        raise reader.fail("prompts", "an object of names and texts")
    # "query" and "document" are always there, and empty where nothing is said.
    prompts = {"query": "", "document": ""} | {name: text or "" for name, text in values.items()}
    default = config.get("default_prompt_name")
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise reader.fail("default_prompt_name", f"one of {listed(sorted(prompts))}")
    truncate = None if config.get("truncate_dim") is None else reader.size("truncate_dim")
    told = {name: text for name, text in prompts.items() if text}
    return told, default if default in told else None, truncate
