"""`layertap probe`: which layer knows what."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from layertap.cli.options import (
    FLAGS,
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
from layertap.cli.running import add_running_options, extractor_of, silence_downloads
from layertap.cli.skipping import add_skipping_options, list_place, print_skipped, write_skipped
from layertap.cli.tables import Chart, print_command, print_message, print_paragraph, print_table
from layertap.engine.options import OPTIONS
from layertap.errors import BackendError, OptionError
from layertap.features.grammar import PoolOp

if TYPE_CHECKING:
    from layertap.cli.options import Commands
    from layertap.data.input import Input
    from layertap.data.readers.base import RowError
    from layertap.engine.extractor import Extractor
    from layertap.features.expr import Expr
    from layertap.learn.probing.findings import Findings
    from layertap.learn.probing.splits import ProbeData

ENDINGS = (".csv", ".json", ".png", ".html")
METRICS = ("accuracy", "macro_f1", "mcc", "entity_f1")
PAIR_METRICS = ("spearman", "pearson")
POOLINGS: tuple[str, ...] = get_args(PoolOp)
PLANES = ("pca", "tsne")
SHOWN_MISTAKES = 5

INPUT_OPTIONS = (
    "model",
    "input_format",
    "text_column",
    "words_column",
    "delimiter",
    "quoting",
    "records",
    "encoding",
    "max_record_size",
)
# Probes always refuse NaN and infinity; `local_files_only` is called --offline.
MODEL_OPTIONS = tuple(
    name
    for name, option in OPTIONS.items()
    if option.group != "runtime" and name not in ("non_finite", "local_files_only")
)
SHARED = (*INPUT_OPTIONS, *MODEL_OPTIONS)
"""Options that `extract` shares, and that decide which texts it reads and what it computes."""

PAIRLESS = {
    "words_column": "pairs are of texts",
    "max_words": "pairs are of texts",
    "folds": "nothing is learned from pairs, so there are no folds",
    "dev": "nothing is learned from pairs; with --test the best layer is chosen on DATA",
    "projection": "for pairs cosines are drawn, and no projection",
}
"""Options that do not apply to pairs, with the reason."""

DESCRIPTION = """\
Fits a regularised linear probe on every layer, and shows which layer predicts the labels best: labels of texts,
or of words (CoNLL, CoNLL-U, lists of tags). Texts run through the model once. Scores come from
cross-validation, or from a given split (--test, and --dev to choose on).

For pairs of texts (--pair-column) the labels are numbers, and nothing is learned: the cosine of the vectors of
the two texts is correlated with them.

