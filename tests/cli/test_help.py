"""Help pages at every width, and in a pipe."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from layertap.cli.help import COMMAND_WORD, reflowed
from layertap.cli.main import COMMANDS, parser

Run = Callable[..., Any]


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def squeezed(page: str) -> str:
    """A page without its layout; Python 3.13 and rich write `-o, --output OUTPUT`."""
    return "".join(re.sub(r"^( +-\w) \S+, --", r"\1, --", page, flags=re.MULTILINE).split())


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_fits_the_terminal_and_says_the_same_in_colour(command, monkeypatch):
    arguments = [] if command is None else [command]
    pages = {}
    for columns in (40, 60, 80, 100, 160):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.delenv("FORCE_COLOR", raising=False)
        monkeypatch.setenv("NO_COLOR", "1")
        pages[columns] = page = help_of(arguments)
        width = min(120, max(60, columns))
        # A name or a quoted expression longer than a line stays whole.
        long = [line for line in page.split("\n") if len(line) >= width and len(COMMAND_WORD.findall(line)) > 3]
        assert not long, columns
        monkeypatch.delenv("NO_COLOR")
        monkeypatch.setenv("FORCE_COLOR", "1")
        coloured = help_of(arguments)
        assert "\x1b[" in coloured
        assert squeezed(plain(coloured)) == squeezed(page)
    assert pages[40] == pages[60]
    assert len({len(page.split("\n")) for page in (pages[60], pages[80], pages[100])}) == 3
    assert words(pages[80]) == words(pages[160])


def help_of(arguments: list[str]) -> str:
    root = parser(arguments[0] if arguments else None)
    for action in root._subparsers._group_actions if arguments else ():
        return action.choices[arguments[0]].format_help()
    return root.format_help()


def words(page: str) -> list[str]:
    return [word for word in page.split() if word != "\\"]


def test_long_commands_go_on_after_a_backslash_and_a_shell_reads_them_as_before():
    line = "  layertap extract a.csv -o out.parquet --text-column review -f 'v = hidden_states[-4:].layer_mean.mean'"
    broken = reflowed("examples:\n" + line, 50).removeprefix("examples:\n")
    assert max(map(len, broken.split("\n"))) <= 50
    assert len(broken.split("\n")) > 2
    assert shlex.split(broken.replace("\\\n", "")) == shlex.split(line)
    assert "-f 'v =" in broken  # an option and its value share a line


def test_paragraphs_are_filled_between_words():
    text = "One sentence that\ngoes on here.\n\nAnother paragraph, of a few words.\n  layertap short"
    assert reflowed(text, 24) == (
        "One sentence that goes\non here.\n\nAnother paragraph, of a\nfew words.\n  layertap short"
    )
    assert reflowed(text, 80).split("\n")[0] == "One sentence that goes on here."


def test_help_in_a_pipe_loads_no_rich():
    code = "import sys; from layertap.cli.main import main\ntry: main(['extract', '--help'])\nexcept SystemExit: pass\n"
    code += "sys.exit(any(name.partition('.')[0] in ('rich', 'rich_argparse', 'numpy') for name in sys.modules))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "\x1b" not in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["extract", "a.txt", "--outputt", "b"], "there is no option --outputt; did you mean --output?"),
        (["extract", "--text-colum=b", "a.txt"], "there is no option --text-colum; did you mean --text-column?"),
        (["probe", "a.csv", "--nothing-like-it"], "there is no option --nothing-like-it; `layertap probe --help`"),
        (["inspect", "a", "b.txt"], "unexpected: b.txt; `layertap inspect --help`"),
        (["--versio"], "there is no option --versio; did you mean --version?"),
    ],
)
def test_what_is_unknown_is_named_with_the_nearest(refused: Run, arguments, said):
    assert said in refused(2, *arguments)
