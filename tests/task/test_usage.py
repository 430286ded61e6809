import pytest

from app.machine import clock
from app.task.api import RefusedError
from app.task.usage import MOST, Usage
from tests.task.fakes import FakeTask
from tests.telemetry.examples import Tokens, sample

CALL = "routers.report_llm_usage"


@pytest.fixture
def now(monkeypatch):
    monkeypatch.setattr(clock, "wall", lambda: 1000.0)


def events(task):
    return [event for name, fields in task.asked if name == CALL for event in fields["usage"]]


def test_a_window_is_one_request_by_model_and_project(run, now):
    async def scenario():
        task = FakeTask()
        usage = Usage(task)
        usage.start()
        for model, project in (("a", "p"), ("a", "p"), ("a", ""), ("b", "p")):
            usage.add(sample(model, project=project, tokens=Tokens(prompt=3, generated=2)))
        await usage.stop(2)
        assert task.names() == [CALL]
        told = [(e["model"], e.get("project"), e["prompt_tokens"]) for e in events(task)]
        assert told == [("a", "p", 6), ("a", None, 3), ("b", "p", 3)]
        first = events(task)[0]
        assert first["completion_tokens"] == 4 and first["timestamp"] == 1000_000
        assert (first["source"], first["task"]) == ("external", "task")

    run(scenario)


def test_callers_cannot_make_a_window_grow_without_end(run, now):
    async def scenario():
        task = FakeTask()
        usage = Usage(task)
        usage.start()
        for number in range(2 * MOST):
            usage.add(sample(project=str(number), tokens=Tokens(prompt=1)))
        await usage.stop(2)
        assert len(events(task)) == MOST + 1
        assert sum(event["prompt_tokens"] for event in events(task)) == 2 * MOST

    run(scenario)


def test_a_refusal_is_said_once(run, now, caplog):
    async def scenario():
        usage = Usage(FakeTask({CALL: RefusedError("ClearML: no such endpoint", 404)}))
        usage.start()
        for _ in range(3):
            usage.add(sample())
            await usage._report(1)
        await usage.stop(1)
        assert caplog.messages == ["token usage is not reported: ClearML: no such endpoint"]

    run(scenario)


def test_offline_and_without_tokens_nothing_is_asked(run):
    async def scenario():
        for task in (FakeTask(offline=True), FakeTask()):
            usage = Usage(task)
            usage.start()
            usage.add(sample(tokens=Tokens(prompt=int(task.offline))))
            await usage.stop(1)
            assert task.asked == []

    run(scenario)
