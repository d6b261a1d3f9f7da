"""The page docs/integrations.md: each section's code runs with the library that it is about."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.test_documentation import run

SECTIONS = dict(
    re.findall(
        r"^## (.+?)\n(.*?)(?=^## |\Z)",
        (Path(__file__).parents[2] / "docs/integrations.md").read_text("utf-8"),
        re.DOTALL | re.MULTILINE,
    )
)
NEEDS = {
    "LangChain": ("langchain_core",),
    "LlamaIndex": ("llama_index.core",),
    "Haystack": ("haystack",),
    "MTEB": ("mteb",),
    "sentence-transformers": ("sentence_transformers",),
    "BERTopic": ("bertopic", "sklearn"),
    "KeyBERT": ("keybert",),
    "spaCy": ("spacy",),
    "datasets": ("datasets",),
    "Polars": ("polars",),
    "DuckDB": ("duckdb",),
}
"""Section -> packages without which it is skipped."""

# These libraries are not the project's: their deprecations are not its errors.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


def test_every_section_with_code_is_tested():
    assert [name for name, text in SECTIONS.items() if "```python" in text] == list(NEEDS)


@pytest.mark.parametrize("section", NEEDS)
def test_the_code_of_a_section_runs(section, minilm_folder, tmp_path, monkeypatch):
    for package in NEEDS[section]:
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")
    names: dict = {"__name__": "recipe"}
    blocks = re.findall(r"^```python\n(.*?)^```", SECTIONS[section], re.DOTALL | re.MULTILINE)
    assert blocks
    for block in blocks:
        run(block, names)
