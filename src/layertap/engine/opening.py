"""Opening a model short of running it: its files, its tokenizer, and what the feature language may ask of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from layertap.backends.base import pickle_reader
from layertap.checkpoints.load import ModelFiles, open_model
from layertap.checkpoints.source import locate
from layertap.engine.cutting import Cutting
from layertap.engine.options import ModelReference, Semantics
from layertap.errors import OptionError
from layertap.features.naming import Features, named
from layertap.features.plan import Plan, make_plan
from layertap.features.rules import Rules
from layertap.features.schema import ModelFacts, WindowSize
from layertap.models.config import ConfigReader
from layertap.models.positions import PositionTable
from layertap.text.tokenizer import TextTokenizer

INSANE_LENGTH = 10**9
"""Tokenizers without a limit of their own state one above this (transformers writes 1e30)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenedModel:
    """A model's files and tokenizer, checked against each other; no weight is read and no backend needed.

    Attributes:
        reference: which model; a branch or tag of the hub has become the commit it stands for.
        files: the checkpoint.
        tokenizer: text -> ids.
        lowercased: the same in lower case, where the model's `sentence_embedding` asks for it.
    """

    reference: ModelReference
    files: ModelFiles
    tokenizer: TextTokenizer
    lowercased: TextTokenizer | None = None

    @property
    def limits(self) -> Mapping[str, int]:
        """What limits a text -> tokens, special tokens included; the smallest counts."""
        positions = self.files.spec.positions
        name = "position table" if isinstance(positions, PositionTable) else "max_position_embeddings"
        limits = {name: positions.max_length}
        stated = self.tokenizer.settings.get("model_max_length")
        if isinstance(stated, int) and self.tokenizer.num_special_tokens < stated < INSANE_LENGTH:
            limits["tokenizer_config.json"] = stated
        return limits

    def facts(self, semantics: Semantics) -> ModelFacts:
        """What the feature language needs to know."""
        return ModelFacts(
            spec=self.files.spec,
            has_cls=self.tokenizer.cls_index is not None,
            pooler=self.files.pooler,
            use_untrained_pooler=semantics.untrained_pooler == "use",
            sentence_embedding=self.files.sentence_embedding,
            max_length=min(self.limits.values()),
            max_length_override=semantics.max_length,
            windows=WindowSize(size=semantics.window, overlap=semantics.overlap)
            if semantics.long == "window"
            else None,
        )


def open_reference(reference: ModelReference) -> OpenedModel:
    """Finds a model's files and opens them.

    Raises:
        ModelNotFoundError: no such folder, package or hub id.
        CheckpointError: files that cannot be used, or a tokenizer that does not fit the model.
        BackendError: a pickle file, and no torch to read it.
    """
    checkpoint = locate(
        reference.name,
        revision=reference.revision,
        cache_dir=reference.cache_dir,
        local_files_only=reference.local_files_only,
        allow_pickle=reference.allow_pickle,
    )
    files = open_model(
        checkpoint, allow_pickle=reference.allow_pickle, read_pickle=pickle_reader() if reference.allow_pickle else None
    )
    tokenizer = TextTokenizer.load(
        checkpoint.folder, model_type=files.architecture.name, tokenizer_class=_tokenizer_class(files)
    )
    tokenizer.check_fits(files.spec.vocab_size)
    if checkpoint.commit is not None:
        # A pickled extractor opens the same commit elsewhere, whatever the branch has become.
        reference = replace(reference, revision=checkpoint.commit)
    if checkpoint.origin == "folder":
        # And the same folder, from whichever directory the other process works in.
        reference = replace(reference, name=str(Path(checkpoint.folder).absolute()))
    declared = files.sentence_embedding
    lowercased = tokenizer.lowercased() if declared is not None and declared.lowercase else None
    return OpenedModel(reference=reference, files=files, tokenizer=tokenizer, lowercased=lowercased)


def _tokenizer_class(files: ModelFiles) -> str | None:
    value = files.config.get("tokenizer_class")
    if value is None or isinstance(value, str):
        return value
    raise ConfigReader(files.config, file=str(files.checkpoint.folder / "config.json")).fail(
        "tokenizer_class", "a name or null"
    )


def plan_features(
    features: Features | None,
    facts: ModelFacts,
    tokenizer: TextTokenizer,
    rules: Rules,
    semantics: Semantics,
) -> Plan:
    """What would run for these features; refuses what the model or the options cannot give.

    Raises:
        UsageError: a feature that does not parse, or that this model does not have; a limit without room for a text.
        UntrainedPoolerError: a pooler that is absent, or untrained without the user's consent.
        OptionError: a window or an overlap that does not fit a limit.
    """
    plan = make_plan(named(features, facts), facts, rules=rules)
    maps = next((schema.name for schema in plan.schemas if schema.maps), None)
    if maps is not None and semantics.long == "window":
        raise OptionError(
            f"{maps}: attentions of windows are not defined, since tokens of two windows never attend to each other; "
            "leave out long='window' (--long window), or the attentions"
        )
    cutting = Cutting.of(semantics)
    for seen in plan.inputs:
        cutting.check(seen.max_length, tokenizer.num_special_tokens)
    return plan
