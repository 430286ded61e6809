import asyncio
import threading

import pytest

from app.errors import ConfigError
from app.machine import clock
from app.task import api, clearml_task, last_words, login, mode, script
from app.task.clearml_task import ClearMLTask
from app.task.mode import Mode
from app.task.outcome import Outcome
from app.task.reporting import Table
from app.task.sdk import ClearMLError, NoAnswerError
from app.task.secret import KEY_PROPERTY
from app.telemetry.scalars import Point

AGENT = {"CLEARML_TASK_ID": "t"}


class LoginError(Exception):
    """As the SDK's own: of no class that we know."""


class Session:
    host, raw_token, access_key, secret_key = "http://127.0.0.1:1", "", "", ""


class Will:
    """A last will that nobody carries out. `wills` are the actions of each, and what it waits
    for."""

    def __init__(self):
        self.wills = []

    def begin(self, access, run):
        assert (access["host"], run.task) == (Session.host, "t")

    def leave(self, words, over=None):
        self.wills.append(([word.action for word in words], over))

    def dismiss(self):
        self.wills.append(([], None))


class SdkTask:
    """The SDK's task, and the server behind it. `failing` are the steps that raise; the SDK's own
    writes raise nothing and do nothing where `refusing`."""

    def __init__(self):
        self.id, self.name, self.failing, self.refusing = "t", "n", set(), False
        self._edit_lock, self.session, self.verify = threading.Lock(), Session(), True
        self.parameters, self.runtime, self.asked, self.reported = {}, {}, [], []
        self.initial = 0  # iteration, of the first report of this run
        self.status = "in_progress"

    def step(self, name):
        if name in self.failing:
            raise LoginError("no token")

    def ask(self, service, action, fields, timeout=None):
        self.asked.append(f"{service}.{action}")
        self.step(action)
        if action == "edit_runtime" and not self.refusing:
            self.runtime |= fields["add_or_update"]
        sections = {}
        for key, value in self.parameters.items():
            section, name = key.split("/")
            sections.setdefault(section, {})[name] = {"value": value}
        task = {"hyperparams": sections, "runtime": self.runtime, "status": self.status}
        return {"task": task, "tasks": [task]}

    def get_parameters(self):
        return {**self.parameters, "Model/empty": None}

    def update_parameters(self, values):
        self.step("update_parameters")
        self.parameters |= {} if self.refusing else values

    def _get_runtime_properties(self):
        return dict(self.runtime)

    def _set_runtime_properties(self, values):
        self.runtime |= {} if self.refusing else values

    def get_logger(self):
        return self

    @property
    def _reporter(self):
        return self

    def _report(self, event):
        self.step("report_scalar")
        sent = event.get_api_event()
        self.reported.append((sent.metric, sent.variant, sent.value, sent.iter, sent.timestamp))

    def get_initial_iteration(self):
        return self.initial

    def report_table(self, title, series, iteration, table_plot):
        self.reported.append((title, series, iteration, table_plot))

    def flush(self, wait):
        self.step("flush")


@pytest.fixture
def sdk_task(monkeypatch):
    task = SdkTask()

    async def enter(*_):
        task.step("log in")
        return "http://h:8008"

    monkeypatch.setattr(login, "enter", enter)
    monkeypatch.setattr(mode, "prepare", lambda: None)
    monkeypatch.setattr(mode, "become", lambda *_: task)
    monkeypatch.setattr(mode, "direct", lambda _: task)
    monkeypatch.setattr(last_words, "LastWill", Will)
    monkeypatch.setattr(api, "ask", task.ask)
    return task


async def opened(**environment):
    task = ClearMLTask(offline=False, environment={**AGENT, **environment})
    await task.open("project", "name")
    if task._task is not None:
        task._task.asked.clear()  # what the start writes
    return task


async def done(task):
    """Everything posted before has had its turn."""
    await task.call("nothing", lambda _: None, 25)  # the SDK may be imported


def test_an_open_task_tells_its_hyperparameters(run, sdk_task):
    async def scenario():
        sdk_task.parameters = {"Model/model": "m"}
        task = ClearMLTask(offline=False, environment=AGENT)
        assert await task.open("p", "n") == {"Model/model": "m", "Model/empty": ""}
        assert task.under_agent and not task.offline and task.task_id == "t"

    run(scenario)


