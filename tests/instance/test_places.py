from app.instance import places
from app.instance.places import Places


def test_no_two_models_get_the_same_socket_key_or_folder(tmp_path):
    all_of_them = Places(tmp_path, tmp_path / "kv")
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
    all_of_them = Places(None, tmp_path)
    assert [all_of_them.take().address.port for _ in range(2)] == [5001, 5002]
