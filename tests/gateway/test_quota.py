import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import RequestError
from app.gateway.quota import Place, Quota


def quota(most=None, per_minute=None, now=0.0):
    made = Quota("alice")
    made.limit(most, per_minute, now)
    return made


def refused(limits, now):
    """Seconds until the caller may come again; None where it may now."""
    try:
        limits.check(now)
    except RequestError as error:
        assert error.status == 429 and error.message.startswith("alice: ")
        return error.retry_after
    return None


def test_no_more_requests_are_in_flight_than_may_be():
    limits = quota(most=2)
    with Place(limits, 0.0), Place(limits, 0.0):
        assert refused(limits, 0.0) == 1
        with pytest.raises(RequestError, match="2 requests are in flight, and the limit is 2"):
            Place(limits, 0.0).__enter__()
        assert limits.in_flight == 2
    assert limits.in_flight == 0 and refused(limits, 0.0) is None


def test_a_request_that_fails_gives_its_place_back():
    limits = quota(most=1)
    with pytest.raises(ZeroDivisionError), Place(limits, 0.0):
        raise ZeroDivisionError
    assert refused(limits, 0.0) is None


def test_a_request_is_admitted_while_the_bucket_is_not_empty_and_may_leave_a_debt():
    """1. All of a minute's tokens but one are used. 2. One request more uses 601. Result: nothing
    is admitted for the minute that the debt takes, and the time is said."""
    limits = quota(per_minute=600)
    limits.take(599, 0.0)
    assert refused(limits, 0.0) is None
    limits.take(601, 0.0)
    assert refused(limits, 0.0) == 61.0
    assert refused(limits, 59.9) is not None
    assert refused(limits, 60.1) is None


def test_without_limits_everything_is_admitted_and_nothing_is_counted():
    limits = Quota()
    limits.take(10**9, 0.0)
    with Place(limits, 0.0):
        assert limits.left(0.0) is None
        limits.check(0.0)
    limits.limit(None, 1, 0.0)
    assert limits.left(0.0) == 1


def test_new_limits_leave_used_what_was_used():
    limits = quota(per_minute=100)
    limits.take(100, 0.0)
    assert refused(limits, 0.0) is not None
    limits.limit(None, 150, 0.0)
    assert limits.left(0.0) == 50
    limits.limit(None, 50, 0.0)
    assert limits.left(0.0) == -50


EVENTS = st.lists(st.tuples(st.floats(0, 100), st.integers(0, 5000)))


@given(EVENTS, st.integers(1, 10_000))
def test_nobody_gets_more_than_the_bucket_and_what_fills_it_but_for_the_last_request(
    events, per_minute
):
    limits, now, taken, last = quota(per_minute=per_minute), 0.0, 0, 0
    for pause, tokens in events:
        now += pause
        if refused(limits, now) is None:
            limits.take(tokens, now)
            taken, last = taken + tokens, tokens
    assert taken - last <= per_minute * (1 + now / 60) * (1 + 1e-9) + 1e-6


@given(EVENTS, st.integers(1, 10_000))
def test_who_comes_back_when_told_to_is_admitted(events, per_minute):
    limits, now = quota(per_minute=per_minute), 0.0
    for pause, tokens in events:
        now += pause
        limits.take(tokens, now)
        again = refused(limits, now)
        if again is not None:
            assert again >= 1 and refused(limits, now + round(again)) is None
