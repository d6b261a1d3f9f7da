"""`layertap explore`: a page that shows what each layer sees."""

from __future__ import annotations

import argparse
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
from layertap.cli.page_commands import commands_of
from layertap.cli.running import add_running_options, extractor_of, silence_downloads
from layertap.cli.tables import print_message
from layertap.errors import BackendError, OptionError
from layertap.features.grammar import PoolOp
from layertap.words import in_bytes

if TYPE_CHECKING:
    from layertap.cli.options import Commands
    from layertap.learn.exploring.contents import PageOptions

MOST_TEXTS = 10_000
POOLINGS: tuple[str, ...] = get_args(PoolOp)

DESCRIPTION = """\
Writes a page that shows the texts of a file as each layer of a model sees them: a map of the texts for every
layer, their nearest texts, what a linear probe scores, and the tokens and attentions of some texts. The page is
one HTML file; it opens without a network and contains the texts."""
EPILOG = """\
examples:
  layertap explore reviews.csv --text-column review --label stars -o page.html
  layertap explore texts.txt -o page.html
  layertap explore train.jsonl --label topic --pooling cls --sentence 17 --sentence 204 -o page.html"""


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
    parser.add_argument("input", metavar="INPUT", help="file of texts; - for standard input")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="page to write, .html")
    parser.add_argument("--overwrite", action="store_true", help="replace the page if it exists")
    group = parser.add_argument_group("page")
    group.add_argument("--label", metavar="COLUMN", help="column of labels, for colours and probes (default: none)")
    group.add_argument("--pooling", default="mean", metavar="P", help="pooling of each layer (default: mean)")
    group.add_argument(
        "--max-texts",
        type=int,
        default=MOST_TEXTS,
        metavar="N",
        help=f"texts to show; of more, a random sample (default: {MOST_TEXTS})",
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
    add_engine_options(group, "precision", "max_length")
    add_rule_option(group)
    add_model_options(parser)
    add_input_options(parser)
    add_running_options(parser)


def run(options: argparse.Namespace) -> None:
    """Run the command: check the arguments, read the texts, open the model, write the page."""
    page_options = _checked(options)
    from layertap.engine.opening import open_reference
    from layertap.files import write_file
    from layertap.learn.exploring.contents import explored
    from layertap.learn.exploring.corpus import read_corpus
    from layertap.page.assemble import as_html

    corpus = read_corpus(
        input_of(options), options.label, most=options.max_texts, seed=options.seed, kept=page_options.rows
    )
    extractor = extractor_of(open_reference(reference_of(options)), semantics_of(options), runtime_of(options))
    content = explored(
        extractor, corpus, page_options, commands=commands_of(options, options.input), progress=not options.quiet
    )
    page = as_html(content)
    write_file(Path(options.output), page, overwrite=options.overwrite)
    if not options.quiet:
        for note in content.facts["notes"]:
            print_message("", note)
        print_message("", f"wrote {options.output} ({in_bytes(len(page))})")


def _checked(options: argparse.Namespace) -> PageOptions:
    """Check the arguments as far as possible without the texts and the model."""
    from layertap.backends.choice import require_backend
    from layertap.checkpoints.source import stored_files
    from layertap.files import check_place, refuse_overlap

    if find_spec("sklearn") is None:
        raise BackendError("explore needs scikit-learn: pip install 'layertap[learn]'")
    from layertap.learn.exploring.contents import PageOptions

    limit_tokenizer_threads(options.threads)
    require_backend(options.backend)
    for name in ("words_column", "pair_column", "spans_column"):
        if getattr(options, name) is not None:
            raise OptionError(f"--{name.replace('_', '-')}: explore shows texts; leave it out")
    if options.max_texts < 1:
        raise OptionError(f"--max-texts {options.max_texts}: expected at least 1")
    if options.pooling not in POOLINGS:
        raise OptionError(f"--pooling {options.pooling!r}: expected one of {', '.join(POOLINGS)}")
    if Path(options.input).is_dir():
        raise OptionError(f"{options.input} is a folder; explore reads the file of texts, not stored features: name it")
    output = Path(options.output)
    if output.suffix not in (".html", ".htm"):
        raise OptionError(f"-o {output}: expected a name that ends with .html")
    check_place(output, overwrite=options.overwrite)
    refuse_overlap([options.input, *stored_files(options.model)], {"the page": output})
    silence_downloads(options)
    return PageOptions(
        pooling=options.pooling,
        neighbours=options.neighbours,
        sentences=options.sentences,
        rows=tuple(options.sentence),
        seed=options.seed,
    )
