"""What `layertap status` and `layertap export` say and do of whole, unfinished and damaged folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import layertap
from layertap.cli.main import main
from layertap.data.folder import ShardRecord
from layertap.jobs.folder.status import folder_status
from tests.writing import write

FEATURES = ["v = hidden_states[1].mean", "t = hidden_states[-1]", "q = hidden_states[1].cls.astype(int8)"]
ROWS = [{"text": f"text {i} of some", "n": i, "any": [i, "x"] if i % 2 else {"i": i}, "id": f"i{i}"} for i in range(9)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """A folder of two inputs, made once; tests copy it."""
    home = tmp_path_factory.mktemp("status")
    write(home / "c/a.jsonl", ROWS)
    write(home / "c/b.jsonl", ROWS[:3])
    model = make_checkpoint(home / "tiny-bert")
    layertap.extract(home / "c", f"{home / 'f'}/", FEATURES, model=model, shard_records=4)
    return home / "f"


@pytest.fixture
def copied(tmp_path: Path, folder: Path) -> Path:
    import shutil

    shutil.copytree(folder, tmp_path / "f")
    return tmp_path / "f"


def status(folder: Path, *more: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict]:
    capsys.readouterr()
    code = main(["status", str(folder), "--json", *more])
    return code, json.loads(capsys.readouterr().out)


def test_a_whole_folder(copied, capsys):
    (copied / "manifest.json").rename(copied / "saved.json")
    code, values = status(copied, "--verify", capsys=capsys)
    assert (code, values["state"], values["verified"], values["manifest"]) == (0, "complete", True, True)
    assert (values["shards"], values["rows"], values["missing"], values["damaged"]) == (4, 12, [], {})
    assert (copied / "manifest.json").read_bytes() == (copied / "saved.json").read_bytes()
    assert main(["status", f"{copied}/"]) == 0
    assert "4 of 4 finished (100%)" in capsys.readouterr().out


def test_a_folder_that_grows_while_it_is_verified_keeps_its_new_shards(tmp_path, make_checkpoint):
    write(tmp_path / "c/a.jsonl", ROWS)
    options = {"model": make_checkpoint(tmp_path / "tiny-bert"), "shard_records": 4}
    layertap.extract(tmp_path / "c", f"{tmp_path / 'f'}/", FEATURES, **options)

    def grow(_: ShardRecord) -> None:
        if not (tmp_path / "c/b.jsonl").exists():
            write(tmp_path / "c/b.jsonl", ROWS[:3])
            layertap.extract(tmp_path / "c", f"{tmp_path / 'f'}/", FEATURES, **options)

    folder_status(tmp_path / "f", name="f", verify=True, watch=grow)
    after = folder_status(tmp_path / "f", name="f", verify=True)
    assert (after.state, after.has_manifest, len(after.finished.records)) == ("complete", True, 4)


def test_an_unfinished_folder(copied, capsys):
    (copied / "records/shard-000001.json").unlink()
    (copied / "manifest.json").unlink()
    (copied / "log/attempts-x.jsonl").write_text('{"time": "1", "shard": 1, "failed": "killed three times"}\n{"ti')
    code, values = status(copied, capsys=capsys)
    assert (code, values["state"], values["missing"]) == (3, "incomplete", [1])
    assert values["failed"] == {"1": "killed three times"}
    assert main(["export", str(copied), "-o", str(copied.parent / "x.npy")]) == 1
    assert main(["export", str(copied), "-o", str(copied.parent / "x.npz"), "--partial", "-q"]) == 0
    with layertap.open(copied.parent / "x.npz") as file:
        assert len(file) == 8


def test_damage_is_found_named_and_made_again(copied, folder, capsys):
    place = next((copied / "data").glob("shard-000002-*"))
    content = bytearray(place.read_bytes())
    content[len(content) // 2] ^= 1
    place.write_bytes(content)
    assert status(copied, capsys=capsys)[0] == 0  # of the same size
    code, values = status(copied, "--verify", capsys=capsys)
    assert (code, values["state"]) == (1, "damaged")
    assert f"data/{place.name} has been changed" in values["damaged"]["2"]
    again = ["extract", str(folder.parent / "c"), "-o", f"{copied}/", "-m", str(folder.parent / "tiny-bert")]
    assert main([*again, *(word for feature in FEATURES for word in ("-f", feature))]) == 0
    assert "shard 2 is damaged and is computed again" in capsys.readouterr().err
    assert place.read_bytes() == (folder / "data" / place.name).read_bytes()
    assert status(copied, "--verify", capsys=capsys)[0] == 0
    place.unlink()
    assert status(copied, capsys=capsys)[0] == 1


def test_an_export_into_the_folder_is_refused(copied, capsys):
    assert main(["export", str(copied), "-o", str(copied / "x.npy")]) == 2
    assert "would stand in the folder of features" in capsys.readouterr().err


def test_what_is_no_folder_of_features(tmp_path, capsys):
    for path, message in ((tmp_path, "it has no layertap.json"), (tmp_path / "none", "there is no such folder")):
        assert main(["status", str(path)]) == 1
        assert message in capsys.readouterr().err
    (tmp_path / "file.npz").write_text("")
    assert main(["export", str(tmp_path / "file.npz"), "-o", str(tmp_path / "x.npy")]) == 2
    assert "takes a folder of features" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "npz", "safetensors"])
def test_an_export_holds_what_one_file_holds(folder, tmp_path, ending):
    output = tmp_path / f"x.{ending}"
    assert main(["export", str(folder), "-o", str(output), "-q"]) == 0
    single = tmp_path / f"one.{ending}"
    layertap.extract(folder.parent / "c/a.jsonl", single, FEATURES, model=folder.parent / "tiny-bert")
    if ending == "jsonl":
        ours, theirs = ([json.loads(line) for line in path.read_text().splitlines()] for path in (output, single))
        assert [row.pop("file") for row in ours] == ["a.jsonl"] * 9 + ["b.jsonl"] * 3
        assert [{key: row[key] for key in ("row", "id", "n", "any")} for row in ours[:9]] == [
            {key: row[key] for key in ("row", "id", "n", "any")} for row in theirs
        ]
        np.testing.assert_allclose(ours[4]["v"], theirs[4]["v"], rtol=1e-5, atol=1e-6)
        return
    with layertap.open(output) as ours, layertap.open(single) as theirs:
        assert ours.features == theirs.features
        assert len(ours) == 12
        for name in ours.features:
            for i in range(9):
                np.testing.assert_allclose(ours[i][name], theirs[i][name], rtol=1e-5, atol=1e-6)
        assert list(ours.ids)[:9] == list(theirs.ids)
    if ending == "parquet":
        table = pq.read_table(output)
        assert table["any"].to_pylist()[:9] == pq.read_table(single)["any"].to_pylist()
        assert table["file"].to_pylist() == ["a.jsonl"] * 9 + ["b.jsonl"] * 3


def test_explain_forecasts_a_folder(folder, capsys):
    corpus, model = str(folder.parent / "c"), str(folder.parent / "tiny-bert")
    assert main(["explain", corpus, "-o", "x/", "-m", model, "-f", FEATURES[0], "--shard-records", "4"]) == 0
    said = capsys.readouterr().out
    assert "2 with 12 rows" in said
    assert "4 of up to 4 rows" in said
    assert "measured on the first texts" in said
    assert not Path("x").exists()
    for wrong in (["-o", "x.npz"], ["--shard-records", "4"], [corpus]):
        assert main(["explain", corpus, "-m", model, *wrong]) == 2


def test_a_directory_in_the_place_of_a_shard_is_called_one(copied, capsys):
    shard = next((copied / "data").iterdir())
    shard.unlink()
    shard.mkdir()
    code, values = status(copied, capsys=capsys)
    assert (code, values["state"]) == (1, "damaged")
    (fault,) = values["damaged"].values()
    assert fault == f"{shard}: this is a directory; expected a file"


def test_a_folder_of_features_is_no_input_file(folder, tmp_path, capsys):
    assert main(["extract", str(folder), "-o", str(tmp_path / "o.npz")]) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"{folder}: this is a folder of features" in said
    assert f"'layertap export {folder} -o FILE'" in said
