from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

Run = Callable[..., Any]

TORCH = ("--backend", "torch", "--precision", "float32")


def test_the_native_backend(layertap: Run, model: Path) -> None:
    native = pytest.importorskip("layertap.backends.native._native", reason="the native module is not built")
    best = native.instruction_sets()[0]
    precisions = native.precisions(best)
    ended = layertap("verify", model, "--backend", "native", "--threads", "1")
    assert ended.code == 0, ended.out
    assert ended.out.endswith(f"passed: {len(precisions)} setups, every figure within its bound\n")
    for precision in precisions:
        name = "x86" if precision == "float32" else best
        assert f"native on cpu ({name}), {precision}: passed" in ended.out
    alone = [line.split() for line in ended.out.splitlines() if "- packed" in line]
    assert len(alone) == 2 * len(precisions)
    assert all(line[3:] == ["0", "1.000000"] for line in alone), "the same bits in every batch"


def test_a_model_that_is_the_same(layertap: Run, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "certificate.json"
    ended = layertap("verify", model, "-o", output, "--backend", "torch")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0] == "tiny-bert"
    assert lines[-1] == "passed: 2 setups, every figure within its bound"
    assert max(map(len, lines)) <= 100
    for name in ("hidden_states[0]", "hidden_states[3]", "pooler_output", "alone", "shuffled"):
        assert sum(line.split()[:1] == [name] for line in lines) == 2
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["passed"] is True
    assert found["model"] == "tiny-bert"
    assert len(found["results"]) == 2
    assert list(tmp_path.iterdir()) == [output], "no part is left"


def test_a_model_that_is_another(
    layertap: Run, model: Path, make_checkpoint: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from layertap.verify.reference import Reference

    other = Reference.load(make_checkpoint(tmp_path / "other", seed=1))
    monkeypatch.setattr(Reference, "load", lambda *_, **__: other)
    output = tmp_path / "certificate.json"
    ended = layertap("verify", model, "-o", output, *TORCH)
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.splitlines()[-1] == (
        "FAILED: torch on cpu, float32 (hidden_states[0], hidden_states[1], hidden_states[2] and 2 more)"
    )
    assert "hidden_states[0]" in ended.out
    assert json.loads(output.read_text(encoding="utf-8"))["passed"] is False
    assert layertap("verify", model, "-q", *TORCH).out.startswith("FAILED: torch on cpu, ")


def test_texts_of_the_user(layertap: Run, model: Path, texts: Path) -> None:
    ended = layertap("verify", model, "--input", texts, *TORCH, "--max-length", "32", "--threads", "1")
    assert ended.code == 0, ended
    assert "5 texts (texts.txt) of 2 to 32 tokens" in ended.out
    assert "32 tokens (the model takes 64)" in ended.out
    ended = layertap("verify", model, "--input", texts, *TORCH, "--max-texts", "2", "-q")
    assert ended.out == "passed: 1 setup, every figure within its bound\n"


def test_refusals(refused: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    there = tmp_path / "there.json"
    there.write_text("{}")
    assert "exists; name another output" in refused(2, "verify", model, "-o", there)
    assert "there is no folder" in refused(1, "verify", model, "-o", tmp_path / "no" / "c.json")
    assert "this machine has cpu" in refused(2, "verify", model, "--device", "cuda:99")
    assert "at least 1" in refused(2, "verify", model, "--max-texts", "0")
    assert "no backend and device that is compared here has it" in refused(
        2, "verify", model, "--backend", "torch", "--precision", "int8"
    )
    assert "pass --input, too" in refused(2, "verify", model, "--text-column", "text")
    assert "max_length 65 is out of range" in refused(2, "verify", model, "--max-length", "65")
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    assert "contains no text" in refused(2, "verify", model, "--input", empty)
    assert "no such" in refused(1, "verify", tmp_path / "nowhere").lower()
    assert there.read_text() == "{}"


def test_without_transformers(refused: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("layertap.verify.reference.metadata.version", version)
    said = refused(1, "verify", model)
    assert said == ("transformers, which models are compared with, is not installed: pip install 'layertap[verify]'\n")


def test_nothing_is_asked_of_the_network(layertap: Run, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def connect(*_: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    assert layertap("verify", model, "-q", *TORCH).code == 0
