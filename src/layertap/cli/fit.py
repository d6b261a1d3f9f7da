"""`layertap fit`: fit a classification head to a feature of a frozen model."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layertap.cli.options import (
    add_command,
    add_feature_options,
    add_input_options,
    add_model_options,
    features_of,
    input_of,
    limit_tokenizer_threads,
    reference_of,
    runtime_of,
    semantics_of,
)
from layertap.cli.running import add_running_options, extractor_of, silence_downloads, uncollected
from layertap.cli.skipping import add_skipping_options, list_place, print_skipped, write_skipped
from layertap.cli.tables import print_facts, print_table
from layertap.cli.units import bytes_of
from layertap.errors import OptionError
from layertap.words import counted

if TYPE_CHECKING:
    from layertap.cli.options import Commands
    from layertap.learn.fitting.task import FitOptions
    from layertap.learn.heads.head import Head

SCHEMES = ("auto", "bio", "io", "tags")

DESCRIPTION = """\
Fits a classifier to labelled texts, on a feature of a frozen model: logistic regression if the feature has one
vector per text (hidden_states[4].mean), and on a learned mix of layers if it has one per layer
(hidden_states[:].mean).

The label column holds one label per row, or a list of tags with one per word; for tags the feature is one of words
(hidden_states[4].words(mean), hidden_states[:].words(mean)), and tags of the schemes BIO and IO mark entities.
HEAD is a folder, for `layertap predict` and `layertap.learn.Head.load`; it appears when it is complete."""
EPILOG = """\
examples:
  layertap fit train.csv --text-column review --label stars -o stars.head --test test.csv
  layertap fit train.jsonl --label topic -o topic.head -f 'hidden_states[:].mean' --validation-share 0.1
  layertap fit train.conll --label col1 -o ner.head -f 'hidden_states[4].words(mean)' --validation dev.conll
  layertap fit train.conllu --label upos -o pos.head -f 'hidden_states[:].words(mean)' --test test.conllu"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "fit",
        run,
        summary="fit a classifier to a feature of a frozen model",
        usage="layertap fit INPUT -o HEAD [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("input", metavar="INPUT", help="file of labelled texts; - for standard input")
    parser.add_argument("-o", "--output", metavar="HEAD", required=True, help="folder to create")
    parser.add_argument("--overwrite", action="store_true", help="replace HEAD if it is a head")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON, not as a table")
    add_feature_options(parser)
    _add_fit_options(parser)
    add_model_options(parser)
    add_skipping_options(add_input_options(parser))
    add_running_options(parser)


def _add_fit_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("fitting")
    group.add_argument(
        "--label", metavar="COLUMN", default="label", help="column of labels, or of lists of tags (default: label)"
    )
    group.add_argument("--name", help="name of the results of the head (default: the name of HEAD)")
    group.add_argument("--validation", metavar="FILE", help="labelled texts for early stopping")
    group.add_argument(
        "--validation-share", type=float, metavar="X", help="share of INPUT to hold out for it instead, for example 0.1"
    )
    group.add_argument("--test", metavar="FILE", help="labelled texts to measure the head on, in the same form")
    group.add_argument(
        "--scheme",
        choices=SCHEMES,
        default="auto",
        metavar="S",
        help="tagging scheme: bio, io (learns B- as I-), tags (no entities), or auto (default: auto)",
    )
    group.add_argument(
        "--l2",
        type=float,
        default=1.0,
        metavar="X",
        help="L2 penalty, 1 / C of scikit-learn (default: 1)",
    )
    group.add_argument(
        "--class-weight",
        action="append",
        metavar="W",
        help="balanced, or LABEL=NUMBER, repeatable; other labels have the weight 1 (default: 1 for all)",
    )
    group.add_argument(
        "--patience",
        type=int,
        default=10,
        metavar="N",
        help="stop after N iterations without a lower validation loss (default: 10)",
    )
    group.add_argument(
        "--max-iterations", type=int, default=1000, metavar="N", help="iterations at most (default: 1000)"
    )
    group.add_argument("--tolerance", type=float, default=1e-4, metavar="X", help="gradient to stop at (default: 1e-4)")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the held-out rows (default: 0)")
    group.add_argument(
        "--memory",
        default="1GiB",
        metavar="SIZE",
        help="size of the vectors kept in memory; larger ones go to a temporary file beside HEAD (default: 1GiB)",
    )


