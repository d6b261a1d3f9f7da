"""Limits of the server: bytes, texts, tokens and seconds; each one can be set on the command line."""

from __future__ import annotations

from dataclasses import dataclass

MOST_EXPRESSION_CHARACTERS = 2_000
MOST_EXPRESSION_STEPS = 32
MOST_FEATURES = 64
"""Features of one request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits per request, and of everything that is under way.

    Attributes:
        body_bytes: size of a request's body.
        texts: number of texts of a request.
        tokens: tokens of a request, counted as if it ran all blocks of the model.
        answer_bytes: size of a request's results in memory.
        queue_seconds: work that may wait, in seconds of the measured rate.
        read_seconds: time in which a client must have sent its body.
        send_seconds: time in which a client must take the next part of its answer.
        run_tokens: tokens that one run of the engine takes; a single longer text is a run of its own.
    """

    body_bytes: int = 8 << 20
    texts: int = 2_048
    tokens: int = 300_000
    answer_bytes: int = 256 << 20
    queue_seconds: float = 2.0
    read_seconds: float = 30.0
    send_seconds: float = 60.0
    run_tokens: int = 4_096

    @property
    def total_body_bytes(self) -> int:
        """Bytes of all bodies that are being read, or wait for their answers."""
        return 8 * self.body_bytes

    @property
    def total_answer_bytes(self) -> int:
        """Bytes of all results that are queued, computed, or not yet sent."""
        return 2 * self.answer_bytes
