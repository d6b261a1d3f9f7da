from __future__ import annotations

import datetime
import os
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import report
from benchmarks.accuracy import AccuracyTable, LayerAccuracy
from benchmarks.busy import OthersMeter
from benchmarks.corpus import CorpusRun
from benchmarks.limit import Peak
from benchmarks.machine import Machine
from benchmarks.memory import MemoryTable
from benchmarks.models import ModelShape
from benchmarks.peers import REFERENCE, ROWS
from benchmarks.peers.row import Precision, Variant
from benchmarks.ratios import Ratio, ratio_by_round
from benchmarks.selection import ALL_LAYERS, WHOLE, SelectionTable
from benchmarks.speed import Agreement, RowTimes, SpeedTable, agreement
from benchmarks.startup import StartupTable
from benchmarks.workload import Workload

WORKLOAD = Workload(name="mixture", description="two texts", texts=("a", "b"))


def row_times(name: str, precision: Precision, seconds: tuple[float, ...], *, ours: bool = False) -> RowTimes:
    return RowTimes(
        row=name,
        library=name,
        precision=precision,
        ours=ours,
        variant=Variant(setup="sorted", batch_size=8),
        seconds=seconds,
        agreement=Agreement(smallest_cosine=0.99997, largest_error=3.6e-2),
    )


def peaks(*rates: float) -> tuple[dict[str, Peak], ...]:
    return tuple({"float32": Peak(instruction="FMA", operations_per_second=rate)} for rate in rates)


@pytest.fixture
def table() -> SpeedTable:
    return SpeedTable(
        workload="mixture",
        description="a few texts",
        texts=100,
        tokens=1_000,
        flops=10**12,
        rows=(
            row_times("ours-float32", "float32", (1.0, 2.0, 1.0), ours=True),
            row_times("slow-float32", "float32", (4.0, 8.0, 4.0)),
            row_times("fast-float32", "float32", (1.5, 3.0, 2.0)),
            row_times("ours-bfloat16", "bfloat16", (0.5, 0.5, 0.5), ours=True),
            row_times("peer-int8", "int8", (1.0, 1.0, 1.0)),
        ),
        failed={"absent-float32": "ModuleNotFoundError: No module named 'absent'"},
        peaks=peaks(1e12, 2e12, 4e12),
    )


