"""The keeper of the zoo: counts the broken checkpoints that were tried, and those that were refused as they should."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from layertap.checkpoints.load import POOLER
from layertap.engine.opening import OpenedModel, open_reference
from layertap.engine.options import ModelReference
from layertap.errors import CheckpointError, LayertapError
from tests.selection import slow_except

FAMILIES = ("bert", "roberta")
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}


@dataclass
class Count:
    tried: int = 0
    refused: int = 0
    fuzzed: int = 0


COUNT = pytest.StashKey[Count]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[COUNT] = Count()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    count = config.stash.get(COUNT, Count())
    if count.tried:
        terminalreporter.write_line(f"zoo: refused {count.refused:,} of {count.tried:,} tried")
    if count.fuzzed:
        terminalreporter.write_line(f"zoo: {count.fuzzed:,} damaged files and configs, only our own errors")


@pytest.fixture(scope="session")
def count(request: pytest.FixtureRequest) -> Count:
    """What the summary at the end of the run says; plain numbers, so that a test may add to them."""
    stash = request.config.stash
    return stash.setdefault(COUNT, Count())


@pytest.fixture(params=[pytest.param(5, id="a fifth"), pytest.param(1, id="all", marks=pytest.mark.slow)])
def cases(request: pytest.FixtureRequest) -> Callable[[int], int]:
    """`cases(10_000)`: how many random cases to try, a fifth of them where `slow` tests are left out.

    LAYERTAP_FUZZ=50 makes a long run by hand: fifty times as many.
    """
    times = int(os.environ.get("LAYERTAP_FUZZ", "1"))
    return lambda count: count * times // request.param


@pytest.fixture
def fuzzed(count: Count) -> Callable[[int, int], None]:
    """Count cases, and fail where the mutations no longer reach both sides of the reader."""

    def fuzzed(cases: int, refused: int) -> None:
        count.fuzzed += cases
        assert 0.02 * cases < refused < 0.999 * cases, f"{refused} of {cases} refused"

    return fuzzed


def _load_strictly(folder: Path) -> OpenedModel:
    """Everything that an extractor reads of a folder, every weight included, without a backend."""
    opened = open_reference(
        ModelReference(name=str(folder), revision=None, cache_dir=None, local_files_only=True, allow_pickle=False)
    )
    files = opened.files
    files.weights(name for name in files.spec.parameters() if not (files.pooler == "absent" and name in POOLER))
    return opened


@pytest.fixture(scope="session")
def load_strictly() -> Callable[[Path], OpenedModel]:
    return _load_strictly


@pytest.fixture(scope="session", params=slow_except(FAMILIES, "bert"))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def sound(family: str, tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """A checkpoint of the family that is not broken; nobody changes it."""
    return make_checkpoint(tmp_path_factory.mktemp(family) / "sound", family, **SIZES)


@pytest.fixture(scope="session")
def sound_shards(family: str, tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Path:
    """The same in three files and their index."""
    return make_checkpoint(tmp_path_factory.mktemp(family) / "shards", family, shards=3, **SIZES)


@dataclass
class Cage:
    """Breaks copies of a sound checkpoint, one at a time."""

    folder: Path
    count: Count

    def refuses(
        self,
        sound: Path,
        damage: Callable[[Path], object],
        *,
        error: type[LayertapError] = CheckpointError,
        says: Sequence[object],
        label: object = "",
    ) -> None:
        """Asserts that a damaged copy is refused with this error, and that the message says all of this.

        Args:
            sound: what to copy.
            damage: what happens to the copy.
            error: the class of the error.
            says: file, key, expected, found; as they stand in the message.
            label: which specimen it is, where the test fails.
        """
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(sound, self.folder)
        damage(self.folder)
        self.count.tried += 1
        try:
            _load_strictly(self.folder)
        except error as refused:
            message = str(refused)
        else:
            pytest.fail(f"{label}: loaded")
        assert str(self.folder) in message, f"{label}: {message}"
        for part in says:
            assert str(part) in message, f"{label}: {part!s} is not in: {message}"
        self.count.refused += 1


@pytest.fixture
def cage(tmp_path: Path, count: Count) -> Cage:
    return Cage(folder=tmp_path / "broken", count=count)
