"""The guides as they stand there, blocks in their order, on the first rows of real data."""

from __future__ import annotations

import ast
import builtins
import json
import re
import shlex
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path

import pytest

from layertap.cli.main import main

ROOT = Path(__file__).parents[2]
GUIDES = ROOT / "docs/guides"
DATA = ROOT.parent / "shared/data"
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def place(tmp_path, monkeypatch, minilm_folder) -> Path:
    """Where the guides run, one thread."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there")
    for library in ("torch", "matplotlib", "seqeval"):
        pytest.importorskip(library, reason=f"{library} is not installed (extras: torch, learn)")
    monkeypatch.chdir(tmp_path)
    # Both are set by the program, for its whole process.
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    return tmp_path


def first(
    source: Path, target: Path, count: int, *, between: str = "\n", encoding: str = "utf-8", skip: int = 0
) -> None:
    """The first lines of a file, or with a blank line between them sentences, after those to skip."""
    target.parent.mkdir(parents=True, exist_ok=True)
    pieces = source.read_text(encoding).split(between)
    target.write_text(between.join(pieces[skip : skip + count]) + between, encoding)


def run(guide: str, *, without: Collection[str] = (), **changed: str) -> dict:
    """Runs a guide, each block by itself; `changed` are options of commands to change, which keep the test short.

    What the guide fetches has been put in place before. Servers, and lines in `without`, are left out.
    """
    last: dict = {}
    for kind, code in BLOCK.findall((GUIDES / guide).read_text("utf-8")):
        if kind == "python":
            last = {}
            exec(code, last)
            continue
        for line in code.splitlines():
            words = shlex.split(line)
            if words[0] in ("curl", "unzip") or words[:2] == ["layertap", "serve"] or line in without:
                continue
            assert words[0] == "layertap"
            words = [changed.get(before, word) for before, word in zip(["", *words], words, strict=False)]
            assert main([*words[1:], "--quiet"]) == 0, line
    return last


@pytest.mark.slow
def test_sentiment(place):
    for part, size in {"train": 120, "dev": 40, "test": 40}.items():
        name = f"stsa.binary.{part}.txt"
        first(DATA / "sst" / name, place / "sst" / name, size)
    names = run("sentiment.md", **{"--eval-steps": "2"})
    assert names["prediction"].label in ("positive", "negative")
    for file in ("moods.jsonl", "better.jsonl"):
        rows = [json.loads(line) for line in (place / file).read_text("utf-8").splitlines()]
        assert [row["mood"] in ("positive", "negative") for row in rows] == [True, True]
    assert (place / "sst-layers.png").stat().st_size > 10_000
    assert (place / "mood-model/curve.png").stat().st_size > 10_000


@pytest.mark.slow
def test_entities(place, capsys):
    source = DATA / "ner_wnut17"
    # tags of the ones stand in the other
    for part, size, skip in (("train", 200, 0), ("dev", 40, 200), ("test", 40, 200)):
        first(source / "wnut17train.conll", place / f"wnut/{part}.conll", size, between="\n\n", skip=skip)
    run("entities.md", **{"--eval-steps": "4"})
    posts = (place / "posts.txt").read_text("utf-8").splitlines()
    for file in ("posts.jsonl", "better.jsonl"):
        rows = [json.loads(line) for line in (place / file).read_text("utf-8").splitlines()]
        assert [len(row["ner"]) for row in rows] == [len(post.split()) for post in posts]
        for post, row in zip(posts, rows, strict=True):
            assert all(post[found["begin"] : found["end"]] == found["text"] for found in row["ner.entities"])
    assert (place / "wnut-layers.png").stat().st_size > 10_000
    assert (place / "ner-model/curve.png").stat().st_size > 10_000


@pytest.mark.slow
def test_layers(place):
    for part in ("va", "te"):
        name = f"sentence_length/{part}.txt"
        first(DATA / "probing_en" / name, place / "probing_en" / name, 90)
    # tags of the one stand in the other
    treebank = DATA / "ud_english_ewt/en_ewt-ud-train.conllu"
    for part, size, skip in (("train", 60, 0), ("test", 30, 60)):
        first(treebank, place / f"ewt/{part}.conllu", size, between="\n\n", skip=skip)
        first(DATA / f"trec_questions/{part}.txt", place / f"trec/{part}.txt", 2 * size, encoding="latin-1")
    run("layers.md")
    for picture in ("length.png", "pos.png", "kind.png"):
        assert (place / picture).stat().st_size > 10_000
    assert (place / "kind.parquet").is_file()


@pytest.mark.slow
def test_deploying(place):
    pytest.importorskip("sentence_transformers")
    for part, size in (("train", 120), ("test", 60)):
        first(DATA / f"trec_questions/{part}.txt", place / f"trec/{part}.txt", size, encoding="latin-1")
    graph = "layertap save 'v = hidden_states[-4:].layer_sum.mean' -o v.onnx"
    assert graph in (GUIDES / "deploying.md").read_text("utf-8")
    has_runtime = find_spec("onnxruntime") is not None and find_spec("onnx") is not None
    names = run("deploying.md", without=() if has_runtime else (graph,))
    assert names["saved"].blocks == (4, 6)
    assert (place / "questions/README.md").is_file()
    assert (place / "v.onnx").is_file() == has_runtime


def test_pictures_and_links_are_there():
    for guide in GUIDES.glob("*.md"):
        targets = re.findall(r"\]\(([^)\s]+)\)", guide.read_text("utf-8"))
        assert any(target.endswith(".png") for target in targets)
        local = [target for target in targets if "://" not in target]
        assert all((GUIDES / target.partition("#")[0]).exists() for target in local), guide


@pytest.mark.parametrize(
    "page", ["learn", "heads", "finetuning", "guides/deploying", "guides/entities", "guides/layers", "guides/sentiment"]
)
def test_a_page_says_where_its_data_comes_from_and_each_block_has_its_imports(page):
    """Files of a page are fetched or written on it, and no block uses a name of another."""
    text = (ROOT / f"docs/{page}.md").read_text("utf-8")
    blocks = BLOCK.findall(text)
    for folder in {*re.findall(r"\b(sst|wnut|trec|probing_en)/", "".join(code for _, code in blocks))}:
        fetched = re.search(rf"^(curl|unzip) .*{folder}", text, re.MULTILINE)
        assert fetched or "(guides/" in text, (page, folder)
    for kind, code in blocks:
        if kind == "python":
            assert unbound(code) == [], (page, code)


def unbound(code: str) -> list[str]:
    """Names that a block uses and does not bind."""
    nodes = list(ast.walk(ast.parse(code)))
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    bound |= {
        alias.asname or alias.name
        for node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return sorted(used - bound - set(dir(builtins)))