def run(options: argparse.Namespace) -> None:
    """Run the command; labels are checked before the model is opened."""
    from layertap.backends.choice import require_backend
    from layertap.checkpoints.source import stored_files
    from layertap.data.input import check_read_once
    from layertap.files import check_place, refuse_overlap
    from layertap.learn.fitting.fit import canonical_feature, fit_task, word_finder
    from layertap.learn.fitting.task import checked_task
    from layertap.learn.heads.base import check_feature
    from layertap.learn.heads.files import check_head_place
    from layertap.learn.labelled import LabelledDataset
    from layertap.learn.libraries import require_libraries

    limit_tokenizer_threads(options.threads)
    fit, semantics, runtime = fit_options(options), semantics_of(options), runtime_of(options)
    place = Path(options.output)
    check_head_place(place, overwrite=options.overwrite)
    sources = [source for source in (options.input, options.validation, options.test) if source is not None]
    check_read_once(sources)
    places = {"the head": place}
    if options.on_error == "skip":
        places["the list of rows that are left out"] = list_place(place)
        check_place(list_place(place), overwrite=options.overwrite)
    refuse_overlap([*sources, *stored_files(options.model)], places)
    require_libraries("layertap fit", "sklearn")
    require_backend(runtime.backend)
    silence_downloads(options)
    finder = word_finder(semantics)
    train, validation, test = (
        None
        if source is None
        else LabelledDataset.read(
            input_of(
                options, source, columns=(options.label,), on_error=options.on_error, max_errors=options.max_errors
            ),
            options.label,
            finder,
            in_memory=False,
        )
        for source in (options.input, options.validation, options.test)
    )
    assert train is not None
    task = checked_task(train, validation, test, fit)
    if task.encoder.marks_entities:
        require_libraries("measuring entities", "seqeval")
    with uncollected():
        from layertap.engine.opening import open_reference

        opened = open_reference(reference_of(options))
        extractor = extractor_of(opened, semantics, runtime)
    feature = canonical_feature(extractor, task, fit)
    check_feature(extractor.plan({"v": feature}), "v", train.task)
    head = fit_task(extractor, task, fit, folder=place.resolve().parent, progress=not options.quiet)
    head.save(place, overwrite=options.overwrite)
    skipped = {part.source: part.skipped for part in (train, validation, test) if part is not None}
    listed = write_skipped(skipped, list_place(place)) if options.on_error == "skip" else None
    if not options.quiet:
        print_facts(_summary(head, options.output))
    if not options.quiet:
        print_skipped(skipped, listed)
    if options.json:
        print(json.dumps(head.metrics, indent=2))
    elif head.metrics:
        print_scores(head.metrics)


def fit_options(options: argparse.Namespace) -> FitOptions:
    """Build the options of the fit from parsed arguments."""
    from layertap.features.parse import parse_named
    from layertap.files import resolved
    from layertap.learn.fitting.linear import SolverOptions
    from layertap.learn.fitting.task import FitOptions

    features = features_of(options) or []
    if len(features) > 1:
        raise OptionError(f"--feature: {len(features)} are given, and a head takes one; join them with concat(f, g)")
    return FitOptions(
        name=options.name or resolved(options.output).name.removesuffix(".head"),
        feature=str(parse_named(features[0])[1]) if features else None,
        scheme=options.scheme,
        class_weight=class_weights(options.class_weight),
        validation_share=options.validation_share,
        solver=SolverOptions(
            l2=options.l2,
            max_iterations=options.max_iterations,
            tolerance=options.tolerance,
            patience=options.patience,
        ),
        seed=options.seed,
        memory_bytes=bytes_of(options.memory, "--memory"),
    )


def class_weights(given: list[str] | None) -> Any:
    """Build `FitOptions.class_weight` from the values of --class-weight."""
    if given is None or given == ["balanced"]:
        return None if given is None else "balanced"
    weights: dict[str, float] = {}
    for text in given:
        label, equals, number = text.rpartition("=")
        try:
            weights[label] = float(number)
        except ValueError:
            equals = ""
        if not equals:
            raise OptionError(f"--class-weight {text!r}: expected balanced alone, or LABEL=NUMBER, for example spam=3")
    return weights


def print_scores(metrics: Mapping[str, Any]) -> None:
    """Print scores: one line per dataset, then the classes or entity types of the last one."""
    named = {"accuracy": "accuracy", "macro_f1": "macro-F1", "mcc": "MCC"}
    rows: list[tuple[str, ...]] = [("", *named.values())]
    rows += [(part, *(f"{scores[key]:.4f}" for key in named)) for part, scores in metrics.items()]
    entity_parts = [(part, scores["entities"]) for part, scores in metrics.items() if "entities" in scores]
    if entity_parts:
        rows = [
            (*row, *more)
            for row, more in zip(
                rows,
                [
                    ("entity F1", "precision", "recall"),
                    *((f"{it['f1']:.4f}", f"{it['precision']:.4f}", f"{it['recall']:.4f}") for _, it in entity_parts),
                ],
                strict=True,
            )
        ]
    last, scores = list(metrics.items())[-1]
    kinds = scores["entities"]["types"] if entity_parts else scores["classes"]
    keys = ("precision", "recall", "f1")
    each = [(last, "precision", "recall", "F1", "count")]
    each += [(name, *(f"{it[key]:.4f}" for key in keys), f"{it['support']:,}") for name, it in kinds.items()]
    print_table(rows[0], rows[1:])
    print()
    print_table(each[0], each[1:])


def _summary(head: Head, place: str) -> list[tuple[str, str]]:
    stated = head.options
    unit = "tag per word" if head.task == "words" else "label per text"
    scheme = f", scheme {head.scheme}" if head.scheme else ""
    rows = [
        ("head", f"{head.name}: one {unit}, {counted(len(head.labels), 'label')}{scheme}, on {head.feature}"),
        (
            "fit",
            f"{counted(stated['records'], 'text')}, {counted(stated['iterations'], 'iteration')}, {stated['ended']}",
        ),
    ]
    if head.mix is not None:
        shares = " ".join(f"{share:.3f}" for share in stated["layer_shares"])
        losses = stated["layer_losses"]
        best = losses.index(min(losses))
        rows.append(("layers", shares))
        rows.append(("", f"held-out loss {stated['mix_loss']:.4f}; best layer alone {losses[best]:.4f} ({best})"))
    rows += [("note" if i == 0 else "", note) for i, note in enumerate(stated["notes"])]
    return [*rows, ("output", place)]
