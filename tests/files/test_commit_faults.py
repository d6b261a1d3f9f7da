"""Every system call of everything that the project writes fails once, or is the last of its process."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from layertap.errors import OutputError
from tests.faults import ACTS, SCENARIOS, Scenario, faults, hidden, visible
from tests.selection import stress_except

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
FEW = 5
"""One call of so many fails in the run that everybody makes; the markers slow and stress take them all."""
EVERY_CALL = ("npy", "jsonl, new", "parquet, list of errors comes", "head", "folder of features")


def states(name: str, folder: Path) -> tuple[Scenario, dict[str, bytes], dict[str, bytes], list[str]]:
    """A scenario, its files before and after, and the calls between."""
    scenario = SCENARIOS[name]()
    with faults():
        scenario.prepare(folder)
    old = visible(folder)
    with faults() as calls:
        scenario.write(folder, 2)
    assert hidden(folder) == []
    assert scenario.read(folder) == 2
    return scenario, old, visible(folder), calls


def is_one_of(scenario: Scenario, folder: Path, old: dict[str, bytes], new: dict[str, bytes]) -> str:
    """Which version stands in a folder, as a reader finds it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        version = scenario.read(folder)
    if scenario.is_exact:
        assert visible(folder) in (old, new)
        assert (version == 2) == (visible(folder) == new)
    assert version in ((None if scenario.is_fresh else 1), 2)
    return "new" if version == 2 else "old"


def check_next_run(scenario: Scenario, folder: Path, new: dict[str, bytes]) -> None:
    with warnings.catch_warnings(), faults():
        warnings.simplefilter("ignore")
        if scenario.is_fresh and scenario.read(folder) == 2:  # it may not be overwritten
            for file in visible(folder).keys() - {"notes.md"}:
                (folder / file).unlink()
            for empty in sorted(folder.glob("[!.]*/**/"), reverse=True):
                if not any(empty.iterdir()):
                    empty.rmdir()
        scenario.write(folder, 2)
    assert scenario.read(folder) == 2
    assert hidden(folder) == []
    if scenario.is_exact:
        assert visible(folder) == new


def check_faults(name: str, tmp_path: Path, kind: str, *, lasting: bool, stride: int) -> None:
    scenario, old, new, calls = states(name, tmp_path / "whole")
    for number in range(1 + len(calls) % stride, len(calls) + 1, stride):
        folder = tmp_path / str(number)
        with faults():
            scenario.prepare(folder)
        error: BaseException | None = None
        with warnings.catch_warnings(record=True) as told, faults(number, ACTS[kind], lasting=lasting):
            warnings.simplefilter("always")
            try:
                scenario.write(folder, 2)
            except (OutputError, KeyboardInterrupt) as raised:
                error = raised
        where = (name, kind, number, calls[number - 1], str(error), [str(it.message) for it in told])
        left = [name for name in hidden(folder) if name.endswith((".part", ".commit"))]
        is_kept = error is not None and "cannot be restored" in str(error)
        assert is_kept or all(any(name in str(it.message) for it in told) for name in left), where
        if is_kept:
            assert any(name in str(error) for name in left), where
            assert lasting, where  # one fault alone can always be taken back
            is_one_of(scenario, folder, old, new)
        elif error is None or (scenario.is_exact and "stands there whole" in str(error)):
            assert is_one_of(scenario, folder, old, new) == "new", where
        elif isinstance(error, KeyboardInterrupt) or not scenario.is_exact:
            is_one_of(scenario, folder, old, new)
        else:
            assert is_one_of(scenario, folder, old, new) == "old", where
            assert "as it was" in str(error) or "nothing is left" in str(error) or "cannot be" in str(error), where
        check_next_run(scenario, folder, new)


def check_kills(name: str, tmp_path: Path, *, stride: int) -> None:
    scenario, old, new, calls = states(name, tmp_path / "whole")
    program = [sys.executable, "-m", "tests.faults", name, str(tmp_path / "k"), str(stride), str(len(calls) % stride)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code, after_all = map(int, done.stdout.split()[-2:])
    assert code == 0, done.stderr
    assert after_all > len(calls)
    numbers = list(range(1 + len(calls) % stride, after_all, stride))
    assert numbers
    for number in numbers:
        folder = tmp_path / "k" / str(number)
        seen = visible(folder)
        if scenario.is_exact:  # as a program finds it that knows nothing of commits
            kinds = [{file for file in seen if seen[file] == state.get(file)} for state in (old, new)]
            assert set(seen) in kinds, (name, number, calls[number - 1])
        is_one_of(scenario, folder, old, new)
        check_next_run(scenario, folder, new)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_full_disk_leaves_the_old_or_the_new(name: str, tmp_path: Path) -> None:
    check_faults(name, tmp_path, "ENOSPC", lasting=False, stride=FEW)


@pytest.mark.parametrize("name", ["npy", "jsonl, new"])
def test_a_kill_leaves_the_old_or_the_new(name: str, tmp_path: Path) -> None:
    check_kills(name, tmp_path, stride=3)


@pytest.mark.parametrize("lasting", [False, pytest.param(True, marks=pytest.mark.stress)])
@pytest.mark.parametrize("kind", stress_except(("EIO", "ENOSPC", "ENOSYS", "interrupt"), usual=["EIO"], slow=[]))
@pytest.mark.parametrize("name", stress_except(SCENARIOS, usual=[], slow=EVERY_CALL))
def test_every_fault_leaves_the_old_or_the_new(name: str, kind: str, lasting: bool, tmp_path: Path) -> None:
    if kind == "interrupt" and lasting:
        pytest.skip("a person does not interrupt every call")
    check_faults(name, tmp_path, kind, lasting=lasting, stride=1)


@pytest.mark.parametrize("name", stress_except(SCENARIOS, usual=[], slow=EVERY_CALL))
def test_every_kill_leaves_the_old_or_the_new(name: str, tmp_path: Path) -> None:
    check_kills(name, tmp_path, stride=1)
