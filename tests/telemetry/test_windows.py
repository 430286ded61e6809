from app.telemetry.samples import Sample, Tokens
from app.telemetry.windows import Rates, Windows


def sample(model, latency, generated, status=200):
    return Sample(model, status, latency, None, Tokens(10, 0, generated))


def test_a_window_per_model_and_over_all():
    windows = Windows(["a", "b"], now=100)
    windows.add(sample("a", 1.0, 30))
    windows.add(sample("a", 3.0, 30, status=502))
    windows.add(sample("b", 5.0, 15))
    assert windows.close(now=115) == {
        "a": Rates(2, 20, 60, 4.0, 2.0),
        "b": Rates(1, 10, 15, 1.0, 5.0),
        "total": Rates(3, 30, 75, 5.0, 3.0),
    }


def test_counts_go_on_and_rates_begin_anew():
    windows = Windows(["a"], now=0)
    windows.add(sample("a", 1.0, 30))
    windows.close(now=15)
    assert windows.close(now=30)["a"] == Rates(1, 10, 30, 0.0, None)


def test_a_window_without_length():
    windows = Windows(["a"], now=0)
    windows.add(sample("a", 1.0, 30))
    assert windows.close(now=0)["a"].tokens_per_second == 0
