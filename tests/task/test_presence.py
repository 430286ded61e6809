import asyncio
import logging
from dataclasses import replace

import pytest

from app.machine import clock
from app.memory.ledger import ModelState, Tier, View
from app.page.examples import Target
from app.task.presence import (
    HEADINGS,
    USED,
    Presence,
    model_endpoints,
    models_table,
    progress,
    properties,
)
from app.task.sdk import ClearMLError, NoAnswerError
from app.telemetry.callers import ByCaller
from app.telemetry.overview import Details, Overview, Phase
from app.telemetry.readings import MemoryUse, Reading, Readings
from app.telemetry.samples import Tokens
from tests.task.fakes import FakeTask
from tests.telemetry.examples import sample

S = ModelState
TARGET = Target("a", "http://h/a/v1", False, "")
REFUSED = ClearMLError("ClearML: showing the state: LoginError: no token")


def view(name, state, **fields):
    named = {"tier": Tier.RAM, "reason": "", "progress": None, "admitted": 0, "leased": 0}
    named |= {"requests": 3, "denied": 0, "last_used": 0.0, **fields}
    return View(name=name, state=state, **named)


def overview(*views, phase=Phase.SERVING, limit=7200.0):
    return Overview(
        "1",
        {v.name: Details("org/ref", 4096, 4, f"http://h/{v.name}/v1") for v in views},
        limit,
        60,
        list,
        lambda: views,
        lambda: (3, 4),
        phase,
        endpoint="http://h",
        begun=0.0,
        begun_at=0.0,
        serving_since=0.0,
    )


class Shown:
    """A Presence whose first message has been confirmed."""

    def __init__(self, interval=3600):
        self.task, self.overview = FakeTask(), overview(view("a", S.READY))
        self.presence = Presence(self.task, self.overview, lambda: [TARGET], interval)

    async def __aenter__(self):
        self.presence.start()
        await self.next()  # the state
        await self.next()  # the page
        return self

    async def __aexit__(self, *_):
        self.presence._sending.cancel()

    async def next(self):
        """What it tries to show next."""
        return await self.task.tried.get()


def test_only_what_has_changed_is_sent_again(run):
    async def scenario():
        async with Shown() as shown:
            shown.overview.endpoint = "http://elsewhere"
            shown.presence.refresh()
            changed, table = await shown.next()
            assert table is None and changed["endpoint"] == "http://elsewhere"
            assert "curl" not in changed and "status" not in changed

    run(scenario)


def test_a_table_of_callers_is_sent_when_it_has_changed_and_at_the_end(run):
    async def scenario():
        shown = Shown()
        by_caller = shown.overview.by_caller = ByCaller("other")
        async with shown:
            await shown.next()  # the page
            by_caller.keep(["alice"])
            by_caller.add(sample(caller="alice", tokens=Tokens(10, 4, 6)))
            by_caller.deny("alice")
            await shown.presence.stop(3)
        tables = [told[1] for told in shown.task.shown if isinstance(told, tuple) and told[1]]
        first, last = (table.rows for table in tables if table.title == "Callers")
        nothing = ["other", "0", "0", "0", "0", "0"]
        assert first == [USED, nothing]
        assert last == [USED, ["alice", "1", "1", "10", "4", "6"], nothing]

    run(scenario)


def test_what_could_not_be_sent_is_sent_again(run):
    """1. A change is not confirmed. 2. The next tick. Result: the same change, and once it was
    confirmed no more of it."""

    async def scenario():
        async with Shown() as shown:
            shown.task.refusals["state"] = REFUSED
            shown.overview.endpoint = "http://elsewhere"
            shown.presence.refresh()
            failed, _ = await shown.next()
            shown.presence.refresh()
            again, _ = await shown.next()
            assert failed["endpoint"] == again["endpoint"] == "http://elsewhere"
            shown.task.refusals.clear()
            shown.presence.refresh()
            confirmed, _ = await shown.next()
            assert confirmed["endpoint"] == "http://elsewhere"
            shown.overview.phase = Phase.STOPPING
            shown.presence.refresh()
            later, _ = await shown.next()
            assert "status" in later and "endpoint" not in later

    run(scenario)


def test_what_could_not_be_sent_does_not_wait_for_the_interval(run, monkeypatch):
    monkeypatch.setattr("app.task.presence.AGAIN", 0.01)

    async def scenario():
        async with Shown(interval=3600) as shown:
            shown.task.refusals["state"] = REFUSED
            shown.overview.endpoint = "http://elsewhere"
            shown.presence.refresh()
            await shown.next()
            again, _ = await asyncio.wait_for(shown.next(), 10)
            assert again["endpoint"] == "http://elsewhere"

    run(scenario)


def test_a_page_that_could_not_be_sent_is_sent_again(run, caplog):
    async def scenario():
        shown = Shown()
        shown.task.refusals["page"] = ClearMLError("the file server h does not answer")
        async with shown:
            for _ in range(2):
                shown.presence.refresh()
                assert "curl" in await shown.next()
            shown.task.refusals.clear()
            shown.presence.refresh()
            await shown.next()
            shown.overview.phase = Phase.STOPPING
            shown.presence.refresh()
            assert (await shown.next())[0]["status"] == "stopping"  # and no page before it
        assert caplog.messages == ["the file server h does not answer"]

    run(scenario)


