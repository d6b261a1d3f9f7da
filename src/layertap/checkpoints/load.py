"""Opens a checkpoint: config, architecture, and weights that are checked when they are asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeAlias

from layertap.checkpoints.adapters import Adapter
from layertap.checkpoints.json_file import read_object
from layertap.checkpoints.keys import KeyTable, account_for, used_rules, used_splits
from layertap.checkpoints.merging import MergedBytes
from layertap.checkpoints.sentence import read_sentence_embedding
from layertap.checkpoints.source import Checkpoint
from layertap.checkpoints.tensors import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    PICKLE,
    PICKLE_INDEX,
    SAFETENSORS,
    SAFETENSORS_INDEX,
    StoredTensor,
    no_weights,
    pickle_only,
    read_index,
    read_safetensors,
)
from layertap.errors import BackendError, ConfigError, WeightsError
from layertap.models.config import ConfigReader
from layertap.models.key_rules import KeyRule, SplitRule
from layertap.models.registry import architecture_of
from layertap.models.sentence import SentenceEmbeddingSpec
from layertap.models.spec import Architecture, EncoderSpec
from layertap.stored_file import StoredBytes, StoredFile
from layertap.tensors import FLOAT_BITS, TensorView

PoolerState: TypeAlias = Literal["trained", "untrained", "absent"]
PickleReader: TypeAlias = Callable[[Path], Mapping[str, TensorView]]

WORD_TABLE = "embeddings.word_embeddings.weight"
POOLER = ("pooler.dense.weight", "pooler.dense.bias")

# In the order in which tokenizers are looked for: the first whose first file exists is the one in use.
TOKENIZER_SETS = (
    ("tokenizer.json", "tokenizer_config.json"),
    ("vocab.txt", "tokenizer_config.json"),
    ("vocab.json", "merges.txt", "tokenizer_config.json"),
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ModelFiles:
    """A checkpoint, opened: what it is and what it holds.

    Attributes:
        checkpoint: where the files are.
        config: `config.json` as parsed.
        architecture: the family's row.
        spec: the encoder's numbers.
        tensors: canonical name -> stored tensor, for every weight of `spec.parameters()` in the files.
        ignored_keys: stored keys that are known and never needed (heads for other tasks), sorted.
        unused_keys: stored keys that nothing here knows, sorted; none is of a part of the encoder.
        pooler: the state of the pooler head: `untrained` where it is stored and its bias is all zeros.
        sentence_embedding: what a sentence-transformers folder says of itself, or None for another folder.
        key_rules: the architecture's rules that this file's keys need (which prefix, which norm names).
        split_rules: those of its fused tensors.
        adapter: the adapter that is merged into the weights, or None.
        notes: what a person should know of files that are not read, and of an adapter.
    """

    checkpoint: Checkpoint
    config: dict[str, Any]
    architecture: Architecture
    spec: EncoderSpec
    tensors: Mapping[str, StoredTensor]
    ignored_keys: tuple[str, ...]
    unused_keys: tuple[str, ...]
    pooler: PoolerState
    sentence_embedding: SentenceEmbeddingSpec | None
    key_rules: tuple[KeyRule, ...]
    split_rules: tuple[SplitRule, ...]
    adapter: Adapter | None
    notes: tuple[str, ...]
    _shapes: Mapping[str, tuple[int, ...]]
    _checked: set[str] = field(default_factory=set)
    _hashes: dict[str, str] = field(default_factory=dict)

    def weights(self, names: Iterable[str]) -> dict[str, TensorView]:
        """Return the stored tensors of these canonical names, each checked (once).

        Raises:
            WeightsError: one that is missing, of another shape, not of a float dtype, or holds NaN or
                infinity; names file, key, expected and found.
        """
        return {name: self._checked_tensor(name) for name in names}

    @property
    def faults(self) -> tuple[str, ...]:
        """Faults of weights that headers show: missing, of another shape or dtype; no data is read.

        An absent pooler is not counted.
        """
        absent = POOLER if self.pooler == "absent" else ()
        all_faults = (self._fault(name) for name in self._shapes if name not in absent)
        return tuple(fault for fault in all_faults if fault is not None)

    def _checked_tensor(self, name: str) -> TensorView:
        if name not in self._checked:
            fault = self._fault(name)
            if fault is not None:
                raise WeightsError(fault)
        stored = self.tensors[name]
        view = stored.view.loaded()
        if name not in self._checked:
            if not view.is_finite():
                raise WeightsError(f"{stored}: expected finite float32 values, found NaN or infinity")
            self._checked.add(name)
        return view

    def _fault(self, name: str) -> str | None:
        """Describe the fault of a weight that headers show, or return None."""
        shape, stored = self._shapes[name], self.tensors.get(name)
        if stored is None:
            return (
                f"{self.checkpoint.folder}: {name}: expected a weight of shape {list(shape)}, found none under this "
                f"name or one that leads to it{self._hint()}"
            )
        where, view = str(stored), stored.view
        if view.shape != shape:
            return f"{where}: expected shape {list(shape)} (as config.json says), found {list(view.shape)}"
        if view.dtype not in FLOAT_BITS:
            return f"{where}: expected one of {', '.join(FLOAT_BITS)}, found {view.dtype}"
        return None

    def _hint(self) -> str:
        return f"; not used are {_some(self.unused_keys)}" if self.unused_keys else ""

    @property
    def missing(self) -> tuple[str, ...]:
        """Canonical names of weights that are not in the files; an absent pooler's are not counted."""
        return tuple(
            name
            for name in self._shapes
            if name not in self.tensors and not (self.pooler == "absent" and name in POOLER)
        )

    @property
    def stored_dtypes(self) -> dict[str, int]:
        """Safetensors dtype name -> number of values of this model's weights stored so, most first."""
        count: Counter[str] = Counter()
        for stored in self.tensors.values():
            count[stored.view.dtype] += stored.view.size
        return dict(count.most_common())

    @property
    def num_parameters(self) -> int:
        """Values of this model's weights in the files."""
        return sum(stored.view.size for stored in self.tensors.values())

    @property
    def num_bytes(self) -> int:
        """Bytes of this model's weights in the files."""
        return sum(stored.view.nbytes for stored in self.tensors.values())

    @property
    def adapted(self) -> str | None:
        """Name of the model into whose weights an adapter is merged, or None without an adapter."""
        return None if self.adapter is None else (self.checkpoint.base or self.checkpoint).short_name

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files that hold this model's weights, sorted; those of an adapter last."""
        files = {stored.file for stored in self.tensors.values()}
        adapter = () if self.adapter is None else (self.adapter.file,)
        return (*sorted(files - {*adapter}), *adapter)

    def hashes(self) -> dict[str, str]:
        """Return file name -> hexadecimal sha256, of every file that results depend on.

        These are the weights, `config.json`, the tokenizer's files, those that say what `sentence_embedding` is, and
        those of an adapter.
        Each is hashed once, on the first call.

        Raises:
            CheckpointError: a file changed after it was opened; its hash would not be that of what was read.
        """
        if not self._hashes:
            opened = self._opened_files()
            hashes: dict[str, str] = {}
            for path in self.weight_files:
                file = opened.get(path)
                known = self.checkpoint.known_hash(path.name)
                hashes[path.name] = known or (self.checkpoint.hash_of(path.name) if file is None else file.sha256())
            for name in self._described_by():
                hashes[name] = self.checkpoint.known_hash(name) or self.checkpoint.hash_of(name)
            # All at once: another thread must not take the first few for the whole.
            self._hashes.update(hashes)
        return dict(self._hashes)

    def _opened_files(self) -> dict[Path, StoredFile]:
        """Return the safetensors files, which stay open; a pickle file was read into memory whole."""
        stored = [(tensor.file, _unmerged(tensor.view)) for tensor in self.tensors.values()]
        if self.adapter is not None:
            stored += [(self.adapter.file, view.data) for view in self.adapter.views()]
        return {path: data.file for path, data in stored if isinstance(data, StoredBytes)}

    def _described_by(self) -> list[str]:
        """Return the names of the files beside the weights that results depend on."""
        tokenizer = next((files for files in TOKENIZER_SETS if self.checkpoint.file(files[0])), ())
        sentence = self.sentence_embedding.files if self.sentence_embedding is not None else ()
        adapter = () if self.adapter is None else (ADAPTER_CONFIG,)
        names = ("config.json", *tokenizer, *(name for name in sentence if name not in tokenizer), *adapter)
        return [name for name in names if self.checkpoint.file(name) is not None]