@pytest.mark.parametrize("found", Mode)
def test_who_records_how_an_agent_runs_a_clone(run, sdk_task, monkeypatch, found):
    """An agent's task has it; offline, where a machine has no credentials, there is no clone."""

    async def scenario():
        recorded = []
        monkeypatch.setattr(mode, "find", lambda _: found)
        monkeypatch.setattr(script, "record", lambda *given: recorded.append(given))
        task = ClearMLTask(offline=False, environment={})
        await task.open("p", "n")
        await done(task)
        assert bool(recorded) == (found is Mode.LOCAL)

    run(scenario)


def fail(*_):
    raise LoginError("no\ntoken")


@pytest.mark.parametrize("step, says", [("become", "opening the task"), ("find", "clearml.conf")])
def test_a_task_that_cannot_be_opened_is_one_line(run, sdk_task, monkeypatch, step, says):
    async def scenario():
        monkeypatch.setattr(mode, step, fail)
        with pytest.raises(ConfigError, match=f"^ClearML: .*{says}: LoginError: no token$"):
            await opened()

    run(scenario)


def test_an_attachment_that_fails_is_one_line(run, sdk_task, monkeypatch):
    async def scenario():
        monkeypatch.setattr(mode, "prepare", fail)
        with pytest.raises(ConfigError, match="^ClearML: .*: LoginError: no token$"):
            await ClearMLTask(offline=False, environment=AGENT).attach()

    run(scenario)


def test_a_server_that_does_not_answer_at_the_start_is_said_with_what_to_do(
    run, sdk_task, monkeypatch
):
    async def scenario():
        go_on = threading.Event()
        monkeypatch.setattr(clearml_task, "START_DEADLINE", 0.01)
        monkeypatch.setattr(mode, "become", lambda *_: go_on.wait())
        with pytest.raises(
            ConfigError, match="http://h:8008 does not answer .* or start with --offline"
        ):
            await opened()
        go_on.set()

    run(scenario)


def test_offline_nobody_waits_for_the_sdk(run, sdk_task, monkeypatch):
    async def scenario():
        go_on = threading.Event()
        monkeypatch.setattr(mode, "become", lambda *_: go_on.wait() and sdk_task)
        task = ClearMLTask(offline=True, environment=AGENT)
        assert await task.open("p", "n") == {}
        assert task.offline and not task.under_agent
        go_on.set()
        await done(task)
        await task.show({"status": "idle"}, Table("t", "s", [["a"]]))
        assert sdk_task.reported == [("t", "s", 0, [["a"]])]
        assert sdk_task.asked == []  # there is nowhere to put properties

    run(scenario)


def test_without_a_record_the_sdk_is_never_called(run, sdk_task, monkeypatch):
    """Also where an agent's variables are set."""

    async def scenario():
        task = ClearMLTask(offline=False, environment=AGENT, recorded=False)
        monkeypatch.setattr(mode, "become", lambda *_: 1 / 0)
        monkeypatch.setattr(mode, "find", lambda *_: 1 / 0)
        assert await task.open("p", "n") == {} and task.offline and not task.under_agent
        task.write_parameters({"General/port": "1"})
        task.report([Point("t", "s", 1.0, 0)], 0)
        await task.look()
        await task.show({"status": "idle"}, Table("t", "s", [["a"]]))
        await task.tell({"status": "idle"})
        await task.show_page("t", "s", "<p>")
        assert not await task.end(Outcome.STOPPED, "why", 9.0)
        assert sdk_task.asked == sdk_task.reported == []

    run(scenario)


def test_offline_the_whole_time_of_the_end_is_the_records(run, sdk_task, monkeypatch):
    """The SDK writes the record when the task is closed; a busy machine takes its time for that."""

    async def scenario():
        given = []
        task = ClearMLTask(offline=True, environment={})
        await task.open("p", "n")
        await done(task)
        call = task._session.call

        async def noted(name, function, budget):
            given.append(budget)
            return await call(name, function, budget)

        monkeypatch.setattr(task._session, "call", noted)
        await task.end(Outcome.STOPPED, "why", 9.0)
        assert given == [9.0]

    run(scenario)


