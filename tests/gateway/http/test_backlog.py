"""How much is kept of what clients do not read."""

from app.gateway.http.backlog import Backlog
from app.gateway.http.limits import Limits


def backlog(of_all=8):
    return Backlog(Limits(unread_together=of_all))


def test_one_household_has_half_of_all():
    kept = backlog()
    kept.add("a", 3)
    assert kept.has_room("a") and kept.has_room("b")
    kept.add("a", 1)
    assert not kept.has_room("a") and kept.has_room("b")
    kept.add("a", -1)
    assert kept.has_room("a")


def test_all_together_have_a_bound_and_give_back_what_they_took():
    kept = backlog()
    for home in "abc":
        kept.add(home, 3)
    assert not kept.has_room("d")
    kept.add("b", -3)
    assert kept.has_room("d") and not kept._of["b"]
