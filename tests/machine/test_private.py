import errno
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import time

import pytest

from app.errors import ConfigError
from app.machine import private


def test_a_folder_of_ours_alone_that_goes_at_the_end(tmp_path):
    folder = private.create(tmp_path)
    assert folder.path.name.startswith("lmd-")
    assert folder.path.stat().st_mode & 0o777 == 0o700
    (folder.path / "x.sock").write_text("")
    folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_only_we_can_read(tmp_path):
    folder = private.create(tmp_path)
    path = folder.keep("token", "secret")
    assert path.read_text() == "secret" and path.stat().st_mode & 0o777 == 0o600
    folder.remove()


def test_the_folder_of_a_living_instance_stays(tmp_path):
    folder = private.create(tmp_path)
    assert private.sweep(tmp_path) == []
    assert folder.path.exists()
    folder.remove()


def test_the_folder_of_a_killed_instance_is_swept_by_the_next(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from app.machine import private; "
        "private.create(Path(sys.argv[1])); print('up', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        (dead,) = tmp_path.iterdir()
        assert private.sweep(tmp_path) == []
        other.kill()
    folder = private.create(tmp_path)
    assert not dead.exists() and folder.path.exists()
    folder.remove()


def test_one_whose_files_a_cleaner_has_taken_is_of_the_living(tmp_path):
    folder = private.create(tmp_path)
    (folder.path / private.OWNER).unlink()
    os.utime(folder.path, (0, 0))
    assert private.sweep(tmp_path) == []
    folder.remove()


def test_the_folder_of_an_earlier_version_stays_while_it_lives(tmp_path):
    """It has locked `owner` alone."""
    (tmp_path / "lmd-old").mkdir()
    with (tmp_path / "lmd-old" / private.OWNER).open("w") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        os.utime(tmp_path / "lmd-old", (0, 0))
        assert private.sweep(tmp_path) == []
    assert private.sweep(tmp_path) == [tmp_path / "lmd-old"]


def test_where_folders_cannot_be_locked_their_files_are(tmp_path, monkeypatch):
    """As on NFS, which wants a descriptor that can be written."""
    lock = fcntl.flock

    def of_nfs(descriptor, how):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EBADF, "Bad file descriptor")
        lock(descriptor, how)

    monkeypatch.setattr(private.fcntl, "flock", of_nfs)
    folder = private.create(tmp_path)
    os.utime(folder.path, (0, 0))
    assert private.sweep(tmp_path) == [] and folder.path.exists()
    private._close(folder._locks)  # as the kernel does at a death
    assert private.sweep(tmp_path) == [folder.path]


def test_a_file_that_cannot_be_kept(tmp_path):
    folder = private.create(tmp_path)
    folder.keep("token", "secret")
    with pytest.raises(ConfigError, match="token cannot be written: File exists"):
        folder.keep("token", "other")
    folder.remove()


def test_what_cannot_be_made_anew_is_tried_again(tmp_path, monkeypatch):
    """And whatever else a cleaner has taken is, too; after the end, nothing is."""
    folder, lock = private.create(tmp_path), fcntl.flock
    token = folder.keep("token", "secret")
    open_files = len(os.listdir("/proc/self/fd"))

    def full(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    shutil.rmtree(folder.path)
    monkeypatch.setattr(private.fcntl, "flock", full)
    for _ in range(3):
        with pytest.raises(OSError, match="No locks"):
            folder.restore()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ConfigError, match="No locks"):
        private.create(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(private.fcntl, "flock", lock)
    assert folder.restore() and token.read_text() == "secret"
    token.unlink()
    token.symlink_to(tmp_path / "nowhere")
    assert not folder.restore()  # nobody's file is worth that no model comes
    token.unlink()
    assert not folder.restore() and token.read_text() == "secret"
    assert len(os.listdir("/proc/self/fd")) == open_files
    folder.remove()
    assert len(os.listdir("/proc/self/fd")) == open_files - 2


def test_with_the_folder_above_it(tmp_path):
    folder = private.create(tmp_path)
    shutil.rmtree(tmp_path)
    assert folder.restore() and folder.path.stat().st_mode & 0o777 == 0o700
    folder.remove()


def test_another_folder_in_its_place_is_not_removed(tmp_path):
    folder = private.create(tmp_path)
    shutil.rmtree(folder.path)
    folder.path.mkdir()
    folder.remove()
    assert folder.path.is_dir()
    folder.path.rmdir()
    with pytest.raises(OSError, match="it was removed for good"):
        folder.restore()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not shutil.which("systemd-tmpfiles"), reason="no systemd-tmpfiles here")
def test_systemds_cleaner_leaves_it_alone(tmp_path):
    parent = tmp_path / "run"
    parent.mkdir()
    folder = private.create(parent)
    token = folder.keep("token", "secret")
    (parent / "other").mkdir()
    (parent / "other" / "file").touch()
    (tmp_path / "rule.conf").write_text(f"d {parent} 0755 - - 1s\n")
    time.sleep(2)
    command = ["systemd-tmpfiles", "--clean", str(tmp_path / "rule.conf")]
    subprocess.run(command, check=True, timeout=30)
    assert token.exists() and not (parent / "other" / "file").exists()
    folder.remove()


def test_a_folder_that_is_just_being_made_stays(tmp_path):
    (tmp_path / "lmd-new").mkdir()
    (tmp_path / "lmd-old").mkdir()
    os.utime(tmp_path / "lmd-old", (time.time() - 3600,) * 2)
    assert private.sweep(tmp_path) == [tmp_path / "lmd-old"]


def test_other_peoples_files_stay(tmp_path):
    (tmp_path / "lmd-file").write_text("")
    (tmp_path / "target").mkdir()
    (tmp_path / "other").mkdir()
    os.symlink(tmp_path / "target", tmp_path / "lmd-link")
    private.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "lmd-file",
        "lmd-link",
        "other",
        "target",
    ]


def test_a_parent_that_cannot_be_written(tmp_path):
    with pytest.raises(ConfigError, match="private folder"):
        private.create(tmp_path / "missing")


@pytest.mark.parametrize("usable", [True, False])
def test_the_runtime_folder_where_sockets_fit_in(monkeypatch, tmp_path, usable):
    runtime = tmp_path / ("r" if usable else "r" * 90)
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    expected = runtime if len(str(runtime)) < 60 else private.Path("/tmp")
    assert private.base() == expected
    if not usable:
        assert expected == private.Path("/tmp")
