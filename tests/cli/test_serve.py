"""`layertap serve`: what is refused before a server starts. `tests/server/test_run.py` starts some."""

from __future__ import annotations

import sys

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "99999"], "--port 99999: expected a number from 0 to 65535"),
        (["--port", "-1"], "--port -1"),
        (["--max-texts", "0"], "--max-texts 0: expected a positive number"),
        (["--queue-seconds", "-1"], "--queue-seconds -1.0"),
        (["--max-body-size", "many"], "--max-body-size 'many': expected a size"),
        (["--non-finite", "keep"], "--non-finite"),
        (["--api-key-file", "/no/such/file"], "--api-key-file /no/such/file: No such file"),
        (["-f", "v = hidden_state[1]"], "hidden_states[i]"),
        (["-f", "v = hidden_states[99].mean"], "out of range"),
        (["-f", "v = last_hidden_state.cls", "-f", "v = last_hidden_state.mean"], "twice"),
        (["--model-name", "v", "-f", "v = last_hidden_state.cls"], "'v' is the name of the model"),
        (["--explore"], "--explore"),
    ],
)
def test_refusals(refused, model, arguments, said):
    assert said in refused(2, "serve", "-m", model, "--port", "0", *arguments)


def test_a_folder_that_is_no_head(refused, model, tmp_path):
    assert str(tmp_path) in refused(1, "serve", "-m", model, "--port", "0", "--head", tmp_path)


@pytest.mark.parametrize("text", ["", "two words", "kéy", "\0"])
def test_a_key_that_is_none(refused, model, tmp_path, text):
    (tmp_path / "key").write_text(text)
    assert "one key of printable" in refused(2, "serve", "-m", model, "--api-key-file", tmp_path / "key")


def test_without_the_extra(refused, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "fastapi", None)
    for name in [name for name in sys.modules if name.startswith("layertap.server")]:
        monkeypatch.delitem(sys.modules, name)
    assert "pip install 'layertap[serve]'" in refused(2, "serve", "-m", model, "--port", "0")
