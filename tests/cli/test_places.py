"""No run writes over, replaces or removes what it reads, by whatever name."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from layertap.data.formats import open_writer
from layertap.jobs import run as jobs_run
from tests.adapters import write_adapter
from tests.writing import write

ROWS = "".join(
    json.dumps({"text": f"{'good' if i % 2 else 'bad'} {i}", "label": "pn"[i % 2]}) + "\n" for i in range(40)
)


@pytest.fixture
def kept(refused, tmp_path):
    """`kept(input, *command)`: the command is refused, and the input has its content afterwards."""

    def run(source: Path, *arguments: str | Path) -> str:
        write(source, ROWS)
        before = sorted(tmp_path.rglob("*"))
        said = refused(2, *arguments)
        assert source.read_text() == ROWS
        assert sorted(tmp_path.rglob("*")) == before
        return said

    return run


@pytest.mark.parametrize("overwrite", [(), ("--overwrite",)])
@pytest.mark.parametrize("on_error", [(), ("--on-error", "skip")])
@pytest.mark.parametrize(
    ("output", "companion"),
    [
        ("o.parquet", "o.parquet.errors.jsonl"),
        ("o.npz", "o.npz.errors.jsonl"),
        ("o.npy", "o.npy.errors.jsonl"),
        ("o.npy", "o.npy.provenance.json"),
        ("o.npy", "o.offsets.npy"),
        ("o.jsonl", "o.jsonl"),
        ("o.jsonl", "o.jsonl.errors.jsonl"),
        ("o.jsonl", "o.jsonl.provenance.json"),
    ],
)
def test_an_input_in_the_place_of_a_companion(kept, model, tmp_path, output, companion, overwrite, on_error):
    if output.endswith(".npy") and on_error:
        pytest.skip("npy has no place for the numbers of the rows that are left")
    source = tmp_path / companion
    command = ("extract", source, "--input-format", "jsonl", "-m", model, "-o", tmp_path / output)
    assert companion in kept(source, *command, *overwrite, *on_error)


@pytest.mark.parametrize("how", ["link", "hard link", "spelling", "output is a link"])
def test_by_another_name(kept, model, tmp_path, how):
    source, output = tmp_path / "o.npz.errors.jsonl", tmp_path / "o.npz"
    write(source, ROWS)
    other = tmp_path / "other.jsonl"
    if how == "link":
        other.symlink_to(source)
    elif how == "hard link":
        os.link(source, other)
    elif how == "spelling":
        other = tmp_path / "sub" / ".." / source.name
        (tmp_path / "sub").mkdir()
    else:
        (tmp_path / "link.npz").symlink_to(output)
        other, output = source, tmp_path / "link.npz"
    kept(source, "extract", other, "-m", model, "-o", output, "--overwrite")


def test_standard_streams(start, model, tmp_path):
    source = write(tmp_path / "o.npz.errors.jsonl", ROWS)
    with source.open() as stdin:
        ended = start_with(
            stdin, None, "extract", "-", "--input-format", "jsonl", "-m", model, "-o", tmp_path / "o.npz"
        )
    assert (ended.returncode, source.read_text()) == (2, ROWS)
    with source.open("a") as stdout:
        ended = start_with(None, stdout, "extract", source, "-m", model, "-o", "-", "-q")
    assert (ended.returncode, source.read_text()) == (2, ROWS)
    assert "standard output is the input too" in ended.stderr


def start_with(stdin, stdout, *arguments):
    import subprocess
    import sys

    return subprocess.run(
        [sys.executable, "-m", "layertap", *map(str, arguments)],
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src"), "OMP_NUM_THREADS": "1"},
    )


def test_what_probe_writes(kept, model, tmp_path):
    source, test = tmp_path / "data.json", write(tmp_path / "test.json", ROWS)
    command = ("probe", source, "--input-format", "jsonl", "--label", "label", "-m", model, "--overwrite", "-o")
    kept(source, *command, source)
    kept(source, *command, test, "--test", test)
    kept(source, *command, test, "--test", source, "--dev", test)
    kept(source, *command, tmp_path / "new.json", "-o", tmp_path / "." / "new.json")
    cached = tmp_path / "cache" / "identity.json"
    kept(cached, "probe", cached, *command[2:], tmp_path / "new.json", "--cache", tmp_path / "cache")


def test_what_fit_finetune_and_verify_write(layertap, kept, model, tmp_path):
    data = write(tmp_path / "data.jsonl", ROWS)
    head = tmp_path / "good.head"
    done = layertap("fit", data, "-m", model, "-o", head, "-f", "hidden_states[0].mean")
    assert done.code == 0, done
    inside = head / "more.jsonl"
    kept(inside, "fit", inside, "-m", model, "-o", head, "--overwrite")
    kept(inside, "fit", data, "--test", inside, "-m", model, "-o", head, "--overwrite")
    inside.unlink()
    training = tmp_path / "tuned.training" / "data.jsonl"
    kept(training, "finetune", training, "-m", model, "-o", tmp_path / "tuned", "--resume")
    pytest.importorskip("transformers")
    source = tmp_path / "certificate.json"
    kept(source, "verify", model, "--input", source, "--input-format", "jsonl", "-o", source, "--overwrite")


def test_models_and_heads_are_inputs_too(layertap, kept, make_checkpoint, tmp_path):
    model = make_checkpoint(tmp_path / "model")
    data = write(tmp_path / "data.jsonl", ROWS)
    weights = model / "model.safetensors"
    before = weights.read_bytes()
    kept(data, "extract", data, "-m", model, "-o", weights, "--overwrite")
    assert weights.read_bytes() == before
    write(model / "vectors.npz", b"")
    done = layertap("extract", data, "-m", model, "-o", model / "vectors.npz", "--overwrite", "-q")
    assert done.code == 0, done  # no file of the model's own
    adapter = tmp_path / "adapter"
    write_adapter(adapter, model)
    for target in (weights, adapter / "adapter_model.safetensors"):
        before = target.read_bytes()
        said = kept(data, "extract", data, "-m", adapter, "-o", target, "--overwrite")
        assert "is the input too" in said
        assert target.read_bytes() == before
    kept(data, "finetune", data, "-m", adapter, "-o", model)
    head = tmp_path / "good.head"
    assert layertap("fit", data, "-m", model, "-o", head, "-f", "hidden_states[0].mean").code == 0
    stored = next(head.glob("*.safetensors"))
    before = stored.read_bytes()
    kept(data, "predict", data, "--head", head, "-o", stored, "--overwrite")
    kept(data, "predict", data, "--head", f"name={head}", "-o", stored, "--overwrite")
    assert stored.read_bytes() == before


def test_an_output_that_appears_during_the_run_is_told_and_the_command_ends(refused, model, tmp_path, monkeypatch):
    source, output = write(tmp_path / "rows.jsonl", ROWS), tmp_path / "o.parquet"

    def opened(*arguments, **options):
        writer = open_writer(*arguments, **options)
        output.write_text("mine")
        return writer

    monkeypatch.setattr(jobs_run, "open_writer", opened)
    said = refused(1, "extract", source, "-m", model, "-o", output, "-q")
    assert "o.parquet has appeared during the run and is not overwritten; the finished output is" in said
    assert output.read_text() == "mine"


def test_standard_output_by_the_name_of_its_file_is_refused(model, tmp_path):
    source, redirected = write(tmp_path / "rows.jsonl", ROWS), write(tmp_path / "all.jsonl", "before\n")
    with redirected.open("a") as stdout:
        command = ("extract", source, "-m", model, "-o", "/dev/stdout", "--output-format", "jsonl", "--overwrite")
        ended = start_with(None, stdout, *command)
    assert (ended.returncode, redirected.read_text()) == (1, "before\n")
    assert "/dev/stdout: this is the name of an open file" in ended.stderr


def test_a_folder_in_the_place_of_an_earlier_list_of_errors_is_refused_before_the_run(refused, model, tmp_path):
    source = write(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "o.npz.errors.jsonl").mkdir()
    said = refused(1, "extract", source, "-m", "no-such-model", "-o", tmp_path / "o.npz", "--overwrite")
    assert "o.npz.errors.jsonl: this is a directory" in said


def test_a_file_in_the_place_of_the_state_of_a_training_run(refused, model, tmp_path):
    source = write(tmp_path / "rows.jsonl", ROWS)
    write(tmp_path / "tuned.training", "mine")
    said = refused(2, "finetune", source, "-m", model, "-o", tmp_path / "tuned")
    assert "tuned.training: the state of the run is kept in a folder of this name" in said
    assert (tmp_path / "tuned.training").read_text() == "mine"


def test_nobody_is_advised_to_remove_a_model_that_is_read(refused, make_checkpoint, tmp_path):
    source, model = write(tmp_path / "rows.jsonl", ROWS), make_checkpoint(tmp_path / "model")
    said = refused(2, "finetune", source, "-m", model, "-o", model)
    assert "which is read, stands there; name another output" in said


@pytest.mark.parametrize("command", ["extract", "fit", "predict"])
def test_a_current_folder_that_was_removed(layertap, refused, model, tmp_path, monkeypatch, command):
    source, head = write(tmp_path / "rows.jsonl", ROWS), tmp_path / "h.head"
    more = ()
    if command == "predict":
        assert layertap("fit", source, "-m", model, "-o", head).code == 0
        more = ("--head", head)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    said = refused(1, command, source, "-m", model, "-o", "o.jsonl", *more)
    assert "o.jsonl: cannot be written: the current folder is not there any more" in said
