import asyncio
from dataclasses import replace

import pytest

from app.machine import clock
from app.task.api import RefusedError
from app.task.endpoints import LIFETIME, Endpoints, ModelEndpoint
from app.task.sdk import ClearMLError, NoAnswerError
from tests.task.fakes import FakeTask

REGISTER = "serving.register_container"
REPORT = "serving.container_status_report"
UNREGISTER = "serving.unregister_container"
LOADING = ModelEndpoint(name="a", reference="org/a", url="", uptime=5, requests=0, latency=0)
SERVED = replace(LOADING, url="http://h/a/v1", uptime=60, requests=3, latency=12.6)


@pytest.fixture
def now(monkeypatch):
    """A clock that stands until `now.append` moves it."""
    times = [1000.0]
    monkeypatch.setattr(clock, "now", lambda: times[-1])
    return times


def endpoints(task, *rows):
    return Endpoints(task, lambda: rows, lambda: {"cpu_usage": [1.0]})


async def until(condition):
    """Give others their turns until something of ours holds."""
    while not condition():
        await asyncio.sleep(0)


def test_a_row_is_registered_with_a_lifetime_and_reported_once_it_has_a_url(run, now):
    async def scenario():
        task = FakeTask()
        await endpoints(task, SERVED).report()
        (register, registered), (report, reported) = task.asked
        assert (register, report) == (REGISTER, REPORT)
        assert registered["container_id"] == "task-a" and registered["timeout"] == LIFETIME
        assert reported["endpoint_url"] == "http://h/a/v1" and reported["latency_ms"] == 12
        assert reported["reference"] == [{"type": "task", "value": "task"}]
        assert reported["machine_stats"] == {"cpu_usage": [1.0]}

    run(scenario)


def test_a_row_is_kept_alive_while_its_model_loads(run, now):
    """The server takes no status report without a URL; a registration begins the lifetime anew."""

    async def scenario():
        rows, task = [LOADING], FakeTask()
        reporter = Endpoints(task, lambda: rows, dict)
        for _ in range(5):
            await reporter.report()
            now.append(now[-1] + 30)
        assert task.names() == [REGISTER] * 5
        rows[0] = SERVED
        await reporter.report()
        await reporter.report()
        assert task.names()[5:] == [REPORT] * 2

    run(scenario)


def test_a_row_that_the_server_has_forgotten_is_registered_again(run, now):
    async def scenario():
        task = FakeTask()
        reporter = endpoints(task, SERVED)
        await reporter.report()
        now.append(now[-1] + LIFETIME)
        await reporter.report()
        assert task.names() == [REGISTER, REPORT] * 2

    run(scenario)


def test_requests_per_minute_are_those_since_the_last_report(run, now):
    async def scenario():
        rows, task = [SERVED], FakeTask()
        reporter = Endpoints(task, lambda: rows, dict)
        await reporter.report()
        now.append(now[-1] + 30)
        rows[0] = replace(SERVED, requests=13)
        await reporter.report()
        told = [fields["requests_min"] for name, fields in task.asked if name == REPORT]
        assert told == [3.0, 20.0]

    run(scenario)


def test_what_changes_is_told_long_before_the_end_of_the_interval(run, monkeypatch):
    """1. A model gets its URL. 2. It fails. Result: each is told without being asked for, and
    nothing is told while nothing changes."""

    async def scenario():
        monkeypatch.setattr("app.task.endpoints.LOOK", 0.001)
        rows, task = [LOADING, replace(SERVED, name="b")], FakeTask()
        reporter = Endpoints(task, lambda: rows, dict)
        reporter.start()
        await until(lambda: len(task.asked) == 3)
        await asyncio.sleep(0.02)
        assert task.names() == [REGISTER, REGISTER, REPORT]
        rows[0] = SERVED
        await until(lambda: len(task.asked) == 5)
        assert [fields["model_name"] for _, fields in task.asked[3:]] == ["a", "b"]
        rows.pop()
        await until(lambda: len(task.asked) == 7)
        assert task.asked[5] == (UNREGISTER, {"container_id": "task-b"})
        await reporter.stop(1)
        assert [name for name, _ in task.asked[7:]] == [UNREGISTER]

    run(scenario)


