"""Division of labelled data into parts that share no text: the counts are those of distinct texts, or of sentences."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from layertap.errors import InputError
from layertap.learn.arrays import Int64Array
from layertap.learn.labelled import LabelledDataset, group_numbers
from layertap.learn.labels import LabelEncoder, TaskKind, listed
from layertap.words import counted

ATTEMPTS = 20
"""Number of divisions of sentences into folds that are tried, each with the next seed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledUnits:
    """Rows to divide: labelled texts, or labelled words, with the texts or sentences that no part may share.

    Attributes:
        source: name of the data, for messages.
        task: "text" if whole texts are labelled, "words" if their words are.
        classes: int64 [R], class of each row.
        groups: int64 [R], number of the distinct text or sentence of each row.
        names: names of the classes.
    """

    source: str
    task: TaskKind
    classes: Int64Array
    groups: Int64Array
    names: Sequence[str]

    @property
    def what(self) -> str:
        """Noun for what is divided, in the plural."""
        return "distinct texts" if self.task == "text" else "distinct sentences"

    @property
    def counted(self) -> str:
        """Number of distinct texts or sentences, with its noun."""
        return counted(len(np.unique(self.groups)), self.what.removesuffix("s"))

    def rows(self, rows: Int64Array) -> LabelledUnits:
        """Return some of the rows."""
        return LabelledUnits(
            source=self.source,
            task=self.task,
            classes=self.classes[rows],
            groups=self.groups[rows],
            names=self.names,
        )

    def class_groups(self) -> dict[int, Int64Array]:
        """Return the groups of each class, sorted: mapping from class to int64 [n].

        A text with several labels belongs to the most frequent one; of labels that are as frequent, to the one with
        the fewest texts so far. A sentence belongs to every class of its words.
        """
        (groups, classes), counts = np.unique(np.stack([self.groups, self.classes]), axis=1, return_counts=True)
        if self.task == "text":
            most = np.zeros(int(groups.max()) + 1, dtype=np.int64)
            np.maximum.at(most, groups, counts)
            likely = counts == most[groups]
            groups, classes = groups[likely], classes[likely]
            classes = _one_each(groups, classes)
            groups = np.unique(groups)
        return {int(label): groups[classes == label] for label in np.unique(self.classes)}

    @property
    def num_conflicts(self) -> int:
        """Number of distinct texts that have several labels."""
        pairs = np.unique(np.stack([self.groups, self.classes]), axis=1)
        return int((np.bincount(pairs[0]) > 1).sum()) if self.task == "text" else 0


def _one_each(groups: Int64Array, classes: Int64Array) -> Int64Array:
    """Return one of the classes of each group, int64 [distinct groups]; `groups` is sorted."""
    _, begins, sizes = np.unique(groups, return_index=True, return_counts=True)
    chosen = classes[begins]
    taken = np.bincount(chosen[sizes == 1], minlength=int(classes.max()) + 1)
    for place in np.flatnonzero(sizes > 1).tolist():
        candidates = classes[begins[place] : begins[place] + sizes[place]]
        chosen[place] = candidates[taken[candidates].argmin()]
        taken[chosen[place]] += 1
    return chosen


