from app.gateway.body.beginning import BLOCK, MOST, beginnings


def test_the_next_turn_begins_as_the_one_before():
    turn = b"x" * BLOCK + b"y" * BLOCK + b"z"
    before, after = beginnings([turn]), beginnings([turn + b"z" * BLOCK])
    assert len(before) == 2 and after[:2] == before and len(after) == 3


def test_pieces_may_end_anywhere():
    whole = bytes(range(256)) * 40
    pieces = [whole[:1], whole[1:3000], b"", whole[3000:]]
    assert beginnings(pieces) == beginnings([whole]) and len(beginnings(pieces)) == 10


def test_another_conversation_begins_otherwise():
    assert beginnings([b"a" + b"x" * 3 * BLOCK])[0] != beginnings([b"b" + b"x" * 3 * BLOCK])[0]


def test_a_short_body_has_none_and_a_long_one_not_more_than_some():
    assert beginnings([b"x" * (BLOCK - 1)]) == ()
    assert len(beginnings([b"x" * BLOCK * (MOST + 5)])) == MOST
