"""`layertap --version`: the version, how the kernels were built, and the libraries that are installed."""

from __future__ import annotations

import argparse
import platform
import sys
from typing import Any

from layertap.version import __version__

LIBRARIES = ("numpy", "tokenizers", "pyarrow", "torch")


class ShowVersions(argparse.Action):
    """Option that prints the versions and ends the program."""

    def __init__(self, option_strings: list[str], **options: Any) -> None:
        super().__init__(option_strings, nargs=0, **options)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        """Print the versions to standard output."""
        print(versions(), file=sys.stdout)
        parser.exit()


def versions() -> str:
    """Return the version in the first line, and a line for each part below; no library is imported."""
    lines = {"python": f"{platform.python_version()}, {platform.system()} {platform.machine()}", "native": _native()}
    lines |= {name: _installed(name) for name in LIBRARIES}
    width = max(map(len, lines))
    return "\n".join([f"layertap {__version__}", *(f"  {name:<{width}}  {text}" for name, text in lines.items())])


def _native() -> str:
    """Describe the kernels: their compiler, and the instruction sets that this processor can run."""
    from layertap.backends.here import native_absence, native_kernels

    absence = native_absence()
    if absence is not None:
        return f"none: {absence.removeprefix('native ')}"
    kernels = native_kernels()
    return f"{kernels.compiler()}; here {', '.join(kernels.instruction_sets())}"


def _installed(name: str) -> str:
    """Return the version of an installed library, as its metadata state it."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