Each score has an interval, and the score of random labels or shuffled scores for comparison. The output is a
table whose chart begins at chance, with the most frequent confusions and the most confident mistakes; -o writes
.csv, .json, .png and .html, and may be repeated."""
EPILOG = """\
examples:
  layertap probe reviews.csv --text-column review --label sentiment
  layertap probe train.jsonl --test test.jsonl --label topic -o topic.html -o topic.json
  layertap probe train.csv --label intent --pooling mean,cls,max -f sentence_embedding --cache vectors
  layertap probe en_ewt-ud-train.conllu --test en_ewt-ud-test.conllu --label upos -o upos.html
  layertap probe pairs.tsv --text-column first --pair-column second --label score -o pairs.html"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "probe",
        run,
        summary="find the layer that predicts a label best",
        usage="layertap probe DATA [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument(
        "input", metavar="DATA", help="file of texts with labels, or of pairs with scores; - for standard input"
    )
    parser.add_argument(
        "--label", metavar="COLUMN", default="label", help="column of labels, or of scores (default: label)"
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        action="append",
        default=[],
        dest="outputs",
        help="file to write: .csv, .json, .png or .html; repeatable",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    group = parser.add_argument_group("probe")
    group.add_argument("--test", metavar="FILE", help="score on this file instead of cross-validation")
    group.add_argument("--dev", metavar="FILE", help="with --test: choose on this file (default: on a fifth of DATA)")
    group.add_argument("--folds", type=int, metavar="N", help="number of folds of the cross-validation (default: 5)")
    group.add_argument(
        "--metric",
        choices=(*METRICS, *PAIR_METRICS),
        metavar="M",
        help="accuracy, macro_f1, mcc or entity_f1; for pairs spearman or pearson (default: spearman for pairs, "
        "entity_f1 for BIO and IO tags, else accuracy)",
    )
    group.add_argument(
        "--pooling",
        default="mean",
        metavar="A,B",
        help=f"poolings of the layers: {', '.join(POOLINGS)} (default: mean)",
    )
    group.add_argument("--layers", metavar="A,B", help="hidden states to probe, for example 0,4,6 (default: all)")
    group.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of folds, random labels and intervals (default: 0)"
    )
    group.add_argument(
        "--max-words",
        type=int,
        metavar="N",
        help="for labelled words: number of words to draw from each file, in whole sentences (default: 20,000)",
    )
    group.add_argument("--cache", metavar="FOLDER", help="folder of a cache of vectors (see TextFeatures)")
    group.add_argument(
        "--show", metavar="FEATURE", help="feature whose projection or cosines are drawn (default: the best)"
    )
    group.add_argument("--projection", choices=PLANES, metavar="P", help="projection: pca or tsne (default: pca)")
    add_feature_options(parser, default="none beside the layers")
    add_model_options(parser)
    add_skipping_options(add_input_options(parser))
    add_running_options(parser)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Command line, checked as far as possible without the data and the model.

    Attributes:
        options: parsed arguments.
        source: input of the data.
        layers: hidden states to probe, or None for all.
        poolings: poolings of each hidden state.
        further: features to probe in addition.
        shown: feature to project, or None for the best one.
        outputs: files to write.
    """

    options: argparse.Namespace
    source: Input
    layers: tuple[int, ...] | None
    poolings: tuple[str, ...]
    further: tuple[Expr, ...]
    shown: Expr | None
    outputs: tuple[Path, ...]

    @property
    def lists_skipped(self) -> bool:
        """Whether rows that are left out are listed in a file, beside the first output."""
        return bool(self.outputs) and self.options.on_error == "skip"


def run(options: argparse.Namespace) -> None:
    """Run the command: check the arguments, read the data, then open the model."""
    request = _checked(options)
    probe, skipped = _prepared_pairs(request) if options.pair_column is not None else _prepared(request)
    findings = probe()
    command = _command(options, findings)
    _print(findings, command, _saving(options, findings))
    place = write_skipped(skipped, list_place(request.outputs[0])) if request.lists_skipped else None
    if not options.quiet:
        print_skipped(skipped, place)
    for path in request.outputs:
        _write(path, findings, command, title=Path(options.input).stem, overwrite=options.overwrite)
        if not options.quiet:
            print_message("", f"wrote {path}")


Skipped = Mapping[str, Sequence["RowError"]]


def _prepared(request: Request) -> tuple[Callable[[], Findings], Skipped]:
    """Read and check labels, and return the function that probes them, and the rows that were left out."""
    from layertap.learn.libraries import require_libraries
    from layertap.learn.probing.splits import metrics_of

    options, data = request.options, _data(request)
    words = data.owners is not None
    if words and options.cache is not None:
        raise OptionError("--cache keeps vectors of texts, and words are labelled here; leave it out")
    metrics = metrics_of(data, options.metric)
    if "entity_f1" in metrics:
        require_libraries("measuring entities", "seqeval")

    def find() -> Findings:
        from layertap.learn.probing.probe import probe

        extractor = _opened(options)
        features = _features(request, extractor, words=words)
        return probe(
            extractor,
            data,
            features,
            metrics=metrics,
            seed=options.seed,
            cache=None if options.cache is None else Path(options.cache),
            projected=request.shown,
            plane_how=options.projection or PLANES[0],
            progress=not options.quiet,
        )

    return find, data.skipped


def _prepared_pairs(request: Request) -> tuple[Callable[[], Findings], Skipped]:
    """Read and check pairs, and return the function that probes them, and the rows that were left out."""
    from layertap.learn.probing.pairs import ScoredPairs, probe_pairs, read_pairs, without_known

    options = request.options
    for name, why in PAIRLESS.items():
        if getattr(options, name) is not None:
            raise OptionError(f"--{name.replace('_', '-')}: {why}; leave it out")
    if options.metric in METRICS:
        raise OptionError(
            f"--metric {options.metric} is for classes; for pairs expected one of {', '.join(PAIR_METRICS)}"
        )

    def read(source: str) -> ScoredPairs:
        return read_pairs(replace(request.source, source=source), options.label)

    data = read(options.input)
    test = None if options.test is None else without_known(read(options.test), data)

    def find() -> Findings:
        extractor = _opened(options)
        features = _features(request, extractor, words=False)
        return probe_pairs(
            extractor,
            data,
            test,
            features,
            metrics=sorted(PAIR_METRICS, key=lambda metric: metric != (options.metric or PAIR_METRICS[0])),
            seed=options.seed,
            cache=None if options.cache is None else Path(options.cache),
            shown=request.shown,
            progress=not options.quiet,
        )

    return find, {part.source: part.skipped for part in (data, test) if part is not None}


def _checked(options: argparse.Namespace) -> Request:
    from layertap.backends.choice import require_backend
    from layertap.checkpoints.source import stored_files
    from layertap.data.input import check_read_once
    from layertap.features.parse import parse, parse_named
    from layertap.files import check_place, refuse_overlap

    limit_tokenizer_threads(options.threads)
    _require_libraries(options.outputs)
    require_backend(options.backend)
    if options.spans_column is not None:
        raise OptionError("--spans-column: probe takes labelled texts, labelled words, or scored pairs; leave it out")
    if options.metric in PAIR_METRICS and options.pair_column is None:
        raise OptionError(f"--metric {options.metric} is for pairs; name the column of second texts (--pair-column)")
    if options.max_words is not None and options.max_words < 1:
        raise OptionError(f"--max-words {options.max_words}: expected at least 1")
    if options.dev is not None and options.test is None:
        raise OptionError("--dev needs --test: without a test file, scores come from cross-validation")
    if options.folds is not None and options.test is not None:
        raise OptionError("--folds is for cross-validation, and --test gives a split; leave one of them out")
    if options.folds is not None and options.folds < 2:
        raise OptionError(f"--folds {options.folds}: expected at least 2")
    if options.seed < 0:
        raise OptionError(f"--seed {options.seed}: expected a whole number of at least 0")
    silence_downloads(options)
    outputs = tuple(Path(output) for output in options.outputs)
    for path in outputs:
        if path.suffix not in ENDINGS:
            raise OptionError(f"-o {path}: unknown format; expected a name that ends with {', '.join(ENDINGS)}")
        check_place(path, overwrite=options.overwrite)
    sources = [source for source in (options.input, options.test, options.dev) if source is not None]
    places = {f"report {number}": path for number, path in enumerate(outputs, start=1)}
    if options.on_error == "skip" and outputs:
        places["the list of rows that are left out"] = list_place(outputs[0])
        check_place(list_place(outputs[0]), overwrite=options.overwrite)
    caches = {} if options.cache is None else {"the cache": Path(options.cache)}
    refuse_overlap([*sources, *stored_files(options.model)], places | caches)
    check_read_once(sources)
    poolings = _listed(options.pooling)
    for name in poolings:
        if name not in POOLINGS:
            raise OptionError(f"--pooling {name!r}: expected some of {', '.join(POOLINGS)}")
    return Request(
        options=options,
        source=input_of(options, columns=(options.label,), on_error=options.on_error, max_errors=options.max_errors),
        layers=None if options.layers is None else _numbers(options.layers),
        poolings=poolings,
        further=tuple(parse_named(text)[1] for text in features_of(options) or ()),
        shown=None if options.show is None else parse(options.show),
        outputs=outputs,
    )


def _require_libraries(outputs: Sequence[str]) -> None:
    if find_spec("sklearn") is None:
        raise BackendError("probe needs scikit-learn: pip install 'layertap[learn]'")
    if any(output.endswith((".png", ".html")) for output in outputs) and find_spec("matplotlib") is None:
        raise BackendError("pictures (.png, .html) need matplotlib: pip install 'layertap[learn]'")


def _listed(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise OptionError(f"--pooling {text!r}: expected some of {', '.join(POOLINGS)}")
    return names


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise OptionError(f"--layers {text!r}: expected numbers of hidden states, for example 0,4,6") from None


def _data(request: Request) -> ProbeData:
    from layertap.learn.labelled import LabelledDataset
    from layertap.learn.probing.splits import MAX_WORDS, check_for_probe, cross_validation, given_split
    from layertap.text.units import UnitFinder

    options = request.options
    max_words = options.max_words or MAX_WORDS
    finder = UnitFinder(words=True, pattern=semantics_of(options).compiled_word_pattern())

    def read(source: str) -> LabelledDataset:
        return check_for_probe(LabelledDataset.read(replace(request.source, source=source), options.label, finder))

    train = read(options.input)
    if options.test is None:
        return cross_validation(train, finder=finder, folds=options.folds or 5, seed=options.seed, max_words=max_words)
    test, dev = read(options.test), None if options.dev is None else read(options.dev)
    return given_split(train, test, dev, finder=finder, seed=options.seed, max_words=max_words)


def _opened(options: argparse.Namespace) -> Extractor:
    from layertap.engine.opening import open_reference

    return extractor_of(open_reference(reference_of(options)), semantics_of(options), runtime_of(options))


def _features(request: Request, extractor: Extractor, *, words: bool) -> list[Expr]:
    from layertap.features.parse import parse
    from layertap.learn.vectors.sweep import width_of, word_width_of

    layers = request.layers
    if layers is None:
        layers = tuple(range(extractor.facts.spec.num_hidden_layers + 1))
    steps = [f"words({pooling})" if words else pooling for pooling in request.poolings]
    named = [parse(f"hidden_states[{layer}].{step}") for step in steps for layer in layers]
    features = list(dict.fromkeys([*named, *request.further]))
    for feature in [*features, *([request.shown] if request.shown is not None else [])]:
        (word_width_of if words else width_of)(extractor, feature)
    return features


def _command(options: argparse.Namespace, findings: Findings) -> str:
    """Return the command line that extracts the best feature of the texts, or of both texts of the pairs."""
    if options.pair_column is None:
        return _extraction(options, findings, "features.parquet", options.text_column)
    columns = {"first.parquet": options.text_column, "second.parquet": options.pair_column}
    return " && ".join(_extraction(options, findings, output, column) for output, column in columns.items())


def _extraction(options: argparse.Namespace, findings: Findings, output: str, text_column: str | None) -> str:
    words = ["layertap", "extract", options.input, "-o", output, "-f", findings.winner.feature]
    given = {**vars(options), "text_column": text_column}
    for name in SHARED:
        if given[name] is not None and not (name in OPTIONS and given[name] == OPTIONS[name].default):
            flag = f"--{name.replace('_', '-')}"
            words += [flag] if given[name] is True else [flag, str(given[name])]
    words += ["--no-header"] if not options.header else []
    return shlex.join(words + (["--offline"] if options.local_files_only else []))


def _saving(options: argparse.Namespace, findings: Findings) -> str | None:
    """Return the command line that saves a feature as a model, or None where no target can say it.

    It is the one that costs less where that is as good: who saves a model runs it often.
    """
    from layertap.engine.opening import open_reference
    from layertap.saving.save import target_of

    feature = (findings.frugal or findings.winner).feature
    reference = replace(reference_of(options), local_files_only=True)  # it is here by now
    target = target_of(open_reference(reference), feature, semantics_of(options))
    if target is None:
        return None
    output = {"folder": "model/", "onnx": "model.onnx"}[target]
    words = ["layertap", "save", feature, "-o", output]
    reference_options = [name for name, option in OPTIONS.items() if option.group == "reference"]
    for name in ("model", *reference_options, "max_length", "untrained_pooler"):
        value = getattr(options, name)
        if value is not None and not (name in OPTIONS and value == OPTIONS[name].default):
            flag = FLAGS.get(name, f"--{name.replace('_', '-')}")
            words += [flag] if value is True else [flag, str(value)]
    return shlex.join(words)


def _print(findings: Findings, command: str, saving: str | None) -> None:
    from layertap.learn.probing.table import (
        CELLS,
        cells,
        header,
        method,
        mistakes,
        recommendation,
        scale,
        sizes,
        whiskers,
    )

    def chart(room: int) -> list[str]:
        return [scale(findings, room - 2), *(whiskers(row, findings, room - 2) for row in findings.rows)]

    names = header(findings)
    print_table(
        names,
        [cells(row, findings) for row in findings.rows],
        best=findings.rows.index(findings.winner),
        dispensable=[i for i in range(len(names) - 1, 2, -1) if names[i] not in findings.winner.beside],
        chart=Chart(draw=chart, usual=CELLS + 2),
    )
    print()
    print_paragraph(f"{sizes(findings)}. {method(findings)}")
    for note in findings.notes:
        print_paragraph(note, label="note:")
    for line in mistakes(findings, SHOWN_MISTAKES):
        print_paragraph(line)
    print()
    print_paragraph(recommendation(findings), label="best")
    if saving is not None:
        print_command(saving, label="save")
    print_command(command)


def _write(path: Path, findings: Findings, command: str, *, title: str, overwrite: bool) -> None:
    from layertap.files import write_file

    write_file(path, _content(path.suffix, findings, command, title), overwrite=overwrite)


def _content(ending: str, findings: Findings, command: str, title: str) -> bytes:
    from layertap.learn.probing.table import as_csv, as_json

    if ending == ".csv":
        return as_csv(findings).encode()
    if ending == ".json":
        return as_json(findings, command=command).encode()
    if ending == ".png":
        from layertap.learn.probing.pictures import overview

        return overview(findings, title=title)
    from layertap.learn.probing.page import as_page

    return as_page(findings, title=title, command=command).encode()