def open_model(
    checkpoint: Checkpoint,
    *,
    allow_pickle: bool = False,
    read_pickle: PickleReader | None = None,
    model_type: str | None = None,
) -> ModelFiles:
    """Reads `config.json` and the weights' headers; no weight is read before it is asked for.

    Args:
        checkpoint: from `source.locate`.
        allow_pickle: whether `pytorch_model.bin` may be read where there is no safetensors file.
        read_pickle: what reads it: a path -> its tensors. The torch backend has one, weights only.

        model_type: family of a config that states none; None: such a config is refused.

    Raises:
        ConfigError: a config that is damaged, or says something impossible or unsupported.
        WeightsError: no weights, damaged files, or keys and blocks that are not this architecture's.
        BackendError: a pickle file, and nothing that reads it.
    """
    for name in (*chain.from_iterable(TOKENIZER_SETS), "special_tokens_map.json", "added_tokens.json"):
        checkpoint.file(name)  # refuses links and pipes and remembers the file's state, before the tokenizer is read
    config = with_model_type(_read_config(checkpoint), model_type)
    reader = ConfigReader(config, file=str(checkpoint.file("config.json")))
    architecture = architecture_of(reader)
    spec = architecture.spec(reader)
    stored_by_key, adapter = stored_tensors(checkpoint, architecture, allow_pickle, read_pickle)
    keys = account_for(
        stored_by_key,
        rules=architecture.key_rules,
        splits=architecture.split_rules,
        ignored=architecture.ignored_keys,
        file=str(checkpoint.folder),
    )
    _check_known(checkpoint, keys, architecture)
    # Before `spec.parameters()`: a wrong number of blocks may be absurdly large.
    _check_blocks(checkpoint, keys, spec)
    shapes = spec.parameters()
    keys = keys.without(architecture.spare_names - shapes.keys())
    _check_parts(stored_by_key, keys, shapes, architecture)
    tensors = {
        name: stored_by_key[key] for name, key in keys.stored.items() if name in shapes and key not in keys.fused
    }
    for key, names in keys.fused.items():
        tensors |= _split(stored_by_key[key], names, shapes)
    used_keys = {stored.key for stored in tensors.values()}
    return ModelFiles(
        checkpoint=checkpoint,
        config=config,
        architecture=architecture,
        spec=spec,
        tensors=tensors,
        ignored_keys=keys.ignored,
        unused_keys=tuple(sorted(set(keys.stored.values()) - used_keys)),
        pooler=_pooler_state(spec, tensors),
        sentence_embedding=read_sentence_embedding(
            checkpoint, spec, config=config, read_pickle=read_pickle if allow_pickle else None
        ),
        key_rules=used_rules(used_keys, architecture.key_rules),
        split_rules=used_splits(used_keys, architecture.key_rules, architecture.split_rules),
        adapter=adapter,
        notes=_adapter_notes(checkpoint, adapter),
        _shapes=shapes,
    )


