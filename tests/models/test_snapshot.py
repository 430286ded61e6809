import errno
import os

import pytest

from app.models import snapshot

COMMIT = "c" * 40


@pytest.fixture
def blob(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "etag").write_text("weights")
    return tmp_path / "blobs" / "etag"


def test_a_blob_gets_its_name_once(tmp_path, blob):
    found = snapshot.point(tmp_path, COMMIT, "dir/m.gguf", blob)
    assert found == tmp_path / "snapshots" / COMMIT / "dir" / "m.gguf"
    assert os.readlink(found) == "../../../blobs/etag" and found.read_text() == "weights"
    assert snapshot.point(tmp_path, COMMIT, "dir/m.gguf", blob) == found


def test_a_link_to_a_blob_that_is_no_more_is_replaced(tmp_path, blob):
    found = snapshot.point(tmp_path, COMMIT, "m.gguf", tmp_path / "blobs" / "removed")
    assert not found.exists()
    assert snapshot.point(tmp_path, COMMIT, "m.gguf", blob).read_text() == "weights"


def test_without_links_the_blob_itself_moves(tmp_path, blob, monkeypatch):
    refuse(monkeypatch, errno.EPERM)
    found = snapshot.point(tmp_path, COMMIT, "m.gguf", blob)
    assert found.read_text() == "weights" and not found.is_symlink() and not blob.exists()


def test_a_full_disk_moves_nothing(tmp_path, blob, monkeypatch):
    """Other commits have links to the blob."""
    refuse(monkeypatch, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        snapshot.point(tmp_path, COMMIT, "m.gguf", blob)
    assert blob.exists()


def refuse(monkeypatch, number):
    def link(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("pathlib.Path.symlink_to", link)


def test_a_branch_is_told_once_and_follows(tmp_path):
    told = tmp_path / "refs" / "main"
    snapshot.name(tmp_path, COMMIT, COMMIT)
    assert not told.exists()
    snapshot.name(tmp_path, "main", COMMIT)
    written = told.stat().st_ino
    snapshot.name(tmp_path, "main", COMMIT)
    assert told.read_text() == COMMIT and told.stat().st_ino == written
    snapshot.name(tmp_path, "main", "d" * 40)
    assert told.read_text() == "d" * 40
