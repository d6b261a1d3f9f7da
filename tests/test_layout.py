"""Tests lie where the code lies: `tests/<room>/test_<module>.py`, or `test_<module>_<aspect>.py`."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src/layertap"

# Folders and files that mirror something else than a module of src/layertap.
OTHERS = {
    "backends/native": "the C++ in native/, kernel by kernel, through its bindings",
    "benchmarks": "the package benchmarks",
    "conformance": "layertap.testing on every family",
    "zoo": "damaged checkpoints, through all modules that read them",
    "cli/test_bad_input.py": "every command",
    "cli/test_pipes.py": "every command",
    "cli/test_places.py": "every command",
    "cli/test_processes.py": "every command, as a process",
    "cli/test_streams.py": "every command, as a process",
    "hf/test_snippets.py": "code that people write for transformers",
    "integrations/test_recipes.py": "the page docs/integrations.md",
    "learn/test_finetuning_guide.py": "the page docs/finetuning.md",
    "learn/test_guide.py": "the page docs/learn.md and its examples",
    "learn/test_guides.py": "the pages in docs/guides",
    "learn/test_heads_guide.py": "the page docs/heads.md",
    "page/test_browser.py": "the page in a browser",
    "page/test_browser_live.py": "the page that a server shows, in a browser",
    "page/test_browser_looks.py": "contrast, motion and schemes of the page in a browser",
    "page/test_browser_real.py": "the page of real texts in a browser",
    "server/test_serve_guide.py": "the page docs/serve.md",
    "test_documentation.py": "the READMEs and the pages in docs",
    "test_front_door.py": "the package itself",
    "test_imports.py": "every module",
    "test_language.py": "docstrings and names of every module",
    "test_layout.py": "this folder",
    "test_site.py": "the documentation as a site",
    "test_using_features.py": "the page docs/using-features.md",
}


def modules(folder: Path) -> set[str]:
    """Names of the modules and packages in a folder of src/layertap, private ones without their underscore."""
    if not folder.is_dir():
        return set()
    return {
        path.stem.lstrip("_")
        for path in folder.iterdir()
        if path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").is_file())
    }


def test_every_test_file_has_its_module():
    strays = []
    for path in sorted(TESTS.rglob("test_*.py")):
        name = path.relative_to(TESTS).as_posix()
        if any(name == other or name.startswith(f"{other}/") for other in OTHERS):
            continue
        aspect = path.stem.removeprefix("test_")
        here = modules(SOURCE / path.parent.relative_to(TESTS))
        if not any(aspect == module or aspect.startswith(f"{module}_") for module in here):
            strays.append(name)
    assert not strays, f"no module of this name in the same room of src/layertap: {strays}"


def test_exceptions_are_there():
    assert [other for other in OTHERS if not (TESTS / other).exists()] == []