def _adapter_notes(checkpoint: Checkpoint, adapter: Adapter | None) -> tuple[str, ...]:
    """Describe the adapter that is merged, or a config without one."""
    if adapter is not None:
        base = checkpoint.base
        return (adapter.note("the weights beside it" if base is None else base.name),)
    if checkpoint.file(ADAPTER_CONFIG) is None:
        return ()
    return (f"{ADAPTER_CONFIG} is not used: there are no weights of an adapter, and the folder's own weights run",)


def with_model_type(config: dict[str, Any], model_type: str | None) -> dict[str, Any]:
    """Add the family to a config that states neither `model_type` nor a class."""
    if model_type is None or config.get("model_type") is not None or config.get("architectures"):
        return config
    return {**config, "model_type": model_type}


def _read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    path = checkpoint.file("config.json")
    if path is not None:
        return read_object(path)
    message = f"{checkpoint.folder}: no config.json"
    inner = checkpoint.file("0_Transformer/config.json")
    if inner is not None:
        message += f"; the encoder itself is in {inner.parent}"
    elif checkpoint.file(ADAPTER_CONFIG):
        message += f": {no_weights([ADAPTER_CONFIG])}"
    raise ConfigError(message)


def stored_tensors(
    checkpoint: Checkpoint, architecture: Architecture, allow_pickle: bool, read_pickle: PickleReader | None
) -> tuple[dict[str, StoredTensor], Adapter | None]:
    """Open stored key -> tensor, tensors of heads included, and the adapter that is merged into them, if any.

    Raises:
        WeightsError: no weights, damaged files, or an adapter that does not fit the weights.
        ConfigError: a config of an adapter that is damaged or not supported.
        BackendError: a pickle file, and nothing that reads it.
    """
    stored = _base_tensors(checkpoint, allow_pickle, read_pickle)
    config = checkpoint.file(ADAPTER_CONFIG)
    safe, pickled = (checkpoint.file(name) for name in ADAPTER_WEIGHTS)
    if config is None or (safe is None and pickled is None):
        if checkpoint.base is not None:
            raise WeightsError(f"{checkpoint.folder}: {ADAPTER_CONFIG} without {ADAPTER_WEIGHTS[0]}; download it again")
        return stored, None
    if safe is not None:
        adapter = Adapter.read(config, safe, read_safetensors(safe))
    else:
        assert pickled is not None
        adapter = Adapter.read(config, pickled, _read_pickled_adapter(pickled, allow_pickle, read_pickle))
    return adapter.merged(stored, architecture), adapter


