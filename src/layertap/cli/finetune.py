"""`layertap finetune`: train an encoder with a classification head on labelled texts or words."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.backends.facts import TRAINING_PRECISIONS
from layertap.cli.options import (
    add_command,
    add_layout_options,
    add_model_options,
    layout_of,
    limit_tokenizer_threads,
)
from layertap.cli.running import silence_downloads
from layertap.cli.skipping import add_skipping_options, list_place, print_skipped, write_skipped
from layertap.cli.tables import print_laid_out
from layertap.file_formats import READ_FORMATS

if TYPE_CHECKING:
    from layertap.cli.options import Commands
    from layertap.learn.finetuning.curve import Evaluation
    from layertap.learn.finetuning.options import TrainingOptions
    from layertap.learn.finetuning.run import FineTuned

# Named here so that --help need not load the room that owns them; a test holds them to it.
METRICS = ("accuracy", "macro_f1", "mcc", "entity_f1")
SCHEMES = ("auto", "bio", "io", "tags")

# option's name -> its type, metavar and help
TRAINING: dict[str, tuple[type, str, str]] = {
    "epochs": (int, "N", "number of passes over the data (default: 3)"),
    "batch_size": (int, "N", "records per step (default: 32)"),
    "batch_tokens": (int, "N", "tokens at once; a larger step is split into parts (default: 8,192)"),
    "learning_rate": (float, "X", "highest learning rate (default: 5e-05)"),
    "weight_decay": (float, "X", "weight decay of everything but biases and norms (default: 0.01)"),
    "warmup": (float, "X", "share of the steps over which the learning rate rises (default: 0.1)"),
    "max_grad_norm": (float, "X", "norm to which larger gradients are scaled down; 0 never does (default: 1)"),
    "layer_decay": (float, "X", "ratio of the learning rate of each layer to that of the layer above (default: 1)"),
    "freeze_below": (int, "N", "freeze the embeddings and the blocks below layer N; 0 trains everything (default: 0)"),
    "max_length": (int, "N", "maximum number of tokens per text (default: the limit of the model)"),
    "seed": (int, "N", "seed of the order of the data, of new weights and of dropout (default: 0)"),
    "eval_steps": (int, "N", "evaluate on the dev data every N steps (default: after every epoch)"),
    "patience": (int, "N", "stop after N evaluations without a better score (default: never)"),
}

DESCRIPTION = """\
Trains an encoder with the classification head of its family on the labelled texts of DATA, and writes a Hugging
Face folder. One label per text (CSV, TSV, JSONL, Parquet) trains the head of `AutoModelForSequenceClassification`
of transformers; lists with one tag per word (CoNLL, CoNLL-U, JSONL, Parquet) that of
`AutoModelForTokenClassification`. `layertap predict` and `layertap.learn.Classifier` load both. With --dev, the
checkpoint with the best score is kept, otherwise the last one.
Families: BERT (MiniLM), RoBERTa, XLM-R, CamemBERT, DistilBERT, ELECTRA, ALBERT, MPNet, DeBERTa v2 and v3, ModernBERT,
MegatronBERT, XLM-R-XL, RoBERTa-PreLayerNorm.

