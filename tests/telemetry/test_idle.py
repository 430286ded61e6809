import pytest

from app.memory.ledger import ModelState, Tier, View
from app.telemetry.idle import expired, idle_for, lasted


def view(**more):
    return View("a", ModelState.READY, Tier.RAM, **more)


@pytest.mark.parametrize(
    "views, expected",
    [
        pytest.param([view()], 50, id="from-the-beginning"),
        pytest.param([view(last_used=120)], 30, id="from-the-last-request"),
        pytest.param([view(last_used=120), view(last_used=140)], 10, id="of-any-model"),
        pytest.param([view(last_used=120), view(leased=1)], 0, id="a-running-one-holds-the-clock"),
        pytest.param([view(last_used=120, gave_up=145)], 5, id="from-one-that-waited-in-vain"),
        pytest.param([view(admitted=1)], 50, id="one-that-only-waits-does-not"),
    ],
)
def test_idle_for(views, expected):
    assert idle_for(views, begun=100, now=150) == expected


@pytest.mark.parametrize(
    "idle, limit, expected", [(60, 60, True), (59, 60, False), (1e9, None, False), (1e9, 0, False)]
)
def test_expired(idle, limit, expected):
    assert expired(idle, limit) is expected


@pytest.mark.parametrize(
    "idle, text",
    [
        (59, "0 seconds"),
        (119, "1 minute"),
        (3599, "59 minutes"),
        (7300, "2 hours"),
        (7560, "2.1 hours"),
    ],
)
def test_an_idle_time_is_told_in_steps(idle, text):
    assert lasted(idle) == text