def _read_pickled_adapter(file: Path, allow_pickle: bool, read_pickle: PickleReader | None) -> Mapping[str, TensorView]:
    if not allow_pickle:
        raise WeightsError(f"{file.parent}: {pickle_only(*ADAPTER_WEIGHTS)}")
    if read_pickle is None:
        raise _no_pickle_reader(file)
    return read_pickle(file)


def _no_pickle_reader(file: Path) -> BackendError:
    return BackendError(f"{file}: reading a pickle file needs the torch backend: pip install 'layertap[torch]'")


def _base_tensors(
    checkpoint: Checkpoint, allow_pickle: bool, read_pickle: PickleReader | None
) -> dict[str, StoredTensor]:
    """Open stored key -> tensor as the files have them, from one file or from shards."""
    formats: list[tuple[str, str, PickleReader | None]] = [(SAFETENSORS, SAFETENSORS_INDEX, read_safetensors)]
    if allow_pickle:
        formats.append((PICKLE, PICKLE_INDEX, read_pickle))
    for single, index, read in formats:
        file, index_file = checkpoint.file(single), checkpoint.file(index)
        if file is None and index_file is None:
            continue
        if read is None:
            pickled = file or index_file
            assert pickled is not None
            raise _no_pickle_reader(pickled)
        if file is not None:
            return {key: StoredTensor(file=file, key=key, view=view) for key, view in read(file).items()}
        assert index_file is not None
        return _read_shards(checkpoint, index_file, read)
    files = sorted(path.name for path in checkpoint.folder.iterdir())
    raise WeightsError(f"{checkpoint.folder}: {no_weights(files)}")


def _read_shards(checkpoint: Checkpoint, index_file: Path, read: PickleReader) -> dict[str, StoredTensor]:
    index = read_index(index_file)
    shards: dict[str, Mapping[str, TensorView]] = {}
    for name in sorted(set(index.values())):
        path = checkpoint.file(name)
        if path is None:
            raise WeightsError(f"{index_file}: expected the file {name} beside it, found none; download it again")
        shards[name] = read(path)
    for key, name in index.items():
        if key not in shards[name]:
            raise WeightsError(f"{index_file.parent / name}: {key}: expected by {index_file.name}, found none")
    # What a shard holds beyond the index is accounted for too.
    tensors: dict[str, StoredTensor] = {}
    for name, views in shards.items():
        for key, view in views.items():
            if index.get(key, name) == name:
                if key in tensors:
                    raise WeightsError(f"{index_file.parent / name}: {key}: expected once, found in two shards")
                tensors[key] = StoredTensor(file=index_file.parent / name, key=key, view=view)
    return tensors


def _unmerged(view: TensorView) -> object:
    """Return the bytes of a weight as they are stored, without an adapter."""
    return view.data.base.data if isinstance(view.data, MergedBytes) else view.data


