import pytest

from app.errors import RequestError
from app.gateway.body.room import OF_AN_ADDRESS, TOTAL, UNCOUNTED, Holding, Room
from app.gateway.body.sizes import MOST


def refused(holding, size):
    with pytest.raises(RequestError) as raised:
        holding.grow(size)
    assert raised.value.status == 503 and raised.value.retry_after
    return raised.value.message


def test_all_bodies_together_have_a_bound():
    room = Room(total=100, of_an_address=100)
    with Holding(room, "a") as first, Holding(room, "b") as second:
        first.grow(UNCOUNTED + 60)
        second.grow(UNCOUNTED + 40)
        assert "all requests" in refused(second, 1)
    assert room.taken == 0


def test_those_of_an_address_have_a_bound_of_their_own():
    room = Room(total=100, of_an_address=50)
    with Holding(room, "a") as first, Holding(room, "a") as second:
        first.grow(UNCOUNTED + 40)
        assert "your requests" in refused(second, UNCOUNTED + 11)
        with Holding(room, "b") as other:
            other.grow(UNCOUNTED + 50)
        second.grow(0)
    assert room.taken == 0


def test_what_was_refused_takes_nothing():
    room = Room(total=100, of_an_address=100)
    with Holding(room, "a") as holding:
        refused(holding, UNCOUNTED + 101)
        assert room.taken == 0


def test_small_bodies_are_never_refused():
    room = Room(total=100, of_an_address=100)
    with Holding(room, "a") as large:
        large.grow(UNCOUNTED + 100)
        for _ in range(100):
            with Holding(room, "a") as small:
                small.grow(UNCOUNTED // 2)
                small.grow(UNCOUNTED // 2)


def test_an_ended_request_makes_room():
    room = Room(total=100, of_an_address=100)
    for _ in range(3):
        with Holding(room, "a") as holding:
            for _ in range(100):
                holding.grow(1 + UNCOUNTED // 100)
    assert room.taken == 0


def test_a_body_that_is_allowed_finds_room():
    assert TOTAL >= OF_AN_ADDRESS >= 2 * MOST
