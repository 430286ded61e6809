import pytest
import requests

from app.task.api import RefusedError
from app.task.direct import Direct
from tests.clearml_api import ApiServer


class Session:
    """The SDK's, as far as a request past it needs it."""

    raw_token, access_key, secret_key = "old", "access", "not-a-real-secret"

    def __init__(self, host):
        self.host, self.config = host, {"api.verify_certificate": True}


@pytest.fixture
def api():
    with ApiServer() as server:
        yield server


def test_one_request_is_one_try(api):
    direct, task = Direct(Session(api.url)), api.state.new_task()
    assert direct.ask("tasks", "get_by_id", {"task": task["id"]}, 5)["task"]["id"] == task["id"]
    with pytest.raises(RefusedError, match="tasks.get_by_id: Invalid task id"):
        direct.ask("tasks", "get_by_id", {"task": "none"}, 5)
    api.behind = 502  # which the SDK would try again for hours
    with pytest.raises(Exception, match="not a ClearML server's"):
        direct.ask("tasks", "ping", {"task": task["id"]}, 5)
    assert api.calls == ["tasks.get_by_id", "tasks.get_by_id"]
    with pytest.raises(requests.ConnectionError):
        Direct(Session("http://127.0.0.1:1")).ask("tasks", "ping", {}, 5)


def test_a_token_that_has_expired_is_renewed(api):
    direct, task = Direct(Session(api.url)), api.state.new_task()
    answer = api.answer

    def once(action, fields, body):
        if action != "auth.login" and "auth.login" not in api.calls:
            api.locked = True
        try:
            return answer(action, fields, body)
        finally:
            api.locked = False

    api.answer = once
    direct.ask("tasks", "ping", {"task": task["id"]}, 5)
    assert api.calls == ["tasks.ping", "auth.login", "tasks.ping"]