def test_an_action_that_fails_is_named(run, sdk_task):
    async def scenario():
        task = await opened()
        sdk_task.failing.add("edit")
        with pytest.raises(ClearMLError, match="^ClearML: tasks.edit: LoginError: no token$"):
            await task.ask("tasks", "edit", {}, 5)

    run(scenario)


def test_what_is_posted_and_fails_is_said_once_until_it_works(run, sdk_task, caplog):
    async def scenario():
        task = await opened()
        points = [Point("Latency", "a", 1.0, 15)]
        sdk_task.failing.add("report_scalar")
        for _ in range(3):
            task.report(points, 15)
        await done(task)
        assert caplog.messages == ["ClearML: sending scalars: LoginError: no token"]
        sdk_task.failing.clear()
        task.report(points, 15)
        await done(task)
        (scalar,) = sdk_task.reported
        assert scalar[:4] == ("Latency", "a", 1.0, 15) and len(caplog.messages) == 1

    run(scenario)


def test_scalars_keep_the_time_at_which_they_were_reported(run, sdk_task, monkeypatch):
    """1. An outage blocks the SDK's thread. 2. Two windows are reported meanwhile. Result: each has
    its own time."""

    async def scenario():
        task, times, go_on = await opened(), [1000.0], threading.Event()
        monkeypatch.setattr(clock, "wall", lambda: times[-1])
        waiting = asyncio.create_task(task.call("an outage", lambda _: go_on.wait(), 5))
        await asyncio.sleep(0)
        for at in (1000.0, 1015.0):
            times.append(at)
            task.report([Point("Latency", "a", 1.0, 15)], 15)
        times.append(1100.0)
        go_on.set()
        await waiting
        await done(task)
        assert [scalar[4] for scalar in sdk_task.reported] == [1000_000, 1015_000]

    run(scenario)


def test_a_task_that_runs_again_has_one_table(run, sdk_task):
    """The SDK adds the initial iteration to what is reported. Result: it is iteration 0 again."""

    async def scenario():
        sdk_task.initial = 61
        task = await opened()
        await task.show({}, Table("t", "s", [["a"]]))
        assert sdk_task.reported == [("t", "s", -61, [["a"]])]

    run(scenario)


def test_properties_that_the_server_did_not_take_are_not_confirmed(run, sdk_task):
    async def scenario():
        task = await opened()
        sdk_task.failing.add("edit_hyper_params")
        with pytest.raises(ClearMLError):
            await task.show({"status": "idle"}, None)
        sdk_task.failing.clear()
        await task.show({"status": "idle"}, None)
        write, look = "tasks.edit_hyper_params", "tasks.get_all"
        assert sdk_task.asked == [write, look, write]  # another run may have it by then

    run(scenario)


@pytest.mark.parametrize(
    "status, failing, lost",
    [("in_progress", (), False), ("queued", (), True), ("queued", ("get_all",), False)],
)
def test_whose_the_task_is_the_server_says(run, sdk_task, status, failing, lost):
    """Asked when something of the task went wrong; a server that does not say changes nothing."""

    async def scenario():
        task = await opened()
        sdk_task.status, sdk_task.failing = status, set(failing)
        assert await task.is_lost() is lost
        assert sdk_task.asked == ["tasks.get_all"]

    run(scenario)


def test_a_secret_is_removed_only_where_the_server_no_longer_has_it(run, sdk_task):
    async def scenario():
        sdk_task.parameters = {"General/hf_token": "hf_secret"}
        task = await opened()
        sdk_task.refusing = True
        with pytest.raises(ClearMLError, match="General/hf_token") as caught:
            await task.blank(["General/hf_token"])
        assert "hf_secret" not in str(caught.value)
        sdk_task.refusing = False
        await task.blank(["General/hf_token"])
        assert sdk_task.parameters == {"General/hf_token": ""}

    run(scenario)


def test_a_tasks_key_is_kept_and_known_only_once_it_is_stored(run, sdk_task):
    async def scenario():
        task = await opened()
        sdk_task.refusing = True
        with pytest.raises(ClearMLError, match="API key"):
            await task.run_key()
        sdk_task.refusing = False
        key = await task.run_key()
        assert sdk_task.runtime == {KEY_PROPERTY: key} and len(key) > 30
        assert await task.run_key() == key

    run(scenario)


