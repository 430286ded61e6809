import random

import pytest

from app.models import pieces
from app.models.pieces import Board, Ramp

MB = 1 << 20


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_taken_and_given_up_every_byte_is_fetched(seed):
    """Threads that fetch some bytes, or give up. Result: all bytes come, few of them twice."""
    dice, size, now = random.Random(seed), 300 * MB, 0.0
    board, active, come = Board([(0, size)], size), [], bytearray(300)
    while not board.empty:
        now += 1.0
        if len(active) < 8 and (piece := board.take(now)) is not None:
            active.append(piece)
        piece = dice.choice(active)
        for _ in range(dice.randrange(1, 4)):
            if piece.at < piece.end:
                come[piece.at // MB] += 1
                piece.at = min(piece.end, (piece.at // MB + 1) * MB)
        if piece.at >= piece.end or dice.random() < 0.1:
            board.put_back(piece)
            active.remove(piece)
    assert min(come) >= 1 and sum(come) < 300 * 1.3


def test_the_largest_piece_is_divided_once_nothing_is_left():
    board = Board([(0, 20 * MB)], 20 * MB)
    first = [board.take(0.0) for _ in range(5)]  # of 4 MB each
    assert [piece.end - piece.at for piece in first] == [4 * MB] * 5
    assert board.take(0.0) is None
    large = Board([(0, 60 * MB)], 1 << 40)
    whole, half = large.take(0.0), large.take(0.0)
    assert (whole.at, whole.end, half.at, half.end) == (0, 30 * MB, 30 * MB, 60 * MB)


def test_a_connection_that_all_but_stops_is_slow():
    piece = Board([(0, 4 * MB)], 4 * MB).take(0.0)
    piece.at = 1000
    assert not piece.slow(pieces.SLOW_AFTER) and piece.slow(pieces.SLOW_AFTER + 1)
    piece.at = 200_000
    assert not piece.slow(pieces.SLOW_AFTER + 1)


def test_what_is_not_divisible_begins_again():
    board = Board([(10, 20)], 20, divisible=False)
    piece = board.take(0.0)
    assert (piece.at, piece.end, board.most) == (0, 20, 1)
    piece.at = 15
    assert board.take(100.0) is None
    board.put_back(piece)
    assert board.take(0.0).at == 0


def test_connections_are_added_as_long_as_that_is_faster():
    ramp = Ramp(100, 0, 0.0)
    assert (ramp.connections, ramp.more(10, 0.5)) == (2, 0)
    assert ramp.more(100 * MB, 1.0) == 2
    assert ramp.more(300 * MB, 2.0) == 4  # twice as fast
    assert ramp.more(900 * MB, 3.0) == 0 and ramp.connections == 8  # there are no more
    slow = Ramp(100, 0, 0.0)
    assert slow.more(100 * MB, 1.0) == 2
    assert slow.more(210 * MB, 2.0) == 0  # it was not worth it
    assert slow.more(410 * MB, 3.0) == 4  # the line has become faster


def test_there_are_no_more_connections_than_work():
    assert Ramp(1, 0, 0.0).connections == 1
    few = Ramp(3, 0, 0.0)
    assert few.more(MB, 1.0) == 1 and few.connections == 3
