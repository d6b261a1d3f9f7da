"""Admission: what a request costs, and whether it may wait in the queue.

The cost of a text is its tokens times the blocks that its plan runs. The queue holds the work of some seconds, at the
rate that the engine was measured to have; a request beyond that is refused with the time after which the queue will
have room. A request that costs more than the queue holds is admitted while nothing else waits.
"""

from __future__ import annotations

from dataclasses import dataclass

from layertap.server.limits import Limits
from layertap.server.refusals import Refusal
from layertap.words import in_bytes

BYTES_PER_TOKEN = 4
"""Bytes of English text per token, for the estimate before a text is tokenized."""

MEMORY = 0.8
"""Weight of older measurements in the rate."""


@dataclass(slots=True, kw_only=True)
class Ticket:
    """Share that one request has in the totals; changes are made through `Admission`.

    Attributes:
        body: bytes of its body.
        cost: cost of its texts that are not computed yet.
        answer: bytes of its results.
    """

    body: int = 0
    cost: float = 0.0
    answer: int = 0


class Admission:
    """Totals over all requests under way, used from the thread of the event loop.

    Attributes:
        limits: what is allowed.
        rate: measured cost per second of the engine.
        body, cost, answer: totals of all tickets.
    """

    def __init__(self, limits: Limits, blocks: int) -> None:
        self.limits = limits
        self.rate = 1_000.0 * blocks
        self.body = 0
        self.cost = 0.0
        self.answer = 0
        self._most_cost = float(limits.tokens * max(1, blocks))
        self._measured = False

    @property
    def queue_cost(self) -> float:
        """Cost that the queue holds."""
        return self.limits.queue_seconds * self.rate

    @property
    def seconds(self) -> float:
        """Seconds that the work in the queue will take."""
        return self.cost / self.rate

    def measured(self, cost: float, seconds: float) -> None:
        """Take a run of the engine into the rate."""
        if seconds <= 0:
            return
        rate = cost / seconds
        # A short run says less about the rate than one that is long enough to fill the machine.
        weight = (1 - MEMORY) * min(1.0, seconds / 0.02)
        self.rate = max(1.0, rate if not self._measured else (1 - weight) * self.rate + weight * rate)
        self._measured = True

    def check_size(self, content_length: str) -> None:
        """Refuse a body by the size that its header states, before any of it is read.

        Args:
            content_length: value of the header; empty: it is not there, and the body is measured as it arrives.

        Raises:
            Refusal: the body is too large.
        """
        # No number of that many digits is small, and Python converts only so many.
        if len(content_length) > 18 or (content_length.isdecimal() and int(content_length) > self.limits.body_bytes):
            raise self._too_large()

    def read(self, ticket: Ticket, size: int) -> None:
        """Account for bytes of a body that have arrived.

        Raises:
            Refusal: the body, or all bodies together, are too large.
        """
        if ticket.body + size > self.limits.body_bytes:
            raise self._too_large()
        if self.body + size > self.limits.total_body_bytes:
            raise Refusal("overloaded", "too many requests are being read at once; try again later", retry_after=1)
        ticket.body += size
        self.body += size

    def check_room(self, body_bytes: int) -> None:
        """Refuse a request while the queue is full, before its body is parsed; one block per token is assumed.

        Raises:
            Refusal: the queue is full.
        """
        self._check_queue(body_bytes / BYTES_PER_TOKEN)

    def estimate(self, ticket: Ticket, text_bytes: int, blocks: int) -> None:
        """Reserve the estimated cost of texts, before any time is spent on tokenizing them.

        Raises:
            Refusal: the queue is full.
        """
        self._queue(ticket, max(1.0, text_bytes / BYTES_PER_TOKEN) * blocks)

    def admit(self, ticket: Ticket, cost: float, answer: int) -> None:
        """Replace the estimate by the true cost, and reserve memory for the results.

        Raises:
            Refusal: the request is too large, or the queue is full.
        """
        self.computed(ticket, ticket.cost)
        if cost > self._most_cost:
            raise Refusal(
                "too_large",
                f"the texts cost {cost / self._most_cost:.1f} times what a request may ({self.limits.tokens:,} tokens "
                "through all blocks); send fewer texts per request (--max-request-tokens)",
            )
        if answer > self.limits.answer_bytes:
            raise Refusal(
                "too_large",
                f"the results would take {in_bytes(answer)}, and a request may have "
                f"{in_bytes(self.limits.answer_bytes)}; send fewer texts, ask for fewer layers or a pooling "
                "(--max-answer-size)",
            )
        if self.answer + answer > self.limits.total_answer_bytes:
            raise Refusal("overloaded", "too many results wait to be sent; try again later", retry_after=1)
        self._queue(ticket, cost)
        ticket.answer += answer
        self.answer += answer

    def computed(self, ticket: Ticket, cost: float) -> None:
        """Release the cost of texts that were computed, or are not going to be."""
        cost = min(cost, ticket.cost)
        ticket.cost -= cost
        self.cost = max(0.0, self.cost - cost)

    def release(self, ticket: Ticket) -> None:
        """Release everything that a request holds, once its answer is sent."""
        self.computed(ticket, ticket.cost)
        self.body -= ticket.body
        self.answer -= ticket.answer
        ticket.body = ticket.answer = 0

    def _too_large(self) -> Refusal:
        return Refusal(
            "too_large",
            f"the body has more than {in_bytes(self.limits.body_bytes)}; send fewer texts per request "
            "(--max-body-size)",
        )

    def _queue(self, ticket: Ticket, cost: float) -> None:
        self._check_queue(cost)
        ticket.cost += cost
        self.cost += cost

    def _check_queue(self, cost: float) -> None:
        if self.cost > 0 and self.cost + cost > self.queue_cost:
            seconds = max(self.seconds, (self.cost + cost - self.queue_cost) / self.rate)
            raise Refusal(
                "overloaded",
                f"the server is overloaded: the work that waits takes {self.seconds:.1f} seconds",
                retry_after=seconds,
            )