def test_a_change_during_a_send_is_sent_after_it(run):
    async def scenario():
        shown = Shown()
        shown.presence.start()
        await shown.next()  # under way: not confirmed yet
        shown.overview.endpoint = "http://elsewhere"
        shown.presence.refresh()
        await shown.next()  # the page
        changed, _ = await shown.next()
        assert changed["endpoint"] == "http://elsewhere"

    run(scenario)


def test_the_memory_of_models_is_read_before_it_is_shown(run, monkeypatch):
    time, sizes = [0.0], iter((1e6, 9e6))
    monkeypatch.setattr(clock, "now", lambda: time[0])

    def read(pids):
        return Reading([], (0, 0), {7: MemoryUse({}, next(sizes))})

    async def scenario():
        shown = Shown()
        readings = shown.overview.readings = Readings(read)
        shown.overview.models["a"].memory = lambda: readings.latest().processes[7]
        async with shown:
            time[0] = 60.0
            shown.presence.refresh()
            _, table = await shown.next()
            assert table.rows[1][HEADINGS.index("Memory (MB)")] == "9"

    run(scenario)


def test_ticks_go_on_after_a_fault_of_ours(run, caplog):
    async def scenario():
        async with Shown(interval=0) as shown:
            views, shown.overview.view = shown.overview.view, None  # not callable
            while "could not be shown" not in caplog.text:
                await asyncio.sleep(0)
            shown.overview.view = views
            shown.overview.endpoint = "http://elsewhere"
            changed, _ = await shown.next()
            assert changed["endpoint"] == "http://elsewhere"

    run(scenario)


def test_the_last_word_is_stopped_and_an_outage_raises_nothing(run, caplog):
    async def scenario():
        async with Shown() as shown:
            shown.task.refusals["state"] = NoAnswerError("ClearML: no answer in 3 s")
            await shown.presence.stop(3)
            changed, _ = await shown.next()
            assert changed["status"] == "stopped"

    with caplog.at_level(logging.WARNING):
        run(scenario)
    assert "Traceback" not in caplog.text


def test_properties_are_escaped_for_the_dashboards_html():
    served = properties(overview(view("a", S.READY)), 3600.0, replace(TARGET, key="<key>"))
    assert served["status"] == "idle" and served["idle_hours"] == "1 hour"
    assert served["idle_limit_hours"] == "2 hours" and served["endpoint"] == "http://h"
    assert served["progress"] == "" and "&lt;key&gt;" in served["curl"]
    setting_up = overview(view("<b>", S.PENDING), phase=Phase.SETTING_UP, limit=None)
    found = properties(setting_up, 0.0, TARGET)
    assert found["progress"] == "&lt;b&gt;: pending" and found["idle_limit_hours"] == "∞"


def test_progress_is_what_models_are_on_their_way_to():
    views = (view("a", S.LOADING, progress=0.25), view("b", S.FAILED, reason="no file"))
    assert (
        progress(overview(*views, phase=Phase.SETTING_UP)) == "a: loading 25%, b: failed: no file"
    )
    assert progress(overview(*views)) == ""


def test_the_table_has_a_row_for_every_model_below_its_headings():
    seen = overview(view("a", S.READY))
    seen.models["a"].memory = lambda: MemoryUse(host=5_000_000)
    headings, row = models_table(seen)
    assert dict(zip(headings, row, strict=True)) == {
        "Model Name": "a",
        "Endpoint": "http://h/a/v1",
        "State": "ready",
        "Tier": "ram",
        "Context": "4096",
        "Slots": "4",
        "Memory (MB)": "5",
        "Requests": "3",
    }


@pytest.mark.parametrize(
    "phase, state, switches, url",
    [
        (Phase.SETTING_UP, S.DOWNLOADING, 0, ""),
        (Phase.SETTING_UP, S.COLD, 0, ""),
        (Phase.SETTING_UP, S.LOADING, 0, ""),
        (Phase.SETTING_UP, S.READY, 1, "http://h/a/v1"),
        (Phase.SERVING, S.COLD, 0, "http://h/a/v1"),
        (Phase.SERVING, S.LOADING, 0, "http://h/a/v1"),
        (Phase.SERVING, S.PARKING, 1, "http://h/a/v1"),
        (Phase.STOPPING, S.COLD, 0, "http://h/a/v1"),
    ],
    ids=str,
)
def test_a_model_has_a_url_in_the_table_once_it_takes_requests(phase, state, switches, url):
    seen = overview(view("a", state, switches=switches), phase=phase)
    (row,) = model_endpoints(seen, {"a": {"latency": 0.25}}, 90.0)
    assert (row.url, row.uptime, row.requests, row.latency) == (url, 90.0, 3, 250.0)


def test_a_model_that_failed_is_not_in_the_table():
    seen = overview(view("a", S.FAILED, switches=1), view("b", S.READY, switches=1))
    assert [row.name for row in model_endpoints(seen, {}, 0.0)] == ["b"]
