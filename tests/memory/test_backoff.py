import pytest

from app.memory.backoff import delay


@pytest.mark.parametrize(
    "failures, seconds",
    [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (1000, 30)],
)
def test_delay(failures, seconds):
    assert delay(failures) == seconds


@pytest.mark.parametrize(
    "took, failures, seconds",
    [(0, 1, 0), (0, 4, 4), (0, 5, 8), (0.1, 1000, 8), (3, 1000, 12), (3, 5, 8), (600, 1000, 30)],
)
def test_what_costs_little_is_tried_again_within_eight_seconds(took, failures, seconds):
    assert delay(failures, took) == seconds
