import pytest

from app.task import awaited
from app.task.api import RefusedError
from app.task.awaited import Awaited
from app.task.sdk import ClearMLError
from app.task.served import Served

QUEUED = Served("a", "n", "queued")
LOADING = [
    Served("a", "n", "in_progress", state="setting up", progress=f"m: loading {n}%")
    for n in range(5)
]
SERVES = Served("a", "n", "in_progress", state="active", endpoint="http://h")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(awaited, "POLL", 0.0)


class Tasks:
    """Answers each look as it was given; the last answer stays."""

    def __init__(self, *looks):
        self.looks = list(looks)

    async def served(self, tasks):
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        if isinstance(look, Exception):
            raise look
        return {found.task: found for found in look if found.task in tasks}


def waited(run, *looks, ids="a", seconds=30.0):
    """Whether all serve, and which were told of."""
    told = []

    async def scenario():
        return await Awaited(Tasks(*looks), list(ids), lambda f: told.append(f.task)).serve(seconds)

    return run(scenario), told


def test_how_a_task_comes_to_serve_is_said_but_not_every_percent(run, caplog):
    caplog.set_level("INFO")
    looks = [[QUEUED], [QUEUED], *([each] for each in LOADING), [SERVES]]
    assert waited(run, *looks) == (True, ["a"])
    assert caplog.messages == ["a (n): queued", "a (n): setting up: m: loading 0%"]


@pytest.mark.parametrize(
    "found, problem",
    [
        ([Served("a", "n", "failed", reason="no room")], "a does not serve: failed: no room"),
        ([Served("a", "n", "stopped")], "a does not serve: stopped"),
        ([], "a does not serve: it was deleted"),
    ],
)
def test_a_task_that_ends_is_not_waited_for(run, caplog, found, problem):
    assert waited(run, [QUEUED], found) == (False, [])
    assert caplog.messages == [problem]


def test_of_several_each_is_told_and_one_that_fails_does_not_end_the_others(run, caplog):
    b, failed = Served("b", "m", "queued"), Served("a", "n", "failed")
    after = Served("b", "m", "in_progress", state="idle", endpoint="http://h")
    assert waited(run, [failed, b], [after], ids="ab") == (False, ["b"])


def test_the_time_is_bounded(run, caplog):
    assert waited(run, [QUEUED], seconds=0) == (False, [])
    assert caplog.messages == ["a does not serve after 0 minutes, and goes on"]


def test_an_outage_is_waited_for_and_said_once(run, caplog):
    away = ClearMLError("no answer")
    assert waited(run, away, away, [SERVES]) == (True, ["a"])
    assert caplog.messages == ["no answer; trying again"]


def test_a_refusal_is_final(run):
    with pytest.raises(RefusedError):
        waited(run, RefusedError("no", 401))
