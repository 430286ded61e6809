import fcntl

from app.models import unfinished

REPOSITORY = "models--org--repo"


def begin(cache, name):
    path = cache / REPOSITORY / "blobs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"GGUF")
    return path


def test_what_we_are_writing_is_removed_and_nothing_else(tmp_path):
    ours, theirs = (begin(tmp_path, f"etag.{n}.incomplete") for n in ("0123abcd", "4567abcd"))
    whole = begin(tmp_path, "etag")
    with ours.open("wb"), whole.open("rb"):
        unfinished.discard()
    assert not ours.exists() and theirs.exists() and whole.exists()


def test_what_nobody_downloads_any_more_is_removed(tmp_path):
    """One file is being downloaded by another process, of one the lock is free, one has none, and
    one is of a library that resumes."""
    for name in ("held", "free", "none"):
        begin(tmp_path, f"{name}.0123abcd.incomplete")
    resumed = begin(tmp_path, "resumed.incomplete")
    locks = tmp_path / ".locks" / REPOSITORY
    locks.mkdir(parents=True)
    (locks / "free.lock").touch()
    with (locks / "held.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        unfinished.remove_abandoned(tmp_path, REPOSITORY)
    left = {path.name for path in resumed.parent.iterdir()}
    assert left == {"held.0123abcd.incomplete", resumed.name}
