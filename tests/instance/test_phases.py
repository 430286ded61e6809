"""What the phases leave to the end."""

import asyncio

from app.form.settings import GeneralSettings, IdleSettings, Settings
from app.gateway.admission import Keys
from app.gateway.rules import Rules
from app.instance import lifetime, phases
from app.instance.callers import Callers
from app.instance.doorway import Doorway
from app.instance.ending import MARGIN, Ending
from app.instance.front import Front
from app.instance.phases import Given, Open, Planned
from app.instance.reports import Reports
from app.memory.ledger import Model
from app.memory.pool import Pool
from app.task.clearml_task import ABORT_SLACK, END_BUDGET
from app.task.route import Route
from app.telemetry.logs import LogBook
from app.telemetry.overview import Details, Overview
from tests.task.fakes import FakeTask

DRAIN = 20.0


class Task(FakeTask):
    def report(self, points):
        self.asked.append(("report", points))


class Servers:
    """Notes that they were killed."""

    def __init__(self):
        self.killed = 0

    def kill(self):
        self.killed += 1


async def started():
    """A listening instance's end, and its llama-servers."""
    task, logs, ending, servers = Task(), LogBook(), Ending(), Servers()
    pool = Pool([Model("a")], {"host": 1}, asyncio.get_running_loop().time)
    overview = Overview("1", {"a": Details()}, None, 60, list, pool.view, lambda: (0, 0))
    callers = Callers(Rules(Keys([])), "")
    doorway = Doorway(callers)
    await doorway.listen("127.0.0.1", 0, ending)
    front = Front(overview, pool, callers, doorway, logs, ())
    reports = Reports(task, overview, "", usage=True)
    settings = Settings((), GeneralSettings(drain_timeout=DRAIN), IdleSettings())
    phases._start(
        Given(None, {}, task, Route(task), logs, ending),
        Planned(settings, None, None),
        Open(overview, pool, servers, front, reports, callers),
    )
    return ending, servers, doorway


def test_requests_end_before_models_and_what_tells_of_them_ends_last(run):
    async def scenario():
        ending, servers, _ = await started()
        assert [step.name for step in reversed(ending._steps)] == [
            "requests",
            "models",
            "llama-servers",
            "open pages",
            "connections",
            "the route",
            "the rows of Model Endpoints",
            "the token usage",
            "the last scalars",
            "the task's page",
        ]
        await ending.run()
        assert servers.killed == 1

    run(scenario)


def test_at_a_second_signal_every_llama_server_is_killed(run):
    async def scenario():
        ending, servers, doorway = await started()
        ending.at_once()
        assert servers.killed == 1
        await doorway.close()

    run(scenario)


def test_the_end_takes_no_longer_than_an_abort_waits_even_if_every_stop_hangs(run):
    async def scenario():
        ending, _, doorway = await started()
        parts = [lifetime.GIVE_UP, *(step.seconds for step in ending._steps), END_BUDGET]
        assert sum(part + MARGIN for part in parts if part) <= DRAIN + ABORT_SLACK
        await doorway.close()

    run(scenario)
