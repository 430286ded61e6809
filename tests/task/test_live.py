import contextlib

import pytest

from app.task import api, live
from app.task.api import RefusedError
from app.task.live import PROPERTIES, Runtime


class SdkTask:
    """With the runtime properties of a server, which has tasks.edit_runtime or not."""

    def __init__(self, runtime=(), *, problem=None):
        self.id, self.runtime, self.problem = "t", dict(runtime), problem
        self.locked, self.asked, self.written, self.properties = False, 0, [], {}

    @property
    def _edit_lock(self):
        @contextlib.contextmanager
        def lock():
            self.locked = True
            yield
            self.locked = False

        return lock()

    def ask(self, service, action, fields):
        if action == "edit_hyper_params":
            self.properties |= {item["name"]: item["value"] for item in fields["hyperparams"]}
            return
        assert (service, action, fields["force"]) == ("tasks", "edit_runtime", True)
        assert self.locked, "the SDK may be rewriting all of them"
        self.asked += 1
        if self.problem is not None:
            raise self.problem
        self.runtime |= fields["add_or_update"]
        for key in fields["remove"]:
            del self.runtime[key]

    def _get_runtime_properties(self):
        return dict(self.runtime)

    def _set_runtime_properties(self, values):
        self.written.append(values)


@pytest.fixture
def on(monkeypatch):
    def on(task):
        monkeypatch.setattr(api, "ask", task.ask)
        return task

    return on


UNKNOWN = RefusedError("ClearML: Unable to find endpoint for name tasks.edit_runtime", 404)


def test_single_keys_are_written(on):
    task, runtime = on(SdkTask({"theirs": "1", "old": "x"})), Runtime()
    assert runtime.edit(task, {"ours": "2"}, ["old"])
    runtime.set(task, {"key": "3"})
    assert task.runtime == {"theirs": "1", "ours": "2", "key": "3"} and task.written == []


def test_a_server_that_has_no_such_request_is_asked_once(on):
    task, runtime = on(SdkTask(problem=UNKNOWN)), Runtime()
    assert not runtime.edit(task, {"ours": "2"}) and not runtime.edit(task, {"ours": "3"})
    assert task.asked == 1 and task.written == []
    runtime.set(task, {"key": "3"})
    assert task.written == [{"key": "3"}]


def test_another_refusal_is_not_taken_for_that(on):
    task, runtime = on(SdkTask(problem=RefusedError("Invalid task status", 400))), Runtime()
    for _ in range(2):
        with pytest.raises(RefusedError):
            runtime.edit(task, {"ours": "2"})
    assert task.asked == 2


def test_nothing_is_left_of_the_run_before(on):
    task = on(SdkTask({"llamacpp_status": "stopped", "_api_key": "k", "theirs": "1"}))
    task.properties = {"status": "stopped", "stop_reason": "idle for 2 hours", "theirs": "1"}
    live.clear(task, Runtime(), "a run")
    assert task.properties.pop("theirs") == "1"
    new = [task.properties.pop(name) for name in ("status", "run")]
    assert new == ["setting up", "a run"]
    assert task.properties == dict.fromkeys(set(PROPERTIES) - {"status"}, "")
    assert task.runtime == {"_api_key": "k", "theirs": "1"}
