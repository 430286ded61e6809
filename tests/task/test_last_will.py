"""The executor of the last will: the real process, against the API stand-in."""

import time

import pytest

from app.task import last_will_child
from app.task.last_will import LastWill
from app.task.mode import Mode
from app.task.outcome import Outcome, Word, last_words
from tests.clearml_api import ApiServer

ROW = Word("unregister_container", {"container_id": "row"}, "serving")


@pytest.fixture
def api():
    with ApiServer() as server:
        server.state.containers["row"] = {}
        yield server


def access(api, token="token"):
    pair = {"key": "access", "secret": "not-a-real-secret"}
    return {"host": api.url, "token": token, **pair, "verify": True}


def words(task, outcome=Outcome.STOPPED):
    return [*last_words(task["id"], Mode.AGENT, outcome, "killed"), ROW]


def value(task, name):
    return task["hyperparams"].get("properties", {}).get(name, {}).get("value")


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_last_will_is_carried_out_when_we_have_ended(api):
    task, will = api.state.new_task(status="in_progress"), LastWill()
    will.begin(access(api))
    will.leave([ROW] * 9)
    will.leave(words(task))
    assert api.calls == []
    will._executor.close()  # as the kernel does
    until(lambda: not api.state.containers)
    assert (value(task, "status"), value(task, "stop_reason")) == ("stopped", "killed")
    assert api.calls.count("serving.unregister_container") == 1


def will_of(api, task, outcome=Outcome.STOPPED, over=None):
    listed = [(word.service, word.action, word.fields) for word in words(task, outcome)]
    return {"access": access(api), "words": listed, "over": over}


def test_a_refusal_costs_the_next_word_nothing_and_an_outage_is_waited_out(api):
    task = api.state.new_task(status="stopped")  # which takes no runtime properties
    api.failing["serving.unregister_container"] = 500
    answer = api.answer

    def there_again(action, fields, body):
        if api.calls.count("serving.unregister_container") == 2:
            api.failing.clear()
        return answer(action, fields, body)

    api.answer = there_again
    last_will_child.carry_out(will_of(api, task), pause=0.0)
    assert value(task, "status") == "stopped" and api.state.containers == {}
    assert api.calls.count("tasks.edit_hyper_params") == 1


def test_a_token_that_has_expired_is_renewed(api):
    task, answer = api.state.new_task(status="in_progress"), api.answer

    def once(action, fields, body):
        api.locked = action != "auth.login" and "auth.login" not in api.calls
        try:
            return answer(action, fields, body)
        finally:
            api.locked = False

    api.answer = once
    last_will_child.carry_out(will_of(api, task), pause=0.0)
    assert value(task, "status") == "stopped" and api.calls.count("auth.login") == 1


@pytest.mark.parametrize(
    "status, message, said",
    [
        ("completed", "Changed by clearml-agent", True),
        ("created", "reset", False),
        ("completed", "killed", False),  # nobody has replaced it
    ],
)
def test_a_message_is_said_again_only_where_another_replaced_it(
    api, monkeypatch, status, message, said
):
    monkeypatch.setattr(last_will_child, "LOOKS", 2)
    task = api.state.new_task(status=status, status_message=message)
    over = {"task": task["id"], "status": "completed", "status_message": "killed"}
    last_will_child.carry_out(will_of(api, task, Outcome.COMPLETED, over), look=0.0)
    assert (task["status_message"] == "killed") is (said or message == "killed")
    assert ("tasks.completed" in api.calls) is said
