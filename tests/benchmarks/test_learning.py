from __future__ import annotations

import datetime
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.learning.report import document
from benchmarks.learning.scores import scores_of
from benchmarks.learning.store import Store
from benchmarks.learning.tasks import TASK_NAMES, LearningTask, Part, read_task
from benchmarks.machine import Machine
from benchmarks.workload import DataNotFoundError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
MACHINE = Machine(processor="A", cores=1, memory_bytes=2**34, flags=("avx2",), system="Linux 6")
DATE = datetime.date(2026, 1, 2)
TEXTS = ["a good film", "a dull film", "good fun", "dull and long"] * 10
LABELS = ["up", "down"] * 20


def task(**changed) -> LearningTask:
    part = Part(items=list(TEXTS), labels=list(LABELS))
    given = {"name": "sst2", "title": "moods", "unit": "text", "metrics": ("accuracy",)}
    return LearningTask(**{**given, "train": part, "dev": None, "test": part.of([0, 1, 2, 3]), **changed})


def test_a_seed_draws_nine_tenths_and_leaves_the_rest() -> None:
    rows, held = task().draw(1)
    assert sorted([*rows, *held]) == list(range(40))
    assert len(held) == 4
    assert task().draw(1) == (rows, held)
    assert task().draw(2) != (rows, held)


