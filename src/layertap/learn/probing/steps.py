"""Steps of a probe, as they are shown while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from layertap.engine.progress import clock


@dataclass(slots=True, kw_only=True)
class Steps:
    """Messages on the progress of a probe: feature, fold, and the time that is left.

    Attributes:
        say: function that shows a message in place of the one before.
        total: number of features.
        done: number of finished features.
    """

    say: Callable[[str], None]
    total: int
    done: int = -1
    _feature: str = ""
    _began: float = field(default_factory=time.perf_counter)

    def begin(self, feature: str) -> None:
        """Show the next feature."""
        self.done += 1
        self._feature = feature
        self.at("")

    def at(self, part: str) -> None:
        """Show a part of the work on the feature, for example `fold 2 of 5`."""
        seconds = time.perf_counter() - self._began
        left = f", {clock(seconds / self.done * (self.total - self.done))} left" if self.done else ""
        what = f", {part}" if part else ""
        self.say(f"probing {self._feature} ({self.done + 1} of {self.total}){what}{left}")
