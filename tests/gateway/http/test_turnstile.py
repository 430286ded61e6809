import asyncio
from collections import Counter

import pytest

from app.gateway.http.turnstile import AT_ONCE, Turnstile
from tests.fakes import RawClient, serving, until
from tests.gateway.http.asking import GET
from tests.gateway.http.wired import Wire

MANY = 5 * AT_ONCE
A, B = "192.0.2.1", "192.0.2.2"


class Steps:
    """What has been done at a turnstile, in order."""

    def __init__(self):
        self.turnstile, self.done = Turnstile(), []

    def enter(self, household, name, worked=True):
        self.turnstile.enter(household, lambda: self.done.append(name) or worked)


class Turns:
    """Counts the turns of the loop, and what `tell` is told in each."""

    def __init__(self):
        self._now, self._told = 0, Counter()
        self._count()

    def _count(self):
        self._now += 1
        asyncio.get_running_loop().call_soon(self._count)

    def tell(self):
        self._told[self._now] += 1

    @property
    def sum(self):
        return self._told.total()

    @property
    def most(self):
        return max(self._told.values())


@pytest.mark.parametrize("first", [True, False], ids=["did-something", "did-nothing"])
def test_a_few_steps_are_taken_at_each_turn_of_the_loop(run, first):
    async def scenario():
        steps = Steps()
        steps.enter(A, "first", worked=first)
        for number in range(MANY):
            steps.enter(A, number)
        seen = [len(steps.done) - (not first)]
        for _ in range(3):
            await asyncio.sleep(0)
            seen.append(len(steps.done) - (not first))
        assert seen == [AT_ONCE, 2 * AT_ONCE, 3 * AT_ONCE, 4 * AT_ONCE]
        await until(lambda: len(steps.done) == MANY + 1)
        assert steps.done == ["first", *range(MANY)]

    run(scenario)


def test_who_comes_with_one_does_not_wait_behind_somebodys_many(run):
    async def scenario():
        steps = Steps()
        for number in range(MANY):
            steps.enter(A, number)
        steps.enter(B, "b")
        await asyncio.sleep(0)
        assert steps.done[: AT_ONCE + 3] == [*range(AT_ONCE + 1), "b", AT_ONCE + 1]

    run(scenario)


def test_who_has_left_takes_nobodys_place(run):
    async def scenario():
        steps = Steps()
        for number in range(AT_ONCE):
            steps.enter(A, number)
        for _ in range(MANY):
            steps.enter(A, "left", worked=False)
        steps.enter(A, "last")
        await asyncio.sleep(0)
        assert steps.done[-1] == "last"

    run(scenario)


def test_many_requests_at_once_begin_a_few_at_a_time_and_all_are_answered(run):
    async def scenario():
        turns = Turns()

        async def handler(request):
            turns.tell()
            request.reply(200, b"")

        async with serving(handler) as port:
            clients = [await RawClient.to(port) for _ in range(MANY)]
            for client in clients:
                client.writer.write(GET % b"/")
            for client in clients:
                assert (await client.response())[0] == 200
        assert turns.sum == MANY
        assert turns.most <= AT_ONCE

    run(scenario)


def test_of_many_clients_that_leave_at_once_a_few_at_a_time_are_given_up(run):
    async def scenario():
        begun, turns = [], Turns()

        async def handler(request):
            begun.append(request)
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                turns.tell()
                raise

        async with serving(handler) as port:
            clients = [await RawClient.to(port) for _ in range(MANY)]
            for client in clients:
                client.writer.write(GET % b"/")
            await until(lambda: len(begun) == MANY)
            for client in clients:
                client.writer.transport.abort()
            await until(lambda: turns.sum == MANY)
        assert turns.most <= AT_ONCE

    run(scenario)


def test_requests_whose_clients_leave_while_they_wait_never_begin_and_take_no_place(run):
    async def scenario():
        turnstile, wires = Turnstile(), [Wire() for _ in range(AT_ONCE + 1)]
        for _ in range(AT_ONCE):
            turnstile.enter(B, lambda: True)
        for wire in wires:
            wire.turnstile = turnstile
            wire.feed(GET % b"/")
            assert wire.connection.busy
        *left, stays = wires
        for wire in left:
            wire.leave()
        await asyncio.sleep(0)  # its turn at the turnstile
        await asyncio.sleep(0)  # and its handler's
        assert len(stays.requests) == 1
        assert [wire.requests for wire in left] == [[]] * AT_ONCE

    run(scenario)
