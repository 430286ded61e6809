import asyncio

from app.form.checks import TOTAL
from app.task.reporter import Reporter, gauges, points
from app.telemetry.overview import Phase
from app.telemetry.samples import Tokens
from app.telemetry.scalars import Point
from app.telemetry.windows import Windows
from tests.telemetry.examples import overview, sample, view


def test_the_scalars_of_a_window():
    windows = Windows(["a"], now=0)
    windows.add(sample("a", latency=0.25, tokens=Tokens(prompt=20, generated=60)))
    rates = windows.close(now=15)
    assert points({"a": rates["a"]}, 15) == [
        Point("Total Number of Requests", "a", 1, 15),
        Point("Tokens per Second", "a", 4.0, 15),
        Point("Prompt Tokens", "a", 20, 15),
        Point("Generated Tokens", "a", 60, 15),
        Point("Latency", "a", 250.0, 15),
    ]


def test_gauges_are_by_model_and_in_total():
    seen = overview(view("a", admitted=2, leased=1, denied=3), view("b", admitted=1, denied=1))
    told = {(gauge.title, gauge.series): gauge.value for gauge in gauges(seen, 3600.0)}
    assert told["Requests in Flight", "a"] == 2 and told["Requests in Flight", TOTAL] == 3
    assert told["Denied Requests", "b"] == 1 and told["Denied Requests", TOTAL] == 4
    assert told["Idle Time", TOTAL] == 0  # a request is leased


def test_the_idle_time_is_in_hours_and_begins_when_models_are_served():
    seen = overview(view())
    told = {gauge.title: gauge for gauge in gauges(seen, 5400.0)}
    assert told["Idle Time"].value == 1.5 and told["Idle Time"].series == TOTAL
    seen.phase = Phase.SETTING_UP
    assert "Idle Time" not in {gauge.title for gauge in gauges(seen, 5400.0)}


def test_every_interval_and_a_last_time_at_the_end(run, caplog):
    async def scenario():
        sent, clock = [], iter(range(100))
        windows = Windows(["a"], now=0)

        def send(batch, now):
            if len(sent) == 1:
                sent.append(None)
                raise RuntimeError("once")  # a report that fails does not end the next ones
            sent.append(batch)

        reporter = Reporter(windows, send, lambda: next(clock), interval=0.02)
        reporter.start()
        while len(sent) < 4:
            await asyncio.sleep(0.01)
        windows.add(sample("a", tokens=Tokens(prompt=1, generated=5)))
        reporter.stop()
        assert [p.value for p in sent[-1] if p.title == "Generated Tokens"] == [5, 5]

    run(scenario)


def test_a_last_report_that_fails_is_logged_and_not_raised(run, caplog):
    async def scenario():
        def send(*_):
            raise RuntimeError("no way out")

        reporter = Reporter(Windows(["a"], now=0), send, lambda: 1.0)
        reporter.start()
        reporter.stop()
        assert "the report failed" in caplog.text and "no way out" in caplog.text

    run(scenario)


def test_what_stays_is_left_out_and_told_at_the_end(run):
    async def scenario():
        sent, clock = [], iter(range(0, 10000, 15))

        def send(batch, now):
            sent.append(now)
            told.update((point.iteration, now) for point in batch if point.series == "a")

        told, reporter = set(), Reporter(Windows(["a"], 0), send, lambda: next(clock), interval=0)
        reporter.start()
        while len(sent) < 10:
            await asyncio.sleep(0)
        reporter.stop()
        assert told == {(at, at) for at in (15, 30, 60, 120, sent[-1])}

    run(scenario)


def test_the_moment_of_a_report_is_told_to_a_fraction_of_a_second():
    """Or the times of points that were left out would jump by as much."""
    sent, clock = [], iter([0.0, 15.75])
    report = Reporter(
        Windows(["a"], 0), lambda *told: sent.append(told), lambda: next(clock)
    ).report
    report()
    ((batch, since),) = sent
    assert since == 15.75 and {point.iteration for point in batch} == {15}
