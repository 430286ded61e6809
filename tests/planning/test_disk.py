from contextlib import nullcontext
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.machine import host
from app.models.parts import OnHub, OnWeb, Part, WebPart
from app.planning import disk
from app.planning.disk import check_disk, needed

HUB, WEB = Path("/disk1/hub"), Path("/disk1/web")


class Stored:
    """A store whose folders are on disks by their first name."""

    usable = staticmethod(nullcontext)

    def __init__(self, coming=0, spare=0, hub=HUB):
        self.coming = lambda folder, wanted: coming
        self.spare = lambda folder: spare
        self.hub = hub

    def folder(self, remote):
        return self.hub if isinstance(remote, OnHub) else WEB


@pytest.fixture(autouse=True)
def disks(monkeypatch):
    """100 bytes are free on each."""
    monkeypatch.setattr(host, "disk_free", lambda folder: 100)
    same = lambda one, other: one.parts[1] == other.parts[1]  # noqa: E731
    monkeypatch.setattr(disk.host, "same_disk", same)
    monkeypatch.setattr(host, "writable", lambda folder: folder.name != "locked")


def on_hub(size):
    return OnHub("o/r", "main", "c", (Part("m.gguf", size),))


def on_web(size):
    return OnWeb((WebPart("m.gguf", size, local=Path("/x"), url="https://h/m.gguf"),))


def test_what_comes_to_one_disk_is_added_up():
    both = [on_hub(60), on_web(60)]
    assert needed(both, Stored()) == {HUB: 120}
    with pytest.raises(ConfigError, match="/disk1/hub: 0.0 GB are to be downloaded"):
        check_disk(both, Stored())
    elsewhere = Stored(hub=Path("/disk2/hub"))
    assert needed(both, elsewhere) == {Path("/disk2/hub"): 60, WEB: 60}
    check_disk(both, elsewhere)


def test_what_several_use_counts_once():
    check_disk([on_hub(60), on_hub(60)], Stored())


def test_what_others_fetch_and_what_may_go_count_too():
    with pytest.raises(ConfigError, match="other instances fetch"):
        check_disk([on_hub(60)], Stored(coming=50))
    check_disk([on_hub(60)], Stored(coming=50, spare=10))
    check_disk([on_hub(0)], Stored(coming=500))


def test_what_cannot_be_written_is_found_before_anything_moves():
    with pytest.raises(ConfigError, match="/disk1/locked cannot be written: name another one by"):
        check_disk([on_hub(60)], Stored(hub=Path("/disk1/locked")))
    check_disk([on_hub(0)], Stored(hub=Path("/disk1/locked")))
    beside = Stored(hub=Path("/disk1/hub"))
    beside.folder = lambda remote: Path("/disk1/locked") if isinstance(remote, OnWeb) else HUB
    with pytest.raises(ConfigError, match="/disk1/locked cannot be written"):
        check_disk([on_hub(60), on_web(1)], beside)
