"""`layertap save`: a feature as a model of its own."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from layertap.cli.options import (
    add_command,
    add_engine_options,
    add_model_options,
    limit_tokenizer_threads,
    reference_of,
    runtime_of,
    semantics_of,
)
from layertap.cli.running import add_backend_options, extractor_of, silence_downloads
from layertap.cli.tables import print_facts

if TYPE_CHECKING:
    from layertap.cli.options import Commands

DESCRIPTION = """\
Saves a feature as a model that other programs run, with the layers that the feature needs and no others.

OUTPUT is a folder of sentence-transformers and transformers, in which the feature is the sentence embedding. Before it
stands, it is loaded back and compared with the feature; its README.md and layertap.json say what it is.

An OUTPUT that ends with .onnx is a graph from token ids to the feature, which is compared in onnxruntime; it needs
the extra `onnx`. Padding may be on either side."""
EPILOG = """\
examples:
  layertap save 'hidden_states[4].mean.normalize' -o small/
  layertap save 'hidden_states[-4:].layer_mean.mean' -m FacebookAI/roberta-base -o mixed/ --max-length 256
  layertap save 'v = hidden_states[-4:].layer_mean.mean' -o v.onnx"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "save",
        run,
        summary="a feature in, a model of its own out",
        usage="layertap save FEATURE -o OUTPUT [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("feature", metavar="FEATURE", help="an expression, or 'name = expression'")
    parser.add_argument(
        "-o", "--output", metavar="OUTPUT", required=True, help="a folder or a .onnx file that does not exist yet"
    )
    parser.add_argument(
        "--to", choices=("folder", "onnx"), help="what OUTPUT is (default: onnx if it ends with .onnx, else folder)"
    )
    add_model_options(parser)
    group = parser.add_argument_group("feature")
    add_engine_options(group, "max_length", "untrained_pooler")
    group = parser.add_argument_group("running")
    add_backend_options(group)
    group.add_argument("-q", "--quiet", action="store_true", help="no summary; errors are shown")


def run(options: argparse.Namespace) -> None:
    """Save the feature, and say what was saved."""
    from layertap.saving.save import save_reference

    limit_tokenizer_threads(options.threads)
    silence_downloads(options)
    saved = save_reference(
        options.feature,
        options.output,
        reference_of(options),
        semantics_of(options),
        runtime_of(options),
        to=options.to,
        extractor_of=extractor_of,
    )
    if not options.quiet:
        print_facts(
            [
                ("saved", os.fspath(options.output)),
                ("feature", saved.feature),
                ("model", f"{saved}, {saved.size:,} numbers a text of at most {saved.max_length:,} tokens"),
                *([] if saved.adapted is None else [("adapter", f"merged into the weights of {saved.adapted}")]),
                ("check", str(saved.certificate)),
            ]
        )
