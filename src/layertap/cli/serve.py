"""`layertap serve`: any layer of a model over HTTP."""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from layertap.cli.options import (
    add_command,
    add_feature_options,
    add_layout_options,
    add_model_options,
    features_of,
    input_of,
    limit_tokenizer_threads,
    reference_of,
    runtime_of,
    semantics_of,
)
from layertap.cli.running import add_running_options, extractor_of, silence_downloads, uncollected
from layertap.cli.units import bytes_of
from layertap.errors import OptionError, UsageError
from layertap.features.grammar import PoolOp
from layertap.file_formats import READ_FORMATS
from layertap.terminal import is_terminal

if TYPE_CHECKING:
    from layertap.cli.options import Commands
    from layertap.engine.extractor import Extractor
    from layertap.learn.exploring.contents import PageOptions as ExploredOptions
    from layertap.learn.exploring.corpus import Corpus
    from layertap.server.limits import Limits
    from layertap.server.model import ServedModel
    from layertap.server.page import Page

POOLINGS: tuple[str, ...] = get_args(PoolOp)
KEY_VARIABLE = "LAYERTAP_API_KEY"
POOLING, NEIGHBOURS, EXPLORED_TEXTS = "mean", 10, 10_000
PAGE_OPTIONS = (
    *("label", "pooling", "neighbours", "explore_texts", "seed", "input_format", "text_column", "delimiter"),
    *("quoting", "records", "encoding", "max_record_size"),
)
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

