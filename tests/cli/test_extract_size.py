"""`layertap extract` with attentions, and its forecast of bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("pyarrow")

from layertap import Extractor
from layertap.cli.units import bytes_of
from layertap.data import survey
from layertap.errors import OptionError

Run = Callable[..., Any]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20GB", 20 * 10**9),
        ("1.5 tb", 1_500_000_000_000),
        ("8GiB", 8 << 30),
        ("500M", 500_000_000),
        ("2KiB", 2048),
        ("1000000", 1_000_000),
        ("12 B", 12),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert bytes_of(text, "--max-output-size") == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "0", "1,5GB", "ten", "5 XB", "1e9"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(OptionError, match=r"--max-output-size .*: expected a size"):
        bytes_of(text, "--max-output-size")


@pytest.mark.parametrize("ending", ["npz", "jsonl"])
def test_attentions_in_a_file_are_those_of_the_extractor(
    layertap: Run, model: Path, texts: Path, tmp_path: Path, ending: str
) -> None:
    output = tmp_path / f"out.{ending}"
    asked = "a = attentions[:].heads(3, 0)"
    ended = layertap("extract", texts, "-o", output, "-m", model, "-f", asked, "--threads", "1")
    assert (ended.code, ended.out) == (0, "")
    assert "float32 [3 layers, 2 heads, T, T] a text" in ended.err
    lines = texts.read_text(encoding="utf-8").split("\n")[:-1]
    expected = Extractor.from_pretrained(model).extract(lines, "attentions[:].heads(3, 0)")
    if ending == "npz":
        np.testing.assert_array_equal(np.load(output)["a"], expected.values)
    else:
        rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
        for row, maps in zip(rows, expected, strict=True):
            np.testing.assert_allclose(np.array(row["a"]), maps, rtol=1e-6)


@pytest.mark.parametrize("large", [False, True], ids=["read through", "estimated"])
def test_refused_before_anything_is_written(
    refused: Run, layertap: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    source, output = tmp_path / "many.txt", tmp_path / "out.npz"
    source.write_text("the film was good\n" * 3000)
    if large:
        monkeypatch.setattr(survey, "SURVEY_BYTES", 20_000)
    asked = ("extract", source, "-o", output, "-m", model, "-f", "a = attentions[:]", "--threads", "1")
    needed = 3000 * 3 * 4 * 6 * 6 * 4
    ends = 3000 * 8 * 5
    message = refused(2, *asked, "--max-output-size", "5MB")
    assert message.startswith("the results would take about 5.30 MB for 3,000 texts (a 5.30 MB), past the limit")
    assert "--max-output-size 20GB" in message
    assert list(tmp_path.iterdir()) == [source]
    assert layertap(*asked, "--max-output-size", str(needed + ends)).code == 0
    assert np.load(output)["a"].nbytes == needed


def test_pairs_count_with_both_texts(refused: Run, layertap: Run, model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "pairs.jsonl", tmp_path / "out.npz"
    source.write_text('{"text": "the film", "pair": "was good"}\n' * 50)
    asked = ("extract", source, "-o", output, "-m", model, "--pair-column", "pair", "-f", "a = attentions[0]")
    needed = 50 * (4 * 7 * 7 * 4 + 8 * 4)  # CLS the film SEP was good SEP
    assert "50 texts" in refused(2, *asked, "--max-output-size", str(needed - 1), "--threads", "1")
    assert layertap(*asked, "--max-output-size", str(needed), "--threads", "1").code == 0
    assert np.load(output)["a"].size == 50 * 4 * 7 * 7


def test_refused_where_the_disk_has_no_room(
    refused: Run, layertap: Run, model: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out" / "o.npz"
    output.parent.mkdir()
    asked = ("extract", texts, "-o", output, "-m", model, "-f", "attentions[:]", "--threads", "1")
    assert layertap(*asked).code == 0
    size = np.load(output)["attentions[:]"].nbytes
    output.unlink()
    room = SimpleNamespace(free=size)  # not twice as much
    monkeypatch.setattr("shutil.disk_usage", lambda _: room)
    message = refused(1, *asked)
    assert "are needed" in message
    assert not output.exists()
    room.free = 3 * size
    assert layertap(*asked).code == 0


def test_an_unreadable_size(refused: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    message = refused(2, "extract", texts, "-o", tmp_path / "o.npz", "-m", model, "--max-output-size", "much")
    assert "expected a size, as 20GB" in message


def test_explain_prints_what_attentions_take(layertap: Run, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "two.txt"
    source.write_text("the film was good\nthe\n")
    ended = layertap("explain", source, "-m", model, "-f", "a = attentions[:]")
    assert ended.code == 0
    mean = 3 * 4 * 4 * (6**2 + 3**2) / 2
    line = next(line for line in ended.out.splitlines() if line.startswith("  a ") and "for 2 texts" in line)
    assert f"{mean / 1000:.2f} kB a text" in line
    assert f"{2 * mean / 1000:.2f} kB for 2 texts" in line
