"""Everything that can be wrong with what a user gives: one message, an exit code, and nothing written."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

Run = Callable[..., Any]
ONE_THREAD = ("--threads", "1")
NO_MODEL = ("-m", "./there/is/no/such/model")


@pytest.fixture(autouse=True)
def _nothing_is_written(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "out").mkdir()
    yield
    assert list((tmp_path / "out").iterdir()) == []


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out" / "o.parquet"


def put(path: Path, content: bytes | str) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "options", "code", "said"),
    [
        ("in.jsonl", '{"text": "a"}\n{"text": \n', (), 1, ["in.jsonl", "line 2", "broken JSON"]),
        ("in.jsonl", '{"text": "a"}\n{"text": null}\n', (), 1, ["line 2", "'text' is null"]),
        ("in.jsonl", '{"text": "a"}\n{"text": 3}\n', (), 1, ["line 2", "a number, not a text"]),
        ("in.jsonl", '{"review": "a"}\n', (), 2, ["no column 'text'", "'review'", "--text-column"]),
        ("in.jsonl", '{"text": "a"}\n', ("--text-column", "txt"), 2, ["no column 'txt'", "'text'"]),
        ("in.jsonl", '{"text": "a"}\n', ("--columns", "stars"), 2, ["no column 'stars'"]),
        ("in.jsonl", '{"text": "a"}\n', ("--id-column", "key"), 2, ["no column 'key'"]),
        ("in.txt", b"fine\nna\xefve\n", (), 1, ["in.txt", "line 2", "not UTF-8", "0xef"]),
        ("in.txt", "a\n", ("--text-column", "text"), 2, ["txt, which has no columns"]),
        ("in.csv", "text,n\na,1\nb\n", (), 1, ["line 3", "1 field under a header of 2"]),
        ("in.parquet", "no parquet", (), 1, ["no readable Parquet file"]),
        ("in.doc", "a\n", (), 2, ["does not say the format", "--input-format"]),
    ],
)
def test_inputs(
    refused: Run, tmp_path: Path, output: Path, name: str, content: Any, options: Any, code: int, said: list[str]
) -> None:
    # Met before the model is looked for: there is none.
    message = refused(code, "extract", put(tmp_path / name, content), "-o", output, *NO_MODEL, *options)
    for part in said:
        assert part in message


def test_no_such_input(refused: Run, tmp_path: Path, output: Path) -> None:
    assert "in.txt: no such file" in refused(1, "extract", tmp_path / "in.txt", "-o", output, *NO_MODEL)
    assert "this is a directory" in refused(1, "extract", tmp_path, "-o", output, *NO_MODEL)


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        ("last_hiden_state.mean", ["did you mean 'last_hidden_state'", "\n  ^"]),
        ("v = hidden_states[1", ["  v = hidden_states[1\n", "^"]),
        ("sentence_embeding", ["did you mean 'sentence_embedding'"]),
        ("v w = last_hidden_state", ["^"]),
    ],
)
def test_feature_texts(refused: Run, texts: Path, output: Path, feature: str, said: list[str]) -> None:
    message = refused(2, "extract", texts, "-o", output, *NO_MODEL, "-f", feature)
    for part in said:
        assert part in message


def test_features_that_the_model_does_not_have(refused: Run, model: Path, texts: Path, output: Path) -> None:
    asked = ("extract", texts, "-o", output, "-m", model, "-f")
    assert "this model's layers are 0 (embedding output) to 3 (last)" in refused(2, *asked, "hidden_states[4].mean")
    assert "declares none" in refused(2, *asked, "sentence_embedding")
    assert "'v' is there twice" in refused(2, *asked, "v = last_hidden_state.mean", "-f", "v = last_hidden_state.cls")
    assert "takes 1 to 64 tokens" in refused(2, *asked, "last_hidden_state.mean", "--max-length", "65")


def test_a_feature_called_like_a_column(refused: Run, model: Path, tmp_path: Path, output: Path) -> None:
    source = put(tmp_path / "in.jsonl", '{"text": "a", "v": 1}\n')
    message = refused(2, "extract", source, "-o", output, "-m", model, "-f", "v = last_hidden_state.mean")
    assert "'v': a feature and a column of the output have the same name" in message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-length", "0"), "max_length 0"),
        (("--max-length", "ten"), "--max-length: invalid int value: 'ten'"),
        (("--batch-tokens", "-5"), "batch_tokens -5"),
        (("--threads", "0"), "--threads 0"),
        (("--threads", "99999"), "--threads 99999: this machine has"),
        (("--precision", "float64"), "--precision: invalid choice: 'float64'"),
        (("--output-format", "csv"), "--output-format: invalid choice: 'csv'"),
        (("--max-errors", "3"), "goes with on_error 'skip'"),
        (("--disable-rule", "magic"), "--disable-rule: invalid choice: 'magic'"),
        (("--outptu", "x"), "there is no option --outptu; did you mean --output? `layertap extract --help`"),
        (("--offlin",), "there is no option --offlin; did you mean --offline?"),
    ],
)
def test_options(refused: Run, texts: Path, output: Path, options: tuple[str, ...], said: str) -> None:
    assert said in refused(2, "extract", texts, "-o", output, *NO_MODEL, *options)


def test_options_that_a_format_has_no_place_for(refused: Run, texts: Path, tmp_path: Path) -> None:
    npy = ("extract", texts, "-o", tmp_path / "out" / "o.npy", *NO_MODEL)
    assert "npy holds no other columns" in refused(2, *npy, "--columns", "a")
    assert "npy holds no ids" in refused(2, *npy, "--id-column", "a")
    assert "no place for the numbers" in refused(2, *npy, "--on-error", "skip")
    assert "beside the output" in refused(2, "extract", texts, "-o", "-", *NO_MODEL, "--on-error", "skip")


def test_npy_holds_one_feature(refused: Run, model: Path, texts: Path, tmp_path: Path) -> None:
    npy = ("extract", texts, "-o", tmp_path / "out" / "o.npy", "-m", model, *ONE_THREAD)
    two = ("-f", "last_hidden_state.cls", "-f", "last_hidden_state.mean")
    assert "npy holds one array, and there are 2" in refused(2, *npy, *two)


def test_no_such_model(refused: Run, texts: Path, output: Path) -> None:
    assert "no such model folder" in refused(1, "extract", texts, "-o", output, *NO_MODEL)
    message = refused(2, "extract", texts, "-o", output, "-m", texts.parent, "--revision", "main")
    assert "only for models on the hub" in message


def test_a_model_that_is_not_in_the_cache(refused: Run, texts: Path, output: Path, tmp_path: Path) -> None:
    message = refused(
        1, "extract", texts, "-o", output, "-m", "nobody/nothing", "--offline", "--cache-dir", tmp_path / "cache"
    )
    assert "only local files were to be used" in message


def test_damaged_weights(refused: Run, make_checkpoint: Run, texts: Path, output: Path, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "m")
    weights = model / "model.safetensors"
    asked = ("extract", texts, "-o", output, "-m", model, *ONE_THREAD)
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1000])
    assert "model.safetensors" in refused(1, *asked)
    weights.write_bytes(whole[:4])
    assert "model.safetensors" in refused(1, *asked)
    # the last float32 of the file becomes NaN
    weights.write_bytes(whole[:-4] + np.float32(np.nan).tobytes())
    message = refused(1, *asked, "-f", "pooler_output", "-f", "hidden_states[:].mean")
    assert "NaN or infinity" in message
    assert f"{weights}: " in message


def test_wrong_shapes(refused: Run, make_checkpoint: Run, texts: Path, output: Path, tmp_path: Path) -> None:
    model = make_checkpoint(tmp_path / "m")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"intermediate_size": 128}))
    message = refused(1, "extract", texts, "-o", output, "-m", model, *ONE_THREAD)
    assert "encoder.layer.0.intermediate.dense.weight: expected shape [128, 32]" in message
    assert "found [64, 32]" in message


def test_tokenizer_and_model_that_do_not_match(
    refused: Run, make_checkpoint: Run, texts: Path, output: Path, tmp_path: Path
) -> None:
    model = make_checkpoint(tmp_path / "m", tokenizer=False, vocab_size=50)
    other = make_checkpoint(tmp_path / "other")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).write_bytes((other / name).read_bytes())
    message = refused(1, "extract", texts, "-o", output, "-m", model, *ONE_THREAD)
    assert "expected ids that have a row in the model's table of 50" in message


def test_results_that_are_not_finite(
    layertap: Run, refused: Run, make_checkpoint: Run, write_tensors: Run, texts: Path, output: Path, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    model = make_checkpoint(tmp_path / "m")
    arrays = load_file(model / "model.safetensors")
    arrays["encoder.layer.2.output.LayerNorm.weight"][:] = 3e38
    write_tensors(model, arrays)
    asked = ("extract", texts, "-o", output, "-m", model, "-f", "v = last_hidden_state.max", *ONE_THREAD)
    assert "NaN or infinity in the result of record row 0" in refused(1, *asked)
    kept = layertap(*asked, "--non-finite", "keep")
    assert kept.code == 0, kept.err
    output.unlink()


def test_outputs(refused: Run, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("extract", texts, *NO_MODEL, "-o")
    assert "there is no folder" in refused(1, *asked, tmp_path / "nowhere" / "o.parquet")
    assert "there is no folder" in refused(1, *asked, texts / "o.parquet")
    (tmp_path / "folder.parquet").mkdir()
    assert "this is a directory" in refused(1, *asked, tmp_path / "folder.parquet")
    assert "does not say the format" in refused(2, *asked, tmp_path / "o.csv")
    assert "parquet cannot be written to standard output" in refused(2, *asked, "-", "--output-format", "parquet")
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "is not writable" in refused(1, *asked, tmp_path / "o.parquet")


def test_the_input_is_not_written_over(refused: Run, model: Path, tmp_path: Path) -> None:
    source = put(tmp_path / "in.jsonl", '{"text": "a"}\n')
    link = tmp_path / "link.jsonl"
    link.symlink_to(source)
    for output in (source, link):
        assert "is the input too" in refused(2, "extract", source, "-o", output, "-m", model, "--overwrite")
    assert source.read_text() == '{"text": "a"}\n'


@pytest.mark.parametrize("suffix", ["parquet", "safetensors", "npy", "npz", "jsonl"])
def test_a_full_disk(
    refused: Run, model: Path, texts: Path, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    output = tmp_path / "out" / f"o.{suffix}"
    message = refused(1, "extract", texts, "-o", output, "-m", model, "-q", *ONE_THREAD)
    assert f"o.{suffix}: cannot be written: the disk is full; nothing is left of it" in message
    assert message.endswith("\n5 texts were done\n")


def test_a_full_disk_under_the_list_of_errors(
    refused: Run, model: Path, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    source = put(tmp_path / "in.jsonl", '{"text": "a"}\n{}\n')
    monkeypatch.setattr(os, "fsync", full)
    message = refused(1, "extract", source, "-o", output, "-m", model, "-q", "--on-error", "skip", *ONE_THREAD)
    # The list is a companion of the output: neither is there without the other.
    assert "o.parquet: cannot be written: the disk is full; nothing is left of it" in message
    assert not list(output.parent.iterdir())


def test_a_row_that_breaks_in_the_middle_of_a_run(
    refused: Run, model: Path, tmp_path: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As with a file too large for a first look.
    monkeypatch.setattr("layertap.data.survey.SURVEY_BYTES", 0)
    source = put(tmp_path / "in.txt", b"a good film\n" * 1100 + b"\xff\n" + b"a good film\n" * 300_000)
    message = refused(1, "extract", source, "-o", output, "-m", model, "-q", "--batch-tokens", "64", *ONE_THREAD)
    assert "line 1101: not UTF-8" in message
    done = message.splitlines()[-1].split()
    assert done[1:4] == ["texts", "were", "done;"]
    assert 0 < int(done[0].replace(",", "")) < 1100


def test_an_error_that_is_not_meant_to_happen(
    layertap: Run, refused: Run, model: Path, texts: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr("layertap.jobs.run.count_records", broken)
    asked = ("extract", texts, "-o", output, "-m", model)
    message = refused(1, *asked)
    assert message.splitlines()[0] == "RuntimeError: first line"
    assert "--debug" in message
    assert "Traceback (most recent call last)" in layertap(*asked, "--debug").err


def test_too_little_memory(
    refused: Run, model: Path, texts: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("layertap.engine.pipeline.Pipeline._start", greedy)
    assert "out of memory" in refused(1, "extract", texts, "-o", output, "-m", model, "-q", *ONE_THREAD)


def test_ctrl_c_says_what_was_done(
    layertap: Run, model: Path, texts: Path, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("layertap.engine.pipeline.Pipeline._start", stop)
    ended = layertap("extract", texts, "-o", output, "-m", model, "-q", *ONE_THREAD)
    assert ended.code == 130
    assert ended.err == f"layertap: stopped; 0 texts were done; {output} was not written\n"
