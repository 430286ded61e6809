import os
import subprocess
import sys

import pytest

from app.task import downloads
from app.task.downloads import Downloads

ALIVE = """
import pathlib, sys
from app.task.downloads import Downloads
print(Downloads(pathlib.Path(sys.argv[1])).suffix, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process of ours, and the suffix of what it downloads."""
    process = subprocess.Popen(
        [sys.executable, "-c", ALIVE, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        yield process, process.stdout.readline().strip()
        process.kill()


def begin(folder, name, suffix):
    """A file as the SDK begins it."""
    path = folder / "global" / f"{name}_1795833980.1234567{suffix}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"GGUF")
    return path


def left(folder):
    return sorted(path.name.partition("_")[0] for path in (folder / "global").iterdir())


def test_the_end_removes_what_is_ours_and_not_whole(tmp_path, other):
    ours = Downloads(tmp_path)
    begin(tmp_path, "ours", ours.suffix)
    begin(tmp_path, "boto", f"{ours.suffix}.aB12cD34")
    begin(tmp_path, "other", other[1])
    begin(tmp_path, "sdk", ".partially")
    (tmp_path / "global" / "whole.gguf").write_bytes(b"GGUF")
    ours.discard()
    assert left(tmp_path) == ["other", "sdk", "whole.gguf"]
    assert not list(tmp_path.glob(f"*{ours.suffix[1:]}"))


def test_the_next_download_removes_what_a_killed_process_has_left(tmp_path, other):
    process, suffix = other
    begin(tmp_path, "other", suffix)
    mine = tmp_path / "global" / "0a.my.lmd-abcdefgh.gguf"  # whole, of a person's own name
    mine.write_bytes(b"GGUF")
    Downloads(tmp_path)
    assert "other" in left(tmp_path)  # it lives
    process.kill()
    process.wait()
    Downloads(tmp_path)
    assert left(tmp_path) == [mine.name]


def test_a_name_of_ours_is_no_longer_than_the_sdk_leaves_room_for(tmp_path):
    assert len("_1795833980.1234567") + len(Downloads(tmp_path).suffix) <= 32


@pytest.mark.filterwarnings("ignore")  # the SDK reads its configuration
def test_the_sdk_tells_of_the_bytes_that_arrive(monkeypatch):
    from clearml.storage import helper

    for owner, name in [
        (helper, "DownloadProgressReport"),
        (helper.StorageHelper, "_temp_download_suffix"),
    ]:
        monkeypatch.setattr(owner, name, getattr(owner, name))
    downloads.hook(".lmd-abcdefgh")
    told = []
    downloads.BEGIN.set(lambda size: told.append(size) or told.append)
    report = helper.DownloadProgressReport(2.0, False, "http://h/m.gguf", None)
    report(1048576)
    report.close()
    assert told == [2097152, 1048576] and report.current_status_mb == 1.0
    assert os.path.basename(helper.StorageHelper._temp_download_suffix) == ".lmd-abcdefgh"
