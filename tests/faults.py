"""Faults injected into the system calls of `layertap.files`, and everything that the project writes as scenarios."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from layertap.data import open_writer
from layertap.data.readers.base import RowError
from layertap.files import read_settled, settle, staged_folder, system, write_file
from layertap.records import FeatureBatch, FeatureSchema, Ragged, Record

KILLED = 9
"""Exit code of a process that ended in the middle of a call."""

Act = Callable[[], None]


def fail(number: int) -> Act:
    def act() -> None:
        raise OSError(number, os.strerror(number))

    return act


def kill() -> None:
    os._exit(KILLED)


def interrupt() -> None:
    raise KeyboardInterrupt


ACTS: dict[str, Act] = {
    "EIO": fail(errno.EIO),
    "ENOSPC": fail(errno.ENOSPC),
    "ENOSYS": fail(errno.ENOSYS),
    "interrupt": interrupt,
    "kill": kill,
}


@contextmanager
def faults(at: int = 0, act: Act = kill, *, lasting: bool = False, only: str | None = None) -> Iterator[list[str]]:
    """Lets the call with the number `at` fail, counted from 1; 0: none.

    Args:
        at: number of the call.
        act: what happens in its place.
        lasting: whether all later calls fail too, as on a disk that is lost.
        only: the one kind of call that is counted.

    Yields:
        The names of the calls so far.
    """
    calls: list[str] = []
    real = {name: getattr(system, name) for name in system.CALLS}

    def faulty(name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if only in (None, name):
                calls.append(name)
                if at and (len(calls) == at or (lasting and len(calls) > at)):
                    if name == "write":  # a part of it gets there
                        io.FileIO.write(arguments[0], memoryview(arguments[1])[: len(arguments[1]) // 2])
                    act()
            # Nothing here cuts the power, and waiting for the disk takes most of a test's time.
            return None if name in ("sync", "sync_folder") else real[name](*arguments, **keywords)

        return call

    for name in system.CALLS:
        setattr(system, name, faulty(name))
    try:
        yield calls
    finally:
        for name, function in real.items():
            setattr(system, name, function)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Something that the project writes.

    Attributes:
        write: `write(folder, version)` writes version 1 or 2 of it into a folder.
        read: `read(folder)` gives the version that is read back, None if there is none; raises for a mixture.
        is_fresh: whether version 1 is not there before.
        is_exact: whether its visible files are those of one version; otherwise `read` alone decides.
    """

    write: Callable[[Path, int], None]
    read: Callable[[Path], int | None]
    is_fresh: bool = False
    is_exact: bool = True

    def prepare(self, folder: Path) -> None:
        """Makes the state before the run, with a file of the user's beside."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "notes.md").write_text("mine")
        if not self.is_fresh:
            self.write(folder, 1)


def visible(folder: Path) -> dict[str, bytes]:
    """Content of every file that is not hidden, or in a hidden folder."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in named.items() if not any(p[0] == "." for p in name.split("/"))}


def hidden(folder: Path) -> list[str]:
    """Hidden files and folders, locks of a library apart."""
    return sorted(path.name for path in folder.rglob(".*") if path.name != ".lock")


RAGGED = FeatureSchema(name="f", dtype="float32", shape=(3,), ragged=True)
DENSE = FeatureSchema(name="f", dtype="float32", shape=(3,), ragged=False)
ERRORS = (RowError(row=4, where="line 5", reason="no text"),)


def features(version: int, schema: FeatureSchema) -> FeatureBatch:
    count = 2 + version
    records = [Record(row=i, text="") for i in range(count)]
    if not schema.ragged:
        return FeatureBatch(records=records, features={"f": np.full((count, 3), version, np.float32)})
    offsets = np.arange(count + 1, dtype=np.int64) * version
    values = np.full((offsets[-1], 3), version, np.float32)
    return FeatureBatch(records=records, features={"f": Ragged(values, offsets)})


