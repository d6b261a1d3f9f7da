"""Rows of labelled files that cannot be used: `--on-error skip` in every command that learns."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra: learn)")
pytest.importorskip("torch", reason="torch is not installed (extra: torch)")

GOOD = [{"text": f"a {word} film {i}", "label": label} for i in range(6) for word, label in (("good", 1), ("bad", 0))]
WANTED = [(3, "line 4"), (7, "line 8")]


@pytest.fixture
def data(tmp_path):
    lines = [json.dumps(row) for row in GOOD]
    lines.insert(3, json.dumps({"text": "no label", "label": None}))
    lines.insert(7, "no JSON")
    (tmp_path / "data.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "data.jsonl"


COMMANDS = {
    "fit": (["fit", "data.jsonl", "-o", "out"], "out.errors.jsonl"),
    "probe": (["probe", "data.jsonl", "--folds", "2", "--layers", "1", "-o", "out.json"], "out.json.errors.jsonl"),
    "finetune": (["finetune", "data.jsonl", "-o", "out", "--epochs", "1"], "out.errors.jsonl"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_rows_are_refused_or_skipped_counted_and_listed(layertap, refused, model, data, monkeypatch, command):
    monkeypatch.chdir(data.parent)
    arguments, listed = COMMANDS[command]
    assert "data.jsonl: line 8: broken JSON" in refused(1, *arguments, "-m", model)
    assert "allowed" in refused(1, *arguments, "-m", model, "--on-error", "skip", "--max-errors", "1")
    assert not (data.parent / listed).exists()
    ended = layertap(*arguments, "-m", model, "--on-error", "skip")
    assert ended.code == 0, ended.err
    assert f"skipped: 2 rows of data.jsonl; all are listed in {listed}" in ended.err
    rows = [json.loads(line) for line in (data.parent / listed).read_text().splitlines()]
    assert [(row["source"], row["row"], row["where"]) for row in rows] == [
        ("data.jsonl", row, where) for row, where in WANTED
    ]
    assert "column 'label' is empty" in rows[0]["reason"]


def test_without_a_file_rows_are_printed(layertap, model, data):
    ended = layertap("probe", data, "--folds", "2", "--layers", "1", "-m", model, "--on-error", "skip")
    assert ended.code == 0, ended.err
    assert f"skipped: 2 rows of {data}\n  line 4: column 'label' is empty" in ended.err


def test_pairs_without_a_score_are_skipped(layertap, model, tmp_path):
    rows = [{"text": f"one {i}", "b": f"two {i % 3}", "label": i} for i in range(6)] + [{"text": "a", "b": "b"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row | {"label": row.get("label")}) + "\n" for row in rows))
    arguments = ["--pair-column", "b", "-m", model, "--layers", "1", "--on-error", "skip"]
    ended = layertap("probe", tmp_path / "pairs.jsonl", *arguments)
    assert ended.code == 0, ended.err
    assert "line 7: column 'label' is empty; expected a number" in ended.err
    assert "Scored on 6 pairs" in ended.out


def test_progress_says_what_is_fitted(layertap, model, data, monkeypatch):
    from layertap.engine import progress

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    options = ["-m", model, "--on-error", "skip"]
    ended = layertap("fit", data, "-o", data.parent / "h", "-f", "hidden_states[:].mean", *options)
    assert ended.code == 0, ended.err
    for what in ("layer 1 of 4 alone", "mix 7 of 7", "the classifier"):
        assert f"fitting {what} to 12 texts, 2 classes: iteration 1, loss 0." in ended.err
    ended = layertap("probe", data, "--folds", "2", *options)
    assert ended.code == 0, ended.err
    assert "probing hidden_states[0].mean (1 of 4), fold 2 of 2, random labels" in ended.err
    assert "probing hidden_states[3].mean (4 of 4), fold 1 of 2, 0:0" in ended.err
