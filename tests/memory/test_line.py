import asyncio

import pytest

from app.errors import RequestError
from app.memory.caller import Caller
from app.memory.kv_budget import KvBudget
from app.memory.line import ASKS, AT_ONCE, LATELY, Line
from app.memory.seat import Demand, SlotState, Use


def test_who_is_granted_the_model_leases_it_until_its_release(run):
    async def scenario():
        line = Line()
        first, second = line.join(3.0), line.join(4.0)
        assert (line.waiting, line.waiting_since, line.leased) == (2, 3.0, 0)
        line.grant(5.0)
        assert (line.waiting, line.waiting_since, line.leased) == (0, None, 2)
        line.release(first, 7.0)
        line.release(second, 9.0)
        assert (line.leased, line.last_used) == (0, 9.0)

    run(scenario)


def test_who_leaves_the_line_is_neither_granted_nor_counted(run):
    async def scenario():
        line = Line()
        left, stays = line.join(1.0), line.join(2.0)
        line.release(left, 3.0)
        assert left.granted.cancelled() and line.waiting_since == 2.0
        line.grant(5.0)
        assert line.leased == 1 and stays.granted.done()
        assert (line.last_used, line.gave_up) == (0.0, 3.0)

    run(scenario)


def test_what_wants_no_slot_has_its_lease_where_one_waits_inside(run):
    """Result: when all have ended, nothing leases the model."""

    async def scenario():
        line, short = Line(), Demand(1, 10, 5, exact=True, marked=True)
        line.budget = KvBudget(1, 1000)
        waiters = [line.join(1.0, short) for _ in range(2)]
        waiters.append(line.join(2.0, ASKS))
        line.grant(3.0)
        assert line.leased == 3 and line.budget.taken == 2
        for waiter in waiters:
            line.release(waiter, 4.0)
        assert (line.leased, line.seated, line.waiting) == (0, 0, 0)

    run(scenario)


def test_hundreds_are_granted_at_once_and_told_a_few_each_turn_in_their_order(run):
    async def scenario():
        line, told = Line(), []
        waiters = [line.join(1.0) for _ in range(3 * AT_ONCE)]
        for number, waiter in enumerate(waiters):
            waiter.granted.add_done_callback(lambda _, number=number: told.append(number))
        line.grant(5.0)
        assert (line.leased, line.waiting, line.empty) == (3 * AT_ONCE, 0, False)
        turns = []
        while not line.empty:
            turns.append(sum(waiter.granted.done() for waiter in waiters))
            await asyncio.sleep(0)
        await asyncio.gather(*(waiter.granted for waiter in waiters))
        assert turns == [AT_ONCE, 2 * AT_ONCE] and told == sorted(told)

    run(scenario)


def test_who_leaves_before_it_is_told_leases_no_more_and_holds_up_nobody(run):
    async def scenario():
        line = Line()
        waiters = [line.join(1.0) for _ in range(2 * AT_ONCE)]
        line.grant(5.0)
        for waiter in waiters[AT_ONCE:-1]:
            line.release(waiter, 5.0)
        await waiters[-1].granted
        assert (line.leased, line.last_used, line.empty) == (AT_ONCE + 1, 5.0, True)

    run(scenario)


def test_a_waiter_that_was_cancelled_before_its_grant_holds_nothing(run):
    async def scenario():
        line = Line()
        waiter = line.join(1.0)
        waiter.granted.cancel()
        line.grant(5.0)
        line.release(waiter, 2.0)
        assert (line.leased, line.waiting) == (0, 0)

    run(scenario)


def test_all_who_are_refused_get_the_error(run):
    async def scenario():
        line = Line()
        waiters = [line.join(1.0), line.join(2.0)]
        line.refuse(RequestError(503, "no"))
        for waiter in waiters:
            with pytest.raises(RequestError, match="no"):
                await waiter.granted
            line.release(waiter, 3.0)
        assert (line.leased, line.last_used) == (0, 0.0)
        await asyncio.sleep(0)

    run(scenario)


