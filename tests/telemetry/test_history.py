import json

import pytest

from app.telemetry.history import History

COLUMNS = [("tokens", "total"), ("latency", "total")]


def test_a_row_is_what_every_later_viewer_gets():
    history = History(COLUMNS)
    row = history.add(1000.04, [12, 0.123456])
    assert json.loads(row) == [1000.0, 12, 0.1235]
    history.add(1005, [1234567, None])
    assert json.loads(history.rows()) == [[1000.0, 12, 0.1235], [1005, 1234567, None]]


def test_only_the_last_hour_is_kept():
    history = History(COLUMNS, kept=3)
    for at in range(10):
        history.add(at, [at, None])
    assert [row[0] for row in json.loads(history.rows())] == [7, 8, 9]


def test_a_row_of_another_width_is_a_fault():
    with pytest.raises(AssertionError):
        History(COLUMNS).add(0, [1])
