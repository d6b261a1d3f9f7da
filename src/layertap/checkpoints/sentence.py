"""Reads what a sentence-transformers folder says of itself.

Follows sentence-transformers 6 (`Transformer.load_config`, `Pooling.load_config`, `Normalize.load`) and the file forms
of every version before it. What would change the result and is not understood ends as a `refusal`, not as an error:
other features of such a folder work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from layertap.checkpoints.json_file import read_array, read_object
from layertap.checkpoints.source import Checkpoint
from layertap.errors import ConfigError
from layertap.models.config import ConfigReader, short
from layertap.models.sentence import SentenceEmbeddingSpec, SentencePooling
from layertap.models.spec import EncoderSpec

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
MODEL_CONFIG = "config_sentence_transformers.json"
PLACES = ("", "1_Pooling", "2_Normalize")
POOLING_CONFIG = "1_Pooling/config.json"
NORMALIZE_CONFIG = "2_Normalize/config.json"
# Everything that a sentence embedding that is not refused can depend on.
SENTENCE_FILES = (
    "modules.json",
    *TRANSFORMER_CONFIGS,
    MODEL_CONFIG,
    POOLING_CONFIG,
    NORMALIZE_CONFIG,
    "tokenizer_config.json",
)

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
LOADING_KEYS = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
TEXT_MODALITY = {"method": "forward", "method_output_name": "last_hidden_state"}


class _RefusedError(Exception):
    """Carries a refusal out of the parsers below; never leaves this module."""


def read_sentence_embedding(checkpoint: Checkpoint, spec: EncoderSpec) -> SentenceEmbeddingSpec | None:
    """The folder's own sentence embedding, or None where it has no `modules.json`.

    Raises:
        ConfigError: a damaged file, or a value that sentence-transformers would not take either.
    """
    path = checkpoint.file("modules.json")
    if path is None:
        return None
    try:
        normalize = _read_modules(checkpoint, path)
        _read_model_config(checkpoint)
        return SentenceEmbeddingSpec(
            poolings=_read_pooling(checkpoint, spec),
            normalize=normalize,
            max_length=_read_limit(checkpoint, spec),
        )
    except _RefusedError as refused:
        return SentenceEmbeddingSpec(refusal=str(refused))


def _read_modules(checkpoint: Checkpoint, path: Path) -> bool:
    """Checks that the modules are Transformer, Pooling and perhaps Normalize; whether there is Normalize."""
    kinds: list[str] = []
    paths: list[str] = []
    for module in read_array(path):
        if not isinstance(module, dict) or not all(isinstance(module.get(key), str) for key in ("type", "path")):
            raise ConfigError(f"{path}: expected objects with type and path, found {short(module)}")
        kind = module["type"]
        if kind.partition(".")[0] != "sentence_transformers":
            raise _RefusedError(
                f"modules.json: {_listed([kind])} is code of the model's own, which layertap does not run"
            )
        if module.get("kwargs"):
            raise _RefusedError(f"modules.json: {_listed([kind])} takes arguments ({short(module['kwargs'])})")
        kinds.append(kind.rpartition(".")[2])
        paths.append(module["path"])
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise _RefusedError(
            f"modules.json: the modules are {_listed(kinds)}; computed are Transformer, Pooling and then, "
            "if present, Normalize"
        )
    for kind, found, expected in zip(kinds, paths, PLACES, strict=False):
        if found != expected:
            raise _RefusedError(f"modules.json: {_listed([kind])} is in {short(found)}, expected in {expected!r}")
    config = checkpoint.file(NORMALIZE_CONFIG)
    if len(kinds) == 3 and config is not None:
        names = {"module_input_name": "sentence_embedding", "module_output_name": ("sentence_embedding", None)}
        _refuse_unless(read_object(config), NORMALIZE_CONFIG, names)
    return len(kinds) == 3


def _read_pooling(checkpoint: Checkpoint, spec: EncoderSpec) -> tuple[SentencePooling, ...]:
    path = checkpoint.file(POOLING_CONFIG)
    if path is None:
        raise _RefusedError(f"modules.json: {POOLING_CONFIG} is missing")
    config = read_object(path)
    _refuse_unknown(config, POOLING_CONFIG, (*SIZE_KEYS, *OLD_POOLING_KEYS, "pooling_mode", "include_prompt"))
    for key in SIZE_KEYS:
        if config.get(key, spec.hidden_size) != spec.hidden_size:
            raise _RefusedError(f"{POOLING_CONFIG}: {key} is {short(config[key])}, hidden_size {spec.hidden_size}")
    for key in (*OLD_POOLING_KEYS, "include_prompt"):
        if not isinstance(config.get(key, False), bool):
            raise ConfigError(f"{path}: {key}: expected true or false, found {short(config[key])}")
    if "pooling_mode" not in config:
        return tuple(pooling for key, pooling in OLD_POOLING_KEYS.items() if config.get(key)) or ("mean",)
    value = config["pooling_mode"]
    modes = value if isinstance(value, list) else [value]
    if not modes or not all(isinstance(mode, str) and mode in POOLING_MODES for mode in modes):
        allowed = ", ".join(POOLING_MODES)
        raise ConfigError(f"{path}: pooling_mode: expected one or more of {allowed}, found {short(value)}")
    return tuple(POOLING_MODES[mode] for mode in modes)


def _read_limit(checkpoint: Checkpoint, spec: EncoderSpec) -> int | None:
    """Tokens of a text, or None: the model's own limit."""
    limit = _read_transformer_config(checkpoint)
    if limit is None:
        # Where it is not stated, the tokenizer's own limit counts; recent versions save it only there.
        path = checkpoint.file("tokenizer_config.json")
        values = {} if path is None else read_object(path)
        field = "model_max_length" if "model_max_length" in values else "max_len"
        limit = values.get(field)
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 1):
            raise ConfigError(f"{path}: {field}: expected a number of tokens, found {short(limit)}")
    # "no limit" is written as a number of 31 digits
    return None if limit is None or limit >= spec.positions.max_length else int(limit)


