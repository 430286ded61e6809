import asyncio
from collections import Counter

import pytest

from app.gateway.http.request import Request
from app.gateway.http.server import HttpServer
from app.gateway.http.turnstile import AT_ONCE, Turnstile
from tests.fakes import RawClient, alive, serving, until, without_collector
from tests.gateway.http.asking import GET
from tests.gateway.http.wired import Wire

MANY = 5 * AT_ONCE
A, B = "192.0.2.1", "192.0.2.2"


class Steps:
    """What has been done at a turnstile, in order."""

    def __init__(self):
        self.turnstile, self.done = Turnstile(), []

    def many(self, household, count=MANY, **given):
        for number in range(count):
            self.enter(household, number, **given)

    def enter(self, household, name, worked=True, headers=(), ends=False):
        step = lambda: self.done.append(name) or worked  # noqa: E731
        self.turnstile.enter(household, headers, step, ends=ends)


def full(turnstile):
    """The same, once all that it takes in this turn of the loop is taken."""
    for _ in range(AT_ONCE):
        turnstile.enter("elsewhere", [], lambda: True)
    return turnstile


async def crowd(port):
    """Many clients, which have sent a request at once."""
    clients = [await RawClient.to(port) for _ in range(MANY)]
    for client in clients:
        client.writer.write(GET % b"/")
    return clients


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
        steps.many(A)
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
        steps.many(A)
        steps.enter(B, "b")
        await asyncio.sleep(0)
        assert steps.done[: AT_ONCE + 3] == [*range(AT_ONCE + 1), "b", AT_ONCE + 1]

    run(scenario)


@pytest.mark.parametrize("header", [b"authorization", b"x-api-key", b"session"])
def test_callers_behind_one_gateway_take_turns_too(run, header):
    """And one that claims to be many takes no more of other households' turns."""

    async def scenario():
        steps = Steps()
        steps.many(A, headers=[(b"host", b"h"), (header, b"many")])
        steps.enter(A, "one", headers=[(b"host", b"h"), (header, b"one")])
        for number in range(MANY):
            steps.enter(A, "claims", headers=[(header, b"%d" % number)])
        steps.enter(B, "b")
        await asyncio.sleep(0)
        assert steps.done[AT_ONCE : AT_ONCE + 4] == [AT_ONCE, "b", "one", "claims"]

    run(scenario)


def test_who_has_left_takes_nobodys_place(run):
    async def scenario():
        steps = Steps()
        steps.many(A, AT_ONCE)
        for _ in range(MANY):
            steps.enter(A, "left", worked=False)
        steps.enter(A, "last")
        await asyncio.sleep(0)
        assert steps.done[-1] == "last"

    run(scenario)


def test_a_step_that_fails_is_not_the_last_one(run, caplog):
    async def scenario():
        steps = Steps()
        steps.many(A, AT_ONCE)
        steps.turnstile.enter(A, [], lambda: 1 / 0)
        steps.enter(A, "a")
        steps.enter(B, "b")
        await asyncio.sleep(0)
        assert steps.done[AT_ONCE:] == ["b", "a"]
        assert caplog.messages == ["a request could not begin, or end"]

    run(scenario)


def test_what_gives_back_goes_before_what_wants_more(run):
    """Of the same caller: others' turns stay theirs."""

    async def scenario():
        steps = Steps()
        steps.many(A)
        steps.enter(B, "b")
        steps.enter(A, "ends", ends=True)
        await asyncio.sleep(0)
        assert steps.done[AT_ONCE : AT_ONCE + 3] == ["ends", "b", AT_ONCE]

    run(scenario)


def test_while_nothing_happens_nothing_is_scheduled(run):
    class Counted(Turnstile):
        turns = 0

        def _turn(self):
            self.turns += 1
            super()._turn()

    async def scenario():
        turnstile = Counted()
        for worked in [True] * MANY + [False] * MANY:
            turnstile.enter(A, [], lambda worked=worked: worked)
        for _ in range(MANY):
            await asyncio.sleep(0)
        assert turnstile.turns == MANY // AT_ONCE

    run(scenario)


def test_once_open_it_holds_nobody_up(run):
    async def scenario():
        steps = Steps()
        steps.many(A)
        steps.turnstile.open()
        for number in range(MANY, 2 * MANY):
            steps.enter(A, number)
        assert steps.done == list(range(2 * MANY))

    run(scenario)


def test_many_requests_at_once_begin_a_few_at_a_time_and_all_are_answered(run):
    async def scenario():
        turns = Turns()

        async def handler(request):
            turns.tell()
            request.reply(200, b"")

        async with serving(handler) as port:
            clients = await crowd(port)
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
            clients = await crowd(port)
            await until(lambda: len(begun) == MANY)
            for client in clients:
                client.writer.transport.abort()
            await until(lambda: turns.sum == MANY)
        assert turns.most <= AT_ONCE

    run(scenario)


def test_a_server_that_has_closed_answers_nobody_any_more(run):
    async def scenario():
        under_way = []

        async def handler(request):
            request.start(200, [])
            under_way.append(request)
            try:
                await asyncio.Event().wait()
            finally:
                under_way.remove(request)

        server = HttpServer(handler)
        _, port = await server.start("127.0.0.1", 0)
        clients = await crowd(port)
        await until(lambda: len(under_way) == MANY)
        await server.close()
        await asyncio.sleep(0)  # a cancelled task runs once more
        assert under_way == []
        for client in clients:
            await client.close()

    run(scenario)


def test_a_request_that_is_left_as_it_begins_keeps_nothing(run):
    async def scenario():
        before, wires = alive(Request), [Wire() for _ in range(AT_ONCE)]
        for wire in wires:
            wire.feed(GET % b"/")  # a task, which has not run yet
            wire.leave()
        await asyncio.sleep(0)
        assert alive(Request) <= before

    without_collector(lambda: run(scenario))


class Ordered(Wire):
    """Says in `order` when its request begins."""

    def __init__(self, order, name, turnstile, **given):
        super().__init__(**given)
        self.order, self.name, self.turnstile = order, name, turnstile

    async def handler(self, request):
        self.order.append(self.name)


def test_the_lines_are_those_of_the_connections_address_and_the_requests_key(run):
    """Two addresses of one IPv6 network are one household, with two callers."""

    async def scenario():
        turnstile, order = full(Turnstile()), []
        requests = [("a", "2001:db8::1", b"k")] * 3
        requests += [("b", "2001:db8::2", b"other"), ("c", "192.0.2.2", b"k")]
        for name, address, key in requests:
            wire = Ordered(order, name, turnstile, address=address)
            wire.feed(b"GET / HTTP/1.1\r\nhost: h\r\nauthorization: %b\r\n\r\n" % key)
        await until(lambda: len(order) == len(requests))
        assert order == ["a", "c", "b", "a", "a"]

    run(scenario)


class Endless(Ordered):
    async def handler(self, request):
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.order.append(self.name)
            raise


def test_a_request_that_is_left_ends_before_others_of_its_caller_begin(run):
    async def scenario():
        turnstile, order = Turnstile(), []
        left = Endless(order, "ends", turnstile)
        left.feed(GET % b"/")
        await asyncio.sleep(0)
        full(turnstile)
        for _ in range(3):
            Ordered(order, "begins", turnstile).feed(GET % b"/")
        left.leave()
        await until(lambda: len(order) == 4)
        assert order[0] == "ends"

    run(scenario)


def test_requests_whose_clients_leave_while_they_wait_never_begin_and_take_no_place(run):
    async def scenario():
        turnstile, wires = full(Turnstile()), [Wire() for _ in range(AT_ONCE + 1)]
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
