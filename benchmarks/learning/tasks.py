"""Read six public tasks as lists of texts, or of words, with their labels."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from benchmarks.workload import DataNotFoundError

Label: TypeAlias = str | tuple[str, ...]
Item: TypeAlias = str | list[str]

TREEBANK_WORDS = 40_000
"""Number of words of the treebank's training part, in whole sentences that are drawn once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a task: labelled texts, or lists of words.

    Attributes:
        items: texts, or lists of words.
        labels: one label per text, or a tuple with one label per word.
    """

    items: list[Item]
    labels: list[Label]

    def __len__(self) -> int:
        return len(self.items)

    def of(self, rows: list[int]) -> Part:
        """Select items by their row numbers."""
        return Part(items=[self.items[row] for row in rows], labels=[self.labels[row] for row in rows])

    @property
    def flat(self) -> list[str]:
        """Labels of all items, laid end to end."""
        return [label for given in self.labels for label in ((given,) if isinstance(given, str) else given)]


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningTask:
    """A task with its data and metrics.

    Attributes:
        name: name in commands and tables.
        title: description of the task.
        unit: unit that has a label, "text" or "word".
        metrics: metrics of `scores.scores_of`; the first one decides between layers.
        train, test: training and test part.
        dev: validation part of the data, or None if there is none.
    """

    name: str
    title: str
    unit: Literal["text", "word"]
    metrics: tuple[str, ...]
    train: Part
    dev: Part | None
    test: Part

    def draw(self, seed: int) -> tuple[list[int], list[int]]:
        """Split the training part at random into nine tenths and one tenth, as row numbers.

        The tenth serves as the validation part of data that have none.
        """
        rows: list[int] = np.random.default_rng(seed).permutation(len(self.train)).tolist()
        cut = len(rows) // 10
        return sorted(rows[cut:]), sorted(rows[:cut])


def read_task(name: str, data: Path) -> LearningTask:
    """Read the data of a task.

    Raises:
        DataNotFoundError: the data are missing.
    """
    try:
        return _TASKS[name](data)
    except OSError as error:
        raise DataNotFoundError(f"no data of {name} ({error}); say where they are with --data FOLDER.") from error


def _sst2(data: Path) -> LearningTask:
    def part(name: str) -> Part:
        lines = (data / "sst" / f"stsa.binary.{name}.txt").read_text("utf-8").splitlines()
        rows = [line.split(" ", 1) for line in lines]
        return Part(items=[text for _, text in rows], labels=[label for label, _ in rows])

    return LearningTask(
        name="sst2",
        title="SST-2, sentiment of sentences",
        unit="text",
        metrics=("accuracy",),
        train=part("train"),
        dev=part("dev"),
        test=part("test"),
    )


def _trec6(data: Path) -> LearningTask:
    def part(name: str) -> Part:
        lines = (data / "trec_questions" / f"{name}.txt").read_text("latin-1").splitlines()
        rows = [line.split(" ", 1) for line in lines]
        return Part(items=[text for _, text in rows], labels=[label.split(":")[0] for label, _ in rows])

    return LearningTask(
        name="trec6",
        title="TREC-6, types of questions",
        unit="text",
        metrics=("accuracy", "macro_f1"),
        train=part("train"),
        dev=None,
        test=part("test"),
    )


def _banking77(data: Path) -> LearningTask:
    def part(name: str) -> Part:
        with (data / "banking77" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return Part(items=[row["text"] for row in rows], labels=[row["category"] for row in rows])

    return LearningTask(
        name="banking77",
        title="banking77, 77 intents",
        unit="text",
        metrics=("accuracy", "macro_f1"),
        train=part("train"),
        dev=None,
        test=part("test"),
    )


def _cola(data: Path) -> LearningTask:
    def part(*names: str) -> Part:
        lines = [line for name in names for line in (data / "cola" / f"{name}.tsv").read_text("utf-8").splitlines()]
        rows = [line.split("\t") for line in lines]
        return Part(items=[row[3] for row in rows], labels=[row[1] for row in rows])

    return LearningTask(
        name="cola",
        title="CoLA, acceptability (tested on the public dev parts, in and out of domain)",
        unit="text",
        metrics=("mcc",),
        train=part("in_domain_train"),
        dev=None,
        test=part("in_domain_dev", "out_of_domain_dev"),
    )


def _wnut17(data: Path) -> LearningTask:
    def part(name: str) -> Part:
        sentences = list(_sentences(data / "ner_wnut17" / name, word=0, tag=1))
        return Part(items=[words for words, _ in sentences], labels=[tags for _, tags in sentences])

    return LearningTask(
        name="wnut17",
        title="WNUT17, entities in tweets and posts",
        unit="word",
        metrics=("entity_f1",),
        train=part("wnut17train.conll"),
        dev=part("emerging.dev.conll"),
        test=part("emerging.test.annotated"),
    )


def _ewt(data: Path) -> LearningTask:
    def part(name: str) -> Part:
        file = data / "ud_english_ewt" / f"en_ewt-ud-{name}.conllu"
        sentences = list(_sentences(file, word=1, tag=3))
        return Part(items=[words for words, _ in sentences], labels=[tags for _, tags in sentences])

    return LearningTask(
        name="ewt",
        title="UD English EWT, universal parts of speech",
        unit="word",
        metrics=("accuracy",),
        train=_first_words(part("train"), TREEBANK_WORDS),
        dev=part("dev"),
        test=part("test"),
    )


_TASKS: dict[str, Callable[[Path], LearningTask]] = {
    "sst2": _sst2,
    "trec6": _trec6,
    "banking77": _banking77,
    "cola": _cola,
    "wnut17": _wnut17,
    "ewt": _ewt,
}
TASK_NAMES = tuple(_TASKS)


def _sentences(file: Path, *, word: int, tag: int) -> Iterator[tuple[list[str], tuple[str, ...]]]:
    """Read words and tags of CoNLL or CoNLL-U; multiword tokens (1-2) and empty nodes (1.1) are left out."""
    words: list[str] = []
    tags: list[str] = []
    for line in [*file.read_text("utf-8").split("\n"), ""]:
        fields = line.split("\t")
        if len(fields) > max(word, tag) and (word == 0 or fields[0].isdecimal()):
            words.append(fields[word])
            tags.append(fields[tag])
        elif words and not line.strip():
            yield words, tuple(tags)
            words, tags = [], []


def _first_words(part: Part, count: int) -> Part:
    """Draw whole sentences until they have the requested number of words."""
    rows = list(range(len(part)))
    random.Random(0).shuffle(rows)
    kept, words = [], 0
    for row in rows:
        if words >= count:
            break
        kept.append(row)
        words += len(part.items[row])
    return part.of(sorted(kept))