def test_data_that_are_absent_are_named(tmp_path: Path) -> None:
    for name in TASK_NAMES:
        with pytest.raises(DataNotFoundError, match=f"no data of {name}"):
            read_task(name, tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data are not there")
@pytest.mark.parametrize(
    ("name", "train", "test", "classes"),
    [
        ("sst2", 6920, 1821, 2),
        ("trec6", 5452, 500, 6),
        ("banking77", 10003, 3080, 77),
        ("cola", 8551, 1043, 2),
        ("wnut17", 3394, 1287, 13),
        ("ewt", None, 2077, 17),
    ],
)
def test_the_parts_have_their_published_sizes(name, train, test, classes) -> None:
    found = read_task(name, SHARED)
    assert train in (None, len(found.train))
    assert (len(found.test), len(set(found.train.flat))) == (test, classes)
    for part in (found.train, found.test):
        sizes = [1 if isinstance(item, str) else len(item) for item in part.items]
        assert sizes == [1 if isinstance(label, str) else len(label) for label in part.labels]
    assert found.name != "ewt" or 40_000 <= len(found.train.flat) < 40_200


def test_scores() -> None:
    pytest.importorskip("seqeval", reason="seqeval is not installed (extra: learn)")
    gold = Part(items=[["a", "b"], ["c"]], labels=[("B-x", "I-x"), ("O",)])
    assert scores_of(gold, ["B-x", "O", "O"], metrics=("accuracy", "entity_f1")) == {
        "accuracy": pytest.approx(2 / 3),
        "entity_f1": 0.0,
    }
    assert scores_of(gold, ["B-x", "I-x", "O"], metrics=("entity_f1", "macro_f1")) == {"entity_f1": 1, "macro_f1": 1}


def test_a_store_goes_on_where_it_was(tmp_path: Path) -> None:
    place = tmp_path / "learn.json"
    store = Store.at(place)
    store.runs.append({"command": "first"})
    store.add({"part": "frozen", "task": "sst2", "seed": 1, "value": 1})
    store.add({"part": "frozen", "task": "sst2", "seed": 0, "value": 2})
    again = Store.at(place)
    again.runs.append({"command": "second"})
    assert again.has({"part": "frozen", "task": "sst2", "seed": 1})
    assert not again.has({"part": "frozen", "task": "sst2", "seed": 2})
    again.add({"part": "frozen", "task": "sst2", "seed": 1, "value": 3})
    assert [(record["value"], record["run"]) for record in Store.at(place).of(part="frozen")] == [(2, 0), (3, 1)]
    assert [*tmp_path.iterdir()] == [place]
    assert [run["command"] for run in json.loads(place.read_text())["runs"]] == ["first", "second"]


def stored(*records) -> Store:
    return Store(
        path=None, runs=[{"command": "python -m benchmarks learn", "versions": {"layertap": "1"}}], records=records
    )


def test_the_page_says_whether_two_sides_are_equal() -> None:
    def records(side, *figures):
        key = {"part": "finetuned", "task": "sst2", "side": side, "precision": "float32", "run": 0, "seconds": 2}
        return [{**key, "seed": seed, "scores": {"accuracy": figure}} for seed, figure in enumerate(figures)]

    alike = stored(*records("layertap", 0.80, 0.82, 0.84), *records("transformers", 0.81, 0.82, 0.83))
    apart = stored(*records("layertap", 0.80, 0.82, 0.84), *records("transformers", 0.91, 0.92, 0.93))
    row = "| sst2, accuracy | float32 | 0.8200 +- 0.0200 | 0.8200 +- 0.0100 | +0.0000 | yes |"
    assert row in document(MACHINE, DATE, alike, {"sst2": task()})
    page = document(MACHINE, DATE, apart, {"sst2": task()})
    assert "| 0.9200 +- 0.0100 | -0.1000 | no | 0.8000 0.8200 0.8400 / 0.9100 0.9200 0.9300 |" in page
    assert page.startswith("# Learning with layertap on 1 core of A, 2026-01-02\n")
    assert page.endswith("- `python -m benchmarks learn`, layertap 1.\n")
    assert "## Frozen" not in page


def test_the_page_takes_ratios_of_steps_round_by_round() -> None:
    records = [
        {"part": "step", "side": side, "precision": "float32", "round": number, "run": 0}
        | {"seconds": seconds, "processor_seconds": seconds / 2}
        for side, times in (("layertap", (1.0, 2.0, 1.0)), ("transformers", (2.0, 3.0, 1.6)))
        for number, seconds in enumerate(times)
    ]
    row = "| float32 | 3 | 0.500 | 1.000 | **1.60 (1.50 to 2.00)** | 1.000 | 2.000 | 1.60 (1.50 to 2.00) |"
    assert row in document(MACHINE, DATE, stored(*records), {})


@pytest.mark.slow
def test_the_two_sides_learn_the_same(minilm_folder) -> None:
    for library in ("torch", "transformers", "sklearn"):
        pytest.importorskip(library)
    from benchmarks.learning.frozen import BEST, FIT, MIX, _run

    words = [text.split() for text in TEXTS]
    tags = [tuple("B-x" if word in ("film", "fun") else "O" for word in given) for given in words]
    entities = Part(items=words, labels=tags)
    pytest.importorskip("seqeval", reason="seqeval is not installed (extra: learn)")
    for given in (
        task(),
        task(
            name="wnut17", unit="word", metrics=("entity_f1",), train=entities, dev=entities, test=entities.of([0, 1])
        ),
    ):
        ours, theirs = (_run(given, side, [0], 1) for side in ("layertap", "transformers"))
        assert [record["method"] for record in ours] == [BEST, MIX, FIT]
        assert [record["method"] for record in theirs] == [BEST, MIX]
        assert ours[0]["test"] == theirs[0]["test"]
        assert np.allclose(ours[1]["shares"], theirs[1]["shares"], atol=0.02)
        assert ours[1]["scores"] == theirs[1]["scores"]
        assert ours[2]["scores"] == ours[0]["scores"]


@pytest.mark.parametrize("unit", ["text", "word"])
def test_both_sides_fine_tune(unit, minilm_folder) -> None:
    for library in ("torch", "transformers", "accelerate", "seqeval"):
        pytest.importorskip(library)
    from benchmarks.learning.finetuned import _RUNS, Recipe

    given = task()
    if unit == "word":
        words = [text.split() for text in TEXTS]
        tags = [tuple("B-x" if word in ("film", "fun") else "O" for word in text) for text in words]
        part = Part(items=words, labels=tags)
        given = task(name="wnut17", unit="word", metrics=("entity_f1",), train=part, test=part.of([0, 1, 2]))
    recipe = Recipe(seed=0, epochs=1, precision="float32", threads=1)
    for side in ("layertap", "transformers"):
        predicted, facts = _RUNS[side](given, recipe)
        assert len(predicted) == len(given.test.flat)
        assert set(predicted) <= set(given.train.flat)
        assert facts["steps"] == 2