def fold_groups(units: LabelledUnits, folds: int, seed: int) -> list[Int64Array]:
    """Divide distinct texts or sentences into stratified folds: `folds` sorted arrays of groups, none of them empty.

    Every class has a text in each fold if it has as many as there are folds, see `check_folds`. For words, the
    training part of each fold has at least two tags.

    Raises:
        InputError: there are fewer sentences than folds, or no such folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    total = len(np.unique(units.groups))
    if total < folds or (units.task == "words" and np.bincount(units.classes).max() < folds):  # after a draw
        raise InputError(f"{units.source}: {units.counted} for {folds} folds; draw more words (--max-words)")
    by_class = units.class_groups()
    if units.task == "text":
        groups = np.unique(units.groups)
        classes = np.zeros(len(groups), dtype=np.int64)
        for label, own in by_class.items():
            classes[np.searchsorted(groups, own)] = label
        divided = StratifiedKFold(folds, shuffle=True, random_state=seed).split(groups, classes)
        return [groups[test] for _, test in divided]
    for attempt in range(ATTEMPTS):
        splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed + attempt)
        with warnings.catch_warnings():
            # Of a rare class few words may be left by the draw.
            warnings.filterwarnings("ignore", message="The least populated class in y")
            rows = [test for _, test in splitter.split(units.classes, units.classes, units.groups)]
        parts = [np.unique(units.groups[test]) for test in rows]
        if all(len(part) and _num_classes(units, part) > 1 for part in parts):
            return parts
    raise InputError(
        f"{units.source}: no division of its {units.counted} into {folds} folds leaves "
        "words of two tags to learn from in every fold; give more sentences, other folds (--folds), or a --test file"
    )


def draw_held_out(units: LabelledUnits, share: float, seed: int, *, least: int) -> Int64Array:
    """Draw distinct texts or sentences to hold out: the same share of the texts of each class, or any sentences.

    Every class that is there keeps a text or a sentence, as far as the classes of the drawn sentences allow.

    Args:
        units: rows to draw from.
        share: share of the texts of each class, or of the sentences, to hold out.
        seed: seed of the draw.
        least: number of texts of each class, or of sentences, to hold out at least, as long as one is left.

    Returns:
        int64 [n], the drawn groups, sorted; empty if nothing can be held out.
    """
    random = np.random.default_rng(seed)

    def number_of(count: int) -> int:
        return min(max(least, round(share * count)), count - 1)

    by_class = units.class_groups()
    if units.task == "text":
        drawn = [random.permutation(own)[: number_of(len(own))] for own in by_class.values() if len(own)]
        return np.sort(np.concatenate(drawn))
    order = random.permutation(np.unique(units.groups))
    left = {label: len(own) for label, own in by_class.items()}
    tags: dict[int, list[int]] = {}
    for label, own in by_class.items():
        for group in own.tolist():
            tags.setdefault(group, []).append(label)
    taken: list[int] = []
    for group in order.tolist():
        if len(taken) == number_of(len(order)):
            break
        if all(left[label] > 1 for label in tags[group]):
            taken.append(group)
            for label in tags[group]:
                left[label] -= 1
    return np.array(sorted(taken), dtype=np.int64)


def dataset_units(dataset: LabelledDataset, encoder: LabelEncoder) -> LabelledUnits:
    """Return the labelled texts or words of a dataset as rows, with their distinct texts or sentences."""
    encoded = encoder.encode(dataset.labels)
    return LabelledUnits(
        source=dataset.source,
        task=dataset.task,
        classes=np.concatenate(encoded),
        groups=np.repeat(group_numbers(dataset.text_keys), [len(classes) for classes in encoded]),
        names=encoder.classes,
    )


def check_folds(units: LabelledUnits, folds: int) -> None:
    """Refuse fewer distinct texts or sentences than folds, of all classes together or of one.

    Raises:
        InputError: there are fewer; the message says how many are needed.
    """
    total = len(np.unique(units.groups))
    if total < folds:
        raise InputError(
            f"{units.source}: {units.counted}, and {folds}-fold cross-validation needs {folds}; {_remedy(total)}"
        )
    counts = {units.names[label]: len(own) for label, own in units.class_groups().items()}
    short = {name: count for name, count in counts.items() if count < folds}
    if short:
        name, least = min(short.items(), key=lambda item: item[1])
        noun = units.what if least != 1 else units.what.removesuffix("s")
        if units.num_conflicts:
            noun += " (one with several labels counts once)"
        more = f" (and {len(short) - 1:,} more with too few)" if len(short) > 1 else ""
        remove = listed(list(short)) if len(counts) - len(short) > 1 else None
        raise InputError(
            f"{units.source}: class {name!r} has {least:,} {noun}{more}, and {folds}-fold cross-validation needs "
            f"{folds} of each; {_remedy(least, remove=remove)}"
        )


def _remedy(most: int, *, remove: str | None = None) -> str:
    """Say what makes a cross-validation possible, if there are at most `most` folds."""
    ways = ["add examples", "give a --test file"]
    if remove is not None:
        ways.insert(0, f"remove {remove}")
    if most > 2:
        ways.insert(0, f"reduce --folds to {most}")
    return ", ".join(ways[:-1]) + f", or {ways[-1]}"


def _num_classes(units: LabelledUnits, without: Int64Array) -> int:
    """Return the number of classes of the rows outside some groups."""
    return len(np.unique(units.classes[~np.isin(units.groups, without)]))
