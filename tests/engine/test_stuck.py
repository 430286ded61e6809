"""Each row is the life of a child, as a few kinds of looks, each repeated: does it end as stuck?"""

from dataclasses import replace

import pytest

from app.engine.stuck import Look, Patience, Suspicion
from app.machine.activity import Activity, Standing

EVERY = 2.0  # seconds
PATIENCE = Patience(stopped=10, still=120, silent=3600)


class Life:
    """Looks at a child, one every two seconds; its counters grow as it works."""

    def __init__(self):
        self.suspicion = Suspicion(PATIENCE)
        self.doing = Activity(Standing.ASLEEP)
        self.why, self.seconds = "", 0.0

    def live(self, seconds, standing, *, share=0.0, faults=0, owes=True, moved=False, gap=EVERY):
        """For so many seconds; `share` of a core is used, and `faults` happen at each look."""
        for _ in range(round(seconds / gap)):
            cpu = self.doing.cpu + share * gap
            self.doing = replace(
                self.doing, standing=standing, cpu=cpu, faults=self.doing.faults + faults
            )
            self.why = self.suspicion.look(Look(gap, owes, moved, self.doing))
            self.seconds += gap
            if self.why:
                break
        return self


ASLEEP, ACTIVE, STOPPED, TRACED = (
    Standing.ASLEEP,
    Standing.ACTIVE,
    Standing.STOPPED,
    Standing.TRACED,
)
DAY = 86400.0


@pytest.mark.parametrize(
    "standing, how",
    [
        pytest.param(ACTIVE, {"share": 1.0, "moved": True}, id="a stream, token by token"),
        pytest.param(ACTIVE, {"owes": False, "share": 1.0}, id="at work for nobody"),
        pytest.param(ASLEEP, {"owes": False}, id="nobody asks"),
        pytest.param(STOPPED, {"owes": False}, id="stopped, and nobody asks"),
        pytest.param(TRACED, {}, id="a debugger holds it"),
        pytest.param(ASLEEP, {"moved": True}, id="on a GPU, without time of a core"),
    ],
)
def test_is_not_stuck_for_as_long_as_it_likes(standing, how):
    assert Life().live(DAY, standing, **how).why == ""


@pytest.mark.parametrize(
    "standing, how",
    [
        pytest.param(ACTIVE, {"share": 1.0}, id="a batch of a prompt, on a CPU"),
        pytest.param(ACTIVE, {"share": 0.001}, id="starved: ready to run, and not let"),
        pytest.param(ASLEEP, {"share": 0.01, "faults": 3}, id="weights from a slow disk"),
        pytest.param(ASLEEP, {"share": 0.2}, id="it sleeps whenever somebody looks"),
    ],
)
def test_slow_work_is_given_an_hour_without_a_sign(standing, how):
    life = Life().live(3598, standing, **how)
    assert life.why == ""
    life.live(EVERY, standing, **how, moved=True).live(3598, standing, **how)
    assert life.why == ""
    assert "at work for 3600 s without progress" in life.live(4, standing, **how).why


@pytest.mark.parametrize(
    "standing, how, seconds, why",
    [
        pytest.param(STOPPED, {}, 10, "SIGSTOP", id="stopped"),
        pytest.param(STOPPED, {"moved": True}, 10, "SIGSTOP", id="stopped, while it is loaded"),
        pytest.param(ASLEEP, {}, 120, "neither work nor progress", id="threads that wait"),
        pytest.param(ASLEEP, {"share": 0.02}, 120, "neither work", id="it answers questions only"),
    ],
)
def test_one_that_does_nothing_is_found(standing, how, seconds, why):
    life = Life().live(600, standing, **how)
    assert why in life.why and life.seconds == seconds


def test_one_that_worked_first_is_found_a_while_later():
    life = Life().live(40, ACTIVE, share=1.0).live(3600, ASLEEP)
    assert "neither work" in life.why and 400 <= life.seconds <= 404


def test_a_glimpse_of_a_thread_that_answers_us_is_no_work():
    life = Life()
    while not life.why and life.seconds < 600:
        life.live(EVERY, ACTIVE).live(38, ASLEEP)
    assert "neither work" in life.why


def test_time_in_which_nobody_looked_does_not_count():
    """The machine slept for a night, or somebody had stopped us, and our children with us."""
    assert Life().live(60, ASLEEP).live(8 * 3600, ASLEEP, gap=8 * 3600).why == ""
    assert Life().live(6, ACTIVE).live(8 * 3600, ACTIVE, gap=8 * 3600).live(3000, ACTIVE).why == ""
    assert Life().live(8 * 3600, STOPPED, gap=8 * 3600).live(8, STOPPED).why == ""
    assert Life().live(8, STOPPED).live(2, ASLEEP).live(8, STOPPED).why == ""


def test_it_owes_nothing_for_a_moment_and_all_begins_anew():
    life = Life().live(118, ASLEEP).live(EVERY, ASLEEP, owes=False).live(118, ASLEEP)
    assert life.why == ""


def test_answers_beside_the_work_end_no_silence_that_had_work_in_it():
    """Its caller has given up, and has the next prompt counted."""
    suspicion = Suspicion()
    asleep = Activity(Standing.ASLEEP)
    suspicion.look(Look(2.0, True, False, asleep, works=True))
    suspicion.look(Look(2.0, True, False, asleep, works=False, aside=True))
    assert suspicion.silent == 4.0
    suspicion.look(Look(2.0, True, True, asleep, works=True))
    suspicion.look(Look(2.0, True, False, asleep, works=False, aside=True))
    assert suspicion.silent == 0.0
