import pytest

from app.machine import gpu
from app.page import plots
from app.page.plots import Plots
from app.telemetry.samples import Tokens
from tests.telemetry.examples import overview, sample, view

LOADS = [
    gpu.Load(50.0, 3 * 10**9, 8 * 10**9, 61.0, "0"),
    gpu.Load(None, 10**9, 8 * 10**9, None, "1"),
]


@pytest.fixture
def two_gpus(monkeypatch):
    loads = [*LOADS]
    monkeypatch.setattr(plots.gpu, "load", lambda: [*loads])
    return loads


def read(made):
    return dict(zip(made.columns, made.values(), strict=True))


def test_a_row_by_model_and_in_total(two_gpus):
    made = Plots(overview(view("a"), view("b")))
    made.add(sample("a", latency=0.5, first_token=0.1, tokens=Tokens(generated=20)))
    found = read(made)
    assert found["requests", "total"] == found["requests", "a"] == 1
    assert found["requests", "b"] == 0
    assert found["latency", "a"] == 500 and found["first_token", "total"] == 100
    assert found["latency", "b"] is None
    assert found["tokens", "a"] > 0 and found["tokens", "b"] == 0
    assert found["memory", "used"] > 0 and 0 <= found["cpu", "all cores"] <= 100
    again = read(made)  # the next window
    assert again["requests", "a"] == 1 and again["latency", "a"] is None


def test_gpus_and_one_that_fell_off(two_gpus):
    made = Plots(overview(view("a")))
    found = read(made)
    assert found["gpu", "0"] == 50 and found["gpu", "1"] is None
    assert found["gpu_memory", "0"] == 3 and found["gpu_temperature", "0"] == 61
    two_gpus.pop()
    found = read(made)
    assert found["gpu", "0"] == 50 and found["gpu_memory", "1"] == 0


def test_without_a_gpu_there_are_no_such_plots(two_gpus):
    two_gpus.clear()
    assert not [plot for plot, _ in Plots(overview(view("a"))).columns if plot.startswith("gpu")]


def test_the_page_is_told_what_the_plots_are(two_gpus):
    made = Plots(overview(view("a")))
    told = {plot["name"]: plot for plot in made.described}
    assert [*told] == [*dict.fromkeys(plot for plot, _ in made.columns)]  # in the page's order
    assert told["latency"] == {
        "name": "latency",
        "title": "Latency",
        "unit": "ms",
        "sparse": True,
    }
    assert told["gpu_memory"]["unit"] == "GB" and not told["gpu_memory"]["sparse"]
