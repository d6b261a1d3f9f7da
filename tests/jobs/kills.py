"""SIGKILLs at random moments of runs to a folder of features, and a comparison with an uninterrupted run.

    python -m tests.jobs.kills --kills 200 --seed 1

Each trial starts a run (or the index workers of one), kills a process of it at a random moment, and so on until a run
ends by itself. The process is the driver, whose workers must die with it, or a worker of a pool or of a Ray cluster,
without which the run must go on. Then the folder is compared with that of an uninterrupted run: no row may be lost,
doubled or torn, and `data`, `records` and the manifest must be the same bytes. Between the kills, whatever is in the
folder must be whole: a shard that has a record has its file, with the hash of its record.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from layertap.data.folder import LocalFiles, read_contents
from layertap.data.folder.contents import read_plan, read_records
from tests.tiny_models import write_checkpoint
from tests.writing import write

ROOT = Path(__file__).parents[2]
FEATURE = "v = hidden_states[1].mean"
SHARD_RECORDS = 40
WORKERS = 3

RUNNERS: dict[str, Sequence[Sequence[str]]] = {
    "in-process": [[]],
    "index": [["--worker", f"{i}/{WORKERS}"] for i in range(WORKERS)],
    "pool": [["--workers", "2"]],
    "ray": [["--ray", "auto"]],
}
"""Name of a runner -> options of each of its processes."""

WORKER_MARKS = {"pool": b"layertap.jobs.folder.pool_worker", "ray": b"ray::ShardActor"}
"""Name of a runner -> part of the command line of its worker processes."""

SETTING = "LAYERTAP_KILLS"
"""Environment variable that tells the processes of a setting from those of others on the machine."""


@dataclass(slots=True)
class Result:
    """Counts of all trials of a runner.

    Attributes:
        kills: number of processes that were killed.
        runs: number of processes that were started.
        lost, doubled, torn: rows that are missing, there twice, or in a damaged file.
        differing: trials whose folder has other bytes than an uninterrupted run.
        again: shards that were computed although they were finished; the one that a kill hits does not count.
        problems: what else went wrong.
    """

    kills: int = 0
    runs: int = 0
    lost: int = 0
    doubled: int = 0
    torn: int = 0
    differing: int = 0
    again: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, doubled, torn or different, and no finished shard was computed again."""
        bad = self.lost + self.doubled + self.torn + self.differing + self.again
        return not bad and not self.problems


