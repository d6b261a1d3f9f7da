"""The part of a plan that a run asks for, and its comparison with the plan that a folder was made with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from layertap.data.folder import FolderPlan
from layertap.data.readers.options import ReadOptions
from layertap.engine.streaming import Streams
from layertap.errors import UsageError
from layertap.features.naming import Features
from layertap.records import FeatureSchema

BITS = 1
"""Number that is raised when a version of layertap computes other results, or writes other bytes, from equal plans."""

LIBRARIES = ("tokenizers", "pyarrow")
TORCH = "torch"

MOST_NAMED = 3
"""Number of differences that a message names; the first ones usually explain the others."""

FLAGS = {"max_record_bytes": "--max-record-size", "format": "--input-format"}
"""Flags of options for reading whose names on the command line differ from those in Python."""

READING = tuple(own.name for own in fields(ReadOptions) if own.name != "max_errors")
"""Options for reading that change what is read; `max_errors` only says when to give up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderRequest:
    """Everything that results depend on, apart from the inputs; attributes as those of `FolderPlan`.

    Attributes:
        shard_records: rows of a shard, or None: those of the folder's plan, else by the default rule.
    """

    provenance: Mapping[str, Any]
    schemas: tuple[FeatureSchema, ...]
    details: tuple[str, ...]
    reading: Mapping[str, Any]
    libraries: Mapping[str, str]
    bits: int
    shard_records: int | None

    @classmethod
    def of(
        cls,
        streams: Streams,
        features: Features | None,
        *,
        details: tuple[str, ...],
        options: ReadOptions,
        format: str | None,  # noqa: A002 - the word of every tool of this kind
        shard_records: int | None,
    ) -> FolderRequest:
        """Return the request of a run, with the features and the model as `streams` has them."""
        provenance = streams.provenance(features).as_dict()
        reading = {name: getattr(options, name) for name in READING} | {"format": format}
        return cls(
            provenance=provenance,
            schemas=streams.schema(features, details=details),
            details=details,
            reading={name: list(value) if isinstance(value, tuple) else value for name, value in reading.items()},
            libraries=installed(provenance["backend"]),
            bits=BITS,
            shard_records=shard_records,
        )

    def refuse_differing(self, plan: FolderPlan, *, name: str, instruction_sets: Callable[[], tuple[str, ...]]) -> None:
        """Refuse a run whose results would not fit the shards that a folder has.

        Args:
            plan: plan of the folder.
            name: name of the folder for messages.
            instruction_sets: function that returns the instruction sets of this machine, for the advice.

        Raises:
            UsageError: the run asks for something else than the folder was made with; the message names the difference.
        """
        if plan.bits != self.bits:
            raise UsageError(
                f"{name}: it was made by layertap {plan.provenance.get('layertap')}, whose results differ from those "
                "of the installed version; use that version, or name another folder"
            )
        differences = list(_differences(self, plan))
        if not differences:
            return
        had, has = plan.provenance.get("instruction_set"), self.provenance.get("instruction_set")
        if had != has and len(differences) == 1 and _computes_alike(self, plan):
            raise UsageError(f"{name}: {_instruction_advice(str(had), str(has), instruction_sets())}")
        more = len(differences) - MOST_NAMED
        told = "; ".join(differences[:MOST_NAMED]) + (f"; and {more} more" if more > 0 else "")
        raise UsageError(
            f"{name}: the folder was made with other settings, and shards of two kinds do not go together: {told}. Run "
            "with the settings of the folder, or name another folder"
        )


def features_of(plan: FolderPlan) -> list[str]:
    """Return the features of a plan as texts, with their names where they have any, in the form that `Streams` take."""
    features: Mapping[str, str] = plan.provenance["features"]
    return [text if name == text else f"{name} = {text}" for name, text in features.items()]


def installed(backend: str) -> dict[str, str]:
    """Return the versions of the libraries that results or bytes depend on."""
    names = (*LIBRARIES, TORCH) if backend == TORCH else LIBRARIES
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def _differences(request: FolderRequest, plan: FolderPlan) -> Iterator[str]:
    """Yield each difference in words: what the folder has, and what the run asks for."""
    is_same_model = request.provenance["sha256"] == plan.provenance.get("sha256")
    skipped = {"layertap", "sha256"} | ({"model", "commit"} if is_same_model else set())
    if not is_same_model:
        yield _model_difference(request.provenance, plan.provenance)
        skipped |= {"model", "commit", "architecture"}
    if request.provenance["features"] != plan.provenance.get("features"):
        # Limits and prompts are stated for each feature.
        asked = _listed(request.provenance["features"])
        yield f"features {_listed(plan.provenance.get('features'))} in the folder, {asked} in this run"
        skipped |= {"features", "max_length", "prompt"}
    if not _computes_alike(request, plan):
        skipped |= {"instruction_set"}  # it follows from the others
    for key in dict.fromkeys([*plan.provenance, *request.provenance]):
        had, has = plan.provenance.get(key), request.provenance.get(key)
        if key not in skipped and had != has:
            yield f"{key.replace('_', ' ')} {_shown(had)} in the folder, {_shown(has)} in this run"
    if plan.details != request.details:
        yield f"details {_shown(list(plan.details))} in the folder, {_shown(list(request.details))} in this run"
    for key in dict.fromkeys([*plan.reading, *request.reading]):
        had, has = plan.reading.get(key), request.reading.get(key)
        if had != has:
            flag = FLAGS.get(key, f"--{key.replace('_', '-')}")
            yield f"{flag} {_shown(had)} in the folder, {_shown(has)} in this run"
    for key in dict.fromkeys([*plan.libraries, *request.libraries]):
        had, has = plan.libraries.get(key), request.libraries.get(key)
        if had != has:
            yield f"{key} {had} made the folder, and {has or 'none'} is installed here"
    if request.shard_records not in (None, plan.shard_records):
        yield f"--shard-records {plan.shard_records} in the folder, {request.shard_records} in this run"
    is_same_request = plan.provenance.get("features") == request.provenance["features"] and is_same_model
    if is_same_request and plan.details == request.details and plan.schemas != request.schemas:
        yield "shapes or types of the results"


def _computes_alike(request: FolderRequest, plan: FolderPlan) -> bool:
    """Return whether both have the same backend and precision, whose instruction sets can be compared."""
    return all(request.provenance[key] == plan.provenance.get(key) for key in ("precision", "backend"))


def _listed(features: Any) -> str:
    """Return features as a user writes them."""
    if not isinstance(features, Mapping):
        return repr(features)
    return ", ".join(repr(text if name == text else f"{name} = {text}") for name, text in features.items())


def _model_difference(now: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    if now["model"] != before.get("model"):
        return f"model {_shown(before.get('model'))} in the folder, {_shown(now['model'])} in this run"
    had, has = before.get("sha256", {}), now["sha256"]
    files = sorted(name for name in {*had, *has} if had.get(name) != has.get(name))
    return f"the model's files are not those of the folder: {', '.join(files)}"


def _instruction_advice(had: str, has: str, here: tuple[str, ...]) -> str:
    said = (
        f"its results are those of the instruction set {had}, and this run would compute with {has}, whose bits differ"
    )
    if had in here:
        return f"{said}; add --instruction-set {had}"
    return (
        f"{said}; this machine does not have {had}. Continue on a machine that does, or make a new folder with an "
        f"instruction set that all machines have (--instruction-set {has})"
    )


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {own}" for name, own in value.items()) + "}"
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."