def cells(text: str, first: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_others_are_told_from_ourselves() -> None:
    meter = OthersMeter([])
    until = time.process_time() + 0.3
    while time.process_time() < until:
        pass
    alone = meter.share()
    if alone is None:
        pytest.skip("no /proc/stat on this system")
    assert 0.0 <= alone <= 1.0
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinning:
        before = os.times().children_user
        meter, known = OthersMeter([]), OthersMeter([spinning.pid])
        time.sleep(1.0)
        other, ours = meter.share(), known.share()
        spinning.kill()
    assert os.times().children_user > before
    assert other is not None
    assert ours is not None
    assert other > ours  # a process that is named is not one of the others


def test_ratio_is_taken_round_by_round() -> None:
    assert ratio_by_round((2.0, 30.0, 3.0), (1.0, 10.0, 2.0)) == Ratio(median=2.0, smallest=1.5, largest=3.0)
    assert str(ratio_by_round((2.0,), (1.0,))) == "2.00 (2.00 to 2.00)"
    with pytest.raises(ValueError, match="zip"):
        ratio_by_round((1.0, 2.0), (1.0,))


def test_speed_row_holds_rates_ratio_share_and_agreement(table: SpeedTable) -> None:
    text = report.speed_section("minilm", table, real_weights=True)
    assert cells(text, "fast-float32") == [
        "fast-float32",
        "50.0",  # 100 texts in the median 2 s
        "500",
        "1.50 (1.50 to 2.00)",
        "12%",  # the limit: the best of the rounds, 4e12 operations a second over 1e10 a text
        "0.999970",
        "3.6e-02",
        "sorted, batch 8",
    ]
    assert cells(text, "limit, float32")[1] == "400"
    assert cells(text, "ours-float32")[3] == "-"


def test_int8_peers_are_held_against_our_bfloat16(table: SpeedTable) -> None:
    text = report.speed_section("minilm", table, real_weights=True)
    assert cells(text, "peer-int8")[3] == "2.00 (2.00 to 2.00)"
    assert cells(text, "peer-int8")[4] == "-"  # no int8 peak was measured


def test_claim_names_the_best_peer_of_each_precision(table: SpeedTable) -> None:
    text = report.speed_section("minilm", table, real_weights=True)
    assert "- ours-float32 over the best float32 peer, fast-float32: **1.50 (1.50 to 2.00)**" in text
    assert "best bfloat16 peer" not in text  # there is no bfloat16 peer
    without_ours = replace(table, rows=tuple(row for row in table.rows if not row.ours))
    assert "over the best" not in report.speed_section("minilm", without_ours, real_weights=True)


def test_what_did_not_run_is_listed_with_the_reason(table: SpeedTable) -> None:
    text = report.speed_section("minilm", table, real_weights=True)
    assert "- absent-float32: ModuleNotFoundError: No module named 'absent'" in text
    unlimited = report.speed_section(
        "bert-base", replace(table, peaks=(), limit_unknown="no C++ compiler"), real_weights=False
    )
    assert "Limit not measured: no C++ compiler." in unlimited
    assert "Random weights" in unlimited
    assert cells(unlimited, "fast-float32")[4] == "-"


def test_every_table_row_has_as_many_cells_as_columns(table: SpeedTable) -> None:
    lines = report.speed_section("minilm", table, real_weights=True).splitlines()
    assert len({line.count("|") for line in lines if line.startswith("|")}) == 1


def test_selection_is_relative_to_the_whole_model() -> None:
    seconds = {WHOLE: (2.0, 4.0), ALL_LAYERS: (2.2, 4.4), "hidden_states[3].mean": (1.0, 2.0)}
    text = report.selection_section("minilm", SelectionTable(precision="float32", workload=WORKLOAD, seconds=seconds))
    assert cells(text, "`hidden_states[3].mean`")[2] == "0.50 (0.50 to 0.50)"
    assert cells(text, f"`{ALL_LAYERS}`")[2] == "1.10 (1.10 to 1.10)"


def test_memory_startup_accuracy_and_corpus_tables() -> None:
    memory = report.memory_section(
        "minilm", MemoryTable(workload=WORKLOAD, peak_bytes={"peer": 300 * 1024**2}, failed={"other": "no"})
    )
    assert cells(memory, "peer") == ["peer", "300"]
    assert "- other: no" in memory
    startup = report.startup_section("minilm", StartupTable(seconds={"import": (0.2, 0.1, 0.3)}, failed={}))
    assert cells(startup, "import") == ["import", "0.20", "0.10 to 0.30"]
    layers = (LayerAccuracy(layer=0, smallest_cosine=1.0, largest_error=1e-6),)
    accuracy = report.accuracy_section("minilm", AccuracyTable(precision="float32", texts=2, layers=layers))
    assert cells(accuracy, "0") == ["0", "1.0000000", "1.0e-06"]
    runs = [
        CorpusRun(records=records, seconds=1.0, peak_bytes=peak * 1024**2, output_bytes=1024**2)
        for records, peak in ((1_000, 400), (100_000, 390))
    ]
    corpus = report.corpus_section("minilm", runs)
    assert cells(corpus, "100,000") == ["100,000", "390", "-10", "1.0", "1.0"]


def test_heading_names_machine_date_command_and_versions() -> None:
    machine = Machine(
        processor="AMD EPYC (cpu family 26)", cores=2, memory_bytes=24 * 1024**3, flags=("avx512f",), system="Linux"
    )
    assert machine.slug == "amd-epyc-avx512-2-cores"
    text = report.heading(machine, datetime.date(2026, 1, 2))
    assert text.startswith("# layertap on 2 cores of AMD EPYC (cpu family 26), 2026-01-02")
    assert "avx512f" in text
    run = report.run_heading("python -m benchmarks", {"torch": "2.13.0"}, rounds=5, threads=2)
    assert "`python -m benchmarks`" in run
    assert "5 rounds, 2 threads" in run
    assert "torch 2.13.0" in run


def test_agreement_finds_the_worst_text() -> None:
    reference = np.array([[3.0, 4.0], [0.0, 1.0]], dtype=np.float32)
    same = agreement(reference, reference)
    assert same == Agreement(smallest_cosine=1.0, largest_error=0.0)
    turned = agreement(np.array([[3.0, 4.0], [1.0, 0.0]], dtype=np.float32), reference)
    assert turned.smallest_cosine == 0.0
    assert turned.largest_error == pytest.approx(1 / np.sqrt(26 / 4))


def test_flops_of_one_layer_counted_by_hand() -> None:
    shape = ModelShape(num_hidden_layers=1, hidden_size=2, intermediate_size=3)
    # a text of 5 tokens: q, k, v, out: 4 x 2*5*2*2; up and down: 2 x 2*5*2*3; scores and their product: 2 x 2*5*5*2
    assert shape.flops([5]) == 160 + 120 + 200
    assert shape.flops([5, 5]) == 2 * shape.flops([5])


def test_row_names_are_unique_and_hold_the_reference() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert REFERENCE in names
    assert all(row.variants for row in ROWS)
    assert all(str(row.variants[0]) == "as it comes" for row in ROWS if row.ours)
