"""Opening a model up to the point where weights are read: its files, its tokenizer, plans of features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from layertap.backends.pickles import pickle_reader
from layertap.checkpoints.load import ModelFiles, open_model
from layertap.checkpoints.source import locate
from layertap.engine.length_policy import LengthPolicy
from layertap.engine.options import ModelReference, Semantics
from layertap.errors import OptionError
from layertap.features.naming import Features, named
from layertap.features.plan import Plan, make_plan
from layertap.features.rules import Rules
from layertap.features.schema import ModelFacts, WindowSize
from layertap.models.config import ConfigReader
from layertap.models.positions import PositionTable
from layertap.text.tokenizer import TextTokenizer
from layertap.text.word_table import fitted

NO_LIMIT = 10**9
"""Lengths from here on mean that a tokenizer has no limit of its own (transformers writes 1e30)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OpenedModel:
    """Files and tokenizer of a model, checked against each other; no weight is read and no backend needed.

    Attributes:
        reference: which model; a branch or tag of the hub has become the commit it stands for, a folder's path is
            absolute.
        files: the checkpoint.
        tokenizer: tokenizer of the model.
        lowercased: the tokenizer with lower-casing before every other step, where the model's `sentence_embedding`
            asks for it.
    """

    reference: ModelReference
    files: ModelFiles
    tokenizer: TextTokenizer
    lowercased: TextTokenizer | None = None

    @property
    def limits(self) -> Mapping[str, int]:
        """Limits of a text in tokens, special tokens included, by what states them; the smallest one counts."""
        positions = self.files.spec.positions
        name = "position table" if isinstance(positions, PositionTable) else "max_position_embeddings"
        limits = {name: positions.max_length}
        stated = self.tokenizer.settings.get("model_max_length")
        if isinstance(stated, int) and self.tokenizer.num_special_tokens < stated < NO_LIMIT:
            limits["tokenizer_config.json"] = stated
        return limits

    def facts(self, semantics: Semantics) -> ModelFacts:
        """Return what the feature language needs to know of the model and the options."""
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

    def plan(self, features: Features | None, semantics: Semantics, rules: Rules | None = None) -> Plan:
        """Plan the computation of features, or refuse features that the model or the options cannot give.

        Args:
            features: features as in `Extractor.extract`; None: the model's default.
            semantics: options that change results.
            rules: savings to make; None: all.

        Raises:
            UsageError: a feature that does not parse, or that this model does not have; a limit without room for a
                text.
            UntrainedPoolerError: a pooler that is absent, or untrained without the user's consent.
            OptionError: a window or an overlap that does not fit a limit.
        """
        facts = self.facts(semantics)
        plan = make_plan(named(features, facts), facts, rules=rules)
        maps = next((schema.name for schema in plan.schemas if schema.maps), None)
        if maps is not None and semantics.long == "window":
            raise OptionError(
                f"{maps}: attentions of windows are not defined, since tokens of two windows never attend to each "
                "other; leave out long='window' (--long window), or the attentions"
            )
        length_policy = LengthPolicy.of(semantics)
        for seen in plan.inputs:
            length_policy.check(seen.max_length, self.tokenizer.num_special_tokens)
        return plan


def open_reference(reference: ModelReference) -> OpenedModel:
    """Find the files of a model and open them.

    Raises:
        ModelNotFoundError: there is no such folder, package or hub id.
        CheckpointError: a file cannot be used, or the tokenizer does not fit the model.
        BackendError: the weights are a pickle file, and torch is not installed to read it.
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
        checkpoint.tokenizer_folder, model_type=files.architecture.name, tokenizer_class=_tokenizer_class(files)
    )
    tokenizer = fitted(tokenizer, files.spec.vocab_size)
    if files.notes:  # shown where the notes of the tokenizer are
        tokenizer = replace(tokenizer, notes=(*files.notes, *tokenizer.notes))
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
