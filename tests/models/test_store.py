import asyncio
from pathlib import Path

import pytest

from app.errors import ConfigError, TransferError
from app.models import tiny_writer
from app.models.reference import LocalFile, Tiny
from app.models.store import Store, cache_folder


@pytest.mark.parametrize(
    "given, environment, expected",
    [
        ("/a", {"LLAMACPP_CACHE_DIR": "/b"}, "/a"),
        (None, {"LLAMACPP_CACHE_DIR": "/b", "CLEARML_CACHE_DIR": "/c"}, "/b"),
        (None, {"CLEARML_CACHE_DIR": "/c"}, "/c/llamacpp"),
        (None, {}, str(Path.home() / ".cache/llamacpp-deployment")),
    ],
)
def test_cache_folder(given, environment, expected):
    assert cache_folder(given, environment) == Path(expected)


def locate_and_fetch(store, reference):
    async def scenario():
        return await store.fetch(await store.locate(reference), "m", lambda _: None)

    return asyncio.run(scenario())


def test_the_tiny_model(tmp_path):
    files = locate_and_fetch(Store(str(tmp_path), {}), Tiny())
    assert files.first.parent == tmp_path
    assert files.size == files.first.stat().st_size


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cache folder"):
        locate_and_fetch(Store(str(tmp_path / "file" / "below"), {}), Tiny())


def test_a_local_set(tmp_path):
    tiny_writer.write(tmp_path / "m.gguf", shard_tensors=8)
    first = tmp_path / "m-00001-of-00003.gguf"
    store = Store(str(tmp_path), {})
    assert locate_and_fetch(store, LocalFile(str(tmp_path / "m-*.gguf"))).first == first
    files = locate_and_fetch(store, LocalFile(str(first)))
    assert [path.name[-19:-5] for path in files.paths] == [f"0000{n}-of-00003" for n in (1, 2, 3)]


def test_a_missing_file_and_a_missing_part(tmp_path):
    store = Store(str(tmp_path), {})
    with pytest.raises(ConfigError, match="no such file"):
        locate_and_fetch(store, LocalFile(str(tmp_path / "m.gguf")))
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(b"GGUF")
    with pytest.raises(TransferError, match="00002-of-00002.gguf: this part of the set is missing"):
        locate_and_fetch(store, LocalFile(str(tmp_path / "m-00001-of-00002.gguf")))
