import json
import socket
import ssl
import threading

import jwt
import pytest

from app.task import login
from app.task.api import RefusedError
from app.task.login import UnreachableError
from app.task.sdk import ClearMLError, SdkThread
from tests.task.test_api import Answer

TOKEN = json.dumps({"meta": {}, "data": {"token": jwt.encode({}, "k" * 32)}})
REFUSAL = '{"meta": {"result_msg": "because"}}'


@pytest.fixture(autouse=True)
def places(monkeypatch):
    monkeypatch.setattr(login, "_host", lambda: "http://me:secret@h:8008/?x=secret")
    monkeypatch.setattr(login, "_setting", lambda: "HOST")
    monkeypatch.setattr(login, "_credentials", lambda: ({}, "KEYS"))


def test_the_address_is_shown_without_what_is_secret_in_it():
    assert login.shown_address() == "http://h:8008/"


def test_a_token_is_all_that_is_wanted():
    login.check(Answer(200, TOKEN))


@pytest.mark.parametrize(
    "status, text, error, says",
    [
        (401, REFUSAL, RefusedError, "refuses the credentials: because: check KEYS"),
        (403, REFUSAL, RefusedError, "refuses the credentials: because"),
        (400, REFUSAL, RefusedError, "refuses auth.login: because"),
        (500, REFUSAL, UnreachableError, "is not ready: because"),
        (429, REFUSAL, UnreachableError, "is not ready: because"),
        (502, "<html>", UnreachableError, "answers HTTP 502: check that the server behind it"),
        (200, "<html>", UnreachableError, "no ClearML API server .HTTP 200, application/json"),
        (200, '{"meta": {}}', UnreachableError, "no ClearML API server"),
        (401, "<html>", UnreachableError, "no ClearML API server .HTTP 401"),
        (200, "[" * 100_000, UnreachableError, "no ClearML API server"),
        (200, '{"meta": {}, "data": {"token": "x"}}', UnreachableError, "no ClearML API server"),
        (200, '{"meta": {}, "data": {"token": 1}}', UnreachableError, "no ClearML API server"),
    ],
)
def test_every_other_answer_names_the_address_and_what_to_do(status, text, error, says):
    with pytest.raises(error, match=says) as raised:
        login.check(Answer(status, text))
    assert "ClearML: " in str(raised.value) and "http://h:8008/" in str(raised.value)
    assert "secret" not in str(raised.value)


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error, says",
    [
        (OSError(111, "Connection refused"), "cannot be reached: Connection refused: check HOST"),
        (
            caused(OSError(), socket.gaierror(-2, "x")),
            "cannot be reached: the name does not resolve",
        ),
        (caused(OSError(), TimeoutError("timed out")), "does not answer in 10 s: check HOST"),
        (caused(OSError(), ssl.SSLError(1, "no")), "cannot be reached by TLS ("),
        (ValueError("no scheme"), "is no address of a server"),
        (caused(OSError(), caused(OSError(), None)), "does not answer by HTTP: check http or"),
        (
            caused(type("ProxyError", (OSError,), {})(), OSError(111, "Connection refused")),
            "cannot be reached by the proxy that the environment names: Connection",
        ),
    ],
)
def test_what_kept_the_request_from_being_answered(monkeypatch, error, says):
    def send(_):
        raise error

    monkeypatch.setattr(login, "_send", send)
    with pytest.raises(UnreachableError) as raised:
        login.log_in(10)
    assert str(raised.value).startswith(f"ClearML: http://h:8008/ {says}")


def entered(monkeypatch, outcomes, patience):
    """`enter`, where the attempts end as `outcomes` say: the address, and what is left of them."""
    left = list(outcomes)

    def log_in(_):
        if (outcome := left.pop(0)) is not None:
            raise outcome

    async def scenario():
        sdk = SdkThread()
        sdk.start()
        return await login.enter(sdk, patience), left

    monkeypatch.setattr(login, "log_in", log_in)
    monkeypatch.setattr(login, "PAUSE", 0.0)
    return scenario


def test_an_outage_is_waited_for_and_said(run, monkeypatch, caplog):
    outcomes = [UnreachableError("away"), UnreachableError("away"), None]

    async def scenario():
        assert await entered(monkeypatch, outcomes, 60)() == ("http://h:8008/", [])
        assert caplog.messages == ["away; trying again"]

    run(scenario)


@pytest.mark.parametrize(
    "outcome, patience", [(UnreachableError("away"), 0), (RefusedError("no", 401), 60)]
)
def test_without_patience_or_after_a_refusal_there_is_one_attempt(
    run, monkeypatch, outcome, patience
):
    async def scenario():
        with pytest.raises(ClearMLError, match=str(outcome)):
            await entered(monkeypatch, [outcome], patience)()

    run(scenario)


def test_an_attempt_that_knows_no_timeout_is_left(run, monkeypatch):
    """A name that takes minutes to resolve."""

    async def scenario():
        monkeypatch.setattr(login, "ATTEMPT", 0.01)
        stuck = threading.Event()
        monkeypatch.setattr(login, "log_in", lambda _: stuck.wait(5))
        sdk = SdkThread()
        sdk.start()
        with pytest.raises(UnreachableError, match="http://h:8008/ does not answer in 0.01 s"):
            await login.enter(sdk, 0)
        stuck.set()

    run(scenario)
