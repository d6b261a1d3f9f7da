from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import layertap
from layertap import Extractor, hidden_states
from layertap.cli.main import main
from layertap.engine.summary import RunSummary
from layertap.errors import FeatureSyntaxError, InputError, OptionError, OutputError, UsageError
from layertap.jobs.job import Job
from layertap.jobs.run import open_job
from tests.writing import write

ROWS = [{"text": f"text {i} of some", "n": i, "id": f"id-{i}"} for i in range(30)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("jobs") / "tiny-bert")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "in.jsonl", ROWS)


@pytest.mark.parametrize("ending", ["parquet", "npz", "npy", "safetensors", "jsonl"])
def test_the_function_and_the_command_write_the_same_bytes(tmp_path, monkeypatch, model, source, ending):
    monkeypatch.setenv("RAYON_NUM_THREADS", "1")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    ours, theirs = tmp_path / f"a.{ending}", tmp_path / f"b.{ending}"
    summary = layertap.extract(source, ours, "v = hidden_states[1].mean.normalize", model=model, max_length=5)
    assert isinstance(summary, RunSummary)
    assert (summary.records, summary.cut_texts, summary.skipped) == (30, {5: 30}, 0)
    command = [
        "extract",
        source,
        "-o",
        theirs,
        "-f",
        "v = hidden_states[1].mean.normalize",
        "-m",
        model,
        "--max-length",
        5,
    ]
    assert main([*map(str, command), "-q"]) == 0
    assert ours.read_bytes() == theirs.read_bytes()


def test_features_details_and_columns(tmp_path, model, source):
    output = tmp_path / "out.parquet"
    features = {"low": hidden_states[0].mean, "high": "hidden_states[-1].cls"}
    layertap.extract(source, output, features, model=model, columns=["n"], details=["token_ids", "cut_tokens"])
    with layertap.open(output) as file:
        assert {"low", "high", "token_ids", "cut_tokens"} <= set(file[0])
        assert file.record("id-7")["low"].shape == (32,)
    other = tmp_path / "other.npz"
    extractor = Extractor.from_pretrained(model)
    layertap.extract(source, other, features, model=extractor, output_format="npz", progress=False)
    with layertap.open(output) as first, layertap.open(other) as second:
        assert (first["high"][:] == second["high"][:]).all()


def test_rows_that_are_left_out_are_counted_and_listed(tmp_path, model):
    source = write(tmp_path / "in.jsonl", b'{"text": "a"}\nbad\n{"text": "b"}\n')
    output = tmp_path / "out.npz"
    with pytest.raises(InputError, match="line 2"):
        layertap.extract(source, output, model=model)
    assert not output.exists()
    summary = layertap.extract(source, output, model=model, on_error="skip")
    assert (summary.records, summary.skipped) == (2, 1)
    assert [json.loads(line)["row"] for line in Path(f"{output}.errors.jsonl").read_text().splitlines()] == [1]
    with pytest.raises(UsageError, match="exists"):
        layertap.extract(source, output, model=model, on_error="skip")
    layertap.extract(source, output, model=model, on_error="skip", overwrite=True)
    with pytest.raises(InputError, match="more rows than the 0 allowed"):
        layertap.extract(source, tmp_path / "new.npz", model=model, on_error="skip", max_errors=0)


@pytest.mark.parametrize(
    ("kind", "words", "options"),
    [
        (FeatureSyntaxError, "hidden_stats", {"features": "hidden_stats[1].mean"}),
        (UsageError, "layer", {"features": "hidden_states[99].mean"}),
        (OptionError, "did you mean 'max_length'", {"max_lenght": 7}),
        (OptionError, "precision 'float8'", {"precision": "float8"}),
        (OptionError, "limit of", {"max_output_bytes": 100}),
        (OptionError, "max_output_bytes 0", {"max_output_bytes": 0}),
        (OptionError, "details", {"details": ["token_id"]}),
        (OptionError, "details is the string", {"details": "token_ids"}),
        (UsageError, "no column 'nope'", {"text_column": "nope"}),
        (OptionError, "columns is the string", {"columns": "n"}),
        (OptionError, "holds no other columns", {"columns": ["n"]}),
        (OptionError, "max_record_bytes", {"max_record_bytes": 0}),
        (InputError, "longer than 20 bytes", {"max_record_bytes": 20}),
        (OptionError, "input format", {"input_format": "xml"}),
        (OptionError, "output format", {"output_format": "xml"}),
    ],
)
def test_what_is_refused_writes_nothing(tmp_path, model, source, kind, words, options):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(kind, match=words):
        layertap.extract(source, tmp_path / "out.npz", **{"model": model} | options)
    assert sorted(tmp_path.rglob("*")) == before


def test_places_and_streams_are_checked_as_by_the_command(tmp_path, model, source):
    with pytest.raises(OptionError, match="is the input too"):
        layertap.extract(source, source, model=model, overwrite=True)
    with pytest.raises(OptionError, match="is the input too"):
        layertap.extract(source, model / "model.safetensors", model=model, overwrite=True)
    with pytest.raises(OutputError, match="there is no folder"):
        layertap.extract(source, tmp_path / "no" / "out.npz", model=model)
    with pytest.raises(OptionError, match="its own options"):
        layertap.extract(source, tmp_path / "out.npz", model=Extractor.from_pretrained(model), max_length=7)
    with pytest.raises(OptionError, match="rows beside the output"):
        layertap.extract(source, "-", model=model, on_error="skip")


def test_results_go_to_standard_output(capfdbinary, model, source):
    layertap.extract(source, "-", "v = hidden_states[0].mean", model=model)
    rows = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [row["n"] for row in rows] == list(range(30))
    assert len(rows[0]["v"]) == 32


def test_a_column_and_a_result_of_one_name(tmp_path, model, source):
    """An extractor adds no columns; whatever does is held to the names of the input's."""
    import pyarrow as pa

    from layertap.data import Input

    class Adding:
        def __init__(self, extractor):
            self._extractor = extractor

        def __getattr__(self, name):
            return getattr(self._extractor, name)

        column_types = {"n": pa.int64()}

    job = Job.checked(Input(source=source), tmp_path / "out.parquet")
    with open_job(job) as opened, pytest.raises(OptionError, match="'n' is the name of a result and of a column of"):
        opened.run(Adding(Extractor.from_pretrained(model)))
    assert not (tmp_path / "out.parquet").exists()


def test_progress_goes_to_standard_error(capsys, monkeypatch, tmp_path, model, source):
    monkeypatch.setattr("layertap.engine.progress.SECONDS_BETWEEN_LINES", 0)
    layertap.extract(source, tmp_path / "out.npz", model=model, progress=True)
    assert "30 texts" in capsys.readouterr().err
    layertap.extract(source, tmp_path / "two.npz", model=model)
    assert capsys.readouterr().err == ""


def test_help_lists_every_option():
    import inspect

    from layertap.engine.options import OPTIONS

    assert set(OPTIONS) <= set(inspect.signature(layertap.extract).parameters)
