"""From a checkpoint's own keys to canonical names, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from layertap.errors import WeightsError
from layertap.models.spec import KeyRule

BLOCK = re.compile(r"encoder\.layer\.([0-9]{1,9})\.")


def to_canonical(key: str, rules: Sequence[KeyRule]) -> str:
    """The key after every rule that applies to it, in order."""
    for rule in rules:
        key = rule.to_canonical(key) or key
    return key


def to_stored(name: str, rules: Sequence[KeyRule]) -> str:
    """The way back, with the rules that a checkpoint uses (`used_rules`)."""
    for rule in reversed(rules):
        name = rule.to_stored(name) or name
    return name


def used_rules(keys: Iterable[str], rules: Sequence[KeyRule]) -> tuple[KeyRule, ...]:
    """The rules that rename at least one of the stored keys, in their order: the file's own spelling."""
    used: set[KeyRule] = set()
    for key in keys:
        for rule in rules:
            renamed = rule.to_canonical(key)
            if renamed is not None:
                used.add(rule)
                key = renamed
    return tuple(rule for rule in rules if rule in used)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyTable:
    """What the keys of a file are.

    Attributes:
        stored: canonical name -> stored key; of everything that is not set aside, in file order.
        ignored: stored keys that are known and never needed, sorted.
    """

    stored: dict[str, str]
    ignored: tuple[str, ...]

    @property
    def num_blocks(self) -> int:
        """Blocks in the file: the highest number of one, plus one."""
        return 1 + max((int(found[1]) for name in self.stored if (found := BLOCK.match(name))), default=-1)


def account_for(keys: Iterable[str], *, rules: Sequence[KeyRule], ignored: re.Pattern[str], file: str) -> KeyTable:
    """Gives every key its canonical name, or sets it aside.

    Raises:
        WeightsError: two keys that are the same weight.
    """
    stored: dict[str, str] = {}
    set_aside: list[str] = []
    for key in keys:
        if ignored.fullmatch(key):
            set_aside.append(key)
            continue
        name = to_canonical(key, rules)
        if name in stored:
            raise WeightsError(f"{file}: {stored[name]} and {key}: expected one of them, both are {name}")
        stored[name] = key
    return KeyTable(stored=stored, ignored=tuple(sorted(set_aside)))
