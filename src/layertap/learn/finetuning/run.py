"""`finetune`: from labelled texts and a checkpoint to a Hugging Face folder with a classifier."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from layertap import __version__
from layertap.backends.torch.backend import device_named
from layertap.checkpoints.load import ModelFiles
from layertap.data import open_reader
from layertap.engine.opening import OpenedModel, open_reference
from layertap.engine.options import ModelReference
from layertap.engine.progress import progress_on
from layertap.errors import UsageError
from layertap.learn.classifier import stored_head
from layertap.learn.finetuning.curve import Evaluation, can_draw, write_csv, write_png
from layertap.learn.finetuning.examples import LABEL, Examples, LabelledTexts, Part, encoded
from layertap.learn.finetuning.families import family_of
from layertap.learn.finetuning.folder import (
    NewFolder,
    check_output,
    config_of,
    copy_tokenizer,
    write_json,
    write_weights,
)
from layertap.learn.finetuning.model import SequenceClassifier, starting_model
from layertap.learn.finetuning.options import TrainingOptions
from layertap.learn.finetuning.schedule import freeze, optimizer_of
from layertap.learn.finetuning.state import RunFolder
from layertap.learn.finetuning.trainer import OnEvaluation, Trainer
from layertap.learn.labels import check_known, check_learnable
from layertap.tensors import TensorView

Data = str | os.PathLike[str] | LabelledTexts


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FineTuned:
    """What came of a run.

    Attributes:
        folder: the Hugging Face folder.
        labels: in the order of the logits.
        kept: the look at the dev part whose weights were kept, or None: there was no dev part, and the last were.
        evaluations: all looks.
        steps: of the optimiser.
        notes: what a person should know.
    """

    folder: Path
    labels: tuple[str, ...]
    kept: Evaluation | None
    evaluations: tuple[Evaluation, ...]
    steps: int
    notes: tuple[str, ...]


def finetune(
    data: Data,
    output: str | os.PathLike[str],
    *,
    dev: Data | None = None,
    label: str = "label",
    text_column: str | None = None,
    pair_column: str | None = None,
    input_format: str | None = None,
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

    `AutoModelForSequenceClassification` of transformers loads it, and `Classifier` here. Beside weights, config and
    tokenizer it holds `training.json` (how it was made), `curve.csv` and, with matplotlib, `curve.png`.

    After every epoch and every look at the dev part, the run is kept in `<output>.training`; one that was killed goes
    on from there with `resume`, on a processor to the same bits.

    Args:
        data: a file (txt has no labels; CSV, TSV, JSONL, Parquet), or `LabelledTexts`.
        output: the folder to make.
        dev: what the checkpoints are judged by, of the same form; None: the last one is kept.
        label: the column with the labels.
        text_column, pair_column, input_format: as `open_reader` has them, of both files.
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
        InputError: a label that is missing or unknown, a single class, an empty part.
        CheckpointError: a model that cannot be used, or of a family without a head here.
        NonFiniteError: a loss that is no number.
        OutputError: files that cannot be written.
    """
    options = options or TrainingOptions()
    place, on_device = Path(output), device_named(device)
    check_output(place)
    options.check_dev(dev is not None)

    def read(source: Data) -> Part:
        if isinstance(source, LabelledTexts):
            return Part.of(source.records(), LABEL, source.source)
        with open_reader(
            source, format=input_format, text_column=text_column, pair_column=pair_column, columns=(label,)
        ) as reader:
            return Part.of(reader, label, os.fspath(source))

    train_data = read(data)
    labels = check_learnable(train_data.labels)
    dev_data = None if dev is None else read(dev)
    if dev_data is not None:
        check_known(dev_data.labels, labels, trained_on=train_data.labels.source)
    reference = ModelReference(
        name=None if model is None else os.fspath(model),
        revision=revision,
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        local_files_only=local_files_only,
        allow_pickle=allow_pickle,
    )
    opened = open_reference(reference)
    family_of(opened.files)
    options.check_layers(opened.files.spec.num_hidden_layers)
    parts = _encoded(opened, labels, options, train_data, dev_data)
    meant_by = _meant_by(opened.files, options, labels, train_data, dev_data, on_device)
    folder = RunFolder(place.with_name(f"{place.name}.training"), meant_by)
    if folder.is_there() and not resume:
        raise UsageError(
            f"{folder.path}: an interrupted run is there; go on with it (--resume, resume=True), or delete the folder"
        )
    notes = _notes(opened.files, dict(zip(("training", "dev"), parts, strict=True)))
    head = _head_to_go_on_with(opened.files, labels, notes, allow_pickle=allow_pickle)
    # The caller's random numbers are left alone.
    with torch.random.fork_rng(devices=[on_device] if on_device.type == "cuda" else []):
        torch.manual_seed(options.seed)
        classifier = starting_model(opened.files, num_classes=len(labels), head=head).to(on_device)
        trainer = _trainer(classifier, parts, options, folder)
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
    found = _finished(trainer, place, labels, notes)
    _write(trainer, opened.files, place, found, meant_by)
    folder.remove()
    return found


