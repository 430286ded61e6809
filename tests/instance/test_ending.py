"""The stack of stops: whoever was begun last ends first, whatever happens to the others."""

import asyncio

import pytest

from app.instance import ending
from app.instance.ending import Ending, simply


@pytest.fixture(autouse=True)
def no_margin(monkeypatch):
    monkeypatch.setattr(ending, "MARGIN", 0.0)


class Stops:
    """Stops by name, that write down that they ran."""

    def __init__(self, *, failing=(), hanging=(), deaf=()):
        self.ran = []
        self.ending = Ending()
        self.free = asyncio.Event()
        for name in ("first", "second", "third"):
            stop = self._deaf if name in deaf else self._stop
            self.ending.push(name, self._named(name, stop, failing, hanging), 0.01)

    def _named(self, name, stop, failing, hanging):
        async def run(seconds):
            self.ran.append((name, seconds))
            if name in failing:
                raise ValueError(f"{name} fails")
            if name in hanging:
                await self.free.wait()
            await stop()

        return run

    async def _stop(self):
        pass

    async def _deaf(self):
        while not self.free.is_set():
            try:
                await self.free.wait()
            except asyncio.CancelledError:
                continue


EVERYBODY = [("third", 0.01), ("second", 0.01), ("first", 0.01)]


@pytest.mark.parametrize("kind", ["failing", "hanging", "deaf"])
def test_one_that_does_not_stop_costs_the_others_nothing(run, kind, caplog):

    async def scenario():
        stops = Stops(**{kind: ("second",)})
        await stops.ending.run()
        stops.free.set()
        return stops.ran

    assert run(scenario) == EVERYBODY
    assert "second" in caplog.text


def test_the_last_begun_ends_first_and_nobody_ends_twice(run):
    async def scenario():
        stops = Stops()
        await stops.ending.run()
        await stops.ending.run()
        return stops.ran

    assert run(scenario) == EVERYBODY


def test_at_once_does_what_nobody_may_leave_behind_and_waits_for_nothing(run):
    async def scenario():
        done, found = [], Ending()

        def fails():
            raise OSError("is gone")

        found.push("a", simply(lambda: done.append("never")), at_once=lambda: done.append("a"))
        found.push("b", simply(lambda: done.append("never")), at_once=fails)
        found.push("c", simply(lambda: done.append("never")))
        found.push("d", simply(lambda: done.append("never")), at_once=lambda: done.append("d"))
        found.at_once()
        return done

    assert run(scenario) == ["d", "a"]
