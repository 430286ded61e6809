import pytest

from app.memory.backoff import delay


@pytest.mark.parametrize(
    "failures, seconds",
    [(0, 0), (1, 0), (2, 1), (3, 2), (4, 4), (5, 8), (6, 16), (7, 30), (1000, 30)],
)
def test_delay(failures, seconds):
    assert delay(failures) == seconds
