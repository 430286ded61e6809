from app.telemetry.scalars import Scalar
from app.telemetry.sources import Mean, PerSecond, Total
from app.telemetry.windows import Windows
from tests.telemetry.examples import sample

ROWS = [
    Scalar(key="count", title="", help="", source=Total(lambda sample: 1)),
    Scalar(key="rate", title="", help="", source=PerSecond(lambda s: s.tokens.generated)),
    Scalar(key="latency", title="", help="", source=Mean(lambda s: s.latency)),
    Scalar(key="first", title="", help="", source=Mean(lambda s: s.first_token)),
]


def test_a_window_per_model_and_over_all():
    windows = Windows(["a", "b"], now=100, rows=ROWS)
    windows.add(sample("a", latency=1.0))
    windows.add(sample("a", latency=3.0, first_token=0.5))
    windows.add(sample("b", latency=5.0))
    assert windows.close(now=110) == {
        "a": {"count": 2, "rate": 4.0, "latency": 2.0, "first": 0.5},
        "b": {"count": 1, "rate": 2.0, "latency": 5.0, "first": None},
        "total": {"count": 3, "rate": 6.0, "latency": 3.0, "first": 0.5},
    }


def test_totals_go_on_and_the_rest_begins_anew():
    windows = Windows(["a"], now=0, rows=ROWS)
    windows.add(sample("a", first_token=0.5))
    windows.close(now=15)
    again = {"count": 1, "rate": 0.0, "latency": None, "first": None}
    assert windows.close(now=30) == {"a": again, "total": again}
    windows.add(sample("a", latency=3.0))
    assert windows.close(now=35)["a"] == {"count": 2, "rate": 4.0, "latency": 3.0, "first": None}


def test_a_window_without_length():
    windows = Windows(["a"], now=0, rows=ROWS)
    windows.add(sample("a"))
    assert windows.close(now=0)["a"]["rate"] == 0


def test_whole_numbers_stay_whole():
    windows = Windows(["a"], now=0, rows=ROWS)
    windows.add(sample("a"))
    assert isinstance(windows.close(now=5)["total"]["count"], int)
