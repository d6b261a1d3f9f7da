"""Identity of a model, and provenance of results: everything that they depend on, with a digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from layertap.checkpoints.load import ModelFiles
from layertap.engine.options import Semantics
from layertap.features.plan import Plan
from layertap.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """Identity of a checkpoint, wherever its files are.

    Attributes:
        name: hub id, or the last part of a folder's path; no path of a machine.
        location: hub id, or the absolute path of a folder; the checkpoint can be opened again by it.
        commit: commit on the hub, or None.
        architecture: name of the architecture.
        sha256: file name -> hexadecimal hash, of every file that results depend on.
    """

    name: str
    location: str
    commit: str | None
    architecture: str
    sha256: Mapping[str, str]

    @classmethod
    def of(cls, files: ModelFiles) -> ModelIdentity:
        """Return the identity of an open checkpoint; the first call reads its files once, to hash them."""
        checkpoint = files.checkpoint
        is_folder = checkpoint.origin == "folder"
        return cls(
            name=checkpoint.short_name,
            location=str(checkpoint.folder.resolve()) if is_folder else checkpoint.name,
            commit=checkpoint.commit,
            architecture=files.architecture.name,
            sha256=files.hashes(),
        )

    def __str__(self) -> str:
        return self.location + (f" at commit {self.commit}" if self.commit else "")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Provenance(Mapping[str, Any]):
    """Everything that the results of a run depend on; no time, host or path is among it.

    A read-only mapping from the keys that files have (`model`, `features`, `sha256`, ...) to JSON values, so that two
    provenances are equal where their mappings are.

    Attributes:
        version: version of layertap.
        model: identity of the model.
        features: name -> canonical text of the feature.
        max_length: name of a feature -> limit in tokens.
        prompt: name of a feature -> text put before every text, of features that have one.
        semantics: options that change results.
        states_word_pattern: whether results depend on the option `word_pattern`.
        backend: name of the backend.
        instruction_set: instruction set of its kernels.
        heads: name -> description of a classification head whose predictions are among the results; JSON values.
    """

    version: str
    model: ModelIdentity
    features: Mapping[str, str]
    max_length: Mapping[str, int]
    prompt: Mapping[str, str]
    semantics: Semantics
    states_word_pattern: bool
    backend: str
    instruction_set: str
    heads: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, plan: Plan, model: ModelIdentity, semantics: Semantics, *, backend: str, instruction_set: str
    ) -> Provenance:
        """Return the provenance of a plan's results."""
        inputs = {name: plan.inputs[number] for name, number in plan.input_of.items()}
        return cls(
            version=__version__,
            model=model,
            features={name: str(expr) for name, expr in plan.features.items()},
            max_length={name: seen.max_length for name, seen in inputs.items()},
            prompt={name: seen.prompt for name, seen in inputs.items() if seen.prompt},
            semantics=semantics,
            # Windows keep words whole.
            states_word_pattern="words" in plan.units or semantics.long == "window",
            backend=backend,
            instruction_set=instruction_set,
        )

    def with_heads(self, heads: Mapping[str, Any], *, read_features: Collection[str]) -> Provenance:
        """Return the provenance of a run with heads.

        Args:
            heads: name -> description of the head; JSON values.
            read_features: names of features that only heads read and that are not among the results.
        """

        def kept(by_name: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in by_name.items() if name not in read_features}

        return replace(
            self,
            features=kept(self.features),
            max_length=kept(self.max_length),
            prompt=kept(self.prompt),
            heads=heads,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the provenance as JSON values, in the order in which files have them.

        Keys: `layertap` (version), `model`, `commit`, `architecture`, `features`, `max_length`, `prompt`,
        `untrained_pooler`, `long` and the options that belong to it, `word_pattern` where results depend on it,
        `precision`, `backend`, `instruction_set`, `sha256`, `heads` where there are any.
        """
        semantics = self.semantics
        of_long = {"truncate": ("truncate_side",), "window": ("window", "overlap"), "error": ()}[semantics.long]
        stated_options = (*of_long, *(("word_pattern",) if self.states_word_pattern else ()))
        values = {
            "layertap": self.version,
            "model": self.model.name,
            "commit": self.model.commit,
            "architecture": self.model.architecture,
            "features": dict(self.features),
            "max_length": dict(self.max_length),
            "prompt": dict(self.prompt),
            "untrained_pooler": semantics.untrained_pooler,
            "long": semantics.long,
            **{name: getattr(semantics, name) for name in stated_options},
            "precision": semantics.precision,
            "backend": self.backend,
            "instruction_set": self.instruction_set,
            "sha256": dict(self.model.sha256),
        }
        return values | ({"heads": dict(self.heads)} if self.heads else {})

    @property
    def digest(self) -> str:
        """Hexadecimal sha256 of the provenance as canonical JSON: keys sorted, no spaces, ASCII."""
        text = json.dumps(self.as_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def __getitem__(self, key: str) -> Any:
        return self.as_dict()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __len__(self) -> int:
        return len(self.as_dict())
