"""The documentation is true: its commands and code run as printed, and results have the shapes that it states.

In a python block, a comment that begins with a dtype and a shape, or that is a Python value, is compared with the value
of the expression before it. `feature` blocks list features with their shapes, `refused` blocks features with a part of
the error message.
"""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layertap.cli.main import main
from layertap.engine.extractor import Extractor
from layertap.errors import UsageError
from layertap.features.parse import parse
from layertap.features.plan import make_plan
from layertap.features.schema import ModelFacts
from layertap.models.config import ConfigReader
from layertap.models.registry import ARCHITECTURES, architecture
from layertap.models.sentence import SentenceEmbeddingSpec
from layertap.records import AttentionMaps, FeatureSchema, Ragged

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/tour.md", "docs/features.md", "docs/inputs.md", "docs/scale.md")
"""Pages whose commands run."""

CODE = (*PAGES, "docs/explore.md", "docs/transformers.md", "docs/sentence-encoder.md")
"""Pages whose Python runs."""

CHINESE = "README.zh-CN.md"
DOCS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
SHAPED = re.compile(r"(float32|float16|int8|uint8|int32|int64|bool) \[([\w, ]*)\]")

FILES = {
    "texts.txt": "a good film\nThe river bank.\n\nIt's an unbelievably dull one.\n",
    "corpus.txt": "one\ntwo\n",
    "texts.jsonl": '{"id": "a", "text": "a good film"}\n{"id": "b", "text": "a dull one"}\n',
    "reviews.csv": "id,review,stars\n1,a good film,5\n2,a dull one,1\n",
    "moods.csv": "text,mood\n" + "".join(f"a good film {i},up\na dull film {i},down\n" for i in range(10)),
    "tweets.conll": "Hello\tO\nParis\tB-location\n\nunbelievable\tO\n\n",
    "questions.jsonl": '{"id": "q0", "text": "Paris is a city.", "spans": [[0, 5]]}\n'
    '{"id": "q1", "text": "So is Rome.", "spans": [{"begin": 0, "end": 2}, [6, 10]]}\n',
    "pairs.tsv": "sentence_A\tsentence_B\nA man eats.\tSomeone eats.\n",
    "german.csv": "text;label\nGut, sehr gut;pos\nSchlecht;neg\n",
    "cola.tsv": "gj04\t1\t\tThe sailors rode the breeze.\nbc01\t0\t*\tThe box contained.\n",
    "novel.txt": "It was a dark\nand stormy night.\n\nNothing stirred.\n",
    "book.txt": "It was a dark and stormy night, " * 200 + "\n",
}

# of the size of all-MiniLM-L6-v2
CONFIG = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


