import json

import pytest

from app.machine import clock
from app.task import api
from app.task.api import RefusedError
from app.task.sdk import ClearMLError

OK = {"meta": {"result_code": 200, "result_msg": "OK"}, "data": {"queues": []}}
NO = {"meta": {"result_code": 400, "result_msg": "Invalid task id"}, "data": {}}


class Answer:
    """As the SDK's session gives it."""

    def __init__(self, status, text, kind="application/json"):
        self.status_code, self.ok, self.text = status, status < 400, text
        self.headers, self.url = {"Content-Type": kind}, "http://me:secret@h:8008/v2/x?y=secret"

    def json(self):
        return json.loads(self.text)


def test_the_data_of_an_answer():
    assert api.data("queues.get_all", Answer(200, json.dumps(OK))) == {"queues": []}
    empty = {**OK, "data": None}
    assert api.data("queues.get_all", Answer(200, json.dumps(empty))) == {}


def test_what_the_server_refuses_is_said_in_its_words():
    with pytest.raises(RefusedError, match="^ClearML: tasks.edit: Invalid task id$") as caught:
        api.data("tasks.edit", Answer(400, json.dumps(NO)))
    assert caught.value.status == 400


def test_a_refusal_that_a_proxy_gives_a_status_of_its_own_is_one():
    lost = {"meta": {"result_code": 404, "result_msg": "Unable to find endpoint"}, "data": {}}
    for status in (200, 502):
        with pytest.raises(RefusedError, match="Unable to find endpoint") as caught:
            api.data("serving.x", Answer(status, json.dumps(lost)))
        assert caught.value.status == 404


DEEP = "[" * 100_000
ODD = ('{"meta": "x"}', '{"meta": {"result_code": "x"}}', '{"meta": {}, "data": [1]}', DEEP)


@pytest.mark.parametrize(
    "text", ["<html>Sign in</html>", "", "[]", "{}", "null", *ODD], ids=lambda text: text[:40]
)
@pytest.mark.parametrize("status", [200, 404, 502])
def test_an_answer_of_something_else_than_clearml_is_no_refusal(status, text):
    with pytest.raises(ClearMLError, match="tasks.edit: the answer is not") as caught:
        api.data("tasks.edit", Answer(status, text, "text/html"))
    assert not isinstance(caught.value, RefusedError)
    assert f"HTTP {status}, text/html, from http://h:8008/v2/x)" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_a_server_says_has_a_bound_and_no_control_characters():
    meta = {"result_code": 400, "result_msg": "\x1b[31mno\n" + "x" * 100_000}
    with pytest.raises(RefusedError, match=r"^ClearML: tasks.edit: \\x1b\[31mno x+$") as caught:
        api.data("tasks.edit", Answer(400, json.dumps({"meta": meta})))
    assert len(str(caught.value)) < 400


class NoTokenError(Exception):
    pass


def session(*results):
    """A session class whose `send` raises or returns these, one after the other."""
    left = list(results)

    class Session:
        def send(self, request, *, asynchronous=False):
            result = left.pop(0)
            if isinstance(result, Exception):
                raise result
            return request, asynchronous, result

    return Session


def test_the_sdk_waits_longer_and_longer_while_there_is_no_token(monkeypatch, caplog):
    pauses = []
    monkeypatch.setattr(clock, "sleep", pauses.append)
    patient = session(*[NoTokenError("no token")] * 8, "done", NoTokenError("again"), "done")
    api.be_patient(patient, NoTokenError)
    assert patient().send("r", asynchronous=True) == ("r", True, "done")
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert caplog.messages == ["ClearML: NoTokenError: no token; trying again until it answers"]
    patient().send("r")
    assert len(caplog.messages) == 2  # another outage


def test_what_is_no_outage_is_raised_at_once(monkeypatch):
    monkeypatch.setattr(clock, "sleep", lambda _: pytest.fail("waited"))
    patient = session(TypeError("a fault"))
    api.be_patient(patient, NoTokenError)
    with pytest.raises(TypeError):
        patient().send("r")


def test_hyperparameters_are_flat_texts():
    sections = {"Model": {"model": {"value": "m"}, "threads": {"value": None}}, "Args": {}}
    assert api.flat(sections) == {"Model/model": "m", "Model/threads": ""}


@pytest.mark.parametrize("odd", [None, [], ["x"], "x", 1])
def test_sections_and_entries_that_are_none_are_ignored(odd):
    entries = {"model": odd, "threads": {"value": 4}}
    assert api.flat({"Args": odd, "Model": entries}) == {"Model/threads": "4"}
    assert api.flat(odd) == {}
