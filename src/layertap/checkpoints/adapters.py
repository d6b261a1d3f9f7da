"""Merges a LoRA adapter of PEFT into the weights of its base model, weight by weight as these are read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from layertap.checkpoints.adapter_config import ADVICE, LoraConfig, read_lora_config
from layertap.checkpoints.keys import to_canonical, to_stored
from layertap.checkpoints.merging import LowRankChange, MergedBytes
from layertap.checkpoints.tensors import StoredTensor
from layertap.errors import UnsupportedModelError, WeightsError
from layertap.models.spec import Architecture
from layertap.tensors import FLOAT_BITS, TensorView
from layertap.words import counted

PREFIXES = ("base_model.model.", "base_model.")
FACTOR = re.compile(r"(?P<module>.+)\.(?P<kind>lora_A|lora_B|lora_embedding_A|lora_embedding_B|lora_magnitude_vector)")
ENCODER = ("embeddings.", "encoder.")
WORD_TABLE = "embeddings.word_embeddings.weight"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Adapter:
    """An open LoRA adapter, before it is merged.

    Attributes:
        config: fields of its config.
        file: its weights file.
        factors: name of a module -> kind of factor (`lora_A`, `lora_magnitude_vector`, ...) -> its values.
        whole: name of a weight that was trained and stored whole -> its values.
    """

    config: LoraConfig
    file: Path
    factors: Mapping[str, Mapping[str, TensorView]]
    whole: Mapping[str, TensorView]

    @classmethod
    def read(cls, config_file: Path, file: Path, views: Mapping[str, TensorView]) -> Adapter:
        """Sort the tensors of an adapter; every one has to be of a known kind.

        Args:
            config_file: its `adapter_config.json`.
            file: its weights file.
            views: the tensors in that file.

        Raises:
            ConfigError: a config that is damaged or not supported.
            WeightsError: a tensor that the config does not account for.
        """
        reading = _Reading(config=read_lora_config(config_file), file=file)
        for key, view in views.items():
            reading.add(key, view)
        reading.check_copies()
        return cls(config=reading.config, file=file, factors=reading.factors, whole=reading.whole)

    def views(self) -> Iterator[TensorView]:
        """Yield all tensors of the adapter."""
        for factors in self.factors.values():
            yield from factors.values()
        yield from self.whole.values()

    def note(self, base: str) -> str:
        """Describe for a user what was merged into which base model."""
        weights = counted(len(self.factors), "weight")
        kind = "DoRA" if self.config.dora else "LoRA"
        ranks = sorted({self.config.rank_of(module) for module in self.factors})
        rank = f" of rank {' and '.join(map(str, ranks))}" if ranks else ""
        whole = f" and {counted(len(self.whole), 'weight')} stored whole" if self.whole else ""
        return f"{self.file.name} ({kind}{rank} on {weights}{whole}) is merged into {base}"

    def merged(self, stored: Mapping[str, StoredTensor], architecture: Architecture) -> dict[str, StoredTensor]:
        """Merge the adapter into the weights of a model; nothing is computed before a weight is read.

        Args:
            stored: stored key -> tensor of the base model.
            architecture: family of the base model.

        Returns:
            Stored key -> tensor, with the weights of heads that only the adapter has.

        Raises:
            WeightsError: a tensor that does not fit the base model, or one that is missing.
        """
        merging = _Merging(adapter=self, architecture=architecture, tensors=dict(stored))
        for name, view in self.whole.items():
            merging.put(name, view)
        for module, factors in self.factors.items():
            merging.change(module, factors)
        merging.check_complete()
        return merging.tensors


@dataclass(slots=True)
class _Reading:
    """Tensors of an adapter while they are sorted by kind."""

    config: LoraConfig
    file: Path
    factors: dict[str, dict[str, TensorView]] = field(default_factory=dict)
    whole: dict[str, TensorView] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, view: TensorView) -> None:
        """Sort one tensor by its key."""
        if view.dtype not in FLOAT_BITS:
            raise WeightsError(f"{self.file}: {key}: expected one of {', '.join(FLOAT_BITS)}, found {view.dtype}")
        name = next((key.removeprefix(prefix) for prefix in PREFIXES if key.startswith(prefix)), key)
        is_table = name.endswith(("lora_embedding_A", "lora_embedding_B"))
        bare = name if is_table else name.removesuffix(".weight")
        match = FACTOR.fullmatch(bare)
        if match is not None:
            self._add_once(self.factors.setdefault(match["module"], {}), match["kind"], key, view)
            return
        parts = name.split(".")
        if len(parts) > 2 and parts[-2] in ("modules_to_save", "original_module"):
            # PEFT stores biases of a module that it also stores whole two times more.
            self.copies[key] = ".".join((*parts[:-2], parts[-1]))
            return
        if any(part.startswith("lora_") or part in ("token_adapter", "modules_to_save") for part in parts):
            raise WeightsError(f"{self.file}: {key}: a tensor of an adapter of a kind that is not known; {ADVICE}")
        if len(parts) > 2 and parts[-2] == "base_layer":
            name = ".".join((*parts[:-2], parts[-1]))
        self._add_once(self.whole, name, key, view)

    def _add_once(self, views: dict[str, TensorView], name: str, key: str, view: TensorView) -> None:
        if name in views:
            raise WeightsError(f"{self.file}: {key}: expected once, found under two names")
        views[name] = view

    def check_copies(self) -> None:
        """Refuse a copy of a weight that is not stored under its own name as well."""
        for key, name in self.copies.items():
            if name not in self.whole:
                raise WeightsError(f"{self.file}: {key}: expected {name} beside it, found none; {ADVICE}")


@dataclass(slots=True)
class _Merging:
    """Weights of a model while an adapter is merged into them."""

    adapter: Adapter
    architecture: Architecture
    tensors: dict[str, StoredTensor]
    keys: dict[str, str] = field(init=False)
    touched: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.keys = {self._canonical(key): key for key in self.tensors}

    def put(self, name: str, view: TensorView) -> None:
        """Put a weight that the adapter stores whole in the place of the base model's, or beside its weights."""
        canonical, config = self._canonical(name), self.adapter.config
        biases = config.bias == "all" or (
            config.bias == "lora_only" and name.removesuffix(".bias") in self.adapter.factors
        )
        if not (config.saves(name) or (biases and name.endswith(".bias")) or canonical == WORD_TABLE):
            raise self._fault(
                name,
                "expected only low-rank factors and what bias and modules_to_save of the config name, found a weight "
                "that is neither",
            )
        key = self.keys.get(canonical)
        if key is None and canonical.startswith(ENCODER):
            raise self._fault(name, "the base model has no such weight")
        if key is not None and not self._is_head(key):
            expected = self.tensors[key].view.shape
            if view.shape != expected:
                why = "" if canonical != WORD_TABLE else "; the vocabulary was changed in training: " + ADVICE
                raise self._fault(
                    name, f"expected shape {list(expected)} (as the base model has it), found {list(view.shape)}{why}"
                )
        self.keys[canonical] = key or name
        self.tensors[key or name] = StoredTensor(file=self.adapter.file, key=key or name, view=view)
        self.touched.add(canonical)

    def change(self, module: str, factors: Mapping[str, TensorView]) -> None:
        """Merge low-rank factors into a weight."""
        name = f"{module}.weight"
        canonical, config = self._canonical(name), self.adapter.config
        if config.adapts(module) is False:
            raise self._fault(
                module, "its factors are stored, and target_modules and the fields beside it do not name this module"
            )
        change = self._change(module, factors)
        key = self.keys.get(canonical)
        if self._is_head(name) and (key is None or "decoder" in module):
            if "decoder" in module:
                # It is the table of words itself, which PEFT would change, too.
                raise UnsupportedModelError(
                    f"{config.file}: the adapter changes {module}, which shares its weight with the embeddings; "
                    + ADVICE
                )
            return
        if key is None:
            raise self._fault(module, f"the base model has no weight of this name ({canonical})")
        base = self.tensors[key]
        if base.view.dtype not in FLOAT_BITS:
            raise WeightsError(f"{base.file}: {key}: expected one of {', '.join(FLOAT_BITS)}, found {base.view.dtype}")
        if base.view.shape != change.shape:
            raise self._fault(
                module, f"its factors change a weight of shape {list(change.shape)}, found {list(base.view.shape)}"
            )
        view = TensorView("F32", base.view.shape, MergedBytes.of(base.view, change))
        self.tensors[key] = replace(base, view=view, adapter=self.adapter.file)
        self.touched.add(canonical)

    def _change(self, module: str, factors: Mapping[str, TensorView]) -> LowRankChange:
        """Check the factors of a module: both are there, and have the rank of the config."""
        config = self.adapter.config
        is_table = "lora_embedding_A" in factors or "lora_embedding_B" in factors
        names = ["lora_embedding_A", "lora_embedding_B"] if is_table else ["lora_A", "lora_B"]
        names += ["lora_magnitude_vector"] if config.dora else []
        if set(factors) != set(names):
            raise self._fault(module, f"expected {', '.join(names)}, found {', '.join(sorted(factors))}")
        a, b, rank = factors[names[0]], factors[names[1]], config.rank_of(module)
        for name, view, axis in ((names[0], a, 0), (names[1], b, 1)):
            if len(view.shape) != 2 or view.shape[axis] != rank:
                raise self._fault(f"{module}.{name}", f"expected rank {rank}, found shape {list(view.shape)}")
        magnitude = factors.get("lora_magnitude_vector")
        if magnitude is not None and magnitude.shape != (b.shape[0],):
            raise self._fault(module, f"expected {b.shape[0]} magnitudes, found shape {list(magnitude.shape)}")
        return LowRankChange(a=a, b=b, scale=config.scale_of(module), is_table=is_table, magnitude=magnitude)

    def check_complete(self) -> None:
        """Refuse an adapter without the tensors that its own config states: part of it is missing."""
        config = self.adapter.config
        modules = {self._canonical(f"{module}.weight") for module in self.adapter.factors}
        for canonical, key in self.keys.items():
            if not canonical.startswith(ENCODER) or canonical in self.touched:
                continue
            name = to_stored(canonical, self.architecture.class_rules)
            module = name.rpartition(".")[0]
            shape = self.tensors[key].view.shape
            expected = config.saves(name)
            if canonical.endswith(".bias"):
                adapted = f"{canonical.removesuffix('.bias')}.weight" in modules
                expected |= config.bias == "all" or (config.bias == "lora_only" and adapted)
            elif canonical.endswith(".weight") and len(shape) == 2 and not isinstance(config.targets, re.Pattern):
                # A regular expression may need what leads to the model in the class that was trained.
                expected |= config.adapts(module) is True
            if expected:
                raise self._fault(name, "the config says that it was trained, and nothing of it is stored")

    def _canonical(self, key: str) -> str:
        return to_canonical(key, self.architecture.key_rules)

    def _is_head(self, key: str) -> bool:
        return self.architecture.ignored_keys.fullmatch(key) is not None

    def _fault(self, name: str, reason: str) -> WeightsError:
        return WeightsError(f"{self.adapter.file}: {name}: {reason}")
