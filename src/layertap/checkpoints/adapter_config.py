"""Reads PEFT's `adapter_config.json`: the fields of a LoRA adapter, each honoured or refused by name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from layertap.checkpoints.json_file import read_object
from layertap.errors import ConfigError, UnsupportedModelError
from layertap.models.config import ConfigReader, short

BiasKind: TypeAlias = Literal["none", "all", "lora_only"]

_Number = TypeVar("_Number", int, float)

HONOURED = (
    "peft_type",
    "base_model_name_or_path",
    "revision",
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "bias",
    "modules_to_save",
    "use_dora",
    "init_lora_weights",
)
"""Fields that decide what the merged weights are."""

HARMLESS = (
    "auto_mapping",
    "corda_config",
    "ensure_weight_tying",
    "eva_config",
    # A linear layer of PyTorch is stored as [out, in], and PEFT takes the field to be false for it.
    "fan_in_fan_out",
    "inference_mode",
    "lora_dropout",
    "lora_ga_config",
    "loftq_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "runtime_config",
    "task_type",
)
"""Fields that concern training, or how its first weights were drawn."""

REFUSED = {
    "alora_invocation_tokens": "the adapter is active from certain tokens on, so it cannot be merged",
    "arrow_config": "adapters routed by the input cannot be merged",
    "kasa_config": "KaSA changes the base model's weights by a decomposition of its own",
    "layer_replication": "layers used more than once are not supported",
    "lora_bias": "a bias of the low-rank factors is not supported",
    "megatron_config": "layers of Megatron are not supported",
    "monteclora_config": "sampled adapters are not supported",
    "target_parameters": "adapters of bare parameters are not supported",
    "trainable_token_indices": "tokens trained one by one are not supported",
    "use_bdlora": "block-diagonal factors are not supported",
    "use_qalora": "pooled inputs (QA-LoRA) are not supported",
    "velora_config": "VeLoRA is not supported",
}
"""Fields that must be null, false or empty, and why."""

UNCHANGED_BASE = (True, False, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base model's weights as they are."""

ADVICE = "merge it with PEFT (merge_and_unload), save the result and load that"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig:
    """Fields of a LoRA adapter's config that decide what the merged weights are.

    Attributes:
        file: `adapter_config.json`.
        rank, alpha: rank of the factors and numerator of their scale, where no pattern gives others.
        rank_stabilised: whether alpha is divided by the square root of the rank instead of the rank.
        rank_pattern, alpha_pattern: regular expression for the end of a module's name -> its own rank or alpha.
        targets: names or ends of names of adapted modules, one regular expression, or None: not stated.
        excluded: modules that are not adapted, in the same form; empty: none.
        layers: numbers of adapted layers, or None: all.
        layers_pattern: names of the lists whose numbers `layers` means; empty: the first number in a name.
        bias: biases that were trained: none, all of the model, or those of adapted modules.
        saved: ends of names of modules that were trained and stored whole.
        dora: whether the adapted weights have a magnitude of their own (DoRA).
    """

    file: Path
    rank: int
    alpha: float
    rank_stabilised: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    targets: tuple[str, ...] | re.Pattern[str] | None
    excluded: tuple[str, ...] | re.Pattern[str]
    layers: tuple[int, ...] | None
    layers_pattern: tuple[str, ...]
    bias: BiasKind
    saved: tuple[str, ...]
    dora: bool

    def rank_of(self, module: str) -> int:
        """Return the rank of an adapted module."""
        return _by_pattern(self.rank_pattern, module) or self.rank

    def scale_of(self, module: str) -> float:
        """Return the factor of an adapted module's low-rank product."""
        rank, alpha = self.rank_of(module), _by_pattern(self.alpha_pattern, module)
        alpha = self.alpha if alpha is None else alpha
        return alpha / math.sqrt(rank) if self.rank_stabilised else alpha / rank

    def saves(self, name: str) -> bool:
        """Return whether a weight or module is inside a module that `modules_to_save` names."""
        parts = name.split(".")
        paths = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
        return any(path.endswith(saved) for path in paths for saved in self.saved)

    def adapts(self, module: str) -> bool | None:
        """Return whether PEFT adapts a module of this name, or None where the config does not tell."""
        if self.targets is None:
            return None
        if _matches(self.excluded, module) or self.saves(module):
            return False
        in_any_layer = isinstance(self.targets, re.Pattern) or self.layers is None or module in self.targets
        return _matches(self.targets, module) and (in_any_layer or self._layer_of(module) in (self.layers or ()))

    def _layer_of(self, module: str) -> int | None:
        lists = [rf"(?:^|.*?\.){name}" for name in self.layers_pattern] or [r".*?\.[^.]*"]
        matches = (re.match(rf"{start}\.([0-9]{{1,9}})\.", module) for start in lists)
        return next((int(match[1]) for match in matches if match is not None), None)


