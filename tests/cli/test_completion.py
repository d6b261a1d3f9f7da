"""`layertap completion`."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from layertap.cli import completion
from layertap.cli.main import main


def completed(script: Path, *words: str) -> set[str]:
    """Return what bash offers for the last of the words."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    quoted = " ".join(f"'{word}'" for word in words)
    code = (
        f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
        f"function=$(complete -p layertap | sed 's/.*-F \\([^ ]*\\).*/\\1/'); "
        f"$function layertap '{words[-1]}' '{words[-2]}'; echo \"${{COMPREPLY[@]}}\""
    )
    return set(subprocess.run([bash, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_bash_completes_commands_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "layertap.bash"
    script.write_text(capsys.readouterr().out)
    assert {"extract", "explain", "export"} <= completed(script, "layertap", "ex")
    assert completed(script, "layertap", "extract", "--feat") == {"--feature"}
    assert "bash" in completed(script, "layertap", "completion", "ba")


@pytest.mark.parametrize(("shell", "mark"), [("zsh", "#compdef layertap"), ("fish", "complete -c layertap")])
def test_other_shells_have_scripts_of_their_own(shell: str, mark: str, capsys: pytest.CaptureFixture[str]):
    pytest.importorskip("shtab")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert mark in script
    assert "--text-column" in script or "text-column" in script


def test_a_missing_library_and_a_wrong_shell_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert main(["completion", "tcsh"]) == 2
    assert "tcsh" in capsys.readouterr().err
    monkeypatch.setattr(completion, "find_spec", lambda _: None)
    assert main(["completion", "bash"]) == 2
    assert "pip install 'layertap[completion]'" in capsys.readouterr().err
