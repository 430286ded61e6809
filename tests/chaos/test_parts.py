"""What the chaos and the soak see, and what they do not take for a fault."""

import pytest

from scripts.bench.soaks.slopes import slope
from tests.chaos.ledger import Ledger, counted, differences
from tests.chaos.models import said_by, words


def test_a_line_has_its_slope_and_noise_has_none():
    times = [10.0 * n for n in range(60)]
    rising = slope(times, [5 + at / 360 for at in times])
    assert rising.slope == pytest.approx(10) and rising.low == pytest.approx(10, abs=0.01)
    flat = slope(times, [5.0 + (n * 7919 % 13) / 13 for n in range(60)])
    assert flat.low < 0 < flat.high


def test_too_few_samples_have_no_slope():
    with pytest.raises(ValueError, match="2 samples"):
        slope([0.0, 10.0], [1.0, 2.0])


def told(**counts):
    rows = [
        f'llamacpp_requests_total{{model="a",status="{status[1:]}"}} {float(count)}'
        for status, count in counts.items()
    ]
    return counted("\n".join(rows))


@pytest.mark.parametrize(
    "after, found",
    [
        (told(_200=5), ""),
        (told(_200=4, _499=1), ""),
        (told(_200=3, _499=2), "3 served by /metrics, 4 by the callers"),
        (told(_200=6), "6 served by /metrics, 4 by the callers"),
        (told(_200=4), "4 served or left by /metrics, 5 by the callers"),
        (told(_200=4, _499=1, _502=1), "1 times 502, at most 0 by the callers"),
    ],
)
def test_what_is_counted_otherwise_than_the_callers_saw(after, found):
    ledger = Ledger()
    for how in ("200",) * 4 + ("left",):
        ledger.end("a", how, "stream")
    different = differences(ledger, {}, after)
    assert any(found in line for line in different) if found else not different


def test_models_are_told_apart():
    assert said_by("a", " a1 a17, a3.") and words(" a1 a17, a3.") == 5
    assert not said_by("a", " a1 b17") and said_by("a", "")
