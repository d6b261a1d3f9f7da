"""From a checkpoint's own keys to canonical names, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass

from layertap.errors import WeightsError
from layertap.models.key_rules import KeyRule, SplitRule

BLOCK = re.compile(r"encoder\.layer\.([0-9]{1,9})\.")


def to_canonical(key: str, rules: Sequence[KeyRule]) -> str:
    """Return the key after every rule that applies to it, in order."""
    for rule in rules:
        key = rule.to_canonical(key) or key
    return key


def to_stored(name: str, rules: Sequence[KeyRule]) -> str:
    """Return the stored key of a canonical name, by the rules that a checkpoint uses (`used_rules`)."""
    for rule in reversed(rules):
        name = rule.to_stored(name) or name
    return name


def used_rules(keys: Iterable[str], rules: Sequence[KeyRule]) -> tuple[KeyRule, ...]:
    """Return the rules that rename at least one of the stored keys, in their order: the file's own spelling."""
    used: set[KeyRule] = set()
    for key in keys:
        for rule in rules:
            renamed = rule.to_canonical(key)
            if renamed is not None:
                used.add(rule)
                key = renamed
    return tuple(rule for rule in rules if rule in used)


def parts_of(key: str, rules: Sequence[KeyRule], splits: Sequence[SplitRule]) -> tuple[str, ...]:
    """Return the canonical names of the weights that a stored tensor holds, one above the other; mostly one."""
    name = to_canonical(key, rules)
    return next((parts for split in splits if (parts := split.to_parts(name))), (name,))


def used_splits(keys: Iterable[str], rules: Sequence[KeyRule], splits: Sequence[SplitRule]) -> tuple[SplitRule, ...]:
    """Return the split rules that take at least one of the stored keys apart, in their order."""
    names = [to_canonical(key, rules) for key in keys]
    return tuple(split for split in splits if any(split.to_parts(name) for name in names))


def stored_layout(
    names: Iterable[str], rules: Sequence[KeyRule], splits: Sequence[SplitRule]
) -> dict[str, tuple[str, ...]]:
    """Return the layout to write, by the rules that a checkpoint uses: stored key -> the weights in it.

    Weights of a fused tensor are in the order of their rows.
    """
    layout: dict[str, tuple[str, ...]] = {}
    for name in names:
        fused = next((match[0] for split in splits if (match := split.to_fused(name))), name)
        key = to_stored(fused, rules)
        layout[key] = (*layout.get(key, ()), name)
    return {key: _in_rows(held, parts_of(key, rules, splits)) for key, held in layout.items()}


def _in_rows(names: tuple[str, ...], parts: tuple[str, ...]) -> tuple[str, ...]:
    assert set(names) == set(parts), f"{names} are written together, and {parts} are read"
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTable:
    """Table of the keys of a weights file: canonical names, fused tensors, ignored keys.

    Attributes:
        stored: canonical name -> stored key; of everything that is not set aside, in file order.
        fused: stored keys that several names share -> these, in the order of their rows.
        ignored: stored keys that are known and never needed, sorted.
    """

    stored: dict[str, str]
    fused: dict[str, tuple[str, ...]]
    ignored: tuple[str, ...]

    def without(self, names: Set[str]) -> KeyTable:
        """Return a table with the keys of these names set aside."""
        stored = {name: key for name, key in self.stored.items() if name not in names}
        spare = [self.stored[name] for name in names & self.stored.keys()]
        return KeyTable(stored=stored, fused=self.fused, ignored=tuple(sorted((*self.ignored, *spare))))

    @property
    def num_blocks(self) -> int:
        """Blocks in the file: the highest number of one, plus one."""
        return 1 + max((int(match[1]) for name in self.stored if (match := BLOCK.match(name))), default=-1)


def account_for(
    keys: Iterable[str],
    *,
    rules: Sequence[KeyRule],
    splits: Sequence[SplitRule] = (),
    ignored: re.Pattern[str],
    file: str,
) -> KeyTable:
    """Gives every key its canonical name or names, or sets it aside.

    Raises:
        WeightsError: two keys that are the same weight.
    """
    stored: dict[str, str] = {}
    fused: dict[str, tuple[str, ...]] = {}
    set_aside: list[str] = []
    for key in keys:
        if ignored.fullmatch(key):
            set_aside.append(key)
            continue
        names = parts_of(key, rules, splits)
        if len(names) > 1:
            fused[key] = names
        for name in names:
            if name in stored:
                raise WeightsError(f"{file}: {stored[name]} and {key}: expected one of them, both are {name}")
            stored[name] = key
    return KeyTable(stored=stored, fused=fused, ignored=tuple(sorted(set_aside)))
