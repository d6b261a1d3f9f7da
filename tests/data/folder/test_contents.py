"""Plans, records and manifests come back from a folder as they were written, and damage is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from layertap.data.folder import (
    FolderPlan,
    LocalFiles,
    Manifest,
    PlannedColumn,
    PlannedInput,
    PlannedShard,
    ShardRecord,
    is_feature_folder,
    read_contents,
)
from layertap.data.folder.layout import data_name, record_place
from layertap.errors import InputError
from layertap.records import FeatureSchema

SHARDS = tuple(PlannedShard(number=i, input="a.jsonl", begin=2 * i, end=2 * i + 2) for i in range(3))
PLAN = FolderPlan(
    provenance={"layertap": "0.1.0", "features": {"v": "last_hidden_state.mean"}},
    schemas=(FeatureSchema(name="v", dtype="float32", shape=(2, 3), ragged=True),),
    details=(),
    columns=(PlannedColumn(name="id", type="string", arrow="AAAA", kind="string"),),
    reading={"text_column": None},
    libraries={"pyarrow": "1"},
    bits=1,
    shard_records=2,
    inputs=(PlannedInput(name="a.jsonl", size=51, stamp="7", sha256="ab" * 32, rows=6, errors=0),),
    shards=SHARDS,
    next_number=3,
)


def record_of(shard: PlannedShard) -> ShardRecord:
    sha256 = f"{shard.number:x}" * 64
    return ShardRecord(
        number=shard.number,
        input=shard.input,
        begin=shard.begin,
        end=shard.end,
        file=data_name(shard.number, sha256),
        rows=2,
        size=100,
        sha256=sha256,
        digest="d" * 64,
        tokens=9,
        counts={"cut_texts": {"512": 1}},
        errors=0,
        errors_sha256=None,
    )


RECORDS = tuple(map(record_of, SHARDS))


@pytest.fixture
def folder(tmp_path: Path) -> LocalFiles:
    (tmp_path / "records").mkdir()
    (tmp_path / "layertap.json").write_bytes(PLAN.to_bytes())
    return LocalFiles(root=tmp_path)


def put(folder: LocalFiles, *records: ShardRecord) -> None:
    for record in records:
        folder.path(record_place(record.number)).write_bytes(record.to_bytes())


def test_values_come_back_as_they_were():
    assert FolderPlan.from_bytes(PLAN.to_bytes(), "p") == PLAN
    assert ShardRecord.from_bytes(RECORDS[1].to_bytes(), "r") == RECORDS[1]
    manifest = Manifest(plan=PLAN.digest, records=RECORDS)
    assert Manifest.from_bytes(manifest.to_bytes(), "m") == manifest
    assert json.loads(manifest.to_bytes())["rows"] == 6
    assert RECORDS[2].place == "data/shard-000002-2222222222222222.parquet"


def test_times_and_patches_do_not_change_the_digest_and_everything_else_does():
    touched = replace(PLAN, inputs=(replace(PLAN.inputs[0], stamp="8"),))
    patched = replace(PLAN, provenance={**PLAN.provenance, "layertap": "0.1.1"})
    assert touched.digest == patched.digest == PLAN.digest
    for other in (
        replace(PLAN, inputs=(replace(PLAN.inputs[0], sha256="cd" * 32),)),
        replace(PLAN, provenance={**PLAN.provenance, "features": {}}),
        replace(PLAN, shards=SHARDS[:2]),
        replace(PLAN, bits=2),
    ):
        assert other.digest != PLAN.digest


def test_a_folder_is_complete_with_all_records_or_its_manifest(folder):
    put(folder, *RECORDS[:2])
    with pytest.raises(InputError, match="2 of 3 shards"):
        read_contents(folder)
    part = read_contents(folder, partial=True)
    assert (part.records, part.is_complete) == (RECORDS[:2], False)
    put(folder, RECORDS[2])
    whole = read_contents(folder)
    assert (whole.records, whole.is_complete, whole.has_manifest) == (RECORDS, True, False)
    folder.path("manifest.json").write_bytes(Manifest(plan=PLAN.digest, records=RECORDS).to_bytes())
    folder.path(record_place(0)).unlink()
    assert read_contents(folder).has_manifest


def test_a_growing_folder_is_read_as_it_was(folder):
    put(folder, *RECORDS[:2])
    folder.path("manifest.json").write_bytes(Manifest(plan="before", records=RECORDS[:2]).to_bytes())
    before = read_contents(folder)
    assert (before.records, before.is_complete, before.has_manifest) == (RECORDS[:2], False, True)


def with_shard(which: int, **values: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a change of a plan's values in which a shard has other ones."""
    return lambda plan: plan | {"shards": [own | (values if own["number"] == which else {}) for own in plan["shards"]]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values | {"layertap_folder": 2}, "layout 2"),
        (lambda values: values | {"shards": 3}, "'shards' is 3, not a list"),
        (lambda values: {name: value for name, value in values.items() if name != "bits"}, "'bits' is missing"),
        (lambda _: [], "an object is expected"),
        (with_shard(0, end=1), "shard 1 does not begin where the one before it ends"),
        (with_shard(1, input="b.jsonl"), "shard 1 .* is of no input"),
        (with_shard(2, end=5), "the shards of a.jsonl end at row 5, and it has 6 rows"),
        (with_shard(2, number=1), "two shards have one number"),
        (with_shard(2, number=7), "'next_number' is 3, and shard 7 is there"),
    ],
)
def test_a_damaged_plan_is_named(folder, change, message):
    place = folder.path("layertap.json")
    place.write_text(json.dumps(change(json.loads(place.read_bytes()))))
    with pytest.raises(InputError, match=message) as caught:
        read_contents(folder)
    assert str(place) in str(caught.value)


def test_what_is_no_folder_of_features_is_named(tmp_path, folder):
    assert is_feature_folder(tmp_path)
    assert not is_feature_folder(tmp_path / "records")
    assert not is_feature_folder(tmp_path / ("x" * 300))
    with pytest.raises(InputError, match=r"no layertap\.json"):
        read_contents(LocalFiles(root=tmp_path / "records"))
    put(folder, replace(RECORDS[0], end=1))
    with pytest.raises(InputError, match="the record of rows 0 to 1"):
        read_contents(folder)
