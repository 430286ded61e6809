import asyncio

from app.task.reporter import Reporter
from app.telemetry.samples import Sample, Tokens
from app.telemetry.scalars import Point, points
from app.telemetry.windows import Rates, Windows


def test_the_scalars_of_a_window():
    found = points({"a": Rates(2, 20, 60, 4.0, 0.25), "total": Rates(0, 0, 0, 0.0, None)}, 15)
    assert found == [
        Point("Total Number of Requests", "a", 2, 15),
        Point("Tokens per Second", "a", 4.0, 15),
        Point("Generated Tokens", "a", 60, 15),
        Point("Prompt Tokens", "a", 20, 15),
        Point("Latency", "a", 250.0, 15),
        Point("Total Number of Requests", "total", 0, 15),
        Point("Tokens per Second", "total", 0.0, 15),
        Point("Generated Tokens", "total", 0, 15),
        Point("Prompt Tokens", "total", 0, 15),
    ]


def test_every_interval_and_a_last_time_at_the_end(run, caplog):
    async def scenario():
        sent, clock = [], iter(range(100))
        windows = Windows(["a"], now=0)

        def send(batch):
            if len(sent) == 1:
                sent.append(None)
                raise RuntimeError("once")  # a report that fails does not end the next ones
            sent.append(batch)

        reporter = Reporter(windows, send, lambda: next(clock), interval=0.02)
        reporter.start()
        while len(sent) < 4:
            await asyncio.sleep(0.01)
        windows.add(Sample("a", 200, 1.0, None, Tokens(1, 0, 5)))
        reporter.stop()
        assert [p.value for p in sent[-1] if p.title == "Generated Tokens"] == [5, 5]

    run(scenario)


def test_a_last_report_that_fails_is_logged_and_not_raised(run, caplog):
    async def scenario():
        def send(_):
            raise RuntimeError("no way out")

        reporter = Reporter(Windows(["a"], now=0), send, lambda: 1.0)
        reporter.start()
        reporter.stop()
        assert "the report failed" in caplog.text and "no way out" in caplog.text

    run(scenario)
