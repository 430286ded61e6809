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
