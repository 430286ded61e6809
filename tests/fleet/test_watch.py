"""The watch, with a server of ClearML that is scripted, and scripted instances."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from app.errors import ConfigError
from app.fleet import looks, member, proven
from app.fleet.arrivals import SEEK, STRAYED
from app.fleet.config import Route
from app.fleet.edits import Edits
from app.fleet.listing import Listed
from app.fleet.orders import Place
from app.fleet.watch import Watch
from app.form.merge import merge, parse
from app.gateway import trust
from app.machine import clock
from app.memory.caller import Caller
from app.task.sdk import NoAnswerError
from app.task.served import Served
from tests.fleet.door import SECRET, Front, ScriptedInstance

TASK = "0123456789abcdef0123456789abcdef"
TEXT = f"[chat]\ntemplate = '{TASK}'\n"


class ScriptedOrders:
    """`instances` are what the server lists; each order adds a task to `ordered`, and what `made`
    makes of it to the list. `text`: of the routes; `problem` is raised by every call."""

    def __init__(self, *instances, made=None):
        self.instances, self.made, self.extra = list(instances), made, []
        self.ordered, self.taken_back, self.over = [], [], {}
        self.elsewhere = set()  # routes of other doors
        self.removed = []
        self.where = Place("gpu", 1, 1)
        self.text, self.problem, self.unreadable, self.fresh = TEXT, None, {}, True

    async def listed(self, routes):
        if self.problem:
            raise self.problem
        told = [instance.listed for instance in self.instances]
        return [replace(each, fresh=self.fresh) for each in told] + self.extra

    async def start(self, route, suffices):
        if self.problem:
            raise self.problem
        if suffices(await self.listed([route])):
            return None
        task = f"o{len(self.ordered)}"
        self.ordered.append(task)
        created = float(len(self.ordered))
        order = trust.order(SECRET, task, route.name)
        new = Listed(task, task, route.name, "queued", created, version=route.version, order=order)
        self.extra.append(new)
        return task

    async def settings(self, route):
        if route.name in self.unreadable:
            raise ConfigError(self.unreadable[route.name])
        return parse(merge({"Model/model": "p/r/m.gguf", "Model/endpoint_name": "m"}, {}, {}))

    async def standing(self, tasks):
        return {task: self.over[task] for task in tasks if task in self.over}

    async def place(self, task):
        return self.where

    async def take_back(self, task):
        self.taken_back.append(task)
        self.extra = [each for each in self.extra if each.task != task]

    async def strayed(self, task):
        return not self.where.place

    async def remove(self, task):
        self.removed.append(task)
        self.extra = [each for each in self.extra if each.task != task]

    async def others(self, task):
        return self.elsewhere

    async def routes(self, task):
        return self.text


@asynccontextmanager
async def watching(*instances, **route):
    """A door before these instances, what it is told of them, and its watch, for a route with
    these fields."""
    route = Route("chat", **{"template": "t", "max": 1, **route})
    async with Front(*instances, route=route) as front:
        orders = ScriptedOrders(*instances)
        edits = Edits(front.routes, orders, "a door", TASK, TEXT)
        yield front, orders, Watch(front.routes, orders, edits, "a door")


async def rounds(watch, count=6):
    """Looks and decisions, as the loops do."""
    for _ in range(count):
        try:
            await watch._list()
        except ConfigError:
            pass
        await watch._probe()
        await watch._decide()
        await asyncio.gather(*watch._ordering)


@pytest.mark.parametrize("least", [0, 1])
def test_instances_that_cannot_be_used_are_not_multiplied(run, least):
    """The agents have another secret: no instance proves itself. Result: as many as there may be,
    and no more, though `min` asks for one and callers wait."""

    async def scenario():
        instances = [ScriptedInstance(f"t{n}", proves=False) for n in range(2)]
        for instance in instances:
            instance.order = trust.order(SECRET, instance.task, "chat")
        async with watching(*instances, min=least, max=2) as (front, orders, watch):
            waiting = asyncio.ensure_future(front.state.change(30, Caller("key", "a"), 0.0))
            await asyncio.sleep(0)
            await rounds(watch)
            assert orders.ordered == []
            assert "does not prove" in front.state.on_the_way()
            front.state.tell()
            await waiting

    run(scenario)


def test_a_new_instance_whose_first_answer_is_lost_is_waited_for(run):
    """On a busy machine it may take too long. Result: no other one is ordered beside it."""

    async def scenario():
        one = ScriptedInstance("t1")
        one.order = trust.order(SECRET, "t1", "chat")
        await one.start()
        async with watching(max=2) as (front, orders, watch):
            orders.instances.append(one)

            async def wait():
                while True:
                    await front.state.change(30, Caller("key", "a"), 0.0)

            waiting = asyncio.ensure_future(wait())
            one.says = b"busy"
            await rounds(watch, 1)
            assert front.state.members["t1"].problem and orders.ordered == []
            one.says = None
            while not front.state.serving():
                await asyncio.sleep(0.05)
                await rounds(watch, 1)
            assert orders.ordered == []
            waiting.cancel()
        await one.stop()

    run(scenario)


def test_a_machine_that_died_is_replaced_once(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with watching(one, min=1, max=1) as (front, orders, watch):
            await rounds(watch, 2)
            assert orders.ordered == []
            await one.stop()
            await rounds(watch)
            assert orders.ordered == ["o0"]

    run(scenario)


def test_after_an_outage_instances_that_answer_stay(run):
    """All signs of life are old when the server is back. Result: nothing is started anew."""

    async def scenario():
        one = ScriptedInstance("t1")
        async with watching(one, min=1, max=2) as (front, orders, watch):
            await rounds(watch, 2)
            orders.fresh = False
            await rounds(watch)
            assert orders.ordered == [] and front.member(one).serves
            await one.stop()
            await rounds(watch)
            assert orders.ordered == ["o0"] and not front.state.members

    run(scenario)


def test_while_the_server_is_away_nothing_is_let_go(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with watching(one, max=1) as (front, orders, watch):
            await rounds(watch, 1)
            front.state.route = Route("chat", template="t", max=1, quiet=0.001)
            orders.problem = NoAnswerError("away")
            watch.listed_at = clock.now() - 100
            await asyncio.sleep(0.01)
            await rounds(watch)
            assert one.kept == [120]
            orders.problem = None
            await rounds(watch)
            assert one.kept == [120, 0]

    run(scenario)


def test_an_order_that_fails_is_told_and_tried_again_later(run):
    async def scenario():
        async with watching() as (front, orders, watch):
            client = await front.begin()
            while not front.state.waiting:
                await asyncio.sleep(0.01)
            await rounds(watch, 3)
            assert orders.ordered == ["o0"]
            orders.extra.clear()
            orders.over["o0"] = Served("o0", "o0", "failed", reason="/home/ann/m.gguf: corrupt")
            await rounds(watch, 1)
            status, _, body = await client.response()
            assert status == 503 and b"o0 has failed: m.gguf: corrupt" in body
            assert orders.ordered == ["o0"]  # it is backed off

    run(scenario)


def test_a_server_that_is_away_for_a_moment_does_not_end_the_waiting(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with watching() as (front, orders, watch):
            client = await front.begin()
            while not front.state.waiting:
                await asyncio.sleep(0.01)
            await watch._list()
            orders.problem = NoAnswerError("away")
            await watch._decide()
            await asyncio.gather(*watch._ordering)
            orders.problem = None
            await one.start()
            orders.instances.append(one)
            await rounds(watch, 2)
            assert (await client.response())[0] == 200
            await one.stop()

    run(scenario)


def test_one_too_many_is_taken_back(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with watching(one, min=2, max=2) as (front, orders, watch):
            await rounds(watch, 3)
            assert orders.ordered == ["o0"]
            front.state.route = Route("chat", template="t", max=1)
            await rounds(watch, 1)
            assert orders.taken_back == ["o0"]

    run(scenario)


LEFT = "has left the queue, and no agent has begun it yet; if that lasts, another one is ordered"


def test_an_order_is_off_where_another_door_was_faster(run):
    """Two instances serve, a third is needed, and one is lost: each door has decided by what it
    knew. Result: one of them orders."""

    async def scenario():
        one, two = ScriptedInstance("t1"), ScriptedInstance("t2")
        async with watching(one, two, max=3) as (front, orders, watch):
            await rounds(watch, 2)
            suffices = front.state.one_more()
            orders.instances.remove(two)
            listed = await orders.listed([])
            assert not suffices(listed)
            order = trust.order(SECRET, "another's", "chat")
            listed.append(Listed("another's", "n", "chat", "queued", 1.0, order=order))
            assert suffices(listed)

    run(scenario)


@pytest.mark.parametrize(("seconds", "removed"), [(0, []), (STRAYED - SEEK, []), (STRAYED, ["o0"])])
def test_what_an_agent_took_and_never_began_is_replaced(run, monkeypatch, seconds, removed):
    """The answer that gave it to the agent was lost. Result: another one is ordered, once it is
    certain that no agent is about to begin it."""

    async def scenario():
        times = [clock.now()]
        monkeypatch.setattr(clock, "now", lambda: times[0])
        async with watching(min=1) as (_, orders, watch):
            orders.where = Place("", 0, 1)
            await rounds(watch, 2)
            times[0] += SEEK
            await rounds(watch, 1)
            times[0] += seconds + 0.1
            await rounds(watch, 1)
            assert orders.removed == removed
            times[0] += 60
            await rounds(watch, 2)
            assert orders.ordered == ["o0", "o1"][: 1 + len(removed)]

    run(scenario)


@pytest.mark.parametrize("begins", [False, True])
def test_what_waits_or_begins_is_no_stray(run, monkeypatch, begins):
    async def scenario():
        times = [clock.now()]
        monkeypatch.setattr(clock, "now", lambda: times[0])
        async with watching(min=1) as (_, orders, watch):
            for _ in range(20):
                times[0] += SEEK
                await rounds(watch, 1)
                orders.where = Place("", 0, 1) if begins else Place("gpu", 3, 1)
                begun = (
                    replace(orders.extra[0], status="in_progress") if begins else orders.extra[0]
                )
                orders.extra = [begun]
            assert orders.removed == [] and orders.ordered == ["o0"]

    run(scenario)


@pytest.mark.parametrize(
    ("where", "told"),
    [
        (Place("gpu", 2, 1), "is number 2 in gpu"),
        (Place("", 0, 1), LEFT),
    ],
)
def test_who_waits_is_told_where_the_order_is(run, where, told):
    async def scenario():
        async with watching(min=1) as (front, orders, watch):
            orders.where = where
            waiting = asyncio.ensure_future(front.state.change(30, Caller("key", "a"), 0.0))
            await asyncio.sleep(0)
            await rounds(watch)
            assert front.state.on_the_way() == f"task o0 {told}"
            waiting.cancel()

    run(scenario)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_door_that_ends_takes_back_what_nobody_waits_for(run, elsewhere):
    """Orders of two doors wait in the queue, and one that a person has launched. Result: the last
    door of the route takes back what doors have ordered, and nothing while there is another one."""

    async def scenario():
        async with watching(min=1) as (front, orders, watch):
            watch.start()
            while not orders.ordered:
                await asyncio.sleep(0.01)
            (own,) = orders.extra
            by_another = replace(own, task="o9", order=trust.order(SECRET, "o9", "chat"))
            by_hand = replace(own, task="o8", version="", order=trust.order(SECRET, "o8", "chat"))
            running = replace(own, task="o7", status="in_progress")
            orders.extra += [by_another, by_hand, running]
            orders.elsewhere = {"chat"} if elsewhere else set()
            await watch.stop(5)
            assert orders.taken_back == ([] if elsewhere else ["o0", "o9"])

    run(scenario)


def test_a_door_ends_in_time_where_the_server_does_not_answer(run, caplog):
    async def scenario():
        async with watching(min=1) as (front, orders, watch):
            hanging = asyncio.Event()
            orders.others = lambda task: hanging.wait()
            await watch.stop(0.05)
            assert "may still wait in a queue" in caplog.text

    run(scenario)


def test_an_instance_that_never_answers_delays_no_other(run, monkeypatch):
    """One of three instances takes connections, and says nothing. Result: the others are looked at,
    and kept, round after round."""
    monkeypatch.setattr(looks, "PATIENCE", 0.05)
    monkeypatch.setattr(proven, "TIMEOUT", 100.0)
    monkeypatch.setattr(member, "TIMEOUT", 100.0)

    async def scenario():
        hanging = ScriptedInstance("t0")
        hanging.silent = asyncio.Event()
        others = [ScriptedInstance("t1"), ScriptedInstance("t2")]
        async with watching(*others, max=3) as (front, orders, watch):
            await hanging.start()
            orders.instances.insert(0, hanging)
            for _ in range(3):
                others[0].models["m"], others[1].models["m"] = "ready", "parked"
                await watch._list()
                await watch._probe()
                others[0].models["m"], others[1].models["m"] = "parked", "ready"
                await watch._probe()
                states = [front.member(each).models["m"].state for each in others]
                assert states == ["parked", "ready"]
            assert [each.kept for each in others] == [[120], [120]]
            assert len(hanging.asked) == 1 and not front.member(hanging).serves
            assert (await front.ask())[0] == 200
            watch._looks.stop()
            await hanging.stop()

    run(scenario)


@pytest.mark.parametrize(
    ("told", "where"),
    [
        ({}, "127.0.0.1"),
        ({"host": {"name": "one"}}, "one"),
        ({"host": {"name": "one"}, "devices": [{"name": "H200"}] * 2}, "one (2 x H200)"),
        (
            {"host": {"name": "x" * 99}, "devices": [{"name": "A"}, {"name": "B"}]},
            "x" * 64 + " (A, B)",
        ),
    ],
)
def test_the_machine_of_an_instance(run, told, where):
    async def scenario():
        one = ScriptedInstance("t1")
        one.machine = told
        async with watching(one) as (front, orders, watch):
            assert front.member(one).where == where

    run(scenario)


def test_one_that_never_told_anything_is_looked_at_seldom(run):
    async def scenario():
        fake = ScriptedInstance("t0", proves=False)
        async with watching(fake) as (front, orders, watch):
            for _ in range(20):
                await watch._probe()
            assert len(fake.asked) <= 3
            seen = front.member(fake)
            fake.proves, seen._next = True, 0.0
            await watch._probe()
            assert seen.serves

    run(scenario)


def test_a_template_that_cannot_be_read_costs_no_other_route(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with watching(one) as (front, orders, watch):
            orders.unreadable["bad"] = "there is no task 0123"
            orders.text = TEXT + f"[bad]\ntemplate = '{TASK}'\n[good]\ntemplate = '{TASK}'\n"
            await watch._edits.look()
            assert front.routes.names["good"] == "good/m"
            status, _, body = await front.ask("/bad/v1/completions")
            assert status == 503 and b"there is no task 0123" in body
            del orders.unreadable["bad"]
            await watch._edits.look()
            assert front.routes.names["bad"] == "bad/m"

    run(scenario)


def test_a_route_that_is_taken_out_lets_its_instances_go(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with watching(one) as (front, orders, watch):
            await rounds(watch, 1)
            orders.text = f"[other]\ntemplate = '{TASK}'\n"
            await watch._edits.look()
            assert one.kept == [120, 0]

    run(scenario)


@pytest.mark.parametrize(
    "answer",
    [
        b'{"proof": "\\ud800"}',
        b'{"proof": 1}',
        b"[" * 100_000,
        b"\xff",
        b'{"status":"active","models":[{"name":"m","state":"ready","slots":1e999}]}',
        b'{"status":"active","models":7}',
        b"x" * (2 << 20),
    ],
)
def test_whatever_a_peer_answers_the_others_are_looked_at(run, answer):
    async def scenario():
        hostile, one = ScriptedInstance("t0"), ScriptedInstance("t1")
        hostile.says = answer
        async with watching(hostile, one) as (front, orders, watch):
            await rounds(watch, 2)
            assert front.member(one).serves and one.kept == [120]
            assert not front.member(hostile).serves and front.member(hostile).problem

    run(scenario)


def test_requests_of_other_doors_count(run):
    async def scenario():
        instances = [ScriptedInstance("t1"), ScriptedInstance("t2")]
        async with Front(*instances) as front:
            instances[0].others = 2  # it is full
            await front.look()
            for number in range(8):
                await front.ask(body=b'{"model":"m","prompt":"%d"}' % number)
            assert instances[0].requests == [] and len(instances[1].requests) == 8

    run(scenario)


def test_a_new_template_takes_over_from_the_old(run):
    """The route's template changes while its only instance serves. Result: one by the new template
    is ordered, beyond `max`; the old one serves until that one does, and is let go then."""

    async def scenario():
        old, new = ScriptedInstance("t1"), ScriptedInstance("o0")
        before, after = (Route("chat", template=text, max=1) for text in ("old", "new"))
        old.version, new.version = before.version, after.version
        async with watching(old, template="old") as (front, orders, watch):
            await rounds(watch)
            assert orders.ordered == []
            front.state.route = after
            await rounds(watch)
            assert orders.ordered == ["o0"] and old.kept == [120]
            await new.start()
            orders.extra.clear()
            orders.instances.append(new)
            await rounds(watch)
            assert orders.ordered == ["o0"] and old.kept == [120, 0] and new.kept == [120]
            assert (await front.ask())[0] == 200 and len(new.requests) == 1
            await new.stop()

    run(scenario)


@pytest.mark.parametrize("address", ["", "http://127.0.0.1:9"])
def test_tasks_that_no_door_has_ordered_keep_none_from_being_ordered(run, address):
    """Another user's tasks look like instances of the route: in the queue, or at an address where
    nobody is. Result: they do not count, and one is ordered."""

    async def scenario():
        async with watching(min=1) as (_, orders, watch):
            status = "in_progress" if address else "queued"
            orders.extra += [Listed(f"f{n}", "", "chat", status, 0.0, address) for n in range(3)]
            await rounds(watch)
            assert orders.ordered == ["o0"]

    run(scenario)