The state of the run is saved in FOLDER.training after every epoch; --resume continues an interrupted run."""
EPILOG = """\
examples:
  layertap finetune train.csv -o ./classifier --label sentiment --dev dev.csv
  layertap finetune train.jsonl -o ./topics --dev dev.jsonl --model roberta-base --metric macro_f1 --patience 2
  layertap finetune pairs.tsv -o ./entails --text-column premise --pair-column hypothesis --freeze-below 4
  layertap finetune train.conll -o ./ner --label col1 --dev dev.conll --test test.conll
  layertap finetune train.conllu -o ./pos --label upos --dev dev.conllu"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "finetune",
        run,
        summary="train a classifier of texts or words",
        usage="layertap finetune DATA -o FOLDER [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("data", metavar="DATA", help="file of labelled texts; - for standard input")
    parser.add_argument("-o", "--output", metavar="FOLDER", required=True, help="folder to create")
    group = parser.add_argument_group("input")
    group.add_argument(
        "--label", metavar="COLUMN", default="label", help="column of labels, or of lists of tags (default: label)"
    )
    group.add_argument("--dev", metavar="FILE", help="data to choose the best checkpoint on, in the same form")
    group.add_argument("--test", metavar="FILE", help="data to measure the result on at the end, in the same form")
    group.add_argument(
        "--input-format",
        choices=READ_FORMATS,
        metavar="FORMAT",
        help=f"{', '.join(READ_FORMATS)} (default: by the file's ending)",
    )
    group.add_argument("--text-column", metavar="NAME", help="the column with the texts (default: text)")
    group.add_argument("--words-column", metavar="NAME", help="a column of lists of words, instead of texts")
    group.add_argument("--pair-column", metavar="NAME", help="the column with the second texts of pairs")
    add_layout_options(group)
    add_skipping_options(group)
    group.add_argument(
        "--scheme",
        choices=SCHEMES,
        default="auto",
        metavar="S",
        help="tagging scheme: bio, io (learns B- as I-), tags (no entities), or auto (default: auto)",
    )
    add_model_options(parser)
    group = parser.add_argument_group("training")
    for name, (kind, metavar, words) in TRAINING.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=metavar, help=words)
    group.add_argument(
        "--metric",
        choices=METRICS,
        metavar="NAME",
        help=f"score of the best checkpoint: {', '.join(METRICS)} (default: entity_f1 for entities, else accuracy)",
    )
    group.add_argument(
        "--precision",
        choices=TRAINING_PRECISIONS,
        metavar="P",
        help="precision of matrix products: float32, or bfloat16 with weights in float32 (default: float32)",
    )
    group = parser.add_argument_group("running")
    group.add_argument("--resume", action="store_true", help="continue an interrupted run, or start a new one")
    group.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    group.add_argument("--threads", type=int, metavar="N", help="processor threads (default: chosen by torch)")
    group.add_argument("-q", "--quiet", action="store_true", help="print errors only, no progress and no summary")


def training_options(options: argparse.Namespace) -> TrainingOptions:
    """Build the hyperparameters from parsed arguments."""
    from layertap.learn.finetuning.options import TrainingOptions

    given = {name: getattr(options, name) for name in (*TRAINING, "metric", "precision")}
    given = {name: value for name, value in given.items() if value is not None}
    if given.get("max_grad_norm") == 0:
        given["max_grad_norm"] = None
    return TrainingOptions(**given)


def run(options: argparse.Namespace) -> None:
    """Run the command with parsed arguments."""
    from layertap.backends.here import require_torch
    from layertap.files import check_place, refuse_overlap
    from layertap.learn.libraries import require_libraries

    limit_tokenizer_threads(options.threads)
    silence_downloads(options)
    training = training_options(options)
    place = list_place(Path(options.output))
    if options.on_error == "skip":
        check_place(place, overwrite=False)
        refuse_overlap([path for path in (options.data, options.dev, options.test) if path], {"the list": place})
    require_torch("fine-tuning needs torch")
    require_libraries("fine-tuning", "sklearn")
    from layertap.backends.here import set_num_threads
    from layertap.learn.finetuning.run import finetune

    if options.threads is not None:
        set_num_threads(options.threads)
    result = finetune(
        options.data,
        options.output,
        dev=options.dev,
        test=options.test,
        label=options.label,
        text_column=options.text_column,
        words_column=options.words_column,
        pair_column=options.pair_column,
        input_format=options.input_format,
        **layout_of(options),
        on_error=options.on_error,
        max_errors=options.max_errors,
        scheme=options.scheme,
        model=options.model,
        revision=options.revision,
        cache_dir=options.cache_dir,
        local_files_only=options.local_files_only,
        allow_pickle=options.allow_pickle,
        options=training,
        device=options.device,
        resume=options.resume,
        progress=not options.quiet,
        on_evaluation=None if options.quiet else _report,
    )
    listed = write_skipped(result.skipped, place) if options.on_error == "skip" else None
    if not options.quiet:
        print_skipped(result.skipped, listed)
        print_laid_out("\n".join(_summary(result)), stream=sys.stderr)


def _report(seen: Evaluation) -> None:
    print(seen, file=sys.stderr, flush=True)  # above a progress bar, which puts itself in the place of standard error


def _summary(result: FineTuned) -> list[str]:
    kept = "the last weights (there is no dev data)" if result.kept is None else str(result.kept)
    lines = [f"{result.folder}: {len(result.labels):,} labels, {result.steps:,} steps; kept: {kept}"]
    if result.test is not None:
        lines.append("test: " + ", ".join(f"{name} {value:.4f}" for name, value in result.test.items()))
    return lines + [f"note: {note}" for note in result.notes]