def test_a_key_of_an_earlier_run_is_removed_if_callers_send_another(run, sdk_task):
    async def scenario():
        task = await opened()
        task.forget_key()
        await done(task)
        assert sdk_task.runtime == {}  # there is none: nothing is written
        await task.run_key()
        task.forget_key()
        await done(task)
        assert sdk_task.runtime == {KEY_PROPERTY: ""}

    run(scenario)


LAST = ["tasks.get_all", "tasks.edit_hyper_params", "tasks.edit_runtime"]


def test_what_an_earlier_run_showed_is_cleared_before_anything_else(run, sdk_task):
    async def scenario():
        sdk_task.get_parameters = lambda: list(sdk_task.asked)
        task = ClearMLTask(offline=False, environment=AGENT)
        with pytest.raises(ConfigError):  # a list is no parameters
            await task.open("project", "name")
        assert sdk_task.asked == ["tasks.edit_hyper_params"]

    run(scenario)


def test_a_task_that_cannot_be_cleared_is_opened_all_the_same(run, sdk_task, caplog):
    async def scenario():
        sdk_task.failing.add("edit_hyper_params")
        assert (await opened()).task_id == "t"
        assert caplog.messages == [
            "ClearML: clearing the user properties: LoginError: no token",
        ]

    run(scenario)


def test_the_end_is_told_once_and_raises_nothing(run, sdk_task, caplog):
    async def scenario():
        task = await opened()
        sdk_task.failing.add("flush")
        assert await task.end(Outcome.FAILED, "no room")
        assert not await task.end(Outcome.STOPPED, "again")
        assert sdk_task.asked == [*LAST, "tasks.failed"]
        assert caplog.messages == ["ClearML: sending what was reported: LoginError: no token"]

    run(scenario)


def test_the_end_is_told_past_an_sdk_that_waits_for_its_server(run, sdk_task):
    """1. The SDK's thread is in a call that gets no answer. 2. The task ends. Result: the server,
    which is there again, is told."""

    async def scenario():
        task, go_on, begun = await opened(), threading.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def hang(_):
            loop.call_soon_threadsafe(begun.set)
            go_on.wait()

        waiting = asyncio.create_task(task.call("hang", hang, 5))
        await begun.wait()
        assert await task.end(Outcome.FAILED, "no room", 1)
        assert sdk_task.asked == [*LAST, "tasks.failed"]
        go_on.set()
        await waiting

    run(scenario)


def test_who_is_killed_leaves_a_will_until_all_is_said(run, sdk_task):
    async def scenario():
        task = await opened()
        shown = ["edit_hyper_params", "edit_runtime"]
        task.has_rows(["t-a", "t-b"])
        task.foresee(Outcome.FAILED, "no room")
        rows = ["unregister_container"] * 2
        assert await task.end(Outcome.FAILED, "no room")
        wills = [shown, [*shown, *rows], [*shown, "failed", *rows], []]
        assert [actions for actions, _ in task._last_words._will.wills] == wills

    run(scenario)


def test_an_idle_end_is_said_once_more_after_the_agent(run, sdk_task):
    async def scenario():
        task = await opened()
        await task.end(Outcome.COMPLETED, "idle")
        over = {"status": "completed", "status_message": "idle"}
        assert task._last_words._will.wills[-1] == (["completed"], over)

    run(scenario)


def test_nothing_is_left_to_say_of_a_task_that_is_moved(run, sdk_task):
    async def scenario():
        task = await opened()
        task.foresee(Outcome.MOVED, "")
        assert task._last_words._will.wills[-1] == ([], None)

    run(scenario)


