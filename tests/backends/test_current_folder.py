"""A current folder that has been removed is refused before torch is loaded, which would end the process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system keeps the current folder of a process")
@pytest.mark.parametrize("command", ["finetune DATA -o OUT", "extract DATA --backend torch -o OUT.parquet"])
def test_a_removed_current_folder_is_refused_in_words(tmp_path, make_checkpoint, command):
    pytest.importorskip("torch")
    model = make_checkpoint(tmp_path / "model")
    (tmp_path / "data.csv").write_text("text,label\n" + "".join(f"text {i},{i % 2}\n" for i in range(4)))
    arguments = command.replace("DATA", str(tmp_path / "data.csv")).replace("OUT", str(tmp_path / "out"))
    place = tmp_path / "gone"
    place.mkdir()
    program = "import os, sys; os.rmdir(os.getcwd()); from layertap.cli.main import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", program, *arguments.split(), "-m", str(model)],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "the current folder has been removed; change to another folder (cd)" in ended.stderr