def _read_transformer_config(checkpoint: Checkpoint) -> int | None:
    """`max_seq_length`, after a look at everything else that stands there."""
    path = next((found for name in TRANSFORMER_CONFIGS if (found := checkpoint.file(name))), None)
    if path is None:
        return None
    config = read_object(path)
    harmless: dict[str, Any] = {
        "do_lower_case": (False, None),
        "transformer_task": "feature-extraction",
        "module_output_name": "token_embeddings",
        "tokenizer_name_or_path": None,
        "processing_kwargs": ({}, None),
        "query_length": None,
        "document_length": None,
        "query_expansion": None,
        **dict.fromkeys(LOADING_KEYS, ({}, {"trust_remote_code": True}, {"trust_remote_code": False}, None)),
    }
    _refuse_unknown(config, path.name, (*harmless, "max_seq_length", "modality_config", "unpad_inputs"))
    _refuse_unless(config, path.name, harmless)
    modalities = config.get("modality_config")
    if modalities is not None and modalities != {"text": TEXT_MODALITY}:
        raise _RefusedError(f"{path.name}: modality_config is {short(modalities)}")
    if config.get("max_seq_length") is None:
        return None
    return ConfigReader(config, file=str(path)).size("max_seq_length")


def _read_model_config(checkpoint: Checkpoint) -> None:
    path = checkpoint.file(MODEL_CONFIG)
    if path is None:
        return
    config = read_object(path)
    known = ("__version__", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "model_type")
    _refuse_unknown(config, MODEL_CONFIG, (*known, "requirements"))
    _refuse_unless(config, MODEL_CONFIG, {"truncate_dim": None, "model_type": ("SentenceTransformer", None)})
    name = config.get("default_prompt_name")
    if name is not None:
        prompts = config.get("prompts")
        prompt = prompts.get(name) if isinstance(prompts, dict) and isinstance(name, str) else None
        if prompt != "":
            raise _RefusedError(
                f"{MODEL_CONFIG}: texts get the default prompt {short(name)} ({short(prompt)}), which layertap does "
                "not add yet"
            )


def _refuse_unknown(config: Mapping[str, Any], file: str, known: Sequence[str]) -> None:
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise _RefusedError(f"{file}: {_listed(unknown)}: not known, and might change the result")


def _listed(names: Sequence[str]) -> str:
    """At most eight names, in plain characters."""
    shown = [name if name.isprintable() and len(name) <= 80 else short(name) for name in names[:8]]
    return ", ".join(shown) + (f" and {len(names) - 8} more" if len(names) > 8 else "") if names else "none"


def _refuse_unless(config: Mapping[str, Any], file: str, harmless: Mapping[str, Any]) -> None:
    """Refuses a field whose value is none of the harmless ones (one, or a tuple)."""
    for key, values in harmless.items():
        allowed = values if isinstance(values, tuple) else (values,)
        if key in config and config[key] not in allowed:
            raise _RefusedError(f"{file}: {key} is {short(config[key])}, which layertap does not compute")