def _split(
    stored: StoredTensor, names: tuple[str, ...], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, StoredTensor]:
    """Return the weights of a fused tensor: canonical name -> its rows; none where the encoder lacks one of them."""
    if not all(name in shapes for name in names):
        return {}
    heights = [shapes[name][0] for name in names]
    expected = (sum(heights), *shapes[names[0]][1:])
    if stored.view.shape != expected:
        raise WeightsError(
            f"{stored.file}: {stored.key}: expected shape {list(expected)} (as config.json says; it holds "
            f"{', '.join(names)}), found {list(stored.view.shape)}"
        )
    parts: dict[str, StoredTensor] = {}
    begin = 0
    for name, height in zip(names, heights, strict=True):
        view = stored.view.rows(begin, begin + height)
        parts[name] = replace(stored, view=view)
        begin += height
    return parts


def _check_blocks(checkpoint: Checkpoint, keys: KeyTable, spec: EncoderSpec) -> None:
    num_blocks = keys.num_blocks
    if num_blocks != spec.num_blocks:
        shared = f" in {spec.num_blocks} groups" if spec.blocks else ""
        raise WeightsError(
            f"{checkpoint.folder}: expected num_hidden_layers {spec.num_hidden_layers}{shared} (as config.json says), "
            "found "
            + (
                f"encoder.layer.0 to encoder.layer.{num_blocks - 1} in the weights"
                if num_blocks
                else "no encoder.layer"
            )
        )


def _check_known(checkpoint: Checkpoint, keys: KeyTable, architecture: Architecture) -> None:
    """Refuses weights that are not of this architecture, or under a prefix that it does not have."""
    if WORD_TABLE in keys.stored:
        return
    stored = tuple(keys.stored.values())
    near = next((key for key in stored if key.endswith(WORD_TABLE)), None)
    advice = ""
    if near is not None:
        prefix = near.removesuffix(WORD_TABLE)
        known = " or ".join(repr(rule.stored[:-1]) for rule in architecture.key_rules if rule.canonical == "*")
        advice = f"; the prefix {prefix!r} is not one of this family (none, or {known})"
    first = _some(stored + keys.ignored) if stored or keys.ignored else "no weights at all"
    raise WeightsError(f"{checkpoint.folder}: {WORD_TABLE}: expected for {architecture.name}, found {first}{advice}")


def _check_parts(
    stored_by_key: Mapping[str, StoredTensor],
    keys: KeyTable,
    shapes: Mapping[str, tuple[int, ...]],
    architecture: Architecture,
) -> None:
    """Refuses a weight inside the encoder that its forward pass has no place for: leaving it out would change results.

    What stands beside the encoder (a head of someone's own) is reported, not refused.
    """
    parts = {name.partition(".")[0] for name in shapes}
    # A family's own names for them, too: no rule renames a weight that none knows.
    prefix = architecture.key_rules[0]
    parts |= {
        (prefix.to_canonical(key) or key).partition(".")[0] for name, key in keys.stored.items() if name in shapes
    }
    for name, key in keys.stored.items():
        part = name.partition(".")[0]
        if name not in shapes and part in parts:
            stored = stored_by_key[key]
            missing = [other for other in shapes if other not in keys.stored and not other.startswith("pooler.")]
            missed = f"; not found are {_some(tuple(missing))}" if missing else ""
            raise WeightsError(
                f"{stored.file}: {key}: expected only weights of {architecture.name} under {part}, found one that it "
                f"does not have, {stored.view.dtype} {list(stored.view.shape)}{missed}"
            )


def _pooler_state(spec: EncoderSpec, tensors: Mapping[str, StoredTensor]) -> PoolerState:
    stored = [tensors[name] for name in POOLER if name in tensors]
    if not spec.pooler or not stored:
        return "absent"
    if len(stored) == 1:
        missing = next(name for name in POOLER if name not in tensors)
        raise WeightsError(f"{stored[0].file}: {missing}: expected beside {stored[0].key}, found none")
    bias = tensors[POOLER[1]].view
    if bias.dtype not in FLOAT_BITS or bias.size == 0:
        return "trained"  # `weights` refuses it when it is asked for
    # A bias starts at exactly zero, and the first gradient moves it.
    return "trained" if bias.to_float32().any() else "untrained"


def _some(keys: tuple[str, ...]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")