def test_the_gap_is_from_the_last_idle_moment_to_the_request_after_it(run):
    async def scenario():
        line = Line()
        line.last_used = 10.0
        waiter = line.join(12.5)
        line.join(13.0)
        assert line.gap == 2.5
        line.grant(5.0)
        line.release(waiter, 14.0)
        line.join(20.0)  # one still leases the model
        assert line.gap == 2.5

    run(scenario)


def test_a_hog_is_who_leaves_while_requests_wait_again_and_has_not_paused(run):
    async def scenario():
        line = Line()
        line.end(line.lease(1.0), 2.0)
        line.join(6.0)  # after a pause: as the model leaves
        line.ends_turn()
        assert not line.hog
        line.grant(8.0)
        line.join(9.0)
        line.last_used = 10.0  # it has served in this turn
        line.ends_turn()
        assert line.hog
        line.ends_turn()  # it has not served since
        assert line.hog

    run(scenario)


@pytest.mark.parametrize("slots", [2, 4])
def test_who_leaves_its_requests_leaves_a_slot_to_those_who_came_lately(run, slots):
    """Result: a caller whose left requests nobody has seen end is passed over while they hold all
    slots but one; the other caller is not, nor is that caller once a slot is free."""

    async def scenario():
        line = Line()
        line.budget = KvBudget(slots, 4096)
        leaver, other = Caller("address", "1"), Caller("address", "2")
        short = Demand(1, 10, 10, exact=True, marked=True)
        line.end(line.lease(0.0, short, other), 0.1)
        seats = [line.lease(1.0, short, leaver) for _ in range(slots - 1)]
        for seat in seats:
            line.end(seat, 1.1, Use.LEFT)
        assert line.lease(1.2, short, leaver) is None
        waits = line.join(1.2, short, leaver)
        line.grant(1.2)
        assert waits.seat is None
        assert line.lease(1.3, short, other) is not None
        line.budget.look([SlotState(seats[0].number, False)], 1.4)
        line.grant(1.4)
        assert waits.seat is not None

    run(scenario)


def test_who_is_alone_leaves_no_slot_to_anybody(run):
    """Result: one that stops its answer and asks again is served at once."""

    async def scenario():
        line = Line()
        line.budget = KvBudget(2, 4096)
        short, alone = Demand(1, 10, 10, exact=True, marked=True), Caller("address", "1")
        line.end(line.lease(0.0, short, Caller("address", "2")), 0.1)
        line.end(line.lease(LATELY, short, alone), LATELY, Use.LEFT)
        assert line.lease(LATELY + 0.1, short, alone) is not None

    run(scenario)


def test_who_is_counted_waits_at_its_place_and_leases_nothing(run):
    """A model that drains waits for those that lease it, so these may not wait for the model. And
    who has prompts counted has no turn before others for it."""

    async def scenario():
        line = Line()
        line.budget = KvBudget(2, 1000)
        long = Demand(prompt=900, limit=1, countable=True)
        a, b = Caller("key", "a"), Caller("key", "b")
        first, second = line.join(1.0, long, a), line.join(1.5, long, a)
        line.grant(2.0)
        assert first.counting and not second.counting and (line.leased, line.seated) == (1, 0)
        other = line.join(3.0, Demand(prompt=1, limit=1), b)
        line.grant(3.0)
        assert other.seat is not None  # meanwhile
        line.counted(first, long.counted(900), 4.0)
        assert (line.leased, line.seated, line.waiting) == (1, 1, 2)
        line.grant(5.0)
        assert first.seat is not None and second.counting
        line.release(second, 7.0)  # it leaves while it is counted
        assert (line.leased, line.seated, line.waiting) == (2, 2, 0)

    run(scenario)


def test_who_is_counted_while_all_are_refused_waits_on(run):
    async def scenario():
        line = Line()
        line.budget = KvBudget(1, 1000)
        long = Demand(prompt=900, limit=1, countable=True)
        counting = line.join(1.0, long)
        line.grant(2.0)
        await asyncio.sleep(0)
        line.refuse(RequestError(503, "no room"))
        line.counted(counting, long.counted(10), 3.0)
        line.grant(4.0)
        await asyncio.sleep(0)
        assert counting.seat is not None and counting.granted.result() is None

    run(scenario)
