"""Weights that change under an open extractor: numbers of the file that was opened, or an error in words.

In processes of their own: a mapping of a truncated file ends the process with SIGBUS.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from layertap.engine.extractor import Extractor

SCRIPT = """
import sys, os, shutil, hashlib
import numpy as np
from pathlib import Path
import layertap
from layertap.errors import CheckpointError

folder, other, change, backend = sys.argv[1:]
place = Path(folder, "model.safetensors")
texts = ["a good film", "word by word", "hello world"]
first, last = "hidden_states[1].mean", "hidden_states[-1].mean"
extractor = layertap.Extractor.from_pretrained(folder, backend=backend)
before = extractor.extract(texts, first)
hashed = hashlib.sha256(place.read_bytes()).hexdigest()
if change == "truncate":
    os.truncate(place, 4096)
elif change == "empty":
    os.truncate(place, 0)
elif change == "copy":
    shutil.copyfile(Path(other, "model.safetensors"), place)
elif change == "copy with its times":
    status = place.stat()
    shutil.copyfile(Path(other, "model.safetensors"), place)
    os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
elif change == "rename":
    shutil.copyfile(Path(other, "model.safetensors"), place.with_name("new"))
    place.with_name("new").replace(place)
elif change == "remove":
    shutil.rmtree(folder)
assert np.array_equal(extractor.extract(texts, first), before), "the block that is loaded"
try:
    np.save(sys.stdout.buffer, extractor.extract(texts, last))
    assert extractor.provenance(last)["sha256"]["model.safetensors"] == hashed or change == "remove"
except CheckpointError as error:
    print(error, file=sys.stderr)
    sys.exit(7)
"""


def run(folder: Path, other: Path, change: str, backend: str) -> subprocess.CompletedProcess[bytes]:
    # Of long ago: a write within the clock's step of the file system would not show.
    os.utime(folder / "model.safetensors", (1e9, 1e9))
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, folder, other, change, backend], capture_output=True, check=False
    )


@pytest.fixture
def folders(tmp_path: Path, make_checkpoint) -> tuple[Path, Path]:
    return make_checkpoint(tmp_path / "one"), make_checkpoint(tmp_path / "other", seed=5)


CHANGES = ("truncate", "empty", "copy", "copy with its times")


@pytest.mark.parametrize(
    ("change", "backend"),
    [
        *((change, "native") for change in CHANGES),
        # importing torch takes each process two seconds
        *(pytest.param(change, "torch", marks=() if change == "copy" else pytest.mark.slow) for change in CHANGES),
    ],
)
def test_a_block_of_a_changed_file_is_refused(folders: tuple[Path, Path], change: str, backend: str) -> None:
    done = run(*folders, change, backend)
    assert done.returncode == 7, done.stderr.decode()
    message = done.stderr.decode()
    assert "model.safetensors: it changed after it was opened: it" in message
    assert "open it again" in message


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_file_renamed_over_it_leaves_the_opened_one_in_use(folders: tuple[Path, Path], backend: str) -> None:
    expected = Extractor.from_pretrained(folders[0], backend=backend).extract(
        ["a good film", "word by word", "hello world"], "hidden_states[-1].mean"
    )
    done = run(*folders, "rename", backend)
    assert done.returncode == 0, done.stderr.decode()
    array = np.lib.format.read_array(__import__("io").BytesIO(done.stdout))
    assert np.array_equal(array, expected)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_hashes_are_of_what_was_read(folders: tuple[Path, Path], name: str) -> None:
    from layertap.errors import CheckpointError

    extractor = Extractor.from_pretrained(folders[0])
    (folders[0] / name).write_text((folders[0] / name).read_text() + "\n")
    with pytest.raises(CheckpointError, match=f"{name}: it changed after it was read"):
        extractor.provenance("hidden_states[1].mean")
    shutil.rmtree(folders[0])