def _head_to_go_on_with(
    files: ModelFiles, labels: tuple[str, ...], notes: list[str], *, allow_pickle: bool
) -> dict[str, TensorView] | None:
    """The head that the checkpoint stores, where it has these labels; notes which."""
    head = stored_head(files, allow_pickle=allow_pickle)
    if head is None:
        return None
    if files.config.get("id2label") != {str(i): label for i, label in enumerate(labels)}:
        notes.append("the checkpoint stores a head with other labels; a new one took its place")
        return None
    notes.append("went on with the head that the checkpoint stores, which has the same labels")
    return head


def _trainer(
    model: SequenceClassifier, parts: tuple[Examples, Examples | None], options: TrainingOptions, folder: RunFolder
) -> Trainer:
    freeze(model, options.freeze_below)
    return Trainer(
        model=model,
        optimizer=optimizer_of(model, options),
        train=parts[0],
        dev=parts[1],
        options=options,
        folder=folder,
    )


def _encoded(
    opened: OpenedModel,
    labels: tuple[str, ...],
    options: TrainingOptions,
    train: Part,
    dev: Part | None,
) -> tuple[Examples, Examples | None]:
    limit = min(opened.limits.values())

    def of(data: Part) -> Examples:
        return encoded(data, labels, opened.tokenizer, limit=limit, max_length=options.max_length)

    return of(train), None if dev is None else of(dev)


def _meant_by(
    files: ModelFiles,
    options: TrainingOptions,
    labels: tuple[str, ...],
    train: Part,
    dev: Part | None,
    device: torch.device,
) -> dict[str, Any]:
    """Everything that decides the result."""
    checkpoint = files.checkpoint
    return {
        "layertap": __version__,
        "model": Path(checkpoint.name).name if checkpoint.origin == "folder" else checkpoint.name,
        "commit": checkpoint.commit,
        "sha256": files.hashes(),
        "labels": list(labels),
        "train": {"records": len(train.texts), "sha256": train.sha256},
        "dev": None if dev is None else {"records": len(dev.texts), "sha256": dev.sha256},
        **asdict(options),
        "device": device.type,
    }


def _notes(files: ModelFiles, parts: Mapping[str, Examples | None]) -> list[str]:
    notes = [
        f"{part.num_cut:,} texts of the {name} part were cut at the limit"
        for name, part in parts.items()
        if part is not None and part.num_cut
    ]
    if family_of(files).pooled and files.pooler != "trained":
        state = (
            "stores no pooler; a new one" if files.pooler == "absent" else "stores a pooler that was never trained; it"
        )
        notes.append(f"{files.checkpoint.name} {state} was trained with the head")
    return notes


def _finished(trainer: Trainer, place: Path, labels: tuple[str, ...], notes: list[str]) -> FineTuned:
    if trainer.stopped and trainer.step < trainer.total_steps:
        notes.append(
            f"stopped after {trainer.step:,} of {trainer.total_steps:,} steps: no better {trainer.options.metric} in "
            f"{trainer.options.patience} looks at the dev part"
        )
    if not can_draw():
        notes.append("no curve.png: it needs matplotlib (pip install 'layertap[learn]'); curve.csv has its numbers")
    return FineTuned(
        folder=place,
        labels=labels,
        kept=trainer.best,
        evaluations=tuple(trainer.evaluations),
        steps=trainer.step,
        notes=tuple(notes),
    )


def _write(trainer: Trainer, files: ModelFiles, place: Path, found: FineTuned, meant_by: Mapping[str, Any]) -> None:
    best = None if found.kept is None else found.kept.step
    with NewFolder(place) as folder:
        write_json(folder / "config.json", config_of(files, found.labels))
        write_weights(
            folder / "model.safetensors", trainer.model.stored() if best is None else trainer.folder.best(best)
        )
        copy_tokenizer(files, folder, max_length=trainer.options.max_length)
        kept = None if found.kept is None else found.kept.values()
        write_json(
            folder / "training.json", {**meant_by, "steps": found.steps, "kept": kept, "notes": list(found.notes)}
        )
        write_csv(folder / "curve.csv", trainer.steps, trainer.evaluations, trainer.epoch_steps)
        if can_draw():
            write_png(
                folder / "curve.png",
                trainer.steps,
                trainer.evaluations,
                epoch_steps=trainer.epoch_steps,
                best_step=best,
            )
