"""A folder of features: made, resumed, grown, refused, and the same bytes however often a run was stopped."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import layertap
from layertap import Extractor
from layertap.cli.main import main
from layertap.data.folder import FolderPlan, Manifest
from layertap.errors import InputError, NonFiniteError, OptionError, OutputError, UsageError
from layertap.jobs.folder import drive
from layertap.jobs.folder.shard import ShardWorker
from tests.faults import visible
from tests.writing import write

FEATURE = "v = hidden_states[1].mean"


def rows(name: str, count: int) -> list[dict[str, Any]]:
    return [{"text": f"{name} text {i} " + "of some " * (i % 5), "n": i, "id": f"{name}-{i}"} for i in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("folders") / "tiny-bert")


@pytest.fixture(scope="module")
def extractor(model: Path) -> Extractor:
    return Extractor.from_pretrained(model)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name, count in (("b", 25), ("a", 12)):
        write(tmp_path / f"corpus/{name}.jsonl", rows(name, count))
    return tmp_path / "corpus"


@pytest.fixture
def make(tmp_path: Path, corpus: Path, extractor: Extractor) -> Callable[..., Any]:
    """`make("f", ...)` extracts the corpus to the folder `f`, in shards of 10 rows."""

    def made(folder: str = "f", inputs: Any = corpus, **options: Any) -> Any:
        given = {"shard_records": 10, "model": extractor} | options
        return layertap.extract(inputs, f"{tmp_path / folder}/", given.pop("features", FEATURE), **given)

    return made


def promised(folder: Path) -> dict[str, bytes]:
    """The files whose bytes follow from plan and inputs."""
    return {
        name: content for name, content in visible(folder).items() if not name.startswith(("log/", "layertap.json"))
    }


def read(folder: Path) -> dict[tuple[str, int], tuple[Any, np.ndarray]]:
    """Each row of the folder by input and row number, as other tools read `data`."""
    table = pq.read_table(folder / "data")
    vectors = np.stack(table["v"].to_pylist())
    keys = list(zip(table["file"].to_pylist(), table["row"].to_pylist(), strict=True))
    assert len(set(keys)) == len(keys)
    return {key: (id_, vector) for key, id_, vector in zip(keys, table["id"].to_pylist(), vectors, strict=True)}


def test_a_folder_holds_each_row_once_with_the_bits_of_one_file(tmp_path, corpus, extractor, make):
    summary = make()
    assert (summary.records, summary.skipped) == (37, 0)
    folder = tmp_path / "f"
    stored = read(folder)
    assert sorted(stored) == [("a.jsonl", i) for i in range(12)] + [("b.jsonl", i) for i in range(25)]
    layertap.extract(corpus / "b.jsonl", tmp_path / "b.npz", FEATURE, model=extractor)
    with layertap.open(tmp_path / "b.npz") as one:
        for i in range(25):
            id_, vector = stored["b.jsonl", i]
            assert id_ == f"b-{i}"
            if extractor.backend.name == "native":
                assert np.array_equal(vector, one[i]["v"])
            else:
                np.testing.assert_allclose(vector, one[i]["v"], rtol=1e-5, atol=1e-6)
    manifest = Manifest.from_bytes((folder / "manifest.json").read_bytes(), "m")
    assert [(r.input, r.begin, r.rows) for r in manifest.records] == [
        ("a.jsonl", 0, 10), ("a.jsonl", 10, 2), ("b.jsonl", 0, 10), ("b.jsonl", 10, 10), ("b.jsonl", 20, 5),
    ]  # fmt: skip
    assert sum(record.tokens for record in manifest.records) == summary.tokens
    assert sorted(path.name for path in (folder / "data").iterdir()) == sorted(r.file for r in manifest.records)


@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_stopped_run_goes_on_and_computes_nothing_twice(tmp_path, monkeypatch, make, stop):
    make("whole")
    compute = ShardWorker.compute
    computed: list[int] = []

    def stopping(self: ShardWorker, shard: Any, **options: Any) -> Any:
        if len(computed) == stop:
            raise KeyboardInterrupt
        computed.append(shard.number)
        return compute(self, shard, **options)

    monkeypatch.setattr(ShardWorker, "compute", stopping)
    with pytest.raises(KeyboardInterrupt) as stopped:
        make()
    assert f"{stop} of 5 shards" in stopped.value.__notes__[0]
    assert not (tmp_path / "f/manifest.json").exists()
    stop = 99
    make()
    assert computed == [0, 1, 2, 3, 4]
    assert promised(tmp_path / "f") == promised(tmp_path / "whole")


def test_the_same_command_again_does_nothing(tmp_path, corpus, make):
    make()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "f").rglob("*") if path.is_file()}
    make()
    os.utime(corpus / "a.jsonl", ns=(1, 1))
    make(inputs=os.path.relpath(corpus), shard_records=None)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "f").rglob("*") if path.is_file()}
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed <= {"layertap.json", "driver.json"}
    plan = FolderPlan.from_bytes((tmp_path / "f/layertap.json").read_bytes(), "p")
    assert plan.inputs[0].stamp == "1"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"features": "v = hidden_states[0].mean"}, r"features 'v = hidden_states\[1\].mean' in the folder, 'v = hid"),
        ({"details": ["cut_tokens"]}, "details"),
        ({"columns": []}, "--columns None in the folder"),
        ({"on_error": "skip"}, "--on-error 'raise' in the folder, 'skip' in this run"),
        ({"shard_records": 11}, "--shard-records 10 in the folder, 11 in this run"),
    ],
)
def test_another_plan_is_refused_with_the_difference(tmp_path, make, options, named):
    make()
    before = visible(tmp_path / "f")
    with pytest.raises(UsageError, match=named):
        make(**options)
    assert visible(tmp_path / "f").keys() == before.keys()


def test_other_settings_models_and_libraries_are_refused(tmp_path, monkeypatch, make, model, make_checkpoint):
    make()
    with pytest.raises(UsageError, match="precision 'float32' in the folder, 'bfloat16' in this run"):
        make(model=Extractor.from_pretrained(model, precision="bfloat16"))
    other = make_checkpoint(tmp_path / "other/tiny-bert", seed=5)
    with pytest.raises(UsageError, match=r"files are not those of the folder: model\.safetensors"):
        make(model=Extractor.from_pretrained(other))
    shutil.copytree(model, tmp_path / "renamed")
    make(model=Extractor.from_pretrained(tmp_path / "renamed"))  # the same files
    place = tmp_path / "f/layertap.json"
    plan = json.loads(place.read_bytes())
    for key, value, message in (
        ("libraries", plan["libraries"] | {"pyarrow": "1.0"}, "pyarrow 1.0 made the folder"),
        ("bits", 0, "whose results differ"),
        ("provenance", plan["provenance"] | {"instruction_set": "elbrus"}, "this machine does not have elbrus"),
        ("layertap_folder", 9, "layout 9"),
    ):
        place.write_text(json.dumps(plan | {key: value}))
        with pytest.raises((UsageError, InputError), match=message):
            make()
    place.write_text(json.dumps(plan | {"provenance": plan["provenance"] | {"layertap": "0.1.99"}}))
    make()


def test_new_inputs_are_appended(tmp_path, corpus, make, capsys):
    make()
    before = promised(tmp_path / "f")
    write(corpus / "a2.jsonl", rows("a2", 11))
    make()
    after = promised(tmp_path / "f")
    assert {name: content for name, content in after.items() if name in before and name != "manifest.json"} == {
        name: content for name, content in before.items() if name != "manifest.json"
    }
    make("fresh")
    grown, fresh = read(tmp_path / "f"), read(tmp_path / "fresh")
    assert grown.keys() == fresh.keys()
    assert all(np.array_equal(grown[key][1], fresh[key][1]) for key in grown)


def test_of_a_changed_input_only_shards_whose_rows_changed_are_computed(tmp_path, corpus, make, monkeypatch):
    make()
    changed = rows("b", 27)
    changed[12]["n"] = -1  # a carried column counts
    write(corpus / "b.jsonl", changed)
    computed = []
    compute = ShardWorker.compute
    monkeypatch.setattr(
        ShardWorker, "compute", lambda self, shard, **more: computed.append(shard) or compute(self, shard, **more)
    )
    make()
    assert [(shard.input, shard.begin, shard.end) for shard in computed] == [("b.jsonl", 10, 20), ("b.jsonl", 20, 27)]
    assert len(read(tmp_path / "f")) == 39
    assert len(list((tmp_path / "f/records").iterdir())) == 5
    make("fresh")
    grown, fresh = read(tmp_path / "f"), read(tmp_path / "fresh")
    assert all(np.array_equal(grown[key][1], fresh[key][1]) for key in fresh)


def test_a_missing_input_is_refused_and_forgotten_on_request(tmp_path, corpus, make):
    make()
    (corpus / "a.jsonl").unlink()
    with pytest.raises(UsageError, match=r"1 input of the folder is not among those given: a\.jsonl.*--forget"):
        make()
    make(forget=True)
    assert {file for file, _ in read(tmp_path / "f")} == {"b.jsonl"}


def test_rows_that_cannot_be_read_or_processed_are_listed(tmp_path, corpus, make, model):
    lines = [json.dumps(row) for row in rows("b", 25)]
    lines[3] = "no json"
    lines[14] = json.dumps({"text": "long " * 600, "n": 1, "id": "long"})
    (corpus / "b.jsonl").write_text("\n".join(lines) + "\n")
    strict = Extractor.from_pretrained(model, long="error")
    with pytest.raises(InputError, match="line 4"):
        make(model=strict)
    assert not (tmp_path / "f").exists()
    summary = make(model=strict, on_error="skip")
    assert (summary.records, summary.skipped) == (35, 2)
    listed = [
        json.loads(line) for path in sorted((tmp_path / "f/errors").iterdir()) for line in path.read_text().splitlines()
    ]
    assert [(error["row"], error["where"]) for error in listed] == [(3, "line 4"), (14, "line 15")]
    assert len(read(tmp_path / "f")) == 35
    with pytest.raises(InputError, match="1 rows of the inputs cannot be read, more than the 0 allowed"):
        make("g", model=strict, on_error="skip", max_errors=0)
    with pytest.raises(InputError, match="2 rows have been left out, more than the 1 allowed"):
        make("g", model=strict, on_error="skip", max_errors=1)


def test_half_the_token_budget_gives_the_same_bytes(tmp_path, make, monkeypatch, extractor):
    make("whole")
    compute = ShardWorker.compute
    monkeypatch.setattr(ShardWorker, "compute", lambda self, shard, **more: compute(self, shard, halvings=9, **more))
    make()
    if extractor.backend.name == "native":
        assert promised(tmp_path / "f") == promised(tmp_path / "whole")


def test_a_shard_that_is_gone_or_cut_short_is_made_again(tmp_path, make):
    make()
    whole = promised(tmp_path / "f")
    first, second, *_ = sorted((tmp_path / "f/data").iterdir())
    first.unlink()
    second.write_bytes(second.read_bytes()[:-1])
    (tmp_path / "f/records/shard-000003.json").write_text("{")
    make()
    assert promised(tmp_path / "f") == whole


def test_leftovers_are_removed_before_the_manifest_is_written(tmp_path, make):
    make()
    whole = promised(tmp_path / "f")
    (tmp_path / "f/manifest.json").unlink()
    for name in (
        "data/shard-000000-0123456789abcdef.parquet",
        "records/shard-000017.json",
        "errors/shard-000001.jsonl",
    ):
        (tmp_path / "f" / name).write_text("left")
    (tmp_path / "f/data/mine.txt").write_text("mine")
    make()
    assert promised(tmp_path / "f") == whole | {"data/mine.txt": b"mine"}


def test_index_workers_make_the_same_folder(tmp_path, corpus, model, make):
    make("whole")
    command = ["extract", corpus, "-o", f"{tmp_path / 'f'}/", "-f", FEATURE, "-m", model, "--shard-records", 10, "-q"]
    for worker in ("0/3", "2/3"):
        assert main([*map(str, command), "--worker", worker]) == 0
    assert not (tmp_path / "f/manifest.json").exists()
    assert main([*map(str, command), "--worker", "1/3"]) == 0
    assert promised(tmp_path / "f") == promised(tmp_path / "whole")


def test_workers_wait_for_the_plan_of_worker_0(tmp_path, corpus, model, monkeypatch, capsys):
    monkeypatch.setattr(drive, "PLAN_WAIT", 0.1)
    monkeypatch.setattr(drive, "POLL", 0.05)
    command = ["extract", corpus, "-o", f"{tmp_path / 'f'}/", "-m", model, "--worker", "1/2"]
    assert main(list(map(str, command))) == 1
    said = capsys.readouterr().err
    assert "waiting for the plan" in said
    assert "start worker 0/2" in said
    assert main([*map(str, command[:-1]), "2/2"]) == 2


def test_a_second_driver_is_told_of_the_first(tmp_path, make, corpus, model):
    make()
    program = "import sys, fcntl; f = open(sys.argv[1]); fcntl.flock(f, 2); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, tmp_path / "f/log/driver.lock"]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        (tmp_path / "f/log/driver.json").write_text('{"host": "h", "process": 7, "started": "today"}')
        with pytest.raises(OutputError, match=r"another run is writing this folder \(process 7 on h, since today\)"):
            make()
    finally:
        holder.communicate()
    make()


def test_places_that_cannot_be_are_refused(tmp_path, corpus, make):
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/notes.md").write_text("mine")
    for folder, message in (
        ("taken", "a file stands there"),
        ("full", r"holds notes\.md and no layertap\.json"),
        ("corpus", r"holds a\.jsonl, b\.jsonl and no layertap\.json"),
        ("corpus/f", "would stand in a folder that is read"),
        ("none/f", "there is no folder"),
    ):
        with pytest.raises((UsageError, OutputError), match=message):
            make(folder)
    with pytest.raises(OptionError, match="read once only"):
        make(inputs="-")
    with pytest.raises(OptionError, match="shard_records 0"):
        make(shard_records=0)
    (tmp_path / "empty").mkdir()
    make("empty")
    if os.geteuid():
        (tmp_path / "empty").chmod(0o500)
        with pytest.raises(OutputError, match="not writable"):
            make("empty")


def test_columns_of_all_inputs_get_one_schema(tmp_path, corpus, make):
    write(corpus / "c.jsonl", [{"text": "c", "n": 1.5, "more": [1]}, {"text": "d"}])
    make()
    table = pq.read_table(tmp_path / "f/data")
    assert str(table.schema.field("n").type) == "double"
    assert table["more"].to_pylist()[-2:] == [[1], None]
    (corpus / "d.csv").write_text("text,n\nx,1\n")
    with pytest.raises(UsageError, match=r"column 'n' holds string in d\.csv and double in the folder"):
        make()
    make("g", columns=["id"], inputs=[corpus / "a.jsonl", corpus / "b.jsonl"])
    with pytest.raises(UsageError, match=r"column 'n' holds .* in .*\.jsonl and string in d\.csv"):
        make("h")
    write(corpus / "d.csv", "text,file\nx,1\n")
    with pytest.raises(UsageError, match="'file' cannot be carried"):
        make("h")


def test_a_shard_with_a_fault_of_its_own_stops_the_run_and_is_named(tmp_path, make, monkeypatch):
    compute = ShardWorker._compute

    def failing(self: ShardWorker, shard: Any, *more: Any) -> Any:
        if shard.number == 2:
            raise NonFiniteError("NaN")
        return compute(self, shard, *more)

    monkeypatch.setattr(ShardWorker, "_compute", failing)
    with pytest.raises(NonFiniteError) as caught:
        make()
    assert caught.value.__notes__[0] == "shard 2: rows 0 to 9 of b.jsonl"
    assert "2 of 5 shards are finished" in caught.value.__notes__[1]


def test_progress_for_machines(tmp_path, corpus, model, capsys):
    command = ["extract", corpus, "-o", f"{tmp_path / 'f'}/", "-m", model, "--shard-records", 10, "--progress", "json"]
    assert main(list(map(str, command))) == 0
    objects = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    assert [objects[0]["shards_done"], objects[-1]["shards_done"], objects[-1]["shards"]] == [0, 5, 5]
    assert objects[-1]["seconds_left"] == 0
    assert main(["extract", str(corpus / "a.jsonl"), "-o", str(tmp_path / "x.npz"), "--worker", "0/1"]) == 2
    assert main(["extract", str(corpus / "a.jsonl"), str(corpus / "b.jsonl"), "-o", str(tmp_path / "x.npz")]) == 2
    assert "let OUTPUT end with /" in capsys.readouterr().err


def test_files_of_all_kinds_of_text_are_read_alike_in_folders(tmp_path, make):
    """Compression, encodings and records of plain text are options of reading, and what readers note is shown."""
    books = {"a.txt": b"One line.\n\nAnother.\n", "b.txt.gz": gzip.compress(b"Packed.\n"), "c.txt": b"\xff\xfeU\0\n\0"}
    for name, content in books.items():
        write(tmp_path / "books" / name, content)
    make("books-features", tmp_path / "books", records="file")
    assert [id_ for id_, _ in read(tmp_path / "books-features").values()] == sorted(books)
    write(tmp_path / "tables/a.csv", "text;n\none, two;1\n")
    with pytest.warns(UserWarning, match=r"a\.csv: fields are separated by semicolons"):
        make("tables-features", tmp_path / "tables")
    assert pq.read_table(tmp_path / "tables-features" / "data")["n"].to_pylist() == ["1"]


def test_a_folder_that_vanishes_during_a_run_is_named(tmp_path, make, monkeypatch):
    compute = ShardWorker.compute

    def vanishing(self: ShardWorker, shard: Any, **more: Any) -> Any:
        if shard.number == 1:
            shutil.rmtree(tmp_path / "f")
        return compute(self, shard, **more)

    monkeypatch.setattr(ShardWorker, "compute", vanishing)
    with pytest.raises(OutputError, match="its folder is not there any more"):
        make()
    monkeypatch.undo()
    make()
    assert len(read(tmp_path / "f")) == 37
