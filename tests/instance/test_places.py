import os
import shutil

import pytest

from app.errors import LoadError
from app.instance import places
from app.instance.places import Places
from app.machine import private


class Kept:
    """A folder that nobody removes."""

    def __init__(self, path):
        self.path = path

    def restore(self):
        return False


def test_no_two_models_get_the_same_socket_key_or_folder(tmp_path):
    all_of_them = Places([Kept(tmp_path)], tmp_path / "kv", unix=True)
    first, second = all_of_them.take(), all_of_them.take()
    assert first.address.path == str(tmp_path / "0.sock")
    assert second.address.path == str(tmp_path / "1.sock")
    assert first.key != second.key and len(first.key) >= 32
    assert (first.kv, second.kv) == (tmp_path / "kv/0", tmp_path / "kv/1")
    assert first.kv.is_dir() and second.kv.is_dir()


def test_no_two_models_get_the_same_port(monkeypatch, tmp_path):
    """A port is free until its llama-server listens, and is found a second time."""
    found = iter([5001, 5001, 5002])
    monkeypatch.setattr(places.network, "free_port", lambda: next(found))
    all_of_them = Places([Kept(tmp_path)], tmp_path, unix=False)
    assert [all_of_them.take().address.port for _ in range(2)] == [5001, 5002]


def test_folders_that_somebody_has_removed_are_made_anew(tmp_path, caplog):
    ours = private.create(tmp_path)
    token = ours.keep("token", "secret")
    place = Places([ours], ours.path / "kv", unix=True)
    taken = place.take()
    place.restore(taken)
    assert caplog.text == ""
    shutil.rmtree(ours.path)
    place.restore(taken)
    assert f"the folder {ours.path} was removed: it is made anew" in caplog.text
    assert taken.kv.is_dir() and token.read_text() == "secret"
    assert {path.stat().st_mode & 0o777 for path in (ours.path, taken.kv)} == {0o700}
    os.utime(ours.path, (0, 0))
    assert private.sweep(tmp_path) == []  # it is locked again
    ours.remove()
    assert list(tmp_path.iterdir()) == []


def test_what_another_one_has_put_in_their_place_is_not_used(tmp_path):
    ours = private.create(tmp_path)
    place = Places([ours], ours.path / "kv", unix=True)
    taken = place.take()
    for kind in ("mkdir", "touch", "nothing can be there"):
        shutil.rmtree(ours.path, ignore_errors=True)
        ours.path.unlink(missing_ok=True)
        if kind in ("mkdir", "touch"):
            getattr(ours.path, kind)()
        else:
            tmp_path.rename(tmp_path.with_name("moved"))
            tmp_path.touch()
        with pytest.raises(LoadError, match="a folder of this instance, was removed, and cannot"):
            place.restore(taken)


def test_a_folder_for_kv_caches_elsewhere_is_made_anew_too(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "cache").mkdir()
    ours, there = private.create(tmp_path / "run"), private.create(tmp_path / "cache")
    places = Places([ours, there], there.path, unix=True)
    taken = places.take()
    shutil.rmtree(there.path)
    places.restore(taken)
    os.utime(there.path, (0, 0))
    assert private.sweep(tmp_path / "cache") == [] and taken.kv.is_dir()
    ours.remove()
    there.remove()
