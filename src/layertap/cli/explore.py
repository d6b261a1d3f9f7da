"""`layertap explore`: a page that shows what each layer sees."""

from __future__ import annotations

import argparse
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from layertap.cli.options import (
    add_command,
    add_engine_options,
    add_input_options,
    add_model_options,
    add_rule_option,
    input_of,
    limit_tokenizer_threads,
    reference_of,
    runtime_of,
    semantics_of,
)
from layertap.cli.page_commands import commands_of, neighbour_lines, sentence_commands
from layertap.cli.running import add_running_options, extractor_of, silence_downloads
from layertap.cli.tables import print_message
from layertap.errors import BackendError, LayertapError, OptionError
from layertap.features.grammar import PoolOp
from layertap.words import in_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from layertap.cli.options import Commands
    from layertap.engine.extractor import Extractor
    from layertap.learn.exploring.contents import PageOptions
    from layertap.page.content import PageContent

MOST_TEXTS = 10_000
UNITS = ("text", "words", "spans")
POOLINGS: tuple[str, ...] = get_args(PoolOp)

DESCRIPTION = """\
Writes a page that shows the texts of a file, or their words or spans, as each layer of a model sees them: a map
for every layer, nearest neighbours, what a linear probe scores, and the tokens and attentions of some texts. INPUT
may also be features that `layertap extract` wrote, a file or a folder; their layers are shown. The page is one HTML
file; it opens without a network and contains the texts."""
EPILOG = """\
examples:
  layertap explore reviews.csv --text-column review --label stars -o page.html
  layertap explore texts.txt -o page.html
  layertap explore train.jsonl --label topic --pooling cls --sentence 17 --sentence 204 -o page.html
  layertap explore wikigold.conll --unit words --label col1 -o words.html
  layertap explore features/ --texts reviews.csv --label stars -o page.html"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "explore",
        run,
        summary="a page that shows what each layer sees",
        usage="layertap explore INPUT -o PAGE.html [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("input", metavar="INPUT", help="file of texts, - for standard input, or stored features")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="page to write, .html")
    parser.add_argument("--overwrite", action="store_true", help="replace the page if it exists")
    group = parser.add_argument_group("page")
    group.add_argument("--label", metavar="COLUMN", help="column of labels, for colours and probes (default: none)")
    group.add_argument(
        "--unit", choices=UNITS, metavar="U", help="what a point is: text, words or spans (default: text)"
    )
    group.add_argument("--pooling", default="mean", metavar="P", help="pooling of each layer (default: mean)")
    group.add_argument(
        "--max-texts",
        type=int,
        default=MOST_TEXTS,
        metavar="N",
        help=f"points to show; of more, a random sample (default: {MOST_TEXTS})",
    )
    group.add_argument("--neighbours", type=int, default=10, metavar="N", help="nearest texts of a text (default: 10)")
    group.add_argument(
        "--sentences",
        type=int,
        default=30,
        metavar="N",
        help="texts with tokens and attentions, at most 50 (default: 30)",
    )
    group.add_argument(
        "--sentence",
        type=int,
        action="append",
        default=[],
        metavar="ROW",
        help="a row, numbered from 0, that is among them; again for more",
    )
    group.add_argument("--seed", type=int, default=0, metavar="N", help="seed of samples and folds (default: 0)")
    stored = parser.add_argument_group("stored features")
    stored.add_argument(
        "-f",
        "--feature",
        action="append",
        default=[],
        dest="features",
        metavar="NAME",
        help="a feature to show; again for more (default: all with one vector per text, else per word, span or token)",
    )
    stored.add_argument(
        "--texts",
        metavar="FILE",
        help="file of texts that the features were made from (default: their column `text`, or --text-column)",
    )
    add_engine_options(group, "precision", "max_length")
    add_rule_option(group)
    add_model_options(parser)
    add_input_options(parser)
    add_running_options(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command: check the arguments, read the input, open the model, write the page."""
    page_options = _checked(options)
    from layertap.files import write_file
    from layertap.page.assemble import as_html

    content = (_stored_content if _is_stored(options) else _content)(options, page_options)
    page = as_html(content)
    write_file(Path(options.output), page, overwrite=options.overwrite)
    if not options.quiet:
        for note in content.facts["notes"]:
            print_message("", note)
        print_message("", f"wrote {options.output} ({in_bytes(len(page))})")


def _content(options: argparse.Namespace, page_options: PageOptions) -> PageContent:
    """Compute the page of a file of texts."""
    from layertap.engine.opening import open_reference
    from layertap.learn.exploring.contents import exploration
    from layertap.learn.exploring.corpus import read_corpus

    corpus = read_corpus(
        input_of(options),
        options.label,
        most=options.max_texts,
        seed=options.seed,
        kept=page_options.rows,
        unit=options.unit.removesuffix("s"),
    )
    extractor = extractor_of(open_reference(reference_of(options)), semantics_of(options), runtime_of(options))
    commands = commands_of(options, options.input, options.unit)
    return exploration(extractor, corpus, page_options, commands=commands, progress=not options.quiet).content