def output(
    ending: str,
    *,
    first: FeatureSchema = DENSE,
    second: FeatureSchema = DENSE,
    listed: tuple[int, ...] = (),
    **more: Any,
) -> Scenario:
    def write(folder: Path, version: int) -> None:
        schema = first if version == 1 else second
        given = {"schemas": [schema], "provenance": {"version": version}, "overwrite": not more.get("is_fresh")}
        with open_writer(folder / f"o.{ending}", **given) as writer:
            writer.write(features(version, schema))
            writer.list_errors(ERRORS if version in listed else ())

    def read(folder: Path) -> int | None:
        import layertap

        path = folder / f"o.{ending}"
        settle(folder, path.name)
        if not path.exists():
            return None
        if ending == "jsonl":
            return 1 if b"1.0" in path.read_bytes() else 2
        with layertap.open(path) as file:
            version = file.provenance["version"]
            schema = first if version == 1 else second
            assert len(file) == 2 + version
            (name,) = file.features  # npy holds no name
            assert file.features[name].ragged == schema.ragged
            assert np.all(np.asarray(file[0][name]) == version)
            return version

    return Scenario(write=write, read=read, **more)


def report() -> Scenario:
    def write(folder: Path, version: int) -> None:
        write_file(folder / "report.html", b"%d" % version * 10, overwrite=True)

    def read(folder: Path) -> int:
        return int(read_settled(folder / "report.html", (folder / "report.html").read_text)[0])

    return Scenario(write=write, read=read)


def head(**more: Any) -> Scenario:
    from layertap.learn.heads.files import read_head, write_head

    def write(folder: Path, version: int) -> None:
        arrays = {"weight": np.full((2, 3), version, np.float32), "bias": np.zeros(2, np.float32)}
        write_head(folder / "h", {"name": str(version)}, arrays, overwrite=not more.get("is_fresh"))

    def read(folder: Path) -> int | None:
        if not (folder / "h").exists():
            return None
        stated, arrays = read_head(folder / "h")
        assert np.all(arrays["weight"] == int(stated["name"]))
        return int(stated["name"])

    return Scenario(write=write, read=read, **more)


def saved_model(place: str = ".", **more: Any) -> Scenario:
    from layertap.hf import BertConfig, BertModel

    def write(folder: Path, version: int) -> None:
        import torch

        torch.manual_seed(version)
        config = BertConfig(
            vocab_size=11, hidden_size=8 * version, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
            max_position_embeddings=16,
        )  # fmt: skip
        BertModel(config).save_pretrained(folder / place)

    def read(folder: Path) -> int | None:
        if not (folder / place).is_dir():
            return None
        settle(folder / place, "layertap")
        if not (folder / place / "config.json").exists():
            return None
        return BertModel.from_pretrained(folder / place, add_pooling_layer=False).config.hidden_size // 8

    return Scenario(write=write, read=read, **more)


def saved_config() -> Scenario:
    from layertap.hf import BertConfig

    return Scenario(
        write=lambda folder, version: BertConfig(vocab_size=version).save_pretrained(folder),
        read=lambda folder: BertConfig.from_pretrained(folder).vocab_size,
    )


def saved_tokenizer() -> Scenario:
    from layertap.hf import BertTokenizer
    from tests.tiny_models import write_checkpoint

    made: list[Any] = []

    def write(folder: Path, version: int) -> None:
        if not made:
            made.append(BertTokenizer.from_pretrained(write_checkpoint(folder.parent / "model", "bert")))
        made[0].model_max_length = version
        made[0].padding_side = "left" if version == 1 else "right"
        made[0].save_pretrained(folder)

    def read(folder: Path) -> int:
        settle(folder, "layertap")
        return int(BertTokenizer.from_pretrained(folder).model_max_length)

    return Scenario(write=write, read=read)


def fine_tuned() -> Scenario:
    from layertap.hf.saving import write_weights

    def write(folder: Path, version: int) -> None:
        import torch

        with staged_folder(folder / "out", first="config.json", overwrite=False) as staged:
            staged.write("config.json", b"%d" % version)
            write_weights(staged, {"w": torch.full((4,), float(version))})

    def read(folder: Path) -> int | None:
        settle(folder, "out")
        return int((folder / "out/config.json").read_text()) if (folder / "out").exists() else None

    return Scenario(write=write, read=read, is_fresh=True)


def cached_vectors() -> Scenario:
    from layertap.learn.vectors import cache

    kind = getattr(cache, "CacheKey", None) or cache.Shelf

    def shelf(folder: Path) -> Any:
        return kind(cache=folder, identity={"feature": "f"}, width=3)

    def write(folder: Path, version: int) -> None:
        shelf(folder).write([b"%016d" % version], np.full((1, 3), version, np.float32))

    def read(folder: Path) -> int | None:
        vectors, is_there = shelf(folder).read([b"%016d" % 1, b"%016d" % 2])
        assert all(np.all(vectors[i] == i + 1) for i in range(2) if is_there[i])
        return int(is_there.sum()) or None

    return Scenario(write=write, read=read, is_exact=False)


