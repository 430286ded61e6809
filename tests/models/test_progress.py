import logging
from types import SimpleNamespace

import pytest

from app.models import progress
from app.models.progress import REPORT_INTERVAL, Download, lasting


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as the test says."""
    time = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.clock, "now", lambda: time.now)
    yield time
    progress.console.show("m", "")


def test_a_download_is_told_at_once_and_logged_now_and_then(clock, caplog):
    caplog.set_level(logging.INFO, "app")
    told = []
    download = Download("m", 100_000_000, 80_000_000, told.append)
    download.arrived(30_000_000)
    clock.now += REPORT_INTERVAL
    download.arrived(10_000_000)
    download.arrived(40_000_000)
    download.finished()
    assert told == [0.5, 0.6, 1.0]
    assert caplog.messages == [
        "downloading: 60 % of 100 MB, 4 MB/s, 10 s left",
        "downloaded 80.0 MB in 10.0 s (8 MB/s)",
    ]


def test_what_was_cached_is_said_to_be(clock, caplog):
    caplog.set_level(logging.INFO, "app")
    Download("m", 2_000_000, 0, lambda _: None).finished()
    assert caplog.messages == ["found in the cache (2.0 MB)"]


@pytest.mark.parametrize(
    "seconds, told", [(0.4, "0 s"), (59.6, "1 min 0 s"), (125, "2 min 5 s"), (7200, "2 h 0 min")]
)
def test_times_left(seconds, told):
    assert lasting(seconds) == told
