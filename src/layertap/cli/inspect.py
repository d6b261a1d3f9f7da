"""The command `layertap inspect`, which describes a model and its outputs."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from layertap.cli.help import WIDEST
from layertap.cli.options import add_command, add_model_options, reference_of
from layertap.cli.tables import print_laid_out
from layertap.errors import WeightsError
from layertap.terminal import columns_of, is_terminal

if TYPE_CHECKING:
    from layertap.cli.options import Commands

FAULTS_SHOWN = 8
DESCRIPTION = """\
Prints a description of a model: architecture, sizes, limits, tokenizer, outputs and their shapes, the state of its
pooler, weights in its files that layertap does not use, and the backends of this machine that can run it.
Loads no weights. The exit code is 1 if a weight is missing, or has another shape or dtype than config.json says."""
EPILOG = """\
examples:
  layertap inspect
  layertap inspect bert-base-uncased --json
  layertap inspect ./my-checkpoint"""


def add_to(commands: Commands) -> None:
    """Adds the command to the command line."""
    parser = add_command(
        commands,
        "inspect",
        run,
        summary="describe a model: architecture, limits, outputs, tokenizer",
        usage="layertap inspect [MODEL] [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("--json", action="store_true", help="print the description as JSON")
    add_model_options(parser, positional=True)


def run(options: argparse.Namespace) -> None:
    """Runs `layertap inspect` with parsed options.

    Raises:
        WeightsError: weights are missing, or have another shape or dtype; raised after printing.
    """
    from layertap.backends.here import absences, installed
    from layertap.cli.model_card import WIDTH, facts_of_model, in_lines
    from layertap.cli.running import what_runs
    from layertap.engine.opening import open_reference
    from layertap.engine.options import Runtime

    opened = open_reference(reference_of(options))
    facts = facts_of_model(opened, installed(), absences(), what_runs(opened, Runtime().request("float32")))
    if options.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        width = min(WIDEST, columns_of(sys.stdout)) if is_terminal(sys.stdout) else WIDTH
        print_laid_out("\n".join(in_lines(facts, width)))
    faults = opened.files.faults
    if faults:
        more = [f"and {len(faults) - FAULTS_SHOWN} more"] if len(faults) > FAULTS_SHOWN else []
        raise WeightsError("\n".join([*faults[:FAULTS_SHOWN], *more]))