def training_state() -> Scenario:
    from layertap.learn.finetuning.state import RunFolder

    def write(folder: Path, version: int) -> None:
        import torch

        run = RunFolder(folder / "out.training", {"epochs": 1})
        run.save_best(version, {"w": torch.full((4,), float(version))})
        run.save({"best_step": version})

    def read(folder: Path) -> int | None:
        run = RunFolder(folder / "out.training", {"epochs": 1})
        if not run.is_there():
            return None
        version = int(run.load()["best_step"])
        assert float(run.best(version)["w"][0]) == version
        return version

    return Scenario(write=write, read=read, is_exact=False)


def feature_folder(**more: Any) -> Scenario:
    import layertap
    from layertap.data.folder import LocalFiles, read_contents
    from layertap.files.shared import sha256_of
    from tests.tiny_models import write_checkpoint
    from tests.writing import write as write_rows

    made: list[Any] = []

    def write(folder: Path, version: int) -> None:
        corpus = folder.parent / f"corpus-{version}"
        if not corpus.is_dir():
            rows = [{"text": f"text {i if i != 3 else version}"} for i in range(5)]
            write_rows(corpus / "a.jsonl", rows)
            if version == 2:
                write_rows(corpus / "b.jsonl", rows[:3])
        if not made:
            made.append(layertap.Extractor.from_pretrained(write_checkpoint(folder.parent / "model", "bert")))
        # Version 2 grows the folder: a shard has changed, and there is a new input.
        layertap.extract(corpus, f"{folder / 'f'}/", "v = hidden_states[0].mean", model=made[0], shard_records=3)

    def read(folder: Path) -> int | None:
        if not (folder / "f/manifest.json").is_file() and more.get("is_fresh"):
            return None
        contents = read_contents(LocalFiles(root=folder / "f"))
        for record in contents.records:
            assert sha256_of(folder / "f" / record.place) == record.sha256
        return {5: 1, 8: 2}[sum(record.rows for record in contents.records)]

    return Scenario(write=write, read=read, is_exact=False, **more)


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "npy": lambda: output("npy", first=RAGGED, second=RAGGED),
    "npy, new": lambda: output("npy", first=RAGGED, second=RAGGED, is_fresh=True),
    "npy, offsets go": lambda: output("npy", first=RAGGED),
    "npy, offsets come": lambda: output("npy", second=RAGGED),
    "jsonl": lambda: output("jsonl", listed=(1, 2)),
    "jsonl, new": lambda: output("jsonl", listed=(2,), is_fresh=True),
    "parquet": lambda: output("parquet"),
    "parquet, list of errors comes": lambda: output("parquet", listed=(2,)),
    "parquet, list of errors goes": lambda: output("parquet", listed=(1,)),
    "parquet, new": lambda: output("parquet", listed=(2,), is_fresh=True),
    "npz": lambda: output("npz", first=RAGGED, second=RAGGED, listed=(1, 2)),
    "safetensors": lambda: output("safetensors", first=RAGGED, second=RAGGED, listed=(1,)),
    "report": report,
    "head": head,
    "head, new": lambda: head(is_fresh=True),
    "model": saved_model,
    "model, new": lambda: saved_model("a/b", is_fresh=True),
    "config": saved_config,
    "tokenizer": saved_tokenizer,
    "fine-tuned": fine_tuned,
    "cache": cached_vectors,
    "training state": training_state,
    "folder of features": feature_folder,
    "folder of features, new": lambda: feature_folder(is_fresh=True),
}


def main(name: str, folder: str, stride: str, offset: str) -> None:
    """Kills a process of its own at every `stride`-th call of a scenario; leaves what each left in a folder.

    This is a program: a process with the threads of a test run cannot be forked.
    """
    import torch

    torch.set_num_threads(1)
    scenario = SCENARIOS[name]()
    root = Path(folder)

    def child(number: int) -> int:
        process = os.fork()
        if process == 0:
            code = 1
            try:
                with faults():
                    scenario.prepare(root / str(number))
                with faults(number, kill):
                    scenario.write(root / str(number), 2)
                code = 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

    number = 1 + int(offset)
    while (code := child(number)) == KILLED:
        number += int(stride)
    sys.stdout.write(f"{code} {number}")


if __name__ == "__main__":
    main(*sys.argv[1:])
