"""An instance's life without llama-server: what it says of its end, whatever goes wrong."""

import asyncio
import contextlib
import signal

import pytest

from app.errors import ConfigError
from app.instance.invocation import Invocation
from app.instance.life import Instance
from app.task.clearml_task import END_BUDGET, END_PATIENCE
from app.task.outcome import Outcome
from app.task.sdk import ClearMLError


class Task:
    """What an instance asks of its ClearML task, written down."""

    offline = True
    under_agent = False

    def __init__(self, parameters=None, problem=None):
        self.parameters = parameters or {}
        self.problem = problem
        self.told = []
        self.ends = []
        self.abort = None
        self.confirms, self.budgets, self.foreseen = False, [], []
        self.lost = False

    async def open(self, project, name):
        self.told.append((project, name))
        if self.problem is not None:
            raise self.problem
        return self.parameters

    def write_parameters(self, values):
        self.told.append("written")

    def rename(self, name):
        self.told.append(f"renamed {name}")

    def on_taken(self, stop):
        pass

    async def is_lost(self):
        return self.lost

    def on_abort(self, stop, grace):
        self.abort = stop

    def foresee(self, outcome, reason):
        self.foreseen.append((outcome, reason))

    async def end(self, outcome, reason, budget):
        self.ends.append((outcome, reason))
        self.budgets.append(budget)
        return self.confirms


class Waiting(Instance):
    """One whose life is over when a test says so."""

    async def _live(self):
        self._task.on_abort(self._aborted, 1)
        await asyncio.Event().wait()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def live(run, task, kind=Instance, config=None, meanwhile=None):
    """The exit status."""

    async def scenario():
        wanted = Invocation(config or {}, offline=True)
        instance = kind(wanted, {"PATH": "/nowhere"}, task)
        living = asyncio.create_task(instance.run())
        if meanwhile is not None:
            await asyncio.sleep(0)
            await meanwhile(instance)
        try:
            return await living
        finally:
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                asyncio.get_running_loop().remove_signal_handler(signum)

    return run(scenario)


def test_a_task_that_cannot_be_opened_ends_with_its_status_and_reason(run, folder):
    task = Task(problem=ConfigError("ClearML: is away"))
    assert live(run, task) == 2
    assert task.ends == [(Outcome.FAILED, "ClearML: is away")]


@pytest.mark.parametrize(
    "problem, lost, end",
    [
        (ClearMLError("no key"), True, (Outcome.MOVED, "another run has the task")),
        (ClearMLError("no key"), False, (Outcome.FAILED, "no key")),
        (ConfigError("no room"), True, (Outcome.FAILED, "no room")),
    ],
)
def test_what_fails_in_a_task_that_another_run_has_is_no_failure(run, folder, problem, lost, end):
    """Who has reset it, and enqueued it again, has taken from it what was being written."""
    task = Task(problem=problem)
    task.lost = lost
    assert live(run, task) == (143 if end[0] is Outcome.MOVED else 2)
    assert task.ends == [end]


@pytest.mark.parametrize(
    "under_agent, confirms, status", [(True, True, 0), (True, False, 2), (False, True, 2)]
)
def test_under_an_agent_a_failure_that_the_server_knows_of_is_status_0(
    run, folder, under_agent, confirms, status
):
    """Else the agent writes its own reason over ours."""
    task = Task(problem=ConfigError("ClearML: is away"))
    task.under_agent, task.confirms = under_agent, confirms
    assert live(run, task) == status
    assert task.budgets == [END_BUDGET + END_PATIENCE]  # nobody waits for us


def test_a_signal_ends_the_patience_with_a_server_that_is_away(run, folder):
    class Patient(Task):
        async def end(self, outcome, reason, budget):
            self.ends.append((outcome, reason))
            await asyncio.Event().wait()

    task = Patient(problem=ConfigError("no room"))

    async def meanwhile(instance):
        while not task.ends:
            await asyncio.sleep(0)
        instance._signalled(signal.SIGTERM)

    assert live(run, task, meanwhile=meanwhile) == 2
    assert task.ends == [(Outcome.FAILED, "no room")]


def test_a_field_that_is_wrong_is_the_reason_and_nothing_is_written(run, folder):
    task = Task({"General/port": "many"})
    assert live(run, task) == 2
    assert task.ends == [(Outcome.FAILED, "General/port: 'many' is not a whole number")]
    assert "written" not in task.told