def _stored_content(options: argparse.Namespace, page_options: PageOptions) -> PageContent:
    """Compute the page of stored features."""
    import layertap
    from layertap.learn.exploring.contents import stored_exploration
    from layertap.learn.exploring.stored import read_stored

    with layertap.open(options.input) as file:
        points = read_stored(
            file,
            features=options.features,
            label=options.label,
            texts=None if options.texts is None else input_of(options, options.texts),
            text_column=None if options.texts is not None else options.text_column,
            most=options.max_texts,
            seed=options.seed,
            kept=page_options.rows,
        )
        extractor, reason = _model_of(options, file.provenance) if points.corpus.has_texts else (None, "")
    unit = points.corpus.unit
    commands = {"neighbours": neighbour_lines("text" if unit == "text" else f"{unit}s")}
    if extractor is not None:
        commands |= sentence_commands(options)
    return stored_exploration(
        points,
        page_options,
        extractor=extractor,
        why_no_model=reason,
        commands=commands,
        threads=options.threads,
        progress=not options.quiet,
    ).content


def _model_of(options: argparse.Namespace, provenance: Mapping[str, Any]) -> tuple[Extractor | None, str]:
    """Return the model that features are from if it is at hand, or None with the reason.

    Raises:
        OptionError: a model is named, and it is another one.
    """
    from layertap.checkpoints.source import DEFAULT_NAMES
    from layertap.engine.opening import open_reference

    name = str(provenance.get("model", ""))
    reference = reference_of(options)
    if options.model is None:
        known = None if name in DEFAULT_NAMES else name
        reference = replace(reference, name=known, revision=provenance.get("commit"), local_files_only=True)
    try:
        opened = open_reference(reference)
        extractor = extractor_of(opened, semantics_of(options), runtime_of(options))
        stated = dict(extractor.provenance("last_hidden_state")["sha256"])
    except LayertapError:
        if options.model is not None:
            raise
        return None, f"the model of the features, {name or 'which is not stated'}, is not at hand (--model)"
    others = dict(provenance.get("sha256", {}))
    if any(stated[file] != others[file] for file in stated.keys() & others.keys()) or not stated.keys() & others.keys():
        if options.model is not None:
            raise OptionError(f"--model {options.model}: {options.input} is from another model, {name}; name that")
        return None, f"the model at hand differs from that of the features, {name} (--model)"
    return extractor, ""


def _is_stored(options: argparse.Namespace) -> bool:
    """Return whether the input holds features, and no texts."""
    path = Path(options.input)
    if path.is_dir():
        return True
    if options.input == "-" or (options.input_format is not None and options.texts is None):
        return False
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError:
        return False
    if head.startswith(b"PAR1"):
        import pyarrow.parquet as pq

        from layertap.data.writers.parquet import METADATA_KEY

        try:
            return METADATA_KEY in (pq.read_schema(path).metadata or {})
        except (OSError, ValueError):
            return False
    if head.startswith((b"PK\x03\x04", b"\x93NUMPY")) or head[8:] == b"{":
        return True
    if path.suffix in (".jsonl", ".ndjson") and path.with_name(f"{path.name}.provenance.json").exists():
        raise OptionError(
            f"{path} holds features as JSONL, which explore does not read; write them to Parquet (-o features.parquet)"
        )
    return False


def _checked(options: argparse.Namespace) -> PageOptions:
    """Check the arguments as far as possible without the input and the model."""
    from layertap.backends.choice import require_backend
    from layertap.checkpoints.source import stored_files
    from layertap.files import check_place, refuse_overlap

    if find_spec("sklearn") is None:
        raise BackendError("explore needs scikit-learn: pip install 'layertap[learn]'")
    from layertap.learn.exploring.contents import PageOptions

    limit_tokenizer_threads(options.threads)
    require_backend(options.backend)
    if options.max_texts < 1:
        raise OptionError(f"--max-texts {options.max_texts}: expected at least 1")
    if options.pooling not in POOLINGS:
        raise OptionError(f"--pooling {options.pooling!r}: expected one of {', '.join(POOLINGS)}")
    _check_unit(options)
    output = Path(options.output)
    if output.suffix not in (".html", ".htm"):
        raise OptionError(f"-o {output}: expected a name that ends with .html")
    check_place(output, overwrite=options.overwrite)
    read = [options.input, *([] if options.texts is None else [options.texts])]
    refuse_overlap([*read, *stored_files(options.model)], {"the page": output})
    silence_downloads(options)
    return PageOptions(
        pooling=options.pooling,
        neighbours=options.neighbours,
        sentences=options.sentences,
        rows=tuple(options.sentence),
        seed=options.seed,
    )


def _check_unit(options: argparse.Namespace) -> None:
    """Refuse options that do not go with what a point is, or with where the vectors come from.

    Raises:
        OptionError: the message names the option.
    """
    if options.pair_column is not None:
        raise OptionError("--pair-column: explore shows texts, words or spans; leave it out")
    if _is_stored(options):
        given = {"--unit": options.unit, "--pooling": None if options.pooling == "mean" else options.pooling}
        for name in (name for name, value in given.items() if value is not None):
            raise OptionError(f"{name} is for files of texts, and {options.input} holds features, which say what it is")
        return
    for name, value in {"--feature": options.features, "--texts": options.texts}.items():
        if value:
            raise OptionError(f"{name} is for stored features, and {options.input} is a file of texts; leave it out")
    options.unit = options.unit or "text"
    if options.words_column is not None and options.unit != "words":
        raise OptionError("--words-column gives words; add --unit words, or name a column of whole texts")
    if (options.spans_column is not None) != (options.unit == "spans"):
        raise OptionError("--unit spans and --spans-column go together; give both")
