"""What the SDK's reporter sends of an instance: scalars, a table, a page. Runs in the SDK's thread.

The SDK adds a task's `initial iteration` to every iteration: a task that runs again has its scalars
after those of the run before. Of the table and the page there is one, of all runs: the server puts
one of the same iteration in the place of the one before.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.telemetry.scalars import Point


@dataclass(frozen=True)
class Table:
    """Rows of cells, the headings first."""

    title: str
    series: str
    rows: Sequence[Sequence[str]]


def scalars(task: Any, points: Sequence[Point], began: float) -> None:
    """Report the points of an instance that began then, in seconds since the epoch. The SDK's
    `report_scalar` would take the moment of the call, which an outage delays."""
    from clearml.backend_interface.metrics.events import ScalarEvent

    for point in points:
        event = ScalarEvent(
            metric=point.title,
            variant=point.series,
            value=float(point.value),
            iter=point.iteration,
            timestamp=round((began + point.iteration) * 1000),
        )
        task._reporter._report(event)


def table(task: Any, shown: Table) -> None:
    rows = [list(row) for row in shown.rows]
    task.get_logger().report_table(shown.title, shown.series, _first(task), table_plot=rows)


def page(task: Any, title: str, series: str, text: str) -> None:
    """An HTML page among the debug samples."""
    named = {"file_extension": ".html", "max_history": 1}
    task.get_logger().report_media(title, series, _first(task), stream=io.StringIO(text), **named)


def _first(task: Any) -> int:
    """The iteration that is the task's iteration 0, whatever the SDK adds to it."""
    return -int(task.get_initial_iteration())