@pytest.mark.parametrize(
    "failure",
    [ClearMLError("ClearML: x: LoginError: no token"), OSError(5, "no statistics")],
    ids=["the SDK's", "ours"],
)
def test_reports_go_on_after_one_that_fails_and_it_is_said_once(run, caplog, failure):
    async def scenario():
        task, answers = FakeTask(), [failure, failure, {}]
        seen = []

        def machine():
            seen.append(answers[0])
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        reporter = Endpoints(task, lambda: [SERVED], machine)
        reporter.start()
        for count in (1, 2, 3):
            await until(lambda n=count: len(seen) == n)
            reporter.refresh()
        await until(lambda: REPORT in task.names())
        await reporter.stop(1)
        said = [text for text in caplog.messages if "Model Endpoints" in text]
        assert len(said) == 1 and "out of date" in said[0]
        assert "Traceback" not in caplog.text

    run(scenario)


def test_a_row_that_is_refused_costs_the_others_nothing(run):
    async def scenario():
        async def register(fields):
            refused = fields["model_name"] == "a"
            return RefusedError("ClearML: no such name", 400) if refused else {}

        task = FakeTask({REGISTER: register})
        with pytest.raises(RefusedError):
            await endpoints(task, SERVED, replace(SERVED, name="b")).report()
        assert task.asked[-1][0] == REPORT and task.asked[-1][1]["model_name"] == "b"

    run(scenario)


def test_a_server_that_does_not_answer_is_asked_once_a_report(run):
    async def scenario():
        task = FakeTask({REGISTER: NoAnswerError("ClearML: no answer")})
        with pytest.raises(NoAnswerError):
            await endpoints(task, SERVED, replace(SERVED, name="b")).report()
        assert task.names() == [REGISTER]

    run(scenario)


@pytest.mark.parametrize(
    "refusal",
    [
        RefusedError("Unable to find endpoint for name serving.register_container", 404),
        RefusedError("Unable to find endpoint for name serving.register_container", 502),
        RefusedError("ClearML: unknown endpoint serving.register_container", 400),
    ],
    ids=["404", "a proxy's status", "400"],
)
def test_a_server_without_the_table_is_asked_once(run, refusal):
    async def scenario():
        task = FakeTask({REGISTER: refusal})
        reporter = endpoints(task, SERVED, replace(SERVED, name="b"))
        reporter.start()
        await until(lambda: reporter._reporting.done())
        await reporter.stop(1)
        assert task.names() == [REGISTER]

    run(scenario)


def test_offline_nothing_is_reported(run):
    async def scenario():
        task = FakeTask(offline=True)
        reporter = endpoints(task, SERVED)
        reporter.start()
        await asyncio.sleep(0)
        await reporter.stop(1)
        assert task.asked == []

    run(scenario)


def test_all_rows_leave_within_one_budget(run, caplog):
    """The server no longer answers. Result: every row is asked for before the first one has timed
    out, each until the same moment, and what stays is said in one line."""

    async def scenario():
        silent = asyncio.Event()

        async def unregister(_):
            await silent.wait()
            return NoAnswerError("ClearML: no answer in 4 s")

        task = FakeTask({UNREGISTER: unregister})
        reporter = endpoints(task, *(replace(SERVED, name=name) for name in "abc"))
        await reporter.report()
        stopping = asyncio.create_task(reporter.stop(4))
        await until(lambda: task.names().count(UNREGISTER) == 3)
        silent.set()
        await stopping
        assert task.deadlines[-3:] == [4, 4, 4]
        assert len(caplog.messages) == 1 and "3 rows stay up to 120 s" in caplog.messages[0]

    run(scenario)


def test_a_row_whose_registration_was_not_answered_leaves_too(run):
    async def scenario():
        task = FakeTask({REGISTER: NoAnswerError("ClearML: no answer")})
        reporter = endpoints(task, LOADING)
        with pytest.raises(NoAnswerError):
            await reporter.report()
        await reporter.stop(4)
        assert task.asked[-1] == (UNREGISTER, {"container_id": "task-a"})

    run(scenario)
