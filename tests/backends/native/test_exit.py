"""The end of the interpreter: what is still referenced then does not concern a user."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("layertap.backends.native._native", reason="the native kernels are not built")

STILL_REFERENCED = {
    "an extractor in a callback": """
        import sys, threading
        from layertap import Extractor
        extractor = Extractor.from_pretrained(sys.argv[1], backend="native")
        vector = extractor.extract("the film", "hidden_states[1].mean")
        sys.excepthook = lambda *_: extractor
        threading._register_atexit(lambda: extractor)
        """,
    "an extractor in a cycle of builtins": """
        import builtins, sys
        from layertap import Extractor
        extractor = Extractor.from_pretrained(sys.argv[1], backend="native")
        extractor.extract("the film", "hidden_states[1].mean")
        extractor.itself = builtins.kept = extractor
        """,
    "types alone": """
        import atexit, sys
        from layertap.backends.native import _native
        sys.kept = (_native.Encoder, _native.Capture, lambda: _native)
        atexit.register(sys.kept[2])
        """,
}


@pytest.mark.parametrize("code", STILL_REFERENCED.values(), ids=STILL_REFERENCED)
def test_nothing_is_printed(code, make_checkpoint, tmp_path):
    folder = make_checkpoint(tmp_path / "tiny-bert")
    lines = "\n".join(line.strip() for line in code.splitlines())
    done = subprocess.run([sys.executable, "-c", lines, str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
