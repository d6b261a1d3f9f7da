from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import layertap as package
from layertap.backends.facts import TRAINING_PRECISIONS
from layertap.cli import options
from layertap.cli.heads import FIXED
from layertap.cli.main import parser, warnings_as_notes
from layertap.data import READ_FORMATS, WRITE_FORMATS
from layertap.engine.options import OPTIONS, ModelReference, Runtime, Semantics
from layertap.features.rules import Rules

Run = Callable[..., Any]


def test_names_that_help_shows_are_those_of_the_rooms() -> None:
    choices = {action.dest: action.choices for action in _actions("extract")}
    assert list(choices["input_format"]) == list(READ_FORMATS)
    assert list(choices["output_format"]) == list(WRITE_FORMATS)
    assert {action.dest: action.choices for action in _actions("finetune")}["precision"] == TRAINING_PRECISIONS


def _actions(command: str) -> list[argparse.Action]:
    (commands,) = parser(command)._subparsers._group_actions
    return commands.choices[command]._actions


def test_every_option_of_the_engine_is_an_option_of_extract_with_its_default() -> None:
    given = parser("extract").parse_args(["extract", "a.txt", "-o", "b.npz"])
    assert set(OPTIONS) - set(vars(given)) == {"rules"}
    assert options.reference_of(given) == ModelReference()
    assert options.semantics_of(given) == Semantics()
    assert options.runtime_of(given) == Runtime()
    asked = ["--long", "window", "--window", "9", "--offline", "--disable-rule", "fold", "--batch-tokens", "7"]
    given = parser("extract").parse_args(["extract", "a.txt", "-o", "b.npz", *asked])
    assert options.semantics_of(given) == Semantics(long="window", window=9)
    assert options.reference_of(given) == ModelReference(local_files_only=True)
    assert options.runtime_of(given) == Runtime(batch_tokens=7, rules=Rules.without("fold"))


def test_options_that_a_fitted_head_brings_with_it() -> None:
    assert set(FIXED) == {"precision", "max_length", "word_pattern", "long", "truncate_side", "window", "overlap"}
    given = parser("predict").parse_args(["predict", "a.txt", "-o", "b.npz"])
    assert [getattr(given, name) for name in FIXED] == [None] * len(FIXED)


def test_version(layertap: Run) -> None:
    ended = layertap("--version")
    assert ended.code == 0
    assert ended.out.startswith(f"layertap {package.__version__}\n")


@pytest.mark.parametrize("command", [[], ["extract"], ["inspect"], ["explain"]])
def test_help(layertap: Run, command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    ended = layertap(*command, "--help")
    assert ended.code == 0
    assert ended.err == ""
    assert ended.out.startswith("usage: layertap")
    assert "examples:" in ended.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            [],
            "name a command: extract, inspect, explain, status, export, probe, explore, fit, ",
        ),
        (
            ["extrakt"],
            "'extrakt' (choose from 'extract', 'inspect', 'explain', 'status', 'export', 'probe', 'explore', 'fit'",
        ),
        (["extract", "x.txt"], "required: -o/--output; `layertap extract --help`"),
    ],
)
def test_wrong_usage(refused: Run, arguments: list[str], said: str) -> None:
    assert said.replace("'", "") in refused(2, *arguments).replace("'", "")


def test_warnings_are_notes(capsys: pytest.CaptureFixture[str]) -> None:
    shown = warnings.showwarning
    with warnings_as_notes():
        warnings.simplefilter("always")
        warnings.warn("the package is not used", stacklevel=1)
    assert capsys.readouterr().err == "layertap: note: the package is not used\n"
    assert warnings.showwarning is shown


@pytest.mark.parametrize(
    "command",
    [
        ("extract", "texts.txt", "-o", "{}.parquet"),
        ("extract", "texts.txt", "-o", "o.parquet", "-m", "{}"),
        ("predict", "texts.txt", "--head", "{}", "-o", "o.jsonl"),
        ("explore", "{}.csv", "-o", "page.html"),
        ("inspect", "{}"),
        ("export", "{}", "-o", "o.npy"),
    ],
)
def test_a_name_that_is_too_long(
    refused: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    if command[0] in ("predict", "explore"):
        pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("one\n", encoding="utf-8")
    said = refused(1, *(part.format("x" * 300) for part in command))
    assert "xxx" in said
    assert "name too long" in said or "its name is longer than the file system allows" in said
    assert "not meant to happen" not in said
    assert sorted(tmp_path.iterdir()) == [tmp_path / "texts.txt"]


def test_no_backend(refused: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layertap.backends.here.find_spec", lambda _: None)
    message = refused(1, "extract", tmp_path / "in.txt", "-o", tmp_path / "o.parquet")
    assert "pip install 'layertap[torch]'" in message


def test_messages_on_a_terminal_are_broken_between_words(
    layertap: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    unknown = "v = hidden_states[1].mean.and_a_step_that_is_not_there.and_another"
    err = layertap("extract", tmp_path / "in.txt", "-o", tmp_path / "o.npy", "-f", unknown).err
    *words, text, caret = err.splitlines()
    assert len(words) > 1
    assert all(len(line) <= 40 for line in words)
    # what the caret points at is not broken
    assert text.strip() == unknown
    assert caret.strip() == "^"