DESCRIPTION = """\
Answers HTTP requests with features of texts: vectors of any layer, token and word vectors, predictions of
heads. Clients of OpenAI, text-embeddings-inference, vLLM and Cohere's rerank work unmodified; the name of the
model in a request selects the feature, as a name given with -f or as ID@EXPRESSION.

The page at / shows the tokens, layers and attentions of a text that is typed; with --explore, also the texts of
a file at each layer.

The server listens on this machine only unless --host says otherwise. docs/serve.md describes all routes."""
EPILOG = """\
examples:
  layertap serve
  layertap serve -m ./my-model --port 9000 -f 'v = hidden_states[4].mean.normalize'
  layertap serve --head mood.head --precision bfloat16
  layertap serve --host 0.0.0.0 --api-key-file key.txt
  layertap serve --explore reviews.csv --label mood

  curl localhost:8080/v1/embeddings -H 'Content-Type: application/json' \\
       -d '{"model": "all-MiniLM-L6-v2@hidden_states[4].mean", "input": "Hello world"}'"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "serve",
        run,
        summary="any layer over HTTP",
        usage="layertap serve [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    group = parser.add_argument_group("server")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    group.add_argument("--port", type=int, default=8080, metavar="N", help="port; 0 takes a free one (default: 8080)")
    group.add_argument(
        "--allowed-host",
        action="append",
        metavar="NAME",
        help="a host name that requests may be for; again for more (default: localhost and its addresses where the "
        "server listens on these, any name elsewhere)",
    )
    group.add_argument(
        "--api-key-file",
        metavar="FILE",
        help=f"file with the key that clients must send (default: the environment's {KEY_VARIABLE}, else no key)",
    )
    group.add_argument("--model-name", metavar="NAME", help="the model's id (default: the last part of its name)")
    group.add_argument(
        "--head",
        metavar="HEAD",
        action="append",
        dest="heads",
        help="a folder that `layertap fit` made, or NAME=FOLDER; again for more (a head that MODEL stores is served, "
        "too)",
    )
    group.add_argument(
        "--auto-truncate",
        action="store_true",
        help="cut long texts on the routes of text-embeddings-inference where a request does not say (default: refuse)",
    )
    add_page_options(parser)
    add_limit_options(parser)
    add_feature_options(parser)
    add_model_options(parser)
    add_running_options(parser)


def add_page_options(parser: argparse.ArgumentParser) -> None:
    """Add options for the texts that the page at `/` shows."""
    group = parser.add_argument_group("page")
    group.add_argument(
        "--explore",
        metavar="INPUT",
        help="file of texts that the page shows at each layer, as `layertap explore` does (default: none; the page "
        "shows texts that are typed)",
    )
    group.add_argument("--label", metavar="COLUMN", help="column of labels, for colours and probes")
    group.add_argument("--pooling", metavar="P", help=f"pooling of each layer (default: {POOLING})")
    group.add_argument("--neighbours", type=int, metavar="N", help=f"nearest texts of a text (default: {NEIGHBOURS})")
    group.add_argument(
        "--explore-texts",
        type=int,
        metavar="N",
        help=f"texts to show; of more, a random sample (default: {EXPLORED_TEXTS})",
    )
    group.add_argument("--seed", type=int, metavar="N", help="seed of samples and folds (default: 0)")
    group.add_argument("--input-format", choices=READ_FORMATS, metavar="FORMAT", help="format (default: by the ending)")
    group.add_argument("--text-column", metavar="NAME", help="the column with the texts (default: text)")
    add_layout_options(group)
    parser.set_defaults(words_column=None, pair_column=None, spans_column=None)


def add_limit_options(parser: argparse.ArgumentParser) -> None:
    """Add options for what one request, and all together, may take."""
    group = parser.add_argument_group("limits")
    group.add_argument("--max-texts", type=int, metavar="N", help="texts a request (default: 2048)")
    group.add_argument("--max-body-size", metavar="SIZE", help="bytes of a request's body, as 8MiB (default: 8MiB)")
    group.add_argument(
        "--max-request-tokens",
        type=int,
        metavar="N",
        help="tokens a request through all blocks; fewer blocks allow more (default: 300000)",
    )
    group.add_argument("--max-answer-size", metavar="SIZE", help="bytes of a request's results (default: 256MiB)")
    group.add_argument(
        "--queue-seconds", type=float, metavar="S", help="seconds of measured work that may wait (default: 2)"
    )
    group.add_argument(
        "--run-tokens", type=int, metavar="N", help="tokens that one run of the engine takes (default: 4096)"
    )


def run(options: argparse.Namespace) -> None:
    """Run the command: what can be checked comes first, then the model and its first results, then requests."""
    from layertap.backends.choice import require_backend
    from layertap.engine.opening import open_reference

    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # texts are tokenized on threads of the server
    limit_tokenizer_threads(options.threads)
    features, semantics, runtime = features_of(options), semantics_of(options), runtime_of(options)
    require_backend(runtime.backend)
    silence_downloads(options)
    limits, key, hosts = limits_of(options), api_key_of(options), allowed_hosts_of(options)
    corpus = corpus_of(options)
    with uncollected():
        try:
            from layertap.server.app import create_app
            from layertap.server.run import bind, check_first_results, serve
            from layertap.server.state import State
        except ModuleNotFoundError as missing:
            raise UsageError(
                f"the server needs {missing.name}, which is not installed; install the extra: pip install "
                "'layertap[serve]'"
            ) from None
    with bind(options.host, options.port) as bound:
        with uncollected():
            opened = open_reference(reference_of(options))
            opened.plan(features, semantics, runtime.rules)
            model = served_model(extractor_of(opened, semantics, runtime), options, features)
            state = State(model=model, limits=limits, api_key=key)
            check_first_results(state)
            app = create_app(state, hosts=hosts, pages=page_of(model, corpus, options).routes)
        host, port = bound.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

        def on_ready() -> None:
            if key is None and not is_loopback(options.host):
                note = f"whoever reaches {url} can use the server; --api-key-file asks for a key"
                print(f"layertap: note: {note}", file=sys.stderr)
            if not options.quiet:
                print(f"layertap: {state.model.id} at {url}; Ctrl-C ends it", file=sys.stderr, flush=True)

        serve(app, state, bound, on_ready=on_ready)


def corpus_of(options: argparse.Namespace) -> Corpus | None:
    """Read the texts that the page shows, or return None where it shows none.

    Raises:
        OptionError: options of such texts without the texts, or out of range.
        UsageError: scikit-learn is not installed.
        InputError: no texts, or rows that cannot be read.
    """
    if options.explore is None:
        given = next((name for name in PAGE_OPTIONS if getattr(options, name) is not None), None)
        given = "no_header" if given is None and not options.header else given
        if given is not None:
            raise OptionError(f"--{given.replace('_', '-')} is about the texts of --explore; give both, or neither")
        return None
    if find_spec("sklearn") is None:
        raise UsageError("--explore needs scikit-learn: pip install 'layertap[learn]'")
    for name, value in (
        ("pooling", POOLING),
        ("neighbours", NEIGHBOURS),
        ("explore_texts", EXPLORED_TEXTS),
        ("seed", 0),
    ):
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.explore_texts < 1:
        raise OptionError(f"--explore-texts {options.explore_texts}: expected at least 1")
    if options.pooling not in POOLINGS:
        raise OptionError(f"--pooling {options.pooling!r}: expected one of {', '.join(POOLINGS)}")
    if Path(options.explore).is_dir():
        raise OptionError(f"--explore {options.explore} is a folder; name the file of texts")
    from layertap.learn.exploring.corpus import read_corpus

    explored_options(options)
    source = input_of(options, options.explore)
    return read_corpus(source, options.label, most=options.explore_texts, seed=options.seed)


def explored_options(options: argparse.Namespace) -> ExploredOptions:
    """Return the options of the texts on the page; tokens and attentions are computed when they are asked for."""
    from layertap.learn.exploring.contents import PageOptions as ExploredOptions

    return ExploredOptions(pooling=options.pooling, neighbours=options.neighbours, sentences=0, seed=options.seed)


def page_of(model: ServedModel, corpus: Corpus | None, options: argparse.Namespace) -> Page:
    """Compute what the page at `/` shows."""
    from layertap.cli.page_commands import commands_of, sentence_commands
    from layertap.learn.exploring.live import sentence_page
    from layertap.server.page import Page

    extractor = model.extractor
    if corpus is None:
        return Page.of(sentence_page(extractor, model.id, commands=sentence_commands(options)), extractor)
    from layertap.learn.exploring.contents import exploration
    from layertap.learn.exploring.index import CorpusIndex

    made = exploration(
        extractor,
        corpus,
        explored_options(options),
        commands=commands_of(options, options.explore),
        progress=not options.quiet and is_terminal(sys.stderr),  # in a pipe the address is the first line
    )
    return Page.of(
        made.content,
        extractor,
        index=CorpusIndex.of(made.layers, made.planes),
        pooling=options.pooling,
        neighbours=options.neighbours,
    )


def served_model(extractor: Extractor, options: argparse.Namespace, features: list[str] | None) -> ServedModel:
    """Return the model with its names and heads.

    Raises:
        OptionError: two names that are equal.
    """
    from layertap.features.parse import parse_named
    from layertap.server.heads import heads_of
    from layertap.server.model import ServedModel

    name = options.model_name or Path(extractor.files.checkpoint.name).name
    named = dict(map(parse_named, features or ()))
    if name in named:
        raise OptionError(f"--feature: {name!r} is the name of the model; give the feature another, or --model-name")
    return ServedModel(
        id=name,
        extractor=extractor,
        features=named,
        heads=heads_of(extractor, options.heads or [], name),
        auto_truncate=options.auto_truncate,
    )


def limits_of(options: argparse.Namespace) -> Limits:
    """Return the limits that the command line states, the others with their defaults.

    Raises:
        OptionError: a limit that is not positive.
    """
    from layertap.server.limits import Limits

    given = {
        "texts": options.max_texts,
        "tokens": options.max_request_tokens,
        "queue_seconds": options.queue_seconds,
        "run_tokens": options.run_tokens,
        "body_bytes": options.max_body_size and bytes_of(options.max_body_size, "--max-body-size"),
        "answer_bytes": options.max_answer_size and bytes_of(options.max_answer_size, "--max-answer-size"),
    }
    flags = {"texts": "max-texts", "tokens": "max-request-tokens", "queue_seconds": "queue-seconds"}
    for name, value in given.items():
        if value is not None and not value > 0:
            raise OptionError(f"--{flags.get(name, name.replace('_', '-'))} {value}: expected a positive number")
    return Limits(**{name: value for name, value in given.items() if value is not None})


def api_key_of(options: argparse.Namespace) -> str | None:
    """Return the key that clients must send, or None.

    Raises:
        OptionError: the file cannot be read, or holds no key.
    """
    if options.api_key_file is None:
        given, source = os.environ.get(KEY_VARIABLE), KEY_VARIABLE
        if given is None:
            return None
    else:
        source = f"--api-key-file {options.api_key_file}"
        try:
            given = Path(options.api_key_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"{source}: {getattr(error, 'strerror', None) or 'not UTF-8'}") from None
    key = given.strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise OptionError(f"{source}: expected one key of printable ASCII characters without spaces")
    return key


def allowed_hosts_of(options: argparse.Namespace) -> list[str] | None:
    """Return the host names that requests may be for, or None: any."""
    named: list[str] = options.allowed_host or []
    return [*LOOPBACK, options.host, *named] if is_loopback(options.host) else named or None


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    return host in ("localhost", "::1") or host.startswith("127.")