def base_of(file: Path) -> tuple[str, str | None]:
    """Return the name and the revision of the base model that an `adapter_config.json` states.

    Raises:
        ConfigError: it names no base model.
    """
    config = ConfigReader(read_object(file), file=str(file))
    name, revision = config.values.get("base_model_name_or_path"), config.values.get("revision")
    if not isinstance(name, str) or not name.strip():
        raise config.fail("base_model_name_or_path", "the folder or the hub id of the base model")
    if revision is not None and not isinstance(revision, str):
        raise config.fail("revision", "a branch, tag or commit of the base model, or null")
    return name, revision or None


def read_lora_config(file: Path) -> LoraConfig:
    """Read the config of a LoRA adapter.

    Raises:
        ConfigError: a field with an impossible value.
        UnsupportedModelError: an adapter of another kind, or a field that asks for what is not computed.
    """
    config = ConfigReader(read_object(file), file=str(file))
    _refuse_others(config)
    return LoraConfig(
        file=file,
        rank=config.size("r", 8),
        alpha=config.number("lora_alpha", 8, low=-1e9, high=1e9),
        rank_stabilised=config.flag("use_rslora", False),
        rank_pattern=_pattern(config, "rank_pattern", int),
        alpha_pattern=_pattern(config, "alpha_pattern", float),
        targets=_modules(config, "target_modules"),
        excluded=_modules(config, "exclude_modules") or (),
        layers=_layers(config),
        layers_pattern=_names(config, "layers_pattern", of_one=True),
        bias=config.one_of("bias", "none", {kind: kind for kind in get_args(BiasKind)}),
        saved=_names(config, "modules_to_save"),
        dora=config.flag("use_dora", False),
    )


def _refuse_others(config: ConfigReader) -> None:
    """Refuse other kinds of adapters, and fields that ask for something that is not computed."""
    kind = config.values.get("peft_type")
    if kind != "LORA":
        raise UnsupportedModelError(
            f"{config.file}: peft_type is {short(kind)}: only adapters of the kind LORA are merged; {ADVICE} if this "
            "kind can be merged"
        )
    start = config.values.get("init_lora_weights", True)
    if not any(start is value or (start == value and isinstance(start, str)) for value in UNCHANGED_BASE):
        raise UnsupportedModelError(
            f"{config.file}: init_lora_weights is {short(start)}: it may change the base model's weights, too; save "
            "the adapter with PEFT's path_initial_model_for_weight_conversion, or " + ADVICE
        )
    for field, value in config.values.items():
        if field in HONOURED or field in HARMLESS or value is None or value is False or value in ([], {}):
            continue
        why = REFUSED.get(field, "this field of PEFT is not known")
        raise UnsupportedModelError(f"{config.file}: {short(field)} is {short(value)}: {why}; {ADVICE}")


def _pattern(config: ConfigReader, field: str, kind: type[int] | type[float]) -> dict[str, Any]:
    """Return regular expressions with their ranks (positive whole numbers) or alphas (numbers)."""
    values = config.values.get(field) or {}
    is_valid = isinstance(values, dict) and all(
        isinstance(value, int | kind) and not isinstance(value, bool) and (kind is float or value > 0)
        for value in values.values()
    )
    if not is_valid:
        raise config.fail(field, "an object of names and " + ("ranks" if kind is int else "numbers"))
    for name in values:
        _compiled(config, field, name)
    return dict(values)


def _modules(config: ConfigReader, field: str) -> tuple[str, ...] | re.Pattern[str] | None:
    """Return names of modules, a regular expression, or None where the field says nothing."""
    value = config.values.get(field)
    if value is None or value == "all-linear":
        return None
    return _compiled(config, field, value) if isinstance(value, str) else _names(config, field)


def _names(config: ConfigReader, field: str, *, of_one: bool = False) -> tuple[str, ...]:
    """Return a list of names; null stands for none, and one name for itself where the field allows it."""
    value = config.values.get(field) or []
    if of_one and isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise config.fail(field, "a list of names")
    return tuple(value)


def _layers(config: ConfigReader) -> tuple[int, ...] | None:
    value = config.values.get("layers_to_transform")
    if value is None or value == []:
        return None
    numbers = value if isinstance(value, list) else [value]
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
        raise config.fail("layers_to_transform", "a number of a layer, or a list of them")
    return tuple(numbers)


def _compiled(config: ConfigReader, field: str, expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(f"{config.file}: {field}: {short(expression)} is no regular expression: {error}") from error


def _by_pattern(values: Mapping[str, _Number], module: str) -> _Number | None:
    """Return the value of the first expression that a module's name, or an end of it after a dot, matches."""
    matching = (value for expression, value in values.items() if re.match(rf"(.*\.)?({expression})$", module))
    return next(matching, None)


def _matches(names: tuple[str, ...] | re.Pattern[str], module: str) -> bool:
    if isinstance(names, re.Pattern):
        return names.fullmatch(module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names)
