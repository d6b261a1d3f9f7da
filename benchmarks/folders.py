"""Cost of a folder of features against one file: the same texts, features and extractor, in interleaved rounds.

    python -m benchmarks.folders --texts 100000 --rounds 5

Prints the seconds of each round, on the clock and of the processor, and the ratio of the medians. The planning pass,
the hashes and every synchronisation of the folder are part of its time.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import layertap
from layertap import Extractor

FEATURE = "v = hidden_states[3].mean"
WORDS = ("the", "a", "film", "actor", "story", "good", "bad", "funny", "river", "money", "world", "sentence")


def write_texts(path: Path, count: int, source: Path | None) -> None:
    """Write `count` texts as JSONL: lines of a file, over and over, else made ones of 5 to 40 words."""
    chance = random.Random(0)
    lines = [] if source is None else source.read_text(encoding="utf-8").splitlines()
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            made = " ".join(chance.choices(WORDS, k=chance.randint(5, 40)))
            text = f"{lines[i % len(lines)]} {i}" if lines else f"{made} {i}"
            file.write(json.dumps({"id": i, "text": text}) + "\n")


def main() -> None:
    """Run the rounds that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shard-records", type=int, default=2000)
    parser.add_argument("--source", type=Path, help="a file with a text a line, instead of made ones")
    options = parser.parse_args()
    extractor = Extractor.from_pretrained()
    extractor.extract(["warm up"], FEATURE)
    times: dict[str, list[tuple[float, float]]] = {"file": [], "folder": []}
    with tempfile.TemporaryDirectory(prefix="layertap-folders-", dir=Path.cwd()) as home:
        source = Path(home) / "texts.jsonl"
        write_texts(source, options.texts, options.source)
        for number in range(options.rounds):
            for kind in ("file", "folder") if number % 2 else ("folder", "file"):
                output = f"{home}/{kind}" + ("/" if kind == "folder" else ".parquet")
                more = {"shard_records": options.shard_records} if kind == "folder" else {}
                started, used = time.perf_counter(), time.process_time()
                layertap.extract(source, output, FEATURE, model=extractor, **more)
                times[kind].append((time.perf_counter() - started, time.process_time() - used))
                shutil.rmtree(output) if kind == "folder" else Path(output).unlink()
                print(f"{number} {kind:<6} {times[kind][-1][0]:8.2f} s {times[kind][-1][1]:8.2f} s of the processor")
    for i, clock in enumerate(("on the clock", "of the processor")):
        file, folder = (statistics.median(own[i] for own in times[kind]) for kind in ("file", "folder"))
        print(f"folder / file, {clock}: {folder / file:.3f} ({folder:.2f} s / {file:.2f} s)")


if __name__ == "__main__":
    main()
