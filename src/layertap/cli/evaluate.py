"""`layertap evaluate`: measure a classifier on labelled data."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from layertap.cli.heads import (
    OwnHead,
    add_own_head_options,
    asked_heads,
    open_heads,
    reference_to,
    semantics_for,
)
from layertap.cli.options import (
    add_command,
    add_input_options,
    add_model_options,
    add_rule_option,
    input_of,
    limit_tokenizer_threads,
    runtime_of,
)
from layertap.cli.running import add_running_options, extractor_of, silence_downloads, uncollected
from layertap.cli.skipping import add_skipping_options, print_skipped
from layertap.cli.tables import print_laid_out
from layertap.errors import OptionError, printable
from layertap.words import aligned, counted

if TYPE_CHECKING:
    from layertap.cli.options import Commands
    from layertap.learn.evaluating import HeadEvaluation
    from layertap.learn.heads.head import Head

METRIC_NAMES = {
    "entity_f1": "entity F1",
    "accuracy": "accuracy",
    "macro_f1": "macro-F1",
    "mcc": "MCC",
    "spearman": "Spearman",
    "pearson": "Pearson",
}
SHOWN_CONFUSIONS = 5

DESCRIPTION = """\
Measures a classifier on labelled texts that it has not learned from: a folder of `layertap fit` or
`layertap finetune`, or a classifier of the Hugging Face hub. Prints each metric with its 95% interval (1,000
bootstrap samples of the distinct texts or sentences), precision, recall and F1 of each class, the most frequent
confusions and the most confident mistakes.

FILE is labelled as for `layertap fit`: the column `label`, unless --label names another, with one label per row or a
list of tags with one per word. Labels that the head does not have are refused. A head that gives a number
(a cross-encoder) is compared with a column of scores."""
EPILOG = """\
examples:
  layertap evaluate sentiment.head later.csv --label mood
  layertap evaluate ner.head test.conll --label col1 --json > ner.json
  layertap evaluate ./classifier test.jsonl --mistakes 20
  layertap evaluate cross-encoder/ms-marco-MiniLM-L6-v2 pairs.tsv --pair-column passage --label score"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "evaluate",
        run,
        summary="measure a classifier on labelled data",
        usage="layertap evaluate HEAD FILE [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("head", metavar="HEAD", help="folder of a head or of a classifier, or a hub id")
    parser.add_argument("input", metavar="FILE", help="file of labelled texts; - for standard input")
    parser.add_argument(
        "--label",
        metavar="COLUMN",
        default="label",
        help="column of labels, of lists of tags, or of scores (default: label)",
    )
    parser.add_argument("--json", action="store_true", help="print the evaluation as JSON, not as tables")
    parser.add_argument(
        "--mistakes", type=int, default=5, metavar="N", help="number of mistakes to print (default: 5; JSON has 100)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the intervals (default: 0)")
    add_model_options(parser)
    add_own_head_options(parser)
    add_skipping_options(add_input_options(parser))
    add_rule_option(parser)
    add_running_options(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command: the head is read first, then the model is opened, then the data is read and measured."""
    from layertap.backends.choice import require_backend
    from layertap.learn.evaluating import check_evaluable, evaluate_file
    from layertap.learn.libraries import require_libraries

    limit_tokenizer_threads(options.threads)
    if options.seed < 0:
        raise OptionError(f"--seed {options.seed}: expected a whole number of at least 0")
    if options.mistakes < 0:
        raise OptionError(f"--mistakes {options.mistakes}: expected a whole number of at least 0")
    asked = _asked(options)
    runtime = runtime_of(options)
    require_backend(runtime.backend)
    require_libraries("layertap evaluate", "sklearn")
    silence_downloads(options)
    reference, semantics = reference_to(options, asked), semantics_for(options, asked)
    source = input_of(options, columns=(options.label,), on_error=options.on_error, max_errors=options.max_errors)
    with uncollected():
        model, (head,) = open_heads(reference, asked)
        extractor = extractor_of(model, semantics, runtime)
    check_evaluable(head)
    if head.scheme in ("bio", "io"):
        require_libraries("measuring entities", "seqeval")
    result = evaluate_file(extractor, head, source, options.label, seed=options.seed, progress=not options.quiet)
    if options.json:
        print(json.dumps(result.as_dict(), indent=2, ensure_ascii=False))
    else:
        print_laid_out("\n".join(map(printable, report(result, mistakes=options.mistakes))))
    if not options.quiet:
        print_skipped({result.source: result.skipped})
        for note in result.notes:
            print(f"note: {printable(note)}", file=sys.stderr)


def report(result: HeadEvaluation, *, mistakes: int) -> list[str]:
    """Format an evaluation for a terminal."""
    from layertap.learn.bootstrap import LEVEL
    from layertap.learn.mistakes import confused

    what = counted(result.units, result.unit)
    sentences = f" in {counted(result.records, 'sentence')}" if result.unit == "word" else ""
    lines = [f"{result.head} on {result.source}: {what}{sentences}", ""]
    rows = [("metric", "value", f"{LEVEL:.0%} interval")]
    rows += [
        (METRIC_NAMES[name], f"{it.value:.4f}", f"{it.low:.4f} to {it.high:.4f}") for name, it in result.metrics.items()
    ]
    lines += aligned(rows, indent="")
    if result.confusion is not None:
        kinds = result.classes if result.entities is None else result.entities["types"]
        keys = ("precision", "recall", "f1")
        noun = "class" if result.entities is None else "entity"
        each: list[tuple[str, ...]] = [(noun, "precision", "recall", "F1", "count")]
        each += [(name, *(f"{it[key]:.4f}" for key in keys), f"{it['support']:,}") for name, it in kinds.items()]
        lines += ["", *aligned(each, indent="", right=(4,))]
        pairs = confused(result.confusion, result.labels, SHOWN_CONFUSIONS)
        if pairs:
            counts = [("confused", "", "count"), *((f"{one} -> {other}", "", f"{n:,}") for one, other, n in pairs)]
            lines += ["", *aligned([(name, count) for name, _, count in counts], indent="", right=(1,))]
    shown = result.mistakes[:mistakes]
    if shown:
        of_all = f"{len(shown)} of {counted(result.num_mistakes, 'mistake')}, the most confident first"
        lines += ["", of_all if result.confusion is not None else "scores that differ most in rank"]
        for it in shown:
            where = f"row {it.row}" + ("" if it.word is None else f", {it.word!r}")
            sure = "" if it.confidence is None else f" ({it.confidence:.2f})"
            lines.append(f"  {where}: {it.true} -> {it.predicted or 'no prediction'}{sure}: {it.text}")
            if it.pair is not None:
                lines.append(f"    {it.pair}")
    return lines


def _asked(options: argparse.Namespace) -> list[Head] | OwnHead:
    """Return the head that the command line names; a name that is no folder is one of the hub."""
    options.heads, options.name = [options.head], None
    if not Path(options.head).exists() and options.model is None:
        return OwnHead(model=options.head, name=None)
    return asked_heads(options)
