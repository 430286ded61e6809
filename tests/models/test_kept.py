import fcntl
import json
import os
import time

import pytest

from app.errors import ConfigError
from app.models import kept
from app.models.part_file import PartFile


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def fetched(cache, name, size, used):
    """A file of the web that we fetched, last used then."""
    path = cache / "web" / name / "v" / f"{name}.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(size))
    kept.note(cache, path, name)
    (record,) = (r for r in (cache / "kept").glob("*.json") if f"/{name}.gguf" in r.read_text())
    os.utime(record, (used, used))
    return path


def roots(cache):
    return [cache / "hub", cache / "web"]


def listed(cache):
    return kept.listed(cache, roots(cache))


def sources(cache):
    return [each.source for each in listed(cache)]


def free(there, over, spared=()):
    """All that is to go can be removed."""
    failures = []
    removed = kept.free(there, over, lambda *failure: failures.append(failure), spared)
    assert failures == []
    return removed


def test_what_is_kept_is_listed_the_least_recently_used_first(cache):
    for name, used in (("b", 20), ("a", 10), ("c", 30)):
        fetched(cache, name, 100, used)
    assert sources(cache) == ["a", "b", "c"]
    held = kept.use(cache, [cache / "web" / "a" / "v" / "a.gguf"])
    assert sources(cache) == ["b", "c", "a"]
    assert [each.in_use for each in kept.listed(cache, roots(cache))] == [False, False, True]
    for file in held:
        os.close(file)
    assert not any(each.in_use for each in kept.listed(cache, roots(cache)))


def test_room_is_made_of_what_was_used_longest_ago_and_nothing_uses(cache):
    paths = [fetched(cache, name, 100, used) for used, name in enumerate("abcd")]
    held = kept.use(cache, paths[:1])
    removed = free(listed(cache), 150)
    assert [each.source for each in removed] == ["b", "c"]
    assert [path.exists() for path in paths] == [True, False, False, True]
    removed = free(listed(cache), 1000, spared=paths[3:])
    assert removed == [] and paths[3].exists()
    assert held and free(listed(cache), 1)[0].source == "d"
    assert paths[0].exists()  # it is in use


def test_what_others_have_put_there_stays(cache):
    blob = cache / "hub" / "models--o--r" / "blobs" / "abc"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(bytes(100))
    assert free(listed(cache), 1 << 40) == []
    assert kept.use(cache, [blob]) == [] and sources(cache) == []
    assert blob.exists()


def test_a_blob_goes_with_its_names(cache):
    repo = cache / "hub" / "models--o--r"
    blob, link = repo / "blobs" / "abc", repo / "snapshots" / "c0ffee" / "dir" / "m.gguf"
    for path in (blob, link):
        path.parent.mkdir(parents=True)
    blob.write_bytes(bytes(100))
    link.symlink_to("../../../blobs/abc")
    other = link.with_name("other")
    other.write_text("theirs")
    kept.note(cache, link.resolve(), "o/r/dir/m.gguf")
    (found,) = kept.listed(cache, roots(cache))
    assert kept.remove(found)
    assert not blob.exists() and not link.is_symlink() and other.exists()
    assert sources(cache) == []


def test_a_blob_goes_with_its_names_where_the_cache_is_a_link(cache, tmp_path):
    (tmp_path / "real").mkdir()
    cache.symlink_to(tmp_path / "real")
    test_a_blob_goes_with_its_names(cache)


def test_unfinished_downloads(cache):
    """They are listed; they are removed unless somebody fetches them at the moment, and then what
    is still to come of them is counted."""
    path = cache / "web" / "a" / "v" / ".partial" / "m.gguf.part"
    path.parent.mkdir(parents=True)
    part = PartFile(path, "one", 1000)
    part.write(0, bytes(300))
    part.save(at_once=True)
    (found,) = kept.listed(cache, roots(cache))
    assert (found.size, found.unfinished, found.in_use) == (300, True, False)
    lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    (found,) = kept.listed(cache, roots(cache))
    assert found.in_use and not kept.remove(found)
    assert kept.coming(roots(cache), ()) == 700 and kept.coming(roots(cache), {path}) == 0
    os.close(lock)
    assert kept.coming(roots(cache), ()) == 0
    assert kept.remove(found) and not path.exists()


@pytest.mark.parametrize("record", [b"", b"[]", b'{"path": 7}', b"{" * 9999, b'{"path": "/\0"}'])
def test_a_wrong_record_is_none(cache, record):
    fetched(cache, "a", 100, 1)
    (file,) = (cache / "kept").glob("*.json")
    file.write_bytes(record)
    assert sources(cache) == []


def test_a_record_of_a_file_that_is_gone_goes_after_a_day(cache):
    """It may be noted before it comes to its place."""
    fetched(cache, "a", 100, 1).unlink()
    fetched(cache, "b", 100, time.time()).unlink()
    assert sources(cache) == [] and len(list((cache / "kept").iterdir())) == 1


def test_a_file_that_is_noted_again_stays_in_use(cache):
    """Two instances wanted it at the same time. Result: the one that uses it keeps it."""
    path = fetched(cache, "a", 100, 1)
    held = kept.use(cache, [path])
    kept.note(cache, path, "a")
    assert held and free(listed(cache), 1 << 40) == [] and path.exists()


def test_a_record_that_tells_of_another_file_is_none(cache, tmp_path):
    """Nobody has us remove a file that we have not fetched."""
    fetched(cache, "a", 100, 1)
    theirs = tmp_path / "theirs"
    theirs.write_text("theirs")
    (record,) = (cache / "kept").glob("*.json")
    for path in (theirs, "../theirs"):
        told = json.dumps({"path": str(path), "source": "a"})
        record.write_text(told)
        assert free(listed(cache), 1 << 40) == [] and theirs.exists()
        named = kept._record(cache, (cache / path).resolve())
        named.write_text(told)  # under the name that such a record has
        assert free(listed(cache), 1 << 40) == [] and theirs.exists()


def test_a_cache_may_be_mounted_elsewhere(cache):
    fetched(cache, "a", 100, 1)
    cache.rename(cache.with_name("moved"))
    assert sources(cache.with_name("moved")) == ["a"]


@pytest.mark.parametrize(
    "text, size",
    [("200GB", 200 * 10**9), ("1.5 tb", 15 * 10**11), ("500m", 5 * 10**8), ("0", 0), ("7 B", 7)],
)
def test_sizes(text, size):
    assert kept.size_of(text, "--keep") == size


@pytest.mark.parametrize("text", ["", "GB", "many", "1 GiB", "1e999 GB", "nan", "-1", "-0.5"])
def test_what_is_no_size(text):
    with pytest.raises(ConfigError, match="^--keep: "):
        kept.size_of(text, "--keep")
