from app.gateway.keys_file import UNNAMED, Holder
from app.gateway.quota import Place
from app.gateway.roster import Roster

ALICE, BOB = Holder("alice", b"a", tokens_per_minute=10), Holder("bob", b"b")


def test_who_stays_in_the_file_keeps_what_it_has_used_and_has_under_way():
    roster = Roster()
    roster.replace([ALICE, BOB], 0.0)
    quota = roster.quota(ALICE)
    with Place(quota, 0.0):
        quota.take(4, 0.0)
        again = Holder("alice", b"another key", tokens_per_minute=20, max_concurrent_requests=2)
        roster.replace([again], 0.0)
        assert roster.quota(again) is quota and roster.names == ["alice"]
        assert quota.in_flight == 1 and quota.left(0.0) == 16
    assert quota.in_flight == 0


def test_who_comes_back_has_still_what_it_had_under_way_and_owes_what_it_owed():
    roster = Roster()
    roster.replace([ALICE], 0.0)
    quota = roster.quota(ALICE)
    with Place(quota, 0.0):
        roster.replace([], 0.0)
        roster.replace([ALICE], 0.0)
        assert roster.quota(ALICE) is quota and quota.in_flight == 1
        roster.replace([], 0.0)
        quota.take(4, 0.0)
    assert quota.in_flight == 0
    roster.replace([], 1.0)
    assert roster.quota(ALICE) is quota  # a debt
    roster.replace([], 1000.0)
    assert roster.quota(ALICE) is not quota


def test_who_is_not_in_the_file_has_no_limits():
    roster = Roster()
    roster.replace([ALICE], 0.0)
    assert roster.quota(UNNAMED).left(0.0) is None
