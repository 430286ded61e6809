import pytest

from app.errors import ConfigError
from app.form.settings import GeneralSettings
from app.machine import host
from app.task import requeue
from app.task.sdk import ClearMLError
from tests.task.fakes import FakeTask

GENERAL = GeneralSettings(queue="gpus", container_image="i", container_args="-a", project="team")
ANSWERS = {
    "queues.get_all": {"queues": [{"id": "q1", "name": "gpus"}]},
    "projects.get_all": {"projects": [{"id": "p1"}]},
}
MOVE = ["tasks.edit", "tasks.edit_hyper_params", "flush", "tasks.stopped", "tasks.enqueue"]


class Agent:
    """The process above us that would write the task's end."""

    def __init__(self, task):
        self._task, self.calls = task, []

    def suspend(self):
        self.calls.append(("suspend", self._task.names()[2:]))

    def resume(self):
        self.calls.append(("resume", self._task.names()[2:]))

    def kill(self):
        self.calls.append(("kill", self._task.names()[2:]))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(requeue, "CONSOLE", 0)
    monkeypatch.setattr(requeue, "TO_BE_ENDED", 0)


def with_agent(monkeypatch, task):
    agent = Agent(task)
    monkeypatch.setattr(host, "ancestor", lambda *words: agent if "task" in words else None)
    return agent


@pytest.mark.parametrize(
    "variable, queue, expected",
    [("1", "gpus", True), ("True", "gpus", True), ("1", "", False)]
    + [("0", "gpus", False), ("False", "gpus", False), (None, "gpus", False)],
)
def test_only_a_services_agents_instance_with_a_queue_moves(variable, queue, expected):
    environment = {} if variable is None else {requeue.SERVICE_TASK: variable}
    assert requeue.wanted(environment, queue) is expected


def test_the_agent_stands_still_while_the_task_changes_hands_and_ends_then(run, monkeypatch):
    async def scenario():
        task = FakeTask(ANSWERS)
        agent = with_agent(monkeypatch, task)
        await requeue.move(task, GENERAL, "task")
        assert agent.calls == [("suspend", []), ("kill", MOVE)]
        asked = dict(task.asked)
        edit = asked["tasks.edit"]
        assert (edit["task"], edit["force"], edit["project"]) == ("task", True, "p1")
        assert edit["container"]["image"] == "i" and edit["container"]["arguments"] == "-a"
        assert asked["tasks.stopped"]["status_message"].startswith(
            "worker: "
        )  # or the SDK kills us
        (shown,) = asked["tasks.edit_hyper_params"]["hyperparams"]
        assert (shown["name"], shown["value"]) == ("status", "queued")
        assert asked["tasks.enqueue"] == {"task": "task", "queue": "q1"}

    run(scenario)


@pytest.mark.parametrize("step", ["tasks.edit", "tasks.stopped", "tasks.enqueue"])
def test_where_a_step_fails_the_agent_goes_on_and_no_later_step_is_tried(run, monkeypatch, step):
    async def scenario():
        task = FakeTask({**ANSWERS, step: ClearMLError(f"ClearML: {step}: no")})
        agent = with_agent(monkeypatch, task)
        with pytest.raises(ConfigError, match=step):
            await requeue.move(task, GENERAL, "task")
        assert [call for call, _ in agent.calls] == ["suspend", "resume"]
        assert task.names()[-1] == step

    run(scenario)


def test_without_an_agent_of_ours_we_wait_to_be_ended(run, monkeypatch):
    async def scenario():
        task = FakeTask(ANSWERS)
        monkeypatch.setattr(host, "ancestor", lambda *_: None)
        await requeue.move(task, GeneralSettings(queue="q1"), "task")
        assert task.names() == ["queues.get_all", *MOVE]
        assert "project" not in dict(task.asked)["tasks.edit"]

    run(scenario)


def test_a_queue_that_is_not_there_changes_nothing(run, monkeypatch):
    async def scenario():
        task = FakeTask(ANSWERS)
        agent = with_agent(monkeypatch, task)
        with pytest.raises(ConfigError, match="no queue 'none'"):
            await requeue.move(task, GeneralSettings(queue="none"), "task")
        assert agent.calls == [] and task.names() == ["queues.get_all"]

    run(scenario)
