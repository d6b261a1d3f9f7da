"""`finetune`: from labelled texts or words and a checkpoint to a Hugging Face folder with a classifier."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from layertap.backends.torch.backend import device_named
from layertap.checkpoints.load import ModelFiles
from layertap.checkpoints.source import stored_files
from layertap.data import open_reader
from layertap.data.input import check_read_once
from layertap.engine.identity import ModelIdentity
from layertap.engine.opening import OpenedModel, open_reference
from layertap.engine.options import ModelReference
from layertap.engine.progress import progress_on
from layertap.errors import InputError, OptionError, UsageError
from layertap.files import check_new_folder, refuse_overlap, staged_folder
from layertap.hf.saving import write_weights
from layertap.learn.finetuning.curve import Evaluation, as_csv, as_png, can_draw
from layertap.learn.finetuning.encoding import LABEL, Examples, LabelledTexts, digest_of, encoded, part_of
from layertap.learn.finetuning.folder import as_json, config_of, write_tokenizer
from layertap.learn.finetuning.model import HeadedEncoder, starting_model
from layertap.learn.finetuning.options import TrainingOptions
from layertap.learn.finetuning.schedule import freeze, optimizer_of
from layertap.learn.finetuning.scoring import Scoring
from layertap.learn.finetuning.state import RunFolder
from layertap.learn.finetuning.trainer import OnEvaluation, Trainer
from layertap.learn.heads.checkpoint import stored_head, stored_lower_layers
from layertap.learn.heads.families import FamilyHead, head_of, stated_task
from layertap.learn.labels import Labels, Part, check_known, check_learnable, check_same_task
from layertap.learn.libraries import require_libraries
from layertap.learn.tags import in_scheme, scheme_of
from layertap.tensors import TensorView
from layertap.version import __version__

Data = str | os.PathLike[str] | LabelledTexts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FineTuned:
    """What came of a run.

    Attributes:
        folder: the Hugging Face folder.
        labels: in the order of the logits.
        kept: the look at the dev part whose weights were kept, or None: there was no dev part, and the last were.
        evaluations: all looks.
        test: what the kept weights score on the test part, or None: there was none.
        steps: of the optimiser.
        notes: what a person should know.
    """

    folder: Path
    labels: tuple[str, ...]
    kept: Evaluation | None
    evaluations: tuple[Evaluation, ...]
    test: Mapping[str, float] | None
    steps: int
    notes: tuple[str, ...]


def finetune(
    data: Data,
    output: str | os.PathLike[str],
    *,
    dev: Data | None = None,
    test: Data | None = None,
    label: str = "label",
    text_column: str | None = None,
    words_column: str | None = None,
    pair_column: str | None = None,
    input_format: str | None = None,
    max_record_bytes: int | None = None,
    scheme: str = "auto",
    model: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
    options: TrainingOptions | None = None,
    device: str = "cpu",
    resume: bool = False,
    progress: bool = False,
    on_evaluation: OnEvaluation | None = None,
) -> FineTuned:
    """Trains an encoder and its family's classification head, and writes a Hugging Face folder.

    A label a text trains the head that `AutoModelForSequenceClassification` of transformers loads, a list of labels a
    text, one a word, that of `AutoModelForTokenClassification`; both load with `Classifier` here. Beside weights,
    config and tokenizer the folder holds `training.json` (how it was made), `curve.csv` and, with matplotlib,
    `curve.png`.

    After every epoch and every look at the dev part, the run is kept in `<output>.training`; one that was killed goes
    on from there with `resume`, on a processor to the same bits.

    Args:
        data: a file (txt has no labels; CSV, TSV, JSONL, Parquet; CoNLL, CoNLL-U of words), or `LabelledTexts`.
        output: the folder to make.
        dev: what the checkpoints are judged by, of the same form; None: the last one is kept.
        test: what the result is measured on at the end, of the same form; None: nothing.
        label: the column with the labels, or lists of them, one a word.
        text_column, words_column, pair_column, input_format, max_record_bytes: arguments of `open_reader`, which
            hold for all files.
        scheme: of tags of words: "bio", "io" (B- is learnt as I-), "tags" (no entities), or "auto".
        model: a folder, a hub id, or None: all-MiniLM-L6-v2.
        revision, cache_dir, local_files_only, allow_pickle: where the model comes from.
        options: how to train.
        device: "cpu", "cuda" or "cuda:N".
        resume: go on with an interrupted run; where there is none, begin.
        progress: draw a progress bar on standard error.
        on_evaluation: called after every look at the dev part.

    Raises:
        UsageError: options or columns that cannot be, an output that exists, an interrupted run without `resume` or
            with other options.
        InputError: a label that is missing or unknown, a single class, an empty part, tags of another number than
            the words.
        CheckpointError: a model that cannot be used, or of a family without a head here.
        NonFiniteError: a loss that is no number.
        OutputError: files that cannot be written.
    """
    options = options or TrainingOptions()
    place, on_device = Path(output), device_named(device)
    check_new_folder(place)
    options.check_dev(dev is not None)
    files = [os.fspath(source) for source in (data, dev, test) if isinstance(source, str | os.PathLike)]
    check_read_once(files)
    places = {"the folder": place, "the state of the run": place.with_name(f"{place.name}.training")}
    refuse_overlap([*files, *stored_files(model)], places)

    def read(source: Data) -> Part:
        if isinstance(source, LabelledTexts):
            return part_of(source.records(), LABEL, source.source)
        with open_reader(
            source,
            format=input_format,
            text_column=text_column,
            words_column=words_column,
            pair_column=pair_column,
            columns=(label,),
            max_record_bytes=max_record_bytes,
        ) as reader:
            return part_of(reader, label, os.fspath(source))

    sources = {"training": data, "dev": dev, "test": test}
    parts = {name: read(source) for name, source in sources.items() if source is not None}
    scoring = _scoring(parts, scheme)
    options = options.for_task(scoring.scheme)
    reference = ModelReference(
        name=None if model is None else os.fspath(model),
        revision=revision,
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        local_files_only=local_files_only,
        allow_pickle=allow_pickle,
    )
    opened = open_reference(reference)
    head = head_of(opened.files, parts["training"].labels.task)
    options.check_layers(opened.files.spec)
    examples = _encoded(opened, scoring, options, parts)
    meant_by = _meant_by(opened.files, options, scoring, parts, on_device)
    folder = RunFolder(place.with_name(f"{place.name}.training"), meant_by)
    if folder.is_there() and not resume:
        raise UsageError(
            f"{folder.path}: an interrupted run is there; go on with it (--resume, resume=True), or delete the folder"
        )
    notes = _notes(opened.files, head, examples)
    stored = _stored_to_go_on_with(opened.files, head, scoring.names, notes, allow_pickle=allow_pickle)
    # The caller's random numbers are left alone.
    with torch.random.fork_rng(devices=[on_device] if on_device.type == "cuda" else []):
        torch.manual_seed(options.seed)
        classifier = starting_model(opened.files, head, num_classes=len(scoring.names), stored=stored).to(on_device)
        trainer = _trainer(classifier, examples, scoring, options, folder)
        if folder.is_there():
            trainer.go_on_from(folder.load())
        left = (trainer.total_steps - trainer.step) * options.batch_size
        try:
            with progress_on(sys.stderr, shown=progress, total=left) as on_step:
                trainer.run(on_step=on_step, on_evaluation=on_evaluation)
        except BaseException as stop:
            if folder.is_there():
                stop.add_note(
                    f"the run is kept in {folder.path} as it last was; --resume (resume=True) goes on with it"
                )
            raise
        trainer.keep_best()
        found = _finished(trainer, place, examples.get("test"), notes)
    _write(trainer, opened.files, head, found, meant_by)
    folder.remove()
    return found


def _scoring(parts: Mapping[str, Part], scheme: str) -> Scoring:
    """The labels to learn, and what they mark; checks parts against each other.

    Raises:
        InputError: nothing can be learnt, or labels elsewhere that training does not have.
        OptionError: a scheme where labels are of texts.
    """
    train, *others = (part.labels for part in parts.values())
    for labels in others:
        check_same_task(train, labels)
    if train.task == "text" and scheme != "auto":
        raise OptionError(f"scheme {scheme!r} goes with lists of tags, and {train.source} has one label a row")
    found = None if train.task == "text" else scheme_of(train.counts, scheme)

    def learnt(labels: Labels) -> Labels:
        return labels if found is None else labels.mapped(lambda tag: in_scheme(tag, found))

    names = check_learnable(learnt(train))
    for labels in others:
        if not labels.counts:
            raise InputError(f"{labels.source}: there is no word in it")
        check_known(learnt(labels), names, trained_on=train.source)
    if found in ("bio", "io"):
        require_libraries("measuring entities", "seqeval")
    return Scoring(names=names, scheme=found)


def _stored_to_go_on_with(
    files: ModelFiles, head: FamilyHead, labels: tuple[str, ...], notes: list[str], *, allow_pickle: bool
) -> dict[str, TensorView]:
    """The layers of the head that the checkpoint stores, all of them where it has these labels; notes which."""
    task = stated_task(files)
    if task is None:
        found = stored_lower_layers(files, head, allow_pickle=allow_pickle)
        if found:
            notes.append("went on with the layers of the head that the checkpoint stores: " + ", ".join(found))
        return found
    stored = stored_head(files, head, allow_pickle=allow_pickle) if task == head.task else None
    if task == head.task and stored is None:
        return {}
    same = files.config.get("id2label") == {str(i): label for i, label in enumerate(labels)}
    if stored is None or not same or stored[head.last].shape[0] != len(labels):
        what = "of another kind" if stored is None else "with other labels"
        notes.append(f"the checkpoint stores a head {what}; a new one took its place")
        return {}
    notes.append("went on with the head that the checkpoint stores, which has the same labels")
    return stored


def _trainer(
    model: HeadedEncoder,
    examples: Mapping[str, Examples],
    scoring: Scoring,
    options: TrainingOptions,
    folder: RunFolder,
) -> Trainer:
    freeze(model, options.freeze_below)
    return Trainer(
        model=model,
        optimizer=optimizer_of(model, options),
        train=examples["training"],
        dev=examples.get("dev"),
        scoring=scoring,
        options=options,
        folder=folder,
    )


def _encoded(
    opened: OpenedModel, scoring: Scoring, options: TrainingOptions, parts: Mapping[str, Part]
) -> dict[str, Examples]:
    limit = min(opened.limits.values())
    return {
        name: encoded(part, scoring.names, scoring.scheme, opened.tokenizer, limit=limit, max_length=options.max_length)
        for name, part in parts.items()
    }


def _meant_by(
    files: ModelFiles,
    options: TrainingOptions,
    scoring: Scoring,
    parts: Mapping[str, Part],
    device: torch.device,
) -> dict[str, Any]:
    """Everything that decides the result."""
    identity = ModelIdentity.of(files)
    stated = {
        name: None if part is None else {"records": len(part.labels.values), "sha256": digest_of(part)}
        for name, part in (("train", parts["training"]), ("dev", parts.get("dev")))
    }
    return {
        "layertap": __version__,
        "model": identity.name,
        "commit": identity.commit,
        "sha256": dict(identity.sha256),
        "task": parts["training"].labels.task,
        "scheme": scoring.scheme,
        "labels": list(scoring.names),
        **stated,
        **asdict(options),
        "device": device.type,
    }


def _notes(files: ModelFiles, head: FamilyHead, examples: Mapping[str, Examples]) -> list[str]:
    notes = [
        f"{part.num_cut:,} texts of the {name} part were cut at the limit"
        for name, part in examples.items()
        if part.num_cut
    ]
    notes += [
        f"{part.num_without_token:,} words of the {name} part have no token, or were cut off with theirs"
        for name, part in examples.items()
        if part.num_without_token
    ]
    if head.pooling == "pooler" and files.pooler != "trained":
        state = (
            "stores no pooler; a new one" if files.pooler == "absent" else "stores a pooler that was never trained; it"
        )
        notes.append(f"{files.checkpoint.name} {state} was trained with the head")
    return notes


def _finished(trainer: Trainer, place: Path, test: Examples | None, notes: list[str]) -> FineTuned:
    if trainer.stopped and trainer.step < trainer.total_steps:
        notes.append(
            f"stopped after {trainer.step:,} of {trainer.total_steps:,} steps: no better {trainer.options.metric} in "
            f"{trainer.options.patience} looks at the dev part"
        )
    if not can_draw():
        notes.append("no curve.png: it needs matplotlib (pip install 'layertap[learn]'); curve.csv has its numbers")
    return FineTuned(
        folder=place,
        labels=trainer.scoring.names,
        kept=trainer.best,
        evaluations=tuple(trainer.evaluations),
        test=None if test is None else trainer.evaluate(test).scores,
        steps=trainer.step,
        notes=tuple(notes),
    )


def _write(
    trainer: Trainer, files: ModelFiles, head: FamilyHead, found: FineTuned, meant_by: Mapping[str, Any]
) -> None:
    with staged_folder(found.folder, first="config.json", overwrite=False) as folder:
        folder.write("config.json", as_json(config_of(files, head, found.labels)))
        write_weights(folder, trainer.model.stored())
        write_tokenizer(files, folder, max_length=trainer.options.max_length)
        kept = None if found.kept is None else found.kept.values()
        told = {"steps": found.steps, "kept": kept, "test": found.test, "notes": list(found.notes)}
        folder.write("training.json", as_json({**meant_by, **told}))
        metrics = trainer.scoring.metrics
        steps, looks, epoch_steps = trainer.steps, trainer.evaluations, trainer.epoch_steps
        folder.write("curve.csv", as_csv(steps, looks, epoch_steps=epoch_steps, metrics=metrics))
        if can_draw():
            best = None if found.kept is None else found.kept.step
            folder.write("curve.png", as_png(steps, looks, epoch_steps=epoch_steps, best_step=best))
