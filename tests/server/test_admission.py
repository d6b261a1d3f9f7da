"""What is admitted, what is refused, and that everything reserved is released."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="the extra serve is not installed")

from layertap.server.admission import Admission, Ticket
from layertap.server.limits import Limits
from layertap.server.refusals import Refusal


@pytest.fixture
def admission() -> Admission:
    admission = Admission(Limits(body_bytes=100, tokens=10_000, answer_bytes=1_000), blocks=6)
    admission.measured(cost=6_000, seconds=1.0)
    return admission


def refusal(call) -> Refusal:
    with pytest.raises(Refusal) as caught:
        call()
    return caught.value


def test_the_queue_holds_seconds_of_measured_work(admission):
    assert admission.queue_cost == 12_000
    first, second = Ticket(), Ticket()
    admission.admit(first, 11_000, 10)
    over = refusal(lambda: admission.admit(second, 2_000, 10))
    assert (over.kind, over.retry_after) == ("overloaded", pytest.approx(11_000 / 6_000))
    assert over.headers["retry-after"] == "2"
    admission.computed(first, 11_000)
    admission.admit(second, 2_000, 10)
    assert admission.cost == 2_000


def test_a_request_larger_than_the_queue_is_taken_while_nothing_waits(admission):
    large = Ticket()
    admission.admit(large, 50_000, 10)
    assert refusal(lambda: admission.estimate(Ticket(), 40, 6)).kind == "overloaded"
    admission.release(large)
    assert (admission.cost, admission.answer) == (0, 0)
    assert refusal(lambda: admission.admit(Ticket(), 60_001, 10)).kind == "too_large"
    assert refusal(lambda: admission.admit(Ticket(), 1, 1_001)).kind == "too_large"


def test_an_estimate_is_replaced_by_the_cost(admission):
    ticket = Ticket()
    admission.estimate(ticket, 4_000, 6)
    assert admission.cost == 6_000
    admission.admit(ticket, 1_200, 0)
    assert admission.cost == 1_200


def test_results_that_are_not_sent_are_bounded(admission):
    tickets = [Ticket(), Ticket()]
    for ticket in tickets:
        admission.admit(ticket, 10, 900)
        admission.computed(ticket, 10)
    assert refusal(lambda: admission.admit(Ticket(), 10, 900)).kind == "overloaded"
    admission.release(tickets[0])
    admission.admit(Ticket(), 10, 900)


def test_bodies_are_bounded_one_by_one_and_together(admission):
    ticket = Ticket()
    admission.read(ticket, 60)
    assert refusal(lambda: admission.read(ticket, 41)).kind == "too_large"
    others = [Ticket() for _ in range(7)]
    for other in others:
        admission.read(other, 100)
    assert refusal(lambda: admission.read(Ticket(), 41)).kind == "overloaded"
    for other in (ticket, *others):
        admission.release(other)
    assert admission.body == 0


@pytest.mark.parametrize("stated", ["101", "9" * 18, "1" + "0" * 5_000])
def test_a_stated_size_is_enough_for_a_refusal(admission, stated):
    assert refusal(lambda: admission.check_size(stated)).kind == "too_large"


@pytest.mark.parametrize("stated", ["", "0", "100", "x"])
def test_a_stated_size_that_fits(admission, stated):
    admission.check_size(stated)


def test_the_rate_follows_long_runs_more_than_short_ones(admission):
    admission.measured(cost=1, seconds=1e-6)
    assert admission.rate == pytest.approx(6_000, rel=0.02)
    for _ in range(30):
        admission.measured(cost=12_000, seconds=1.0)
    assert admission.rate == pytest.approx(12_000, rel=0.01)


def test_a_full_queue_refuses_before_anything_is_parsed(admission):
    admission.admit(Ticket(), 11_900, 0)
    admission.check_room(200)
    assert refusal(lambda: admission.check_room(800)).kind == "overloaded"
    assert admission.cost == 11_900
