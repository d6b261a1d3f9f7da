"""`finetune`: train an encoder with a classification head, and write a Hugging Face folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from layertap.backends.torch.devices import device_named
from layertap.checkpoints.load import ModelFiles
from layertap.checkpoints.source import stored_files
from layertap.checkpoints.writing import as_json, write_tokenizer
from layertap.data.input import Input, check_read_once, read_options
from layertap.data.readers.base import RowError
from layertap.data.readers.options import OnError, Quoting, Records
from layertap.engine.identity import ModelIdentity
from layertap.engine.opening import OpenedModel, open_reference
from layertap.engine.options import ModelReference
from layertap.engine.progress import progress_on
from layertap.errors import UsageError
from layertap.files import check_new_folder, refuse_overlap, staged_folder
from layertap.hf.saving import write_weights
from layertap.learn.finetuning.curve import Evaluation, as_csv, as_png
from layertap.learn.finetuning.encoding import FINDER, EncodedDataset, digest_of, encoded
from layertap.learn.finetuning.folder import config_of
from layertap.learn.finetuning.model import HeadedEncoder, starting_model
from layertap.learn.finetuning.options import TrainingOptions
from layertap.learn.finetuning.schedule import freeze, optimizer_of
from layertap.learn.finetuning.scoring import Scoring
from layertap.learn.finetuning.state import RunFolder
from layertap.learn.finetuning.trainer import OnEvaluation, Trainer
from layertap.learn.heads.checkpoint import stored_head, stored_lower_layers
from layertap.learn.heads.families import FamilyHead, head_of, stated_task
from layertap.learn.labelled import LABEL, LabelledDataset, LabelledTexts, shared_note
from layertap.learn.labels import check_labels
from layertap.learn.libraries import require_libraries
from layertap.plots.style import can_draw
from layertap.tensors import TensorView
from layertap.version import __version__

Data = str | os.PathLike[str] | LabelledTexts
"""Labelled data: a file, or texts in memory."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FineTuned:
    """Result of a training run.

    Attributes:
        folder: the Hugging Face folder.
        labels: class names, in the order of the logits.
        kept: evaluation on the dev data whose weights were kept; None if there is no dev data, and the last weights
            were kept.
        evaluations: all evaluations on the dev data.
        test: scores of the kept weights on the test data, or None if there is none.
        steps: number of steps of the optimiser.
        notes: remarks on the data and the run.
        skipped: rows that were left out: mapping from the name of their file to the rows.
    """

    folder: Path
    labels: tuple[str, ...]
    kept: Evaluation | None
    evaluations: tuple[Evaluation, ...]
    test: Mapping[str, float] | None
    steps: int
    notes: tuple[str, ...]
    skipped: Mapping[str, tuple[RowError, ...]] = field(default_factory=dict)


