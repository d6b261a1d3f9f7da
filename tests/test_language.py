"""Docstrings begin with a phrase that makes sense alone, and no variable is called `found`."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A first line that opens with one of these completes a sentence that stands somewhere else: the name of the function,
# the class, the docstring above.
OPENINGS = (
    "Of",
    "What",
    "Whose",
    "Which",
    "Who",
    "That",
    "As",
    "Than",
    "And",
    "Or",
    "But",
    "Those",
    "These",
    "It",
    "They",
)
FEWEST_WORDS = 4


def modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in ("src/layertap", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))


def docstrings(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those after an attribute included."""
    for node in ast.walk(module):
        body = getattr(node, "body", ())
        for statement in body if isinstance(body, list) else ():
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    yield statement.lineno, text


def fault(text: str) -> str | None:
    """Why a docstring makes no sense alone; None if it passes."""
    words = text.strip().partition("\n")[0].split()
    if len(words) < FEWEST_WORDS:
        return f"its first line has fewer than {FEWEST_WORDS} words"
    if words[0].rstrip(",:") in OPENINGS or words[:2] == ["The", "same"]:
        return f"it begins with {words[0]!r}"
    return None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Label names by column.", None),
        ("Label names;\nposition i belongs to column i.", "fewer than 4"),
        ("Of the features and the details.", "'Of'"),
        ("\n    What changes the results.\n", "'What'"),
        ("Which, if any, is not there.", "'Which,'"),
        ("The same of pairs, at random.", "'The'"),
        ("The same\nof pairs.", "fewer than 4"),
    ],
)
def test_a_riddle_is_recognised(text, why):
    assert why in fault(text) if why else fault(text) is None


def test_docstrings_make_sense_alone():
    faults = [
        f"{name}:{line}: {why}: {text.strip()[:60]}"
        for name, module in modules()
        for line, text in docstrings(module)
        if (why := fault(text))
    ]
    assert not faults, "\n".join(faults)


def test_no_variable_is_called_found():
    faults = [
        f"{name}:{node.lineno}: name the value: `names`, `weights`, `schema`, ..."
        for name, module in modules()
        for node in ast.walk(module)
        if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == "found")
        or (isinstance(node, ast.arg) and node.arg == "found")
    ]
    assert not faults, "\n".join(faults)
