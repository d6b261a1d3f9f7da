"""Damaged files of every format end in the project's own errors, within stated bounds of memory and time."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from layertap.data import open_reader
from layertap.errors import InputError, LayertapError
from tests.data.readers.mutations import attack, cases, read, seeds

FORMATS = tuple(seeds())


@pytest.mark.parametrize("format_", FORMATS)
def test_sound_files_are_read(tmp_path: Path, format_: str) -> None:
    for content, options in seeds()[format_]:
        path = tmp_path / f"sound.{format_}"
        path.write_bytes(content)
        assert [read(path, options, rewrite=kind) for kind in (None, "parquet", "jsonl")] == ["read"] * 3


@pytest.mark.parametrize("format_", FORMATS)
def test_damaged_files(tmp_path: Path, format_: str) -> None:
    endings = attack(format_, 200, tmp_path)
    assert endings.keys() <= {"read", "InputError", "UsageError"}
    assert endings["InputError"] >= 20  # the changes do reach the readers


@pytest.mark.parametrize(
    ("count", "seed"),
    [pytest.param(600, 1, marks=pytest.mark.slow), pytest.param(5000, 2, marks=pytest.mark.stress)],
)
@pytest.mark.parametrize("format_", FORMATS)
def test_more_damaged_files(tmp_path: Path, format_: str, count: int, seed: int) -> None:
    attack(format_, count, tmp_path, seed=seed)


def test_a_fault_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself: an error of another kind is not swallowed, and says which file it was."""

    def broken(line: bytes) -> str:
        raise KeyError("foreign")

    monkeypatch.setattr("layertap.data.readers.txt.decode", broken)
    with pytest.raises(KeyError) as error:
        attack("txt", 20, tmp_path)
    assert "txt, seed 0, mutation" in error.value.__notes__[0]


@pytest.mark.parametrize("format_", FORMATS)
def test_the_same_seed_makes_the_same_files(format_: str) -> None:
    def made(seed: int) -> list[tuple[bytes, dict[str, object]]]:
        return list(cases(format_, 20, seed))

    assert made(3) == made(3) != made(4)


@pytest.mark.parametrize(
    ("name", "content", "options", "words"),
    [
        ("a.conllu", "1\tI\t_\t_\t_\t_\t{}\t_\t_\t_\n".format("9" * 5000), {"columns": ["head"]}, "the head of word 1"),
        ("a.conllu", "{}-2\tI\t_\t_\t_\t_\t0\t_\t_\t_\n".format("9" * 5000), {}, "line 1: the id is"),
        ("a.conll", "a b\n", {"words_column": "col" + "9" * 5000}, "there is no words column"),
        ("a.jsonl", '{"text": ' + "9" * 5000 + "}\n", {}, "line 1: a whole number has more than"),
        ("a.jsonl", '{"text": "a", "deep": ' + "[" * 500 + "]" * 500 + "}\n", {}, "nested more than 100 deep"),
        (
            "a.jsonl",
            '{"text": "a", "deep": ' + '{"a":' * 500 + "1" + "}" * 500 + "}\n",
            {},
            "nested more than 100 deep",
        ),
        ("a.jsonl", '{"text": "a", "deep": ' + "[" * 100_000 + "}\n", {}, "nested more than 100 deep|broken JSON"),
    ],
)
def test_what_damage_once_found(
    tmp_path: Path, name: str, content: str, options: dict[str, object], words: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(LayertapError, match=words), open_reader(path, **options) as reader:  # type: ignore[arg-type]
        list(reader)
    if words.startswith(("the head", "line", "broken", "nested")):
        with open_reader(path, on_error="skip", **options) as reader:  # type: ignore[arg-type]
            assert list(reader) == []
        assert len(reader.errors) == 1


@pytest.mark.parametrize("depth", [1, 48, 49, 99])
def test_nested_json_is_carried_to_every_output(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "deep.jsonl"
    path.write_text('{"text": "a", "deep": ' + "[" * depth + "1" + "]" * depth + "}\n")
    assert [read(path, {}, rewrite=kind) for kind in ("parquet", "jsonl")] == ["read"] * 2
    (deep,) = pq.read_table(tmp_path / "out.parquet")["deep"].to_pylist()
    if depth > 48:
        assert deep == "[" * depth + "1" + "]" * depth  # as JSON text: Parquet has no type for it
        return
    for _ in range(depth):
        (deep,) = deep
    assert deep == 1


def test_a_column_name_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    path.write_text('{"text": "a", "\\ud800": 1}\n')
    assert read(path, {}, rewrite="jsonl") == "read"
    assert read(path, {}, rewrite="parquet") == "UsageError"


def test_broken_gzip_is_told_before_any_record(tmp_path: Path) -> None:
    for name in ("a.csv.gz", "a.jsonl.gz", "a.conll.gz", "a.conllu.gz", "a.tsv.gz"):
        path = tmp_path / name
        path.write_bytes(b"no gzip at all")
        with pytest.raises(InputError, match=r"the name ends in \.gz, but this is not a file that gzip made"):
            open_reader(path)
