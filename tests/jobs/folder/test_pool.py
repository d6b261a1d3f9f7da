"""Runs with several processes: the same bytes as one, whatever happens to a worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import layertap
from layertap import Extractor
from layertap.data.folder import ShardRecord
from layertap.data.input import read_options
from layertap.errors import BackendError, InputError, OptionError, OutputError
from layertap.jobs.folder import pool
from layertap.jobs.folder.drive import open_folder_run
from layertap.jobs.folder.job import FolderJob
from layertap.jobs.folder.pool import ProcessPool
from layertap.jobs.folder.run import RunnerChoice
from layertap.jobs.folder.runner import Event, ShardFailed, ShardFinished, WorkersAlive
from layertap.jobs.folder.task import FolderTask
from tests.faults import visible
from tests.writing import write

FEATURE = "v = hidden_states[1].mean"

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the tests find processes in /proc")


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory, make_checkpoint: Callable[..., Path]) -> Extractor:
    return Extractor.from_pretrained(make_checkpoint(tmp_path_factory.mktemp("pool") / "tiny-bert"))


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    for name, count in (("b", 25), ("a", 12)):
        rows = [{"text": f"{name} text {i} " + "of some " * (i % 5), "id": f"{name}-{i}"} for i in range(count)]
        write(tmp_path / f"corpus/{name}.jsonl", rows)
    return tmp_path / "corpus"


@pytest.fixture
def whole(tmp_path: Path, corpus: Path, extractor: Extractor) -> dict[str, bytes]:
    """What a run in this process makes."""
    layertap.extract(corpus, f"{tmp_path}/whole/", FEATURE, model=extractor, shard_records=5)
    return promised(tmp_path / "whole")


def promised(folder: Path) -> dict[str, bytes]:
    return {
        name: content for name, content in visible(folder).items() if not name.startswith(("log/", "layertap.json"))
    }


def workers_of(process: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.fixture
def run(tmp_path: Path, corpus: Path, extractor: Extractor) -> Callable[..., list[Event]]:
    """Run a pool to the folder `f`, and return its events; `heard` is called with each of them."""

    def ran(heard: Callable[[Event], None] = lambda _: None, *, shard_records: int = 5, **options: Any) -> list[Event]:
        events: list[Event] = []

        def report(event: Event) -> None:
            events.append(event)
            heard(event)

        job = FolderJob.checked(
            [corpus], f"{tmp_path}/f/", options=read_options(), features=FEATURE, shard_records=shard_records
        )
        with open_folder_run(job, extractor) as opened:
            task = FolderTask.of(job, extractor)
            opened.run(ProcessPool(task=task, **({"workers": 2, "threads": 2} | options)), report)
            opened.finish(extractor)
        return events

    return ran


def test_two_processes_make_the_same_bytes_as_one(tmp_path, run, whole):
    events = run()
    assert promised(tmp_path / "f") == whole
    finished = [event for event in events if isinstance(event, ShardFinished)]
    assert sorted(event.record.number for event in finished) == list(range(8))
    assert [event.count for event in events if isinstance(event, WorkersAlive)][-1] == 0
    assert all(isinstance(event.record, ShardRecord) for event in finished)


def test_a_killed_worker_is_replaced(tmp_path, run, whole):
    killed: list[int] = []

    def kill(event: Event) -> None:
        if isinstance(event, ShardFinished) and len(killed) < 2:
            killed.append(workers_of(os.getpid())[0])
            os.kill(killed[-1], signal.SIGKILL)

    events = run(kill)
    assert len(killed) == 2
    assert promised(tmp_path / "f") == whole
    assert not any(isinstance(event, ShardFailed) and event.is_final for event in events)


@pytest.mark.slow
def test_a_hung_worker_is_killed_and_replaced(tmp_path, monkeypatch, run, whole):
    stopped: list[int] = []

    def stop(event: Event) -> None:
        if isinstance(event, ShardFinished) and not stopped:
            stopped.append(workers_of(os.getpid())[0])
            os.kill(stopped[0], signal.SIGSTOP)

    # The clock of the pool leaps when the worker is stopped: on a slow machine others may be silent for seconds, too.
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + 5000 * len(stopped))
    monkeypatch.setattr(pool, "time", clock)
    events = run(stop, workers=1, stall_seconds=5000)
    assert promised(tmp_path / "f") == whole
    assert [event.reason for event in events if isinstance(event, ShardFailed)] == ["no progress for 5,000 s"]
    assert not Path(f"/proc/{stopped[0]}").exists()


@pytest.mark.slow
def test_a_shard_that_kills_its_workers_is_given_up_and_the_others_finished(tmp_path, monkeypatch, run, whole):
    dying = (
        "import os, layertap.jobs.folder.shard as shard; compute = shard.ShardWorker.compute\n"
        "shard.ShardWorker.compute = lambda self, planned, **more: (\n"
        "    os.kill(os.getpid(), 9) if planned.number == 1 else compute(self, planned, **more))\n"
    )
    path, then = pool.START.split("; from ", 1)
    monkeypatch.setattr(pool, "START", f"{path}\n{dying}\nfrom {then}")
    with pytest.raises(OutputError, match=r"1 shard could not be computed; shard 1: it was killed \(SIGKILL\)"):
        run(workers=1)
    assert len(list((tmp_path / "f/records").iterdir())) == 7
    monkeypatch.undo()
    run()
    assert promised(tmp_path / "f") == whole


@pytest.mark.slow
def test_the_token_budget_is_halved_each_time(monkeypatch, run):
    """The worker says by its exit code how often it was."""
    dying = (
        "import os, layertap.jobs.folder.shard as shard\n"
        "shard.ShardWorker.compute = lambda self, planned, halvings=0, **more: os._exit(70 + halvings)\n"
    )
    path, then = pool.START.split("; from ", 1)
    monkeypatch.setattr(pool, "START", f"{path}\n{dying}\nfrom {then}")
    events: list[Event] = []
    with pytest.raises(OutputError, match="2 shards could not be computed"):
        run(events.append, shard_records=40)
    reasons = [event.reason for event in events if isinstance(event, ShardFailed) and event.shard == 0]
    assert reasons == [f"it ended with exit code {70 + i}" for i in range(4)]


def test_workers_that_cannot_start_end_the_run(monkeypatch, run):
    monkeypatch.setattr(pool, "START", "raise SystemExit('no such module')")
    with pytest.raises(BackendError, match=r"3 workers ended .* before the model was open: .*no such module"):
        run()


@pytest.mark.filterwarnings("ignore:.* bytes that a killed run left there")  # the other worker may be writing
def test_an_error_of_the_input_ends_the_run_with_its_own_words(tmp_path, corpus, extractor):
    with (corpus / "b.jsonl").open("a") as file:
        file.write('{"text": "long text ' + "w " * 300 + '"}\n')
    strict = Extractor.from_pretrained(extractor.reference.name, long="error")
    with pytest.raises(InputError, match=r"the limit is") as alone:
        layertap.extract(corpus, f"{tmp_path}/one/", FEATURE, model=strict, shard_records=5)
    with pytest.raises(InputError, match=r"the limit is") as together:
        layertap.extract(corpus, f"{tmp_path}/two/", FEATURE, model=strict, shard_records=5, workers=2)
    assert str(together.value) == str(alone.value)
    assert any("run the same command again" in note for note in together.value.__notes__)


@pytest.mark.slow
def test_workers_die_with_their_driver(tmp_path, corpus, extractor):
    """The driver is a process of its own that is killed as soon as a shard is finished."""
    code = (
        "import layertap, sys; layertap.extract(sys.argv[1], sys.argv[2], sys.argv[3], model=sys.argv[4], "
        "shard_records=2, workers=2, batch_tokens=8)"
    )
    arguments = [str(corpus), f"{tmp_path}/f/", FEATURE, extractor.reference.name]
    driver = subprocess.Popen([sys.executable, "-c", code, *arguments], start_new_session=True)
    workers: list[int] = []
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and not list((tmp_path / "f").glob("records/*")):
        workers = workers_of(driver.pid) or workers
        time.sleep(0.01)
    assert workers
    driver.kill()
    driver.wait()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and any(is_running(pid) for pid in workers):
        time.sleep(0.05)
    assert not any(is_running(pid) for pid in workers)


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers 0: expected a whole number from 1 to 1,024"),
        ({"workers": True}, "workers True: expected"),
        ({"ray": " "}, "--ray wants auto"),
    ],
)
def test_refuses_workers_that_cannot_be(tmp_path, corpus, extractor, options, message):
    with pytest.raises(OptionError, match=message):
        layertap.extract(corpus, f"{tmp_path}/f/", FEATURE, model=extractor, **options)
    assert not (tmp_path / "f").exists()


def test_refuses_workers_for_a_file(tmp_path, corpus, extractor):
    with pytest.raises(OptionError, match="workers and ray go with a folder of features"):
        layertap.extract(corpus / "a.jsonl", tmp_path / "f.npz", FEATURE, model=extractor, workers=2)


@pytest.mark.slow
def test_a_pool_runs_in_a_thread(tmp_path, corpus, extractor, whole):
    errors: list[BaseException] = []

    def work() -> None:
        try:
            layertap.extract(corpus, f"{tmp_path}/f/", FEATURE, model=extractor, shard_records=5, workers=2)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not errors
    assert promised(tmp_path / "f") == whole


def test_threads_that_torch_has_from_its_process_are_divided_too(tmp_path, corpus, extractor):
    job = FolderJob.checked([corpus], f"{tmp_path}/f/", options=read_options(), features=FEATURE)
    task = FolderTask.of(job, extractor)
    assert task.runtime.threads is None
    runner = RunnerChoice.checked(workers=2, ray=None, threads=5).runner(task)
    assert isinstance(runner, ProcessPool)
    assert [runner.task_of(i).runtime.threads for i in range(2)] == [3, 2]
