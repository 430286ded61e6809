import pytest

from app.machine import clock
from app.task.api import RefusedError
from app.task.claim import LOOK, SLOW, Claim
from app.task.outcome import TAKEN, Run


class Known:
    """A claim, the time, and what the server says of the task: its run, or an exception."""

    def __init__(self, monkeypatch):
        self.time, self.says, self.looks, self.told = 100.0, "this", 0, []
        monkeypatch.setattr(clock, "now", lambda: self.time)
        self.claim = Claim(Run("t", "this"), self.ask)
        self.claim.on_loss(lambda: self.told.append(self.time))

    def ask(self, service, action, fields, timeout):
        self.looks += 1
        if isinstance(self.says, Exception):
            raise self.says
        properties = {"run": {"value": self.says}}
        return {"tasks": [{"status": "in_progress", "hyperparams": {"properties": properties}}]}


@pytest.fixture
def known(monkeypatch):
    return Known(monkeypatch)


def test_the_task_is_looked_at_at_most_once_a_minute(known):
    for second in range(int(LOOK) * 2 + 1):
        known.time = 100.0 + second
        assert known.claim.holds()
    assert known.looks == 2


def test_a_task_that_another_run_has_is_lost_once_and_for_all(known, caplog):
    known.says = "another"
    known.claim.doubt()
    assert not known.claim.holds()
    known.says, known.time = "this", 1000.0
    assert not known.claim.holds() and known.claim.lost
    assert (known.looks, known.told, caplog.messages) == (1, [100.0], [TAKEN])


def test_after_an_outage_the_task_is_looked_at_before_anything_is_written(known):
    """A request that fails, or that takes long, has met one."""
    with pytest.raises(OSError, match="away"), known.claim.watched():
        raise OSError("away")
    assert known.claim.holds() and known.looks == 1
    with known.claim.watched():
        known.time += SLOW + 1
    assert known.claim.holds() and known.looks == 2
    with known.claim.watched():
        pass
    assert known.claim.holds() and known.looks == 2


@pytest.mark.parametrize("problem", [OSError("away"), RefusedError("no", 502)])
def test_while_the_server_does_not_say_nothing_is_written(known, problem):
    known.says = problem
    known.claim.doubt()
    for _ in range(2):
        with pytest.raises(type(problem)):
            known.claim.holds()
    known.says = "this"
    assert known.claim.holds() and not known.claim.lost


def test_a_server_that_refuses_to_say_is_no_other_run(known):
    known.says = RefusedError("no", 403)
    known.claim.doubt()
    assert known.claim.holds()