def blocks(page: str, language: str) -> list[str]:
    """Return the fenced blocks of a language, except those between HTML comments, which CI runs."""
    text = re.sub(r"<!-- (\S+) -->.*?<!-- /\1 -->", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commented(page: str, language: str) -> list[tuple[str, str]]:
    """Return the lines of such blocks as pairs of code and comment."""
    lines = [line for block in blocks(page, language) for line in block.splitlines()]
    return [(code.strip(), comment.strip()) for code, _, comment in (line.partition(" # ") for line in lines)]


def facts() -> ModelFacts:
    return ModelFacts(
        spec=architecture("bert").spec(ConfigReader(CONFIG)),
        has_cls=True,
        pooler="trained",
        use_untrained_pooler=False,
        sentence_embedding=SentenceEmbeddingSpec(poolings=("mean",), steps=("normalize",), prompts={"query": "q: "}),
        max_length=512,
        max_length_override=None,
    )


def described(schema: FeatureSchema) -> str:
    """Return a schema as the page writes it, `float16 [T, 4, 384]`; float32 is left out."""
    letters = {"token": "T", "word": "W", "span": "S", "query": "T", "key": "T"}
    lengths = iter(schema.shape)
    axes = [letters[axis] if axis in letters else str(next(lengths)) for axis in schema.axes]
    return ("" if schema.dtype == "float32" else f"{schema.dtype} ") + f"[{', '.join(axes)}]"


@pytest.mark.parametrize(("text", "shape"), commented("docs/features.md", "feature"))
def test_a_feature_has_the_shape_that_the_page_says(text, shape):
    feature = parse(text)
    schema = make_plan({"v": feature}, facts()).schemas[0]
    assert described(schema) == shape


@pytest.mark.parametrize(("text", "reason"), commented("docs/features.md", "refused"))
def test_a_feature_is_refused_as_the_page_says(text, reason):
    with pytest.raises(UsageError) as refused:
        make_plan({"v": parse(text)}, facts())
    assert reason in str(refused.value)


def test_the_details_are_those_of_the_page(make_checkpoint, tmp_path):
    pytest.importorskip("torch")
    extractor = Extractor.from_pretrained(make_checkpoint(tmp_path / "bert"))
    text = (ROOT / "docs/features.md").read_text(encoding="utf-8").partition("## Details")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| \w+ \| (\w+(?: \[2\])?) \|", text, re.MULTILINE))
    _, *schemas = extractor.schema("v = last_hidden_state.mean", details=True)
    assert rows == {s.name: s.dtype + (" [2]" if s.shape else "") for s in schemas}


@pytest.mark.parametrize(("page", "separator"), [("README.md", ", "), (CHINESE, "、")])
def test_the_families_are_those_of_the_generated_page(page, separator):
    families = (ROOT / "docs/families.md").read_text(encoding="utf-8").partition("\n\n| family | states")[0]
    _, *rows = re.findall(r"^\| ([\w-]+)[^|]* \| `([\w-]+)` \|", families, re.MULTILINE)
    assert {model_type for _, model_type in rows} == set(ARCHITECTURES)
    listed = re.findall(r"<!-- families -->(.*?)<!-- /families -->", (ROOT / page).read_text("utf-8"), re.DOTALL)
    names = [name.strip() for name in listed[0].split(separator.strip())]
    assert names == list(dict.fromkeys(name for name, _ in rows)), "pytest tests/conformance -m '' --write-families"


@pytest.fixture
def folder(tmp_path, monkeypatch, minilm_folder) -> Path:
    """Make a folder with the files that the pages name, and change into it."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    # Both are set by the program, for its whole process.
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def commands(page: str) -> Iterator[list[str]]:
    """Yield the arguments of every `layertap` command of a page."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["layertap"]:
                yield words[1:]


@pytest.mark.parametrize("page", [*PAGES, "docs/explore.md"])
def test_commands_run(page, folder, capsys):
    listed = list(commands(page))
    assert listed
    for arguments in listed:
        if arguments[0] == "verify":
            pytest.importorskip("transformers")
            arguments = [*arguments, "--input", "texts.txt", "--max-texts", "2", "--precision", "float32"]
        if arguments[0] == "probe":
            pytest.importorskip("matplotlib")
        if arguments[0] == "explore":
            pytest.importorskip("sklearn")
        assert main(arguments) == 0, (arguments, capsys.readouterr().err)
        for place, argument in enumerate(arguments):
            if argument in ("-o", "--output"):
                assert (folder / arguments[place + 1]).stat().st_size > 0


@pytest.mark.parametrize("page", CODE)
def test_code_runs_and_gives_what_it_says(page, folder, make_checkpoint):
    small = make_checkpoint(folder / "bert")
    for arguments in commands(page):
        if arguments[0] == "extract" and arguments[arguments.index("-o") + 1] in ("words.parquet", "answers.parquet"):
            assert main(arguments) == 0
    names: dict[str, Any] = {}
    python = blocks(page, "python")
    assert python
    for block in python:
        if "sklearn" in block or "layertap.learn" in block:
            pytest.importorskip("sklearn")
        run(block.replace("path/to/bert-base-uncased", str(small)), names)


def test_the_chinese_page_has_the_same_commands_and_code():
    assert list(commands(CHINESE)) == list(commands("README.md"))
    english, chinese = ([ast.dump(ast.parse(block)) for block in blocks(p, "python")] for p in ("README.md", CHINESE))
    assert chinese == english


def test_the_chinese_page_states_the_same_figures():
    english, chinese = (
        Counter(re.findall(r"\d[\d,.]*\d|\d", prose((ROOT / page).read_text("utf-8"))))
        for page in ("README.md", CHINESE)
    )
    assert english - chinese == Counter()
    assert chinese - english == Counter()


def parts(page: str) -> dict[str, Counter[Any]]:
    """Return what a page in any language has the same number of times."""
    text = (ROOT / page).read_text("utf-8")
    without_blocks = re.sub(r"^```.*?^```\n", "", text, flags=re.DOTALL | re.MULTILINE)
    return {
        "headings": Counter(re.findall(r"^#+ ", without_blocks, re.MULTILINE)),
        "cells of rows": Counter(line.count("|") for line in without_blocks.splitlines() if line.startswith("|")),
        "links": Counter(re.findall(r"\]\((?!README)([^)]*)\)", without_blocks)),
        "code": Counter(
            code for code in re.findall(r"`([^`]+)`", without_blocks) if code.isascii() and "MODEL" not in code
        ),
        "blocks that CI runs": Counter(re.findall(r"<!-- (\S+) -->\n(```.*?)<!-- /\1 -->", text, re.DOTALL)),
    }


def test_the_chinese_page_has_the_same_parts():
    english, chinese = parts("README.md"), parts(CHINESE)
    assert all(english.values())
    assert chinese == english


@pytest.mark.parametrize("page", ["README.md", CHINESE])
def test_a_visitor_reads_the_page_in_three_minutes(page):
    assert len((ROOT / page).read_text("utf-8").splitlines()) <= 150


def test_the_list_of_pages_names_every_page():
    listed = set(re.findall(r"\]\(([^)#]+\.md)\)", (ROOT / "docs/README.md").read_text("utf-8")))
    assert {page.removeprefix("docs/") for page in DOCS} - {"README.md"} <= listed


def prose(page: str) -> str:
    """Return a page without its code and the targets of its links."""
    return re.sub(r"`[^`]*`|\]\([^)]*\)", "", re.sub(r"^```.*?^```\n", "", page, flags=re.DOTALL | re.MULTILINE))


FILE_LISTS = [line for line in (ROOT / "docs/extending.md").read_text("utf-8").splitlines() if re.match(r"\d\. ", line)]


@pytest.mark.parametrize("line", FILE_LISTS)
def test_a_file_to_touch_exists(line):
    """Files in the lists of `docs/extending.md` exist, except new ones: those with a placeholder, and the server's."""
    path = line.partition("`")[2].partition("`")[0]
    if "<" not in path and "serve" not in path:
        assert (ROOT / path).is_file(), line


def test_the_rooms_are_those_of_the_import_contract():
    """The picture of the rooms in `docs/structure.md` equals the first import contract."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    layers = next(contract["layers"] for contract in project["tool"]["importlinter"]["contracts"])
    room = (ROOT / "docs/structure.md").read_text("utf-8").partition("## The rooms")[2]
    drawn = re.findall(r"^    (.+)$", room.partition("`lint-imports`")[0], re.MULTILINE)
    assert drawn == [layer.replace("layertap.", "") for layer in layers]


@pytest.mark.parametrize("page", ["docs/structure.md", "docs/native.md", "CONTRIBUTING.md"])
def test_modules_that_a_page_names_exist(page):
    files = [
        path.relative_to(ROOT).as_posix()
        for folder in ("src", "tests", "native")
        for path in (ROOT / folder).rglob("*")
    ]
    named = re.findall(r"`([\w/.]+\.(?:py|hpp|cpp))`", (ROOT / page).read_text("utf-8"))
    assert named
    assert [name for name in named if not any(f"/{file}".endswith(f"/{name}") for file in files)] == []


def test_no_list_of_files_is_longer_than_five():
    assert {int(line[0]) for line in FILE_LISTS} == {1, 2, 3, 4, 5}


def run(block: str, names: dict[str, Any]) -> None:
    """Run a block statement by statement, and compare the values of expressions with their comments."""
    lines = block.splitlines()
    for statement in ast.parse(block).body:
        source = ast.get_source_segment(block, statement)
        assert source is not None
        compare = [inner for inner in [statement, *getattr(statement, "body", [])] if isinstance(inner, ast.Expr)]
        if isinstance(statement, ast.With):
            run_within(statement, lines, names)
        elif compare:
            assert statement.end_lineno is not None
            check(eval(source, names), lines[statement.end_lineno - 1])
        else:
            exec(compile(ast.Module([statement], []), "<page>", "exec"), names)


def run_within(statement: ast.With, lines: list[str], names: dict[str, Any]) -> None:
    """Run a `with` statement, and compare the values of the expressions in its body with their comments."""
    watched = [inner for inner in statement.body if isinstance(inner, ast.Expr)]
    check_name: Callable[[Any, int], Any] = lambda value, line: check(value, lines[line - 1])  # noqa: E731
    names["_check"] = check_name
    for inner in watched:
        line = ast.Constant(inner.end_lineno)
        inner.value = ast.Call(ast.Name("_check", ast.Load()), [inner.value, line], [])
    module = ast.fix_missing_locations(ast.Module([statement], []))
    exec(compile(module, "<page>", "exec"), names)


def check(value: Any, line: str) -> None:
    """Compare a value with the comment of its line, if the comment states a shape or a value."""
    comment = line.partition(" # ")[2].strip()
    shaped = SHAPED.match(comment)
    if shaped is not None:
        assert not isinstance(value, Ragged | AttentionMaps | dict), line
        assert f"{np.asarray(value).dtype} {list(np.shape(value))}" == shaped[0], line
    elif comment.startswith(("(", "[", "{", "'", "Ragged(")):
        assert repr(value) == comment, line


def test_a_wrong_comment_is_noticed():
    with pytest.raises(AssertionError):
        run("x = 1\n[x]  # [2]\n", {})
    with pytest.raises(AssertionError):
        run("import numpy as np\nnp.zeros(3, np.float32)  # float32 [4]\n", {})
    with pytest.raises(AssertionError):
        run("import io\nwith io.StringIO('a') as f:\n    f.read()  # 'b'\n", {})
    run("import io\nwith io.StringIO('a') as f:\n    f.read()  # 'a'\n", {})


def headings(page: Path) -> set[str]:
    """Return the names by which links reach the headings of a page."""
    lines = page.read_text(encoding="utf-8").splitlines()
    return {re.sub(r"[^\w\- ]", "", line).strip().lower().replace(" ", "-") for line in lines}


def test_links_lead_somewhere():
    for page in (*PAGES, CHINESE, "CONTRIBUTING.md", "CHANGELOG.md", *DOCS):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)):
            if "://" not in target:
                name, _, heading = target.partition("#")
                place = ((ROOT / page).parent / name) if name else ROOT / page
                assert place.exists(), (page, target)
                assert not heading or heading in headings(place), (page, target)
