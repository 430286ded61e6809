import asyncio
import logging
from json import JSONDecodeError

import pytest

from app.errors import ConfigError
from app.task import route
from app.task.route import Route
from app.task.sdk import ClearMLError
from tests.task.fakes import FakeTask


class Gateway:
    """The SDK's task, as far as a route needs it; the gateway writes `endpoint` into it."""

    def __init__(self, refusal=None):
        self.endpoint, self.refusal = "", refusal
        self.runtime, self.requested = {"endpoint": "http://old"}, None
        self.looked = 0

    def reload(self):
        self.looked += 1
        if isinstance(self.endpoint, Exception):
            raise self.endpoint
        self.runtime["endpoint"] = self.endpoint

    def _get_runtime_properties(self):
        return self.runtime

    def request_external_endpoint(self, **given):
        if self.refusal is not None:
            raise self.refusal
        self.requested = given


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(route, "POLL", 0.001)
    monkeypatch.setattr(route, "FOLLOW", 0.001)


def test_only_an_agents_task_has_a_gateway(run):
    async def scenario():
        assert await Route(FakeTask(under_agent=False)).available() is False

    run(scenario)


@pytest.mark.parametrize("advanced", [True, False])
def test_a_gateway_is_there_where_the_server_says_so(run, monkeypatch, advanced):
    async def scenario():
        monkeypatch.setattr(route, "_advanced", lambda task: advanced)
        assert await Route(FakeTask()).available() is advanced

    run(scenario)


def test_an_outage_while_looking_for_a_gateway_is_one_line(run, monkeypatch):
    def fail(_):
        raise RuntimeError("no token")

    async def scenario():
        monkeypatch.setattr(route, "_advanced", fail)
        with pytest.raises(
            ClearMLError, match="looking for an App Gateway: RuntimeError: no token"
        ):
            await Route(FakeTask()).available()

    run(scenario)


@pytest.mark.parametrize("static, asked", [("", None), ("team", "team")])
def test_a_request_forgets_the_address_of_the_run_before(run, static, asked):
    async def scenario():
        gateway = Gateway()
        await Route(FakeTask(sdk_task=gateway)).request(8080, static)
        assert gateway.runtime == {"endpoint": "", "browser_endpoint": ""}
        assert gateway.requested["port"] == 8080
        assert gateway.requested["static_route"] == asked
        assert gateway.requested["endpoint_name"] == ""  # a second request replaces the first

    run(scenario)


@pytest.mark.parametrize(
    "refusal, said",
    [
        (ValueError("'team' is disabled"), "^General/gateway_route: 'team' is disabled"),
        (
            JSONDecodeError("Expecting value", "", 0),
            "^ClearML: asking for a route: JSONDecodeError",
        ),
        (RuntimeError("no token"), "^ClearML: asking for a route: RuntimeError: no token"),
    ],
    ids=["a static route", "a proxy's page", "no token"],
)
def test_a_refusal_names_the_field_and_a_failure_the_call(run, refusal, said):
    async def scenario():
        with pytest.raises(ConfigError, match=said):
            await Route(FakeTask(sdk_task=Gateway(refusal))).request(8080, "team")

    run(scenario)


class Followed:
    """A route that is followed, and the addresses that it has told."""

    def __init__(self):
        self.gateway, self.told = Gateway(), asyncio.Queue()
        self.route = Route(FakeTask(sdk_task=self.gateway))
        self.route.follow(self.told.put_nowait)

    async def looks(self, count):
        while self.gateway.looked < count:
            await asyncio.sleep(0)


def test_an_address_is_told_when_it_comes_and_when_it_changes(run):
    async def scenario():
        followed = Followed()
        await followed.looks(2)
        assert followed.told.empty()
        for address in ("http://gw/1", "http://gw/2"):
            followed.gateway.endpoint = f"{address}/"
            assert await followed.told.get() == address
        before = followed.gateway.looked
        await followed.looks(before + 3)
        assert followed.told.empty()
        followed.route.stop()

    run(scenario)


def test_an_outage_is_followed_by_the_next_look(run):
    async def scenario():
        followed = Followed()
        followed.gateway.endpoint = RuntimeError("no token")
        await followed.looks(3)
        followed.gateway.endpoint = "http://gw"
        assert await followed.told.get() == "http://gw"
        followed.route.stop()

    run(scenario)


def test_it_is_said_once_that_no_address_came(run, monkeypatch, caplog):
    monkeypatch.setattr(route, "PATIENCE", 3 * route.POLL)

    async def scenario():
        followed = Followed()
        await followed.looks(12)
        followed.route.stop()

    with caplog.at_level(logging.WARNING):
        run(scenario)
    assert len(caplog.messages) == 1 and "has given no address" in caplog.messages[0]
