import asyncio
import multiprocessing
import os
import resource
import tempfile
from pathlib import Path

import pytest

from app.errors import ConfigError, FormError, TransferError
from app.models import kept, tiny_writer
from app.models.parts import OnWeb, WebPart
from app.models.reference import LocalFile, Tiny, WebFile
from app.models.store import Store, cache_folder
from tests.hub import Storage


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


@pytest.mark.parametrize(
    "given, environment, named",
    [
        ("~nobody-here/x", {"LLAMACPP_CACHE_DIR": "/b"}, "--cache-dir"),
        (None, {"LLAMACPP_CACHE_DIR": "~nobody-here"}, "LLAMACPP_CACHE_DIR"),
        (None, {"CLEARML_CACHE_DIR": "~nobody-here"}, "CLEARML_CACHE_DIR"),
    ],
)
def test_a_cache_folder_in_nobodys_home(given, environment, named):
    with pytest.raises(ConfigError, match=f"^{named}: ~nobody-here.*: there is no such home"):
        cache_folder(given, environment)


def test_whoever_has_no_home_is_told_what_to_set(monkeypatch):
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    with pytest.raises(ConfigError, match="^you have no home folder here: set LLAMACPP_CACHE_DIR"):
        cache_folder(None, {})


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


@pytest.mark.parametrize("how", ["full", "gone"])
def test_a_cache_that_cannot_be_written_any_more(tmp_path, how):
    """After it was looked at; an error of a full disk names no file."""
    store = Store(str(tmp_path / "cache"), {})
    if how == "gone":
        (tmp_path / "cache").write_text("")
    else:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(ConfigError, match="cannot be written: name another one"):
            locate_and_fetch(store, Tiny())
    finally:
        if how == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_can_be_no_cache_folder(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "away").symlink_to(tmp_path / "not-mounted")
    refused = {"file": "Not a directory", "loop": "Too many levels", "away": "No such file"}
    for name, says in {**refused, "x" * 300: "too long"}.items():
        with pytest.raises(ConfigError, match=says) as raised:
            Store(str(tmp_path / name), {}).listed()
        assert "name another one by --cache-dir" in str(raised.value)


@pytest.mark.parametrize("name", ["kept", "hub", "web"])
def test_a_part_of_the_cache_that_is_no_folder_is_not_listed_as_empty(tmp_path, name):
    (tmp_path / name).symlink_to(tmp_path / "not-mounted")
    with pytest.raises(ConfigError, match=f"{name}: No such file"):
        Store(str(tmp_path), {}).listed()
    (tmp_path / "not-mounted").write_text("")
    with pytest.raises(ConfigError, match=f"{name}: Not a directory"):
        Store(str(tmp_path), {}).listed()
    (tmp_path / name).unlink()
    assert Store(str(tmp_path), {}).listed() == []


def say_what_is_refused(folder, end):
    if os.getuid() == 0:
        os.setuid(65534)  # root may do everything
    try:
        Store(folder, {}).listed()
    except ConfigError as error:
        end.send(str(error))
    end.close()


@pytest.fixture
def open_folder():
    """Everybody may enter it; nobody else may enter pytest's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("closed", ["", "kept", "hub", "web"])
def test_a_cache_folder_that_cannot_be_entered(open_folder, closed):
    folder = open_folder / "cache"
    for name in ("kept", "hub", "web"):
        (folder / name).mkdir(parents=True)
    (folder / closed).chmod(0)
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(
        target=say_what_is_refused, args=(str(folder), theirs)
    )
    child.start()
    theirs.close()
    told = ours.recv()
    child.join()
    (folder / closed).chmod(0o700)
    assert f"{folder / (closed or 'kept')}: Permission denied" in told
    assert "name another one by --cache-dir" in told


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


@pytest.fixture
def site():
    files = {}
    for name in "ab":
        with tempfile.TemporaryDirectory() as folder:
            tiny_writer.write(Path(folder) / "m.gguf", seed=ord(name))
            files[f"/{name}.gguf"] = (Path(folder) / "m.gguf").read_bytes()
    with Storage(files) as server:
        yield server


def test_what_one_run_has_found_is_not_removed_for_another_model_of_it(site, tmp_path):
    """The limit has room for one."""
    limited = {kept.VARIABLE: "1.5MB"}
    a, b = (WebFile(f"{site.url}/{name}.gguf") for name in "ab")
    first = Store(str(tmp_path), {}, private_urls=True)
    locate_and_fetch(first, a)
    for held in first._in_use:
        os.close(held)
    store = Store(str(tmp_path), limited, private_urls=True)

    async def both():
        there, other = await store.locate(a), await store.locate(b)
        await store.fetch(other, "b", lambda _: None)
        return await store.fetch(there, "a", lambda _: None)

    assert asyncio.run(both()).first.exists()


def test_two_addresses_that_differ_by_their_query_are_two_files(tmp_path):
    parts = [
        WebPart("get", 60, local=tmp_path / str(n), url=f"https://h/get?id={n}") for n in (1, 2)
    ]
    assert len({**OnWeb((parts[0],)).downloads, **OnWeb((parts[1],)).downloads}) == 2


@pytest.mark.parametrize(
    "path", ["/" + "x" * 300 + ".gguf", "/" + "x/" * 3000 + "m.gguf", "/x\0.gguf", "/dev/null"]
)
def test_paths_that_cannot_be_are_a_fault_of_the_field(tmp_path, path):
    with pytest.raises(FormError, match="^Model/model: /"):
        asyncio.run(Store(str(tmp_path), {}).locate(LocalFile(path)))


def test_a_folder_of_which_parts_cannot_be_read(tmp_path):
    """/proc has files that vanish, and folders without end."""
    with pytest.raises(FormError, match="has more than 1000 folders: name the file"):
        asyncio.run(Store(str(tmp_path), {}).locate(LocalFile("/proc")))
    tiny_writer.write(tmp_path / "gemma-3.gguf")
    (tmp_path / "gemma-3-mmproj-f16.gguf").write_bytes(b"GGUF")
    found = asyncio.run(Store(str(tmp_path), {}).locate(LocalFile(str(tmp_path))))
    assert found.first.name == "gemma-3.gguf"
