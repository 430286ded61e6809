import pytest

from app.task import api
from app.task.mode import Mode
from app.task.outcome import Outcome, conclude


class SdkTask:
    """It notes the steps; `failing` names those that raise."""

    def __init__(self, *failing):
        self.id, self.steps, self.failing = "t", [], failing

    def step(self, name):
        self.steps.append(name)
        if name in self.failing:
            raise ValueError(name)

    def get_logger(self):
        return self

    def flush(self, wait):
        self.step("flush")

    def close(self):
        self.step("close")


def concluded(monkeypatch, task, mode, outcome):
    """The steps, and the fields of the status."""
    asked = {}

    def ask(service, action, fields):
        asked[action] = fields
        task.step(action)

    monkeypatch.setattr(api, "ask", ask)
    conclude(task, mode, outcome, "the reason")
    return task.steps, asked


@pytest.mark.parametrize(
    "mode, outcome, status",
    [
        (Mode.LOCAL, Outcome.COMPLETED, ["completed"]),
        (Mode.LOCAL, Outcome.STOPPED, ["stopped"]),
        (Mode.LOCAL, Outcome.FAILED, ["failed"]),
        (Mode.AGENT, Outcome.COMPLETED, []),  # the agent reads it from our exit status
        (Mode.AGENT, Outcome.STOPPED, []),
        (Mode.AGENT, Outcome.FAILED, ["failed"]),
    ],
    ids=str,
)
def test_the_reason_is_written_what_was_reported_is_sent_and_the_status_set(
    monkeypatch, mode, outcome, status
):
    steps, asked = concluded(monkeypatch, SdkTask(), mode, outcome)
    assert steps == ["edit_hyper_params", "flush", *status]
    (item,) = asked["edit_hyper_params"]["hyperparams"]
    assert item == {"section": "properties", "name": "stop_reason", "value": "the reason"}
    for action in status:  # a message that begins otherwise is an abort for the SDK
        assert asked[action]["status_message"] == "worker: the reason"


def test_offline_the_task_is_closed(monkeypatch):
    assert concluded(monkeypatch, SdkTask(), Mode.OFFLINE, Outcome.FAILED)[0] == ["flush", "close"]


@pytest.mark.parametrize("failing", ["edit_hyper_params", "flush"])
def test_a_step_that_fails_does_not_cost_the_status(monkeypatch, failing):
    task = SdkTask(failing)
    with pytest.raises(ValueError, match=failing):
        concluded(monkeypatch, task, Mode.LOCAL, Outcome.STOPPED)
    assert task.steps == ["edit_hyper_params", "flush", "stopped"]