def finetune(
    data: Data,
    output: str | os.PathLike[str],
    *,
    dev: Data | None = None,
    test: Data | None = None,
    label: str = LABEL,
    text_column: str | None = None,
    words_column: str | None = None,
    pair_column: str | None = None,
    input_format: str | None = None,
    delimiter: str | None = None,
    quoting: Quoting | None = None,
    header: bool = True,
    records: Records | None = None,
    encoding: str | None = None,
    max_record_bytes: int | None = None,
    on_error: OnError = "raise",
    max_errors: int | None = None,
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
    """Train an encoder with the classification head of its family, and write a Hugging Face folder.

    One label per text trains the head of `AutoModelForSequenceClassification` of transformers, a list of labels with
    one per word that of `AutoModelForTokenClassification`; transformers and `Classifier` load both. The folder holds
    weights, config and tokenizer, and in addition `training.json` (how the model was trained), `curve.csv` and, with
    matplotlib, `curve.png`.

    After every epoch and every evaluation on the dev data, the state of the run is saved in `<output>.training`; a run
    that was interrupted continues from there with `resume`, on a processor with the same bits.

    Args:
        data: a file (CSV, TSV, JSONL, Parquet; CoNLL and CoNLL-U for words), or `LabelledTexts`.
        output: folder to create.
        dev: data by which the best checkpoint is chosen, in the same form; None keeps the last one.
        test: data that the result is measured on at the end, in the same form; None measures nothing.
        label: name of the column of labels, or of lists of labels with one per word.
        text_column, words_column, pair_column: as in `layertap.extract`, for all files.
        input_format, delimiter, quoting, header, records, encoding, max_record_bytes: likewise.
        on_error: "raise" stops at the first row that cannot be read or has no usable label, "skip" leaves it out; see
            `FineTuned.skipped`.
        max_errors: number of rows of a file that "skip" tolerates; None tolerates any number.
        scheme: tagging scheme of words: "bio", "io" (learns B- as I-), "tags" (no entities), or "auto".
        model: folder, hub id, or None for all-MiniLM-L6-v2.
        revision, cache_dir, local_files_only, allow_pickle: as in `Extractor.from_pretrained`.
        options: hyperparameters of the training.
        device: "cpu", "cuda" or "cuda:N".
        resume: continue an interrupted run; without one, start a new run.
        progress: draw a progress bar on standard error.
        on_evaluation: called after every evaluation on the dev data.

    Raises:
        UsageError: options or columns that are not possible, an output that exists, or an interrupted run without
            `resume` or with other options.
        InputError: labels that are missing or unknown, a single class, a dataset without rows, or lists of labels that
            do not match the words.
        CheckpointError: a model that cannot be used, or of a family whose heads are not implemented.
        NonFiniteError: a loss that is not finite.
        OutputError: files that cannot be written.
    """
    options = options or TrainingOptions()
    place, on_device = Path(output), device_named(device)
    options.check_dev(dev is not None)
    files = [os.fspath(source) for source in (data, dev, test) if isinstance(source, str | os.PathLike)]
    check_read_once(files)
    places = {"the folder": place, "the state of the run": place.with_name(f"{place.name}.training")}
    refuse_overlap([*files, *stored_files(model)], places)  # first: its message never advises to remove an input
    check_new_folder(place)

    reading = read_options(
        text_column=text_column,
        words_column=words_column,
        pair_column=pair_column,
        columns=(label,),
        delimiter=delimiter,
        quoting=quoting,
        header=header,
        records=records,
        encoding=encoding,
        max_record_bytes=max_record_bytes,
        on_error=on_error,
        max_errors=max_errors,
    )

    def read(source: Data) -> LabelledDataset:
        if isinstance(source, LabelledTexts):
            return source.dataset(FINDER)
        return LabelledDataset.read(Input(source=source, format=input_format, options=reading), label, FINDER)

    sources = {"training": data, "dev": dev, "test": test}
    datasets = {name: read(source) for name, source in sources.items() if source is not None}
    train, *others = (dataset.labels for dataset in datasets.values())
    encoder = check_labels(train, others, scheme=scheme)
    if encoder.marks_entities:
        require_libraries("measuring entities", "seqeval")
    scoring = Scoring(encoder=encoder)
    options = options.for_task(encoder)
    reference = ModelReference(
        name=None if model is None else os.fspath(model),
        revision=revision,
        cache_dir=None if cache_dir is None else os.fspath(cache_dir),
        local_files_only=local_files_only,
        allow_pickle=allow_pickle,
    )
    opened = open_reference(reference)
    head = head_of(opened.files, train.task)
    options.check_layers(opened.files.spec)
    examples = _encoded(opened, scoring, options, datasets)
    recipe = _recipe(opened.files, options, scoring, datasets, on_device)
    folder = RunFolder(place.with_name(f"{place.name}.training"), recipe)
    if folder.is_there() and not resume:
        raise UsageError(
            f"{folder.path}: it holds an interrupted run; continue it (--resume, resume=True), or delete the folder"
        )
    shared = [shared_note(datasets[name], datasets["training"]) for name in ("dev", "test") if name in datasets]
    read_notes = [note for dataset in datasets.values() for note in dataset.notes]
    notes = [*read_notes, *filter(None, shared), *_notes(opened.files, head, examples)]
    stored = _stored_layers(opened.files, head, encoder.classes, notes, allow_pickle=allow_pickle)
    # The random state of the caller is left unchanged.
    with torch.random.fork_rng(devices=[on_device] if on_device.type == "cuda" else []):
        torch.manual_seed(options.seed)
        classifier = starting_model(opened.files, head, num_classes=len(encoder.classes), stored=stored).to(on_device)
        trainer = _trainer(classifier, examples, scoring, options, folder)
        if folder.is_there():
            trainer.load_state(folder.load())
        left = (trainer.total_steps - trainer.step) * options.batch_size
        try:
            with progress_on(sys.stderr, shown=progress, total=left) as on_step:
                trainer.run(on_step=on_step, on_evaluation=on_evaluation)
        except BaseException as stop:
            if folder.is_there():
                stop.add_note(f"the state of the run is saved in {folder.path}; --resume (resume=True) continues it")
            raise
        trainer.keep_best()
        result = _result(trainer, place, examples.get("test"), notes)
    result = replace(result, skipped={dataset.source: dataset.skipped for dataset in datasets.values()})
    _write(trainer, opened.files, head, result, recipe)
    folder.remove()
    return result


def _stored_layers(
    files: ModelFiles, head: FamilyHead, labels: tuple[str, ...], notes: list[str], *, allow_pickle: bool
) -> dict[str, TensorView]:
    """Return the layers of the head that the checkpoint stores and that training continues with, and note which.

    A stored head with the same labels is continued as a whole.
    """
    task = stated_task(files)
    if task is None:
        layers = stored_lower_layers(files, head, allow_pickle=allow_pickle)
        if layers:
            notes.append("continued with the layers of the head that the checkpoint stores: " + ", ".join(layers))
        return layers
    stored = stored_head(files, head, allow_pickle=allow_pickle) if task == head.task else None
    if task == head.task and stored is None:
        return {}
    same = files.config.get("id2label") == {str(i): label for i, label in enumerate(labels)}
    if stored is None or not same or stored[head.last].shape[0] != len(labels):
        what = "of another kind" if stored is None else "with other labels"
        notes.append(f"the checkpoint stores a head {what}; a new one replaced it")
        return {}
    notes.append("continued with the head that the checkpoint stores, which has the same labels")
    return stored


def _trainer(
    model: HeadedEncoder,
    examples: Mapping[str, EncodedDataset],
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
    opened: OpenedModel, scoring: Scoring, options: TrainingOptions, datasets: Mapping[str, LabelledDataset]
) -> dict[str, EncodedDataset]:
    limit = min(opened.limits.values())
    return {
        name: encoded(dataset, scoring.encoder, opened.tokenizer, limit=limit, max_length=options.max_length)
        for name, dataset in datasets.items()
    }


def _recipe(
    files: ModelFiles,
    options: TrainingOptions,
    scoring: Scoring,
    datasets: Mapping[str, LabelledDataset],
    device: torch.device,
) -> dict[str, Any]:
    """Return everything that the result of the run depends on, as JSON values."""
    identity = ModelIdentity.of(files)
    stated = {
        name: None if dataset is None else {"records": len(dataset), "sha256": digest_of(dataset)}
        for name, dataset in (("train", datasets["training"]), ("dev", datasets.get("dev")))
    }
    return {
        "layertap": __version__,
        "model": identity.name,
        "commit": identity.commit,
        "sha256": dict(identity.sha256),
        "task": datasets["training"].task,
        "scheme": scoring.encoder.scheme,
        "labels": list(scoring.encoder.classes),
        **stated,
        **asdict(options),
        "device": device.type,
    }


def _notes(files: ModelFiles, head: FamilyHead, examples: Mapping[str, EncodedDataset]) -> list[str]:
    notes = [
        f"{dataset.num_cut:,} texts of the {name} data were longer than the limit and were cut"
        for name, dataset in examples.items()
        if dataset.num_cut
    ]
    notes += [
        f"{dataset.num_without_token:,} words of the {name} data have no token, or their tokens were cut off"
        for name, dataset in examples.items()
        if dataset.num_without_token
    ]
    if head.pooling == "pooler" and files.pooler != "trained":
        state = (
            "stores no pooler; a new one" if files.pooler == "absent" else "stores a pooler that was never trained; it"
        )
        notes.append(f"{files.checkpoint.name} {state} was trained with the head")
    return notes


def _result(trainer: Trainer, place: Path, test: EncodedDataset | None, notes: list[str]) -> FineTuned:
    if trainer.stopped and trainer.step < trainer.total_steps:
        notes.append(
            f"stopped after {trainer.step:,} of {trainer.total_steps:,} steps: no better {trainer.options.metric} in "
            f"{trainer.options.patience} evaluations on the dev data"
        )
    if not can_draw():
        notes.append(
            "curve.png is missing: it needs matplotlib (pip install 'layertap[learn]'); curve.csv has its values"
        )
    return FineTuned(
        folder=place,
        labels=trainer.scoring.encoder.classes,
        kept=trainer.best,
        evaluations=tuple(trainer.evaluations),
        test=None if test is None else trainer.evaluate(test).scores,
        steps=trainer.step,
        notes=tuple(notes),
    )


def _write(trainer: Trainer, files: ModelFiles, head: FamilyHead, result: FineTuned, recipe: Mapping[str, Any]) -> None:
    with staged_folder(result.folder, first="config.json", overwrite=False) as folder:
        folder.write("config.json", as_json(config_of(files, head, result.labels)))
        write_weights(folder, trainer.model.stored())
        write_tokenizer(files, folder, max_length=trainer.options.max_length)
        kept = None if result.kept is None else result.kept.values()
        outcome = {"steps": result.steps, "kept": kept, "test": result.test, "notes": list(result.notes)}
        folder.write("training.json", as_json({**recipe, **outcome}))
        metrics = trainer.scoring.metrics
        steps, evaluations, epoch_steps = trainer.steps, trainer.evaluations, trainer.epoch_steps
        folder.write("curve.csv", as_csv(steps, evaluations, epoch_steps=epoch_steps, metrics=metrics))
        if can_draw():
            best = None if result.kept is None else result.kept.step
            folder.write("curve.png", as_png(steps, evaluations, epoch_steps=epoch_steps, best_step=best))
