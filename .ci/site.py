"""Pages of the documentation site: `site.py pages` gathers them, `site.py check` follows every link of the result.

The site has the folders of the repository, so that the links of its pages hold in both. A file that a page links to and
that is no page, such as an example, becomes a page that shows it. The reference is made here: one page for each group
of names, which mkdocstrings fills from docstrings, and one with the help of every command.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

from layertap.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "build/site/pages"
HTML = ROOT / "build/site/html"
SOURCES = ("*.md", "docs/**/*.md", "docs/pictures/*", "docs/*.css", "benchmarks/README.md", "benchmarks/results/*.md")
LANGUAGES = {".py": "python", ".cff": "yaml"}
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)(?=[)#])")

REFERENCE = {
    "extractor": (
        "Extractor",
        "layertap",
        ["Extractor", "Record", "Ragged", "AttentionMaps", "SentenceEncoder", "save"],
    ),
    "features": (
        "Features",
        "layertap",
        [
            "last_hidden_state",
            "hidden_states",
            "attentions",
            "pooler_output",
            "sentence_embedding",
            "features.expr.Expr",
            "concat",
            "parse",
            "Rules",
        ],
    ),
    "files": ("Files", "layertap", ["extract", "open", "FeatureFile", "FeatureDataset", "FeatureIterableDataset"]),
    "learn": ("layertap.learn", "layertap.learn", []),
    "hf": ("layertap.hf", "layertap.hf", []),
    "integrations": (
        "layertap.integrations",
        "layertap.integrations",
        [
            "langchain.LayertapEmbeddings",
            "llama_index.LayertapEmbedding",
            "haystack.LayertapTextEmbedder",
            "haystack.LayertapDocumentEmbedder",
            "mteb.LayertapEncoder",
        ],
    ),
    "testing": (
        "layertap.testing",
        "layertap.testing",
        ["families.FamilyRow", "suite.SmallModels", "suite.RealSizeModels"],
    ),
    "errors": ("Errors", "layertap", []),
}
"""Pages of the reference: title, module, and its names; none: those of its `__all__` that no page above has."""

OPENED = {"layertap.Extractor", "layertap.FeatureFile", "layertap.learn.Classifier", "layertap.learn.Head"}
"""Classes with functions that make their objects, in place of a constructor for users."""


def gather() -> None:
    """Write the pages of the site into `build/site/pages`."""
    shutil.rmtree(PAGES, ignore_errors=True)
    pages = sorted({path for pattern in SOURCES for path in ROOT.glob(pattern)})
    shown: set[Path] = set()
    for page in pages:
        copy = PAGES / page.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if page.suffix == ".md":
            copy.write_text(linked(page, set(pages), shown), encoding="utf-8")
        else:
            shutil.copyfile(page, copy)
    for path in sorted(shown):
        show(path)
    for name, text in {**reference(), "commands": commands()}.items():
        (PAGES / "reference").mkdir(exist_ok=True)
        (PAGES / f"reference/{name}.md").write_text(text, encoding="utf-8")


def linked(page: Path, pages: set[Path], shown: set[Path]) -> str:
    """Return the text of a page whose links to other files lead to the pages that show them; collect these files."""

    def replaced(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(page.parent / link[0]))
        if target in pages or not target.exists():
            return link[0]
        shown.add(target)
        return os.path.relpath(page_of(target), page.parent)

    blocks = re.split(r"(^```.*?^```\n)", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return "".join(block if block.startswith("```") else LINK.sub(replaced, block) for block in blocks)


def page_of(path: Path) -> Path:
    """Return the page that shows a file or the list of a folder."""
    return path / "index.md" if path.is_dir() else path.with_name(f"{path.name}.md")


def show(path: Path) -> None:
    """Write the page that shows a file, or that lists the pages of a folder."""
    name = path.relative_to(ROOT)
    if path.is_dir():
        text = f"# {name}\n\n" + "".join(f"- [{page.stem}]({page.name})\n" for page in sorted(path.glob("*.md")))
    else:
        text = f"# {name}\n\n~~~~ {LANGUAGES.get(path.suffix, 'text')}\n{path.read_text('utf-8')}~~~~\n"
    copy = PAGES / page_of(path).relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(text, encoding="utf-8")


def reference() -> dict[str, str]:
    """Return the pages of the reference, by name."""
    taken: set[str] = {"layertap.__version__"}
    pages = {}
    for page, (title, module, names) in REFERENCE.items():
        paths = [f"{module}.{name}" for name in names or import_module(module).__all__]
        paths = [path for path in paths if path not in taken]
        taken.update(paths)
        head = [] if module == "layertap" else [f"::: {module}\n    options:\n      members: false\n"]
        hidden = "    options:\n      merge_init_into_class: false\n"
        parts = [f"::: {path}\n" + (hidden if path in OPENED else "") for path in paths]
        pages[page] = "\n".join([f"# {title}\n", *head, *parts])
    return pages


def commands() -> str:
    """Return the page with the help of every command."""
    parts = [f"## {f'layertap {name}'.rstrip()}\n\n~~~~ text\n{helped(name)}~~~~\n" for name in ("", *COMMANDS)]
    return "\n".join(["# Commands\n", *parts])


def helped(command: str) -> str:
    """Return what `layertap COMMAND --help` prints."""
    call = [sys.executable, "-m", "layertap", *command.split(), "--help"]
    environment = {**os.environ, "COLUMNS": "88", "NO_COLOR": "1", "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(call, env=environment, check=True, capture_output=True, text=True).stdout


class Page(HTMLParser):
    """Anchors of an HTML page, and what it links to or shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.targets: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - any tag
        """Collect one tag."""
        for name, value in attrs:
            if value is not None and name == "id":
                self.anchors.add(value)
            elif value is not None and name in ("href", "src"):
                self.targets.append(value)


def broken(html: Path) -> Iterator[str]:
    """Yield the links of a site that lead to no file of the site or to no anchor of its pages."""
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(html.rglob("*.html"))}
    for path, page in pages.items():
        for target in page.targets:
            url = urlsplit(target)
            if url.scheme or url.netloc:
                continue
            folder = html if url.path.startswith("/") else path.parent
            place = Path(os.path.normpath(folder / unquote(url.path).lstrip("/"))) if url.path else path
            place = place / "index.html" if place.is_dir() else place
            anchors = pages[place].anchors if place in pages and url.fragment else {unquote(url.fragment)}
            if not place.is_file() or unquote(url.fragment) not in anchors:
                yield f"{path.relative_to(html)}: {target}"


def main(arguments: Iterable[str] | None = None) -> int:
    """Run one of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("pages", "check"))
    if parser.parse_args(arguments).part == "pages":
        gather()
        return 0
    links = list(broken(HTML))
    print("\n".join(links) or f"{len(list(HTML.rglob('*.html')))} pages, no broken link")
    return bool(links)


if __name__ == "__main__":
    sys.exit(main())
