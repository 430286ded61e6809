from app.models import tiny
from app.models.gguf import verify


def test_written_once(tmp_path):
    first = tiny.ensure(tmp_path / "cache")
    changed = first.stat().st_mtime_ns
    assert tiny.ensure(tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == changed
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [tiny.NAME]


def test_a_broken_one_is_written_anew(tmp_path):
    path = tiny.ensure(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    tiny.ensure(tmp_path)
    verify([path])
