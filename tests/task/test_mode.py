import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.task import mode
from app.task.mode import Mode


@pytest.mark.parametrize(
    "wanted, variable, expected",
    [(True, None, True), (False, "1", True), (False, "2.33", True), (False, "0", False)]
    + [(False, "False", False), (False, None, False)],
)
def test_offline_is_known_without_the_sdk(wanted, variable, expected):
    environment = {} if variable is None else {"CLEARML_OFFLINE_MODE": variable}
    assert mode.known_offline(wanted, environment) is expected


def test_a_task_id_is_an_agents_and_a_key_is_a_persons():
    assert mode.find({"CLEARML_TASK_ID": "t", "CLEARML_API_ACCESS_KEY": "k"}) is Mode.AGENT
    assert mode.find({"TRAINS_API_ACCESS_KEY": "k"}) is Mode.LOCAL


def test_the_sdk_looks_for_an_abort_every_ten_seconds(monkeypatch):
    """The SDK's own watcher. Result: it waits so long before each look, whatever it would by
    default."""
    from clearml.backend_interface.task.development.worker import DevWorker

    for name in ("report_period", "ping_period"):
        monkeypatch.setattr(DevWorker, name, getattr(DevWorker, name))
    mode.watch_calmly()
    worker, waited = DevWorker(), []

    class Ended:
        def wait(self, seconds):
            waited.append(seconds)
            return True

    worker._task, worker._exit_event = object(), Ended()
    worker._daemon()
    assert waited == [10.0]


def test_threads_that_ask_at_once_for_a_tasks_lock_have_one(monkeypatch):
    """The SDK's own property, whose lock takes a while to be made."""
    from clearml import Task
    from clearml.backend_interface.task import task as module

    def slow():
        time.sleep(0.02)
        return object()

    monkeypatch.delenv("CLEARML_PROC_MASTER_ID", raising=False)
    monkeypatch.setattr(module, "RLock", slow)
    mode.have_one_lock()
    guarded = Task._edit_lock
    mode.have_one_lock()
    assert Task._edit_lock is guarded
    try:
        task = Task.__new__(Task)
        task._edit_lock = None
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(lambda _: id(task._edit_lock), range(8)))
    finally:
        del Task._edit_lock
    assert len(found) == 1


def test_an_sdk_without_such_a_lock_is_left(monkeypatch):
    import clearml

    monkeypatch.setattr(clearml, "Task", type("Task", (), {}))
    mode.have_one_lock()
    assert not hasattr(clearml.Task, "_edit_lock")