@dataclass(frozen=True, slots=True)
class Setting:
    """Inputs and model of all trials, and the folder of an uninterrupted run.

    Attributes:
        home: folder for everything.
        corpus: the inputs.
        model: the model.
        whole: the folder of an uninterrupted run.
        seconds: time that the uninterrupted run took.
    """

    home: Path
    corpus: Path
    model: Path
    whole: Path
    seconds: float

    @classmethod
    def made(cls, home: Path, texts: Sequence[str] | None) -> Setting:
        """Write the inputs and the model, and run once without a kill."""
        texts = texts or [f"text {i} of some words " * (1 + i % 7) for i in range(900)]
        third = len(texts) // 3
        for i, name in enumerate(("a", "b", "c")):
            rows = [{"id": f"{name}{n}", "text": text} for n, text in enumerate(texts[i * third : (i + 1) * third])]
            write(home / f"corpus/{name}.jsonl", rows)
        model = write_checkpoint(home / "tiny-bert")
        setting = cls(home, home / "corpus", model, home / "whole", 0.0)
        started = time.perf_counter()
        process = setting.start(home / "whole", [])
        _, error = process.communicate()
        if process.returncode:
            raise RuntimeError(f"the uninterrupted run failed: {error.decode()}")
        return cls(home, home / "corpus", model, home / "whole", time.perf_counter() - started)

    def start(self, folder: Path, more: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a process of a run to a folder, the leader of a group of its own."""
        command = [
            sys.executable, "-m", "layertap", "extract", str(self.corpus), "-o", f"{folder}/", "-f", FEATURE,
            "-m", str(self.model), "--shard-records", str(SHARD_RECORDS), "--batch-tokens", "512", "-q", *more,
        ]  # fmt: skip
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", SETTING: str(self.home)}
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )


def trial(setting: Setting, runner: str, kills: int, chance: random.Random, result: Result) -> None:
    """Run to a new folder with some kills, and compare it."""
    folder = setting.home / f"trial-{runner}"
    shutil.rmtree(folder, ignore_errors=True)
    left = kills
    for _ in range(20 * kills + 20):
        processes = [setting.start(folder, more) for more in RUNNERS[runner]]
        result.runs += len(processes)
        if left:
            time.sleep(chance.uniform(0, 1.1 * setting.seconds))
            victim = chance.choice(processes)
            workers = workers_of(setting, runner)
            if workers and chance.random() < 0.5:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(chance.choice(workers), signal.SIGKILL)
                    result.kills += 1
                    left -= 1
            elif victim.poll() is None:
                os.kill(victim.pid, signal.SIGKILL)
                result.kills += 1
                left -= 1
                victim.wait()
                result.problems += orphans(setting, runner)
                if (
                    runner == "index"
                ):  # a scheduler starts a lost task again; the others may wait for the plan of worker 0
                    processes.append(setting.start(folder, RUNNERS[runner][processes.index(victim)]))
                    result.runs += 1
        errors = [process.communicate()[1].decode() for process in processes]
        codes = [process.returncode for process in processes]
        result.problems += [
            f"exit code {code}: {error.strip()}"
            for code, error in zip(codes, errors, strict=True)
            if code not in (0, -signal.SIGKILL)
        ]
        result.torn += sum(1 for _ in torn_shards(folder))
        if not left and not any(codes[-len(RUNNERS[runner]) :]):
            break
    compare(setting, folder, result)


def workers_of(setting: Setting, runner: str) -> list[int]:
    """Find the worker processes of a runner, those of this setting alone, but for the actors of its cluster."""
    mark = WORKER_MARKS.get(runner)
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline") if mark else ():
        with contextlib.suppress(OSError):
            own = runner == "ray" or f"{SETTING}={setting.home}\0".encode() in (path.parent / "environ").read_bytes()
            if own and mark in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def orphans(setting: Setting, runner: str, seconds: float = 120.0) -> list[str]:
    """Wait for the end of the workers of a driver that was killed; return a complaint if they stay."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not workers_of(setting, runner):
            return []
        time.sleep(0.05)
    return [f"workers outlive their driver: {workers_of(setting, runner)}"]


@contextlib.contextmanager
def ray_cluster(runners: Sequence[str]) -> Iterator[None]:
    """Run a Ray cluster on this machine where one of the runners needs it."""
    if "ray" not in runners:
        yield
        return
    ray = [sys.executable, "-m", "ray.scripts.scripts"]
    start = ["start", "--head", "--num-cpus=2", "--include-dashboard=false", "--disable-usage-stats", "--port=0"]
    subprocess.run([*ray, *start], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run([*ray, "stop", "--force"], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def torn_shards(folder: Path) -> Iterator[int]:
    """Yield the shards that have a record and not the file that it states."""
    files = LocalFiles(root=folder)
    plan = read_plan(files)
    for record in () if plan is None else read_records(files, plan.shards):
        path = folder / record.place
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != record.sha256:
            yield record.number


def compare(setting: Setting, folder: Path, result: Result) -> None:
    """Compare a folder with that of the uninterrupted run, row by row and byte by byte."""
    ours, theirs = promised(folder), promised(setting.whole)
    result.differing += ours != theirs
    rows = Counter(rows_of(folder))
    result.doubled += sum(count - 1 for count in rows.values())
    result.lost += len(set(rows_of(setting.whole)) - set(rows))
    if not read_contents(LocalFiles(root=folder)).has_manifest:
        result.problems.append("there is no manifest")
    hidden = sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
    if hidden:
        result.problems.append(f"left behind: {hidden}")
    finished: Counter[int] = Counter()
    for path in (folder / "log").glob("attempts-*.jsonl"):
        for line in path.read_text().splitlines():
            values = json.loads(line) if line.endswith("}") else {}
            finished[values.get("shard", -1)] += "rows" in values
    result.again += sum(count - 1 for number, count in finished.items() if number >= 0 and count > 1)


def rows_of(folder: Path) -> list[tuple[str, int]]:
    """List the rows of a folder as other tools see them: the input and the row in it."""
    table = pq.read_table(folder / "data", columns=["file", "row"])
    return list(zip(table["file"].to_pylist(), table["row"].to_pylist(), strict=True))


def promised(folder: Path) -> dict[str, str]:
    """Return the hashes of the files whose bytes follow from plan and inputs."""
    folders = [folder / name for name in ("data", "records", "errors")]
    paths = [folder / "manifest.json", *(path for own in folders for path in own.iterdir())]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def run(kills: int, seed: int, runners: Sequence[str], texts: Sequence[str] | None = None) -> dict[str, Result]:
    """Kill processes of runs until each runner has had its share, and return the counts of each."""
    chance = random.Random(seed)
    results = {name: Result() for name in runners}
    share = max(1, kills // len(runners))
    with tempfile.TemporaryDirectory(prefix="layertap-kills-") as home, ray_cluster(runners):
        setting = Setting.made(Path(home), texts)
        while sum(result.kills for result in results.values()) < kills:
            name = min(results, key=lambda name: results[name].kills)
            done = sum(result.kills for result in results.values())
            trial(setting, name, min(chance.randint(1, 4), share, kills - done), chance, results[name])
    return results


def main() -> int:
    """Run the trials that the command line asks for, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runner", choices=RUNNERS, action="append", help="again for more (default: all)")
    parser.add_argument("--texts", type=Path, help="a file with a text a line, instead of made ones")
    options = parser.parse_args()
    texts = None if options.texts is None else options.texts.read_text(encoding="utf-8").splitlines()
    started = time.perf_counter()
    results = run(options.kills, options.seed, options.runner or list(RUNNERS), texts)
    for name, result in results.items():
        keys = ("kills", "runs", "lost", "doubled", "torn", "differing", "again")
        counts = {key: getattr(result, key) for key in keys}
        sys.stdout.write(f"{name:<12} {', '.join(f'{key} {value}' for key, value in counts.items())}\n")
        sys.stdout.writelines(f"  {problem}\n" for problem in result.problems)
    sys.stdout.write(f"seed {options.seed}, {time.perf_counter() - started:.0f} s\n")
    return 0 if all(result.is_good for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
