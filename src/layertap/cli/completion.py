"""The command `layertap completion`, which prints what a shell needs to complete command lines of layertap."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import TYPE_CHECKING

from layertap.cli.options import add_command
from layertap.errors import UsageError

if TYPE_CHECKING:
    from layertap.cli.options import Commands

SHELLS = ("bash", "zsh", "fish")
DESCRIPTION = """\
Prints a script that completes commands and options of layertap in a shell, for the version that is installed. Needs
the extra `completion`."""
EPILOG = """\
examples:
  layertap completion bash > ~/.local/share/bash-completion/completions/layertap
  layertap completion zsh > ~/.zfunc/_layertap
  layertap completion fish > ~/.config/fish/completions/layertap.fish"""


def add_to(commands: Commands) -> None:
    """Add the command to the command line."""
    parser = add_command(
        commands,
        "completion",
        run,
        summary="complete command lines in bash, zsh or fish",
        usage="layertap completion SHELL",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")


def run(options: argparse.Namespace) -> None:
    """Print the script for the shell.

    Raises:
        UsageError: shtab is not installed.
    """
    if find_spec("shtab") is None:
        raise UsageError("layertap completion needs shtab: pip install 'layertap[completion]'")
    import shtab

    from layertap.cli.main import parser

    print(shtab.complete(parser(), options.shell))
