"""Attempts at shards by workers that may die or hang: which shard is next, and when one is given up."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from layertap.data.folder import PlannedShard
from layertap.jobs.folder.shard import MOST_HALVINGS

MOST_ATTEMPTS = 1 + MOST_HALVINGS
"""Number of times that a shard is tried: once, and with half the token budget each further time."""

STALL_SECONDS = 600.0
"""Seconds without a sign of progress after which a worker counts as hung and is killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at a shard.

    Attributes:
        shard: the shard.
        number: number of the attempt, from 1.
    """

    shard: PlannedShard
    number: int = 1

    @property
    def halvings(self) -> int:
        """Number of times that the token budget is halved: a worker that was killed may have run out of memory."""
        return self.number - 1

    @property
    def is_last(self) -> bool:
        """Whether the shard is given up if this attempt fails, too."""
        return self.number >= MOST_ATTEMPTS


class AttemptQueue:
    """Shards that wait for a worker, in the order of the plan; those that failed come first.

    Args:
        shards: the shards.
    """

    def __init__(self, shards: Sequence[PlannedShard]) -> None:
        self._waiting = deque(Attempt(shard=shard) for shard in shards)

    def __len__(self) -> int:
        return len(self._waiting)

    def next(self) -> Attempt | None:
        """Return the next attempt, or None if no shard waits."""
        return self._waiting.popleft() if self._waiting else None

    def again(self, attempt: Attempt) -> None:
        """Let a shard wait for its next attempt."""
        assert not attempt.is_last
        self._waiting.appendleft(Attempt(shard=attempt.shard, number=attempt.number + 1))