def test_a_plan_that_is_refused_leaves_no_folder(run, folder):
    task = Task()
    assert live(run, task, config={"General/llama_server": "/no/such/llama-server"}) == 2
    assert task.told[-1] == "written"
    assert "/no/such/llama-server" in task.ends[0][1]
    assert list(folder.iterdir()) == []


def test_a_fault_of_ours_is_status_5_and_told(run, folder):
    task = Task(problem=KeyError("x"))
    assert live(run, task) == 5
    assert task.ends == [(Outcome.FAILED, "a fault in the app: KeyError: 'x'")]


@pytest.mark.parametrize(
    "problem", [OSError("disk"), RuntimeError("closed"), asyncio.TimeoutError()]
)
def test_a_stop_that_fails_costs_neither_the_status_nor_the_tasks_end(run, folder, problem):
    task = Task()

    async def fails(_):
        raise problem

    async def meanwhile(instance):
        instance._ending.push("something", fails)
        instance._signalled(signal.SIGTERM)

    assert live(run, task, Waiting, meanwhile=meanwhile) == 143
    assert task.ends == [(Outcome.STOPPED, "stopped by SIGTERM")]


def test_a_phase_that_does_not_heed_the_stop_is_left_behind(run, folder, monkeypatch, caplog):
    class Deaf(Instance):
        async def _live(self):
            while not self._ended.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await self._ended.wait()

    async def meanwhile(instance):
        instance._signalled(signal.SIGTERM)

    monkeypatch.setattr("app.instance.lifetime.GIVE_UP", 0.01)
    monkeypatch.setattr("app.instance.ending.MARGIN", 0.0)
    task = Task()
    assert live(run, task, Deaf, meanwhile=meanwhile) == 143
    assert task.ends == [(Outcome.STOPPED, "stopped by SIGTERM")]
    assert "the phase under way: not stopped" in caplog.text


def test_an_end_of_the_task_that_fails_still_lets_the_abort_return(run, folder):
    class Broken(Task):
        async def end(self, outcome, reason, budget):
            raise RuntimeError("the SDK")

    task, returned = Broken(), []

    async def meanwhile(instance):
        await asyncio.sleep(0.01)

        async def abort():
            await task.abort()
            returned.append("returned")

        instance.aborting = asyncio.ensure_future(abort())

    assert live(run, task, Waiting, meanwhile=meanwhile) == 143
    assert returned == ["returned"]


def test_an_abort_is_a_stop_that_waits_for_the_end(run, folder):
    task = Task()

    async def meanwhile(instance):
        await asyncio.sleep(0.01)
        instance.aborting = asyncio.ensure_future(task.abort())

    assert live(run, task, Waiting, meanwhile=meanwhile) == 143
    assert task.ends == [(Outcome.STOPPED, "aborted in ClearML")]
    assert task.budgets == [END_BUDGET]  # they wait for us


def test_under_an_agent_a_stop_is_its_own_status(run, folder):
    task = Task()
    task.under_agent = True

    async def meanwhile(instance):
        instance._signalled(signal.SIGTERM)

    assert live(run, task, Waiting, meanwhile=meanwhile) == 254


def test_a_second_signal_ends_at_once_with_what_may_not_be_left(run, folder, monkeypatch):
    task, done = Task(), []

    def ended(status):
        done.append(status)
        raise SystemExit(status)

    monkeypatch.setattr("os._exit", ended)

    async def meanwhile(instance):
        instance._ending.push("x", None, at_once=lambda: done.append("x"))
        instance._stop.set_result(None)
        with pytest.raises(SystemExit):
            instance._signalled(signal.SIGINT)
        instance._ending = type(instance._ending)()
        instance._stop = asyncio.get_running_loop().create_future()
        instance._signalled(signal.SIGTERM)

    live(run, task, Waiting, meanwhile=meanwhile)
    assert done == ["x", 130]


def test_an_instance_on_a_services_agent_moves_and_touches_nothing_else(run, folder, monkeypatch):
    moved = []

    async def move(task, general, task_id):
        moved.append((general.queue, task_id))

    monkeypatch.setattr("app.task.requeue.move", move)
    task = Task({"General/queue": "gpus", "Model/model": "a/b/c.gguf"})

    async def scenario():
        environment = {"CLEARML_AGENT_SERVICE_TASK": "1", "CLEARML_TASK_ID": "t1"}
        instance = Instance(Invocation(), environment, task)
        return await instance.run()

    assert run(scenario) == 0
    assert moved == [("gpus", "t1")]
    assert task.ends == [(Outcome.MOVED, "moved to the queue gpus")]
    assert "written" not in task.told