@pytest.mark.parametrize("comes_back", [True, False])
def test_the_end_is_told_again_until_there_is_an_answer_or_the_time_is_up(
    run, sdk_task, monkeypatch, caplog, comes_back
):
    async def scenario():
        monkeypatch.setattr(last_words, "PAUSE", 0.001)
        task = await opened()
        sdk_task.failing.add("edit_runtime")
        ending = asyncio.create_task(task.end(Outcome.FAILED, "no room", 20 if comes_back else 0.5))
        while sdk_task.asked.count("tasks.edit_runtime") < 2:
            assert not ending.done(), "it was tried once only"
            await asyncio.sleep(0.001)
        if comes_back:
            sdk_task.failing.clear()
        assert await ending is comes_back
        assert sdk_task.asked.count("tasks.edit_hyper_params") == 1  # it had an answer
        assert (sdk_task.asked[-1] == "tasks.failed") is comes_back
        assert "does not answer: LoginError: no token; trying again" in caplog.messages[0]
        assert ("may be incomplete" in caplog.text) is not comes_back

    run(scenario)


def test_the_end_waits_no_longer_than_its_budget(run, sdk_task, caplog):
    """The server is silent. Result: it is said that nothing could be told."""

    async def scenario():
        task, go_on = await opened(), threading.Event()
        sdk_task.step = lambda _: go_on.wait()
        assert not await task.end(Outcome.STOPPED, "SIGTERM", 0.02)
        assert "does not answer" in caplog.text
        go_on.set()

    run(scenario)


@pytest.mark.parametrize("outcome", Outcome, ids=str)
def test_a_task_that_was_moved_is_left_alone(run, sdk_task, outcome):
    async def scenario():
        task = await opened()
        await task.end(outcome, "the reason")
        assert (sdk_task.asked == []) is (outcome is Outcome.MOVED)

    run(scenario)


def test_nothing_is_told_of_a_task_that_never_opened(run, sdk_task, monkeypatch):
    async def scenario():
        task = ClearMLTask(offline=False, environment=AGENT)
        monkeypatch.setattr(mode, "become", fail)
        with pytest.raises(ConfigError):
            await task.open("p", "n")
        task.report([], 0)
        await task.show({"status": "idle"}, None)
        await task.end(Outcome.FAILED, "no token")
        assert sdk_task.asked == []

    run(scenario)


def test_a_deadline_is_kept_by_whoever_waits(run, sdk_task):
    async def scenario():
        task, go_on = await opened(), threading.Event()
        with pytest.raises(NoAnswerError, match="^ClearML: looking: no answer"):
            await task.call("looking", lambda _: go_on.wait(), 0.01)
        go_on.set()

    run(scenario)


def test_offline_no_look_at_the_status_is_an_abort(run, sdk_task):
    async def scenario():
        task = ClearMLTask(offline=True, environment={})
        await task.open("p", "n")

        async def stop():
            pytest.fail("stopped")

        task.on_abort(stop, 1.0)
        await done(task)
        assert task.mode is Mode.OFFLINE

    run(scenario)


def test_an_abort_runs_the_stop_on_the_loop(run, sdk_task, monkeypatch):
    async def scenario():
        registered = asyncio.Queue()
        loop = asyncio.get_running_loop()
        sdk_task.register_abort_callback = lambda function, timeout: loop.call_soon_threadsafe(
            registered.put_nowait, (function, timeout)
        )
        stopped = []

        async def stop():
            stopped.append(threading.current_thread() is threading.main_thread())

        monkeypatch.setattr(clearml_task, "OWN_END", 0.0)
        (await opened()).on_abort(stop, 20.0)
        aborted, timeout = await registered.get()
        assert timeout == 20.0 + clearml_task.ABORT_SLACK
        await asyncio.to_thread(aborted)  # the SDK calls it in a thread of its own
        assert stopped == [True]

    run(scenario)


def test_a_point_has_the_time_of_its_own_window(run, sdk_task, monkeypatch):
    """One that was left out before a new value came was of a window before; that may be all."""

    async def scenario():
        task = await opened()
        monkeypatch.setattr(clock, "wall", lambda: 1045.0)
        task.report([Point("Idle Time", "total", 1, 30), Point("Idle Time", "total", 2, 45)], 45)
        monkeypatch.setattr(clock, "wall", lambda: 1060.75)
        task.report([Point("Latency", "a", 1, 45)], 60.75)
        await done(task)
        assert [scalar[4] for scalar in sdk_task.reported] == [1030000, 1045000, 1045000]

    run(scenario)
