"""Computing shards in any order, with inputs that are read forward."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import layertap
from layertap.data.folder.contents import LocalFiles, read_plan, read_records
from layertap.data.input import Input
from layertap.data.inputs import InputSet
from layertap.jobs.folder.shard import ShardWorker
from tests.writing import write


@pytest.mark.parametrize("ending", ["jsonl", "jsonl.gz", "csv", "parquet"])
def test_shards_in_any_order_and_inputs_opened_once_where_shards_ascend(
    tmp_path: Path, make_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    source = tmp_path / f"a.{ending}"
    if ending == "csv":
        write(source, "text,n\n" + "".join(f'"text\n{i}",{i}\n' for i in range(23)))
    elif ending == "parquet":
        pq.write_table(pa.table({"text": [f"text {i}" for i in range(23)], "n": list(range(23))}), source)
    else:
        lines = "".join(f'{{"text": "text {i}", "n": {i}}}\n' for i in range(23)).encode()
        write(source, gzip.compress(lines) if ending == "jsonl.gz" else lines)
    extractor = layertap.Extractor.from_pretrained(make_checkpoint(tmp_path / "tiny-bert"))
    folder = tmp_path / "f"
    layertap.extract(source, f"{folder}/", "v = hidden_states[0].mean", model=extractor, shard_records=3)
    plan = read_plan(LocalFiles(root=folder))
    assert plan is not None
    before = read_records(LocalFiles(root=folder), plan.shards)
    for path in [*(folder / "records").iterdir(), *(folder / "data").iterdir()]:
        path.unlink()
    opened = []
    open_input = Input.open
    monkeypatch.setattr(Input, "open", lambda self, *more: opened.append(more) or open_input(self, *more))
    with ShardWorker(root=folder, plan=plan, inputs=InputSet.resolve([source]), streams=extractor) as worker:
        again = {n: worker.compute(plan.shards[n]) for n in (1, 2, 5, 7, 0, 6, 3, 4)}
    assert tuple(again[n] for n in range(8)) == before
    # Opened for shards 1, 0 and 3; Parquet, which begins at any row, also for 5, 7 and 6.
    assert len(opened) == (6 if ending == "parquet" else 3)
