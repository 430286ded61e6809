"""The table of what is told: a row of it is all that a scalar needs."""

import runpy
from pathlib import Path

import pytest
from pyhocon import ConfigFactory

from app.commands.package import configuration
from app.page.plots import Plots
from app.task.reporter import gauges, points
from app.telemetry import scalars
from app.telemetry.prometheus import Metrics
from app.telemetry.scalars import SCALARS, Metric, Monitor, Scalar, Type, Unit
from app.telemetry.sources import (
    BySeries,
    Mean,
    OfGpu,
    OfInstance,
    OfMachine,
    OfModel,
    OfNow,
    OfRequests,
    Total,
)
from app.telemetry.windows import Windows
from tests.telemetry.examples import overview, sample, view

ROOT = Path(__file__).parent.parent.parent
SIZE = Scalar(
    key="answer",
    title="Size of Answers",
    help="What callers were sent",
    source=Mean(lambda sample: sample.size),
    unit=Unit("kB", 1e3),
    reported=True,
    dashboard="Size of Answers (kB)",
    page=1,
    metric=Metric(name="answer_bytes", type=Type.HISTOGRAM, buckets=(1000, 10000)),
)
FAILED = Scalar(
    key="failed",
    title="Failed Requests",
    help="Answers that say so",
    source=Total(lambda sample: 1 if sample.status >= 500 else None),
    reported=True,
    dashboard="Failures",
    page=1,
    metric=Metric(name="failures", type=Type.COUNTER),
)
SERVED = Scalar(
    key="served",
    title="Served Requests",
    help="As the pool counts them",
    source=OfModel(lambda overview, view: view.requests),
    unit=Unit("thousands", 1e3),
    reported=True,
    dashboard="Served (thousands)",
    page=1,
    metric=Metric(name="served", type=Type.GAUGE),
)
UPTIME = Scalar(
    key="uptime",
    title="Uptime",
    help="Since the start",
    source=OfInstance(lambda overview, now: now - overview.begun),
    unit=Unit("minutes", 60.0),
    reported=True,
    dashboard="Uptime (minutes)",
    page=1,
    metric=Metric(name="uptime_seconds", type=Type.GAUGE),
)
FREE = Scalar(
    key="free",
    title="Free Memory",
    help="Of the machine",
    source=OfMachine({"free": lambda load: load.memory_total - load.memory_used}),
    monitor=Monitor(":monitor:machine", ("memory_free_gb",)),
    dashboard="Free",
    page=3,
)
CASES = [  # what is shown in total, and what a line of /metrics says
    (SIZE, 5.0, 'llamacpp_answer_bytes_bucket{le="10000.0",model="a"} 1.0'),
    (FAILED, 1, 'llamacpp_failures_total{model="a"} 1.0'),
    (SERVED, 0.012, 'llamacpp_served{model="a"} 7.0'),
    (UPTIME, 2.0, "llamacpp_uptime_seconds 120.0"),
]


@pytest.fixture
def more(monkeypatch):
    """The table has these rows as well."""
    monkeypatch.setattr(scalars, "SCALARS", (*SCALARS, *(row for row, *_ in CASES), FREE))


@pytest.mark.usefixtures("more")
def test_one_more_row_is_one_more_scalar_everywhere(monkeypatch):
    monkeypatch.setattr("app.page.plots.clock.now", lambda: 120.0)
    seen = overview(view("a", requests=7), view("b", requests=5))
    windows, plots, metrics = Windows("ab", 0.0), Plots(seen), Metrics(seen, lambda: 120.0)
    for add in (windows.add, plots.add, metrics.add):
        add(sample("a", status=502, size=5000))

    told = [*points(windows.close(15.0), 15), *gauges(seen, 120.0)]
    shown = dict(zip(plots.columns, plots.values(), strict=True))
    described = {(plot["name"], plot["title"], plot["unit"]) for plot in plots.described}
    text, page, drawn = metrics.text().decode(), document(), dashboard()
    for row, total, line in CASES:
        assert [p.value for p in told if (p.title, p.series) == (row.title, "total")] == [total]
        assert shown[row.key, "total"] == total
        assert (row.key, row.title, row.unit.name) in described
        assert line in text.splitlines() and row.help in text
        assert drawn[row.dashboard]["metric"] == row.title
        assert f"| {row.help} |" in page and f"llamacpp_{row.metric.name}" in page
    # What the SDK reports by itself is a row as well.
    assert shown["free", "free"] > 0 and drawn["Free"]["variant"] == ["memory_free_gb"]
    assert "| Free Memory | Of the machine | now | `:monitor:machine`" in page


def dashboard():
    """The plots of the application's file, by their title."""
    lines = ConfigFactory.parse_string(configuration("r"))["dashboard"]["lines"]
    return {item["title"]: item for line in lines for item in line["contents"]}


def document():
    """docs/metrics.md, made anew."""
    return runpy.run_path(str(ROOT / "scripts/metrics_page"))["page"]()


def test_names_are_told_once():
    for names in (
        [row.key for row in SCALARS],
        [row.title for row in SCALARS],
        [row.dashboard for row in SCALARS if row.dashboard],
        [row.metric.name for row in SCALARS if row.metric],
    ):
        assert len({*names}) == len(names)


@pytest.mark.parametrize("row", SCALARS, ids=lambda row: row.key)
def test_a_row_is_shown_only_where_its_source_can_be(row):
    by_series = OfRequests | BySeries
    if row.reported:
        assert isinstance(row.source, by_series) and row.monitor is None
    if row.page:
        assert isinstance(row.source, by_series | OfMachine | OfGpu)
    if row.dashboard:
        assert row.reported or row.monitor is not None
    if row.metric:
        source = row.metric.of or row.source
        asked = {Type.COUNTER, Type.HISTOGRAM} if isinstance(source, OfRequests) else {*Type}
        assert isinstance(source, OfRequests | OfNow) and row.metric.type in asked
