import logging
from types import SimpleNamespace

import pytest
from huggingface_hub.utils._xet_progress_reporting import XetDownloadProgressReporter

from app.models import progress
from app.models.progress import REPORT_INTERVAL, Download, bars


def test_bytes_of_chunked_storage_are_counted_once():
    """The hub's own reporter tells what was written and what came for it: twice as much."""
    seen = []
    bar = bars(seen.append)
    with XetDownloadProgressReporter(
        reconstruction_desc="a", total=100, log_level=0, tqdm_class=bar
    ) as reporter:
        for done in (30, 100):
            report = {"total_bytes": 100, "total_bytes_completed": done}
            report |= {"total_transfer_bytes_completed": done, "total_bytes_completion_rate": 1.0}
            report["total_transfer_bytes_completion_rate"] = 1.0
            reporter.update_progress(SimpleNamespace(**report))
    assert seen == [30, 70]


@pytest.fixture
def clock(monkeypatch):
    """Seconds, as the test says."""
    time = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.clock, "now", lambda: time.now)
    return time


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
        "downloading: 60 of 100 MB",
        "downloaded 80.0 MB in 5.0 s (16 MB/s)",
    ]


def test_what_was_cached_is_said_to_be(clock, caplog):
    caplog.set_level(logging.INFO, "app")
    Download("m", 2_000_000, 0, lambda _: None).finished()
    assert caplog.messages == ["found in the cache (2.0 MB)"]
