"""Growing a folder: inputs that are new, changed, touched or missing, and the plan that follows from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from layertap.data.folder import FolderPlan, PlannedInput, PlannedShard, ShardRecord
from layertap.data.inputs import InputFile, InputSet
from layertap.errors import UsageError, printable
from layertap.jobs.folder.planning import Watch, check_columns, columns_of, cut_input, survey_input
from layertap.words import counted

MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class InputChanges:
    """Inputs of a run compared with those of a plan.

    Attributes:
        new: inputs that the plan does not have.
        changed: inputs whose content is not that of the plan.
        touched: inputs with the content of the plan, and another time.
        missing: inputs of the plan that are not among those given.
    """

    new: tuple[InputFile, ...]
    changed: tuple[InputFile, ...]
    touched: tuple[InputFile, ...]
    missing: tuple[PlannedInput, ...]

    @classmethod
    def between(cls, plan: FolderPlan, inputs: InputSet) -> InputChanges:
        """Compare inputs with a plan; only those with another size or time are hashed.

        Raises:
            InputError: an input cannot be read.
        """
        planned = {own.name: own for own in plan.inputs}
        new: list[InputFile] = []
        changed: list[InputFile] = []
        touched: list[InputFile] = []
        for file in inputs:
            before = planned.pop(file.name, None)
            if before is None:
                new.append(file)
            elif (file.size, file.stamp) != (before.size, before.stamp):
                is_same = file.size == before.size and file.sha256() == before.sha256
                (touched if is_same else changed).append(file)
        return cls(new=tuple(new), changed=tuple(changed), touched=tuple(touched), missing=tuple(planned.values()))

    @property
    def needs_plan(self) -> bool:
        """Whether the plan has to change; times alone do not change it."""
        return bool(self.new or self.changed or self.missing)

    def refuse_missing(self, name: str) -> None:
        """Refuse a run that lacks inputs of the folder.

        Raises:
            UsageError: an input is missing.
        """
        if self.missing:
            listed = _listed([own.name for own in self.missing])
            are = "is" if len(self.missing) == 1 else "are"
            raise UsageError(
                f"{name}: {counted(len(self.missing), 'input')} of the folder {are} not among those given: {listed}. "
                "Name all inputs, or remove what was computed of the missing ones with --forget"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrownPlan:
    """Plan of a folder whose inputs have changed, and a description of the change.

    Attributes:
        plan: the new plan.
        words: the change in words, one line each.
    """

    plan: FolderPlan
    words: tuple[str, ...]


def grow(
    plan: FolderPlan, changes: InputChanges, records: Mapping[int, ShardRecord], *, watch: Watch | None = None
) -> GrownPlan:
    """Return the plan that follows from inputs that changed.

    New inputs are appended in the order of their names. Of a changed input, shards whose rows have the digest of their
    record keep their numbers; the others get new ones, and those of missing inputs are dropped.

    Args:
        plan: plan of the folder.
        changes: the inputs compared with it.
        records: records of the shards that are there, by number.
        watch: function that is called while inputs are read.

    Raises:
        InputError: a row that cannot be read.
        UsageError: a column whose type does not fit the folder's.
    """
    size = plan.shard_records
    missing = {own.name for own in changes.missing}
    again = {
        file.name: survey_input(file, shard_records=size, with_digests=True, watch=watch) for file in changes.changed
    }
    new = [survey_input(file, shard_records=size, watch=watch) for file in changes.new]
    columns = columns_of([*again.values(), *new], plan.columns)
    check_columns(columns, plan.schemas)
    added = [column.name for column in columns if column.name not in {own.name for own in plan.columns}]
    if added:
        raise UsageError(
            f"column {_listed(added)} is not among those of the folder, whose shards are written already; name the "
            "columns to carry (--columns), or make a new folder"
        )
    stamps = {file.name: file.stamp for file in changes.touched}
    inputs: list[PlannedInput] = []
    shards: list[PlannedShard] = []
    number = plan.next_number
    words = []
    for own in plan.inputs:
        if own.name in missing:
            continue
        before = [shard for shard in plan.shards if shard.input == own.name]
        survey = again.get(own.name)
        if survey is None:
            inputs.append(replace(own, stamp=stamps.get(own.name, own.stamp)))
            shards += before
            continue
        inputs.append(survey.planned)
        kept = _unchanged(before, survey.digests, records, size)
        cut = list(cut_input(survey.planned, size, first_number=0))
        for shard in cut:
            if (shard.begin, shard.end) in kept:
                shards.append(kept[shard.begin, shard.end])
            else:
                shards.append(replace(shard, number=number))
                number += 1
        words.append(
            f"{printable(own.name)} has changed: {len(cut) - len(kept)} of its {counted(len(cut), 'shard')} "
            f"{'is' if len(cut) - len(kept) == 1 else 'are'} computed again"
        )
    first_new = number
    for survey in new:
        inputs.append(survey.planned)
        cut = list(cut_input(survey.planned, size, first_number=number))
        shards += cut
        number += len(cut)
    if new:
        rows, cut_of_new = sum(own.planned.rows for own in new), number - first_new
        names = _listed([own.planned.name for own in new])
        words.append(
            f"{counted(len(new), 'new input')} with {counted(rows, 'row')}: {names}; {counted(cut_of_new, 'new shard')}"
        )
    if missing:
        dropped = sum(shard.input in missing for shard in plan.shards)
        words.append(f"{counted(dropped, 'shard')} of inputs to forget will be removed: {_listed(sorted(missing))}")
    grown = replace(plan, columns=columns, inputs=tuple(inputs), shards=tuple(shards), next_number=number)
    return GrownPlan(plan=grown, words=tuple(words))


def _unchanged(
    before: Sequence[PlannedShard], digests: Sequence[str], records: Mapping[int, ShardRecord], size: int
) -> dict[tuple[int, int], PlannedShard]:
    """Return the shards of an input whose rows have not changed, by their range of rows."""
    kept = {}
    for shard in before:
        record = records.get(shard.number)
        place = shard.begin // size
        if record is not None and place < len(digests) and digests[place] == record.digest:
            kept[shard.begin, shard.end] = shard
    return kept


def _listed(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(map(printable, names[:MOST_NAMED])) + (f" and {more} more" if more > 0 else "")
