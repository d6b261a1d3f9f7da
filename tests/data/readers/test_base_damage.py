"""Damaged files of every format end in the project's own errors, within stated bounds of memory and time."""

from __future__ import annotations

from pathlib import Path

import pytest

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


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
def test_more_damaged_files(tmp_path: Path, format_: str) -> None:
    attack(format_, 2000, tmp_path, seed=1)


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
