"""The measurements of a device: what they compute, and that a machine without one is told so."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from benchmarks.__main__ import main
from benchmarks.device import LENGTHS, Rates, floor_seconds, random_batch
from benchmarks.models import model_spec
from benchmarks.peers import ROWS

SCRIPT = Path(__file__).parents[2] / "benchmarks/device.sh"


def test_the_floor_of_bert_base():
    """By hand: 12 (8 H^2 + 4 H F) operations a token, 18 passes of H numbers a layer."""
    spec = model_spec("bert-base")
    batch = random_batch(spec, 65_536, LENGTHS["64"])
    assert batch.num_tokens == 65_536
    products = 12 * (8 * 768**2 + 4 * 768 * 3_072) * 65_536 + 12 * 4 * 768 * 65_536 * 64
    seconds = floor_seconds(spec, batch, "bfloat16", Rates(products=790e12, copies=4.3e12))
    assert seconds == pytest.approx(products / 790e12 + 12 * 18 * 65_536 * 768 * 2 / 4.3e12)
    assert 0.017 < seconds < 0.021


def test_a_step_on_the_processor(capsys):
    arguments = "device batch --device cpu --tokens 64 --layers 1 --rounds 1 --product 64 --precision float32"
    assert main(arguments.split()) == 0
    printed = capsys.readouterr().out
    for lengths in LENGTHS:
        assert f"bert-base, float32, mean, lengths {lengths}: device" in printed
        assert f"bert-base, float32, mean, lengths {lengths}: floor" in printed


def test_a_device_that_is_no_device(capsys):
    assert main(["device", "versions", "--device", "mps"]) == 1
    assert "device 'mps': expected cpu, cuda or cuda:N" in capsys.readouterr().err


def test_parts_that_measure_the_processor_are_refused_on_a_device(capsys):
    with pytest.raises(SystemExit):
        main(["memory", "--device", "cuda"])
    assert "only the part 'speed' runs there" in capsys.readouterr().err


def test_rows_of_torch_run_on_a_device_with_larger_batches():
    rows = [row for row in ROWS if row.on_device]
    assert {row.library for row in rows} == {"layertap", "transformers", "sentence-transformers"}
    assert not any(row.ours for row in rows)  # the native backend
    for row in rows:
        sizes = [variant.batch_size for variant in row.variants_on("cuda")]
        assert sizes in ([0], [128, 32, 512])
        assert row.variants_on("cpu") == row.variants


def test_the_script_is_sound():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    text = SCRIPT.read_text("utf-8")
    assert "install" not in text.replace("no installation", "")
