"""The site of the documentation has every page and every public name, and its links are followed."""

from __future__ import annotations

import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import layertap
from layertap.errors import LayertapError

ROOT = Path(__file__).parents[1]
SITE = runpy.run_path(str(ROOT / ".ci/site.py"))


def pages_of(nav: list[dict[str, Any]]) -> Iterator[str]:
    for entry in nav:
        for target in entry.values():
            if isinstance(target, str):
                yield target
            else:
                yield from pages_of(target)


def test_the_navigation_names_every_page():
    nav = list(pages_of(tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]["nav"]))
    docs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    reference = {f"reference/{name}.md" for name in (*SITE["REFERENCE"], "commands")}
    assert len(nav) == len(set(nav))
    assert docs | reference <= set(nav)
    assert [page for page in nav if page not in reference and not (ROOT / page).is_file()] == []


def test_the_reference_names_everything_that_is_public():
    named = {line.removeprefix("::: ") for text in SITE["reference"]().values() for line in text.splitlines()}
    for module in ("layertap", "layertap.learn", *(["layertap.hf"] if find_spec("torch") else [])):
        public = {f"{module}.{name}" for name in import_module(module).__all__} - {"layertap.__version__"}
        assert public <= named
    errors = [
        line.removeprefix("::: layertap.") for line in SITE["reference"]()["errors"].splitlines() if ":::" in line
    ]
    assert all(issubclass(getattr(layertap, name), LayertapError) for name in errors), "give it a page in .ci/site.py"


def test_a_file_that_is_no_page_becomes_one():
    shown: set[Path] = set()
    text = SITE["linked"](ROOT / "docs/README.md", {ROOT / "docs/tour.md"}, shown)
    assert "](../LICENSE.md)" in text
    assert "](tour.md)" in text
    assert {ROOT / "LICENSE", ROOT / "CITATION.cff"} <= shown


def test_broken_links_are_found(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b/index.html").write_text('<h2 id="x">x</h2><img src="../p.png"><a href="https://elsewhere"></a>')
    (tmp_path / "p.png").touch()
    (tmp_path / "a.html").write_text('<a href="b/#x"></a><a href="#own"></a><p id="own"><a href="/b/"></a>')
    assert list(SITE["broken"](tmp_path)) == []
    (tmp_path / "a.html").write_text('<a href="b/#y"></a><img src="q.png"><a href="c/"></a>')
    assert list(SITE["broken"](tmp_path)) == ["a.html: b/#y", "a.html: q.png", "a.html: c/"]


@pytest.mark.stress  # as .ci/site, which .ci/run runs
@pytest.mark.skipif(find_spec("zensical") is None, reason="needs the extra `docs`")
def test_the_site_is_built():
    subprocess.run([sys.executable, ".ci/site.py", "pages"], cwd=ROOT, check=True)
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict"], cwd=ROOT, check=True)
    assert list(SITE["broken"](SITE["HTML"])) == []
