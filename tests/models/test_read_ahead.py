import ctypes
import mmap
import os
import threading
import time

import psutil
import pytest

from app.models import read_ahead
from app.models.read_ahead import PAGE, PIECE, ReadAhead

SIZE = 3 * PIECE + 5000


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(os.urandom(SIZE))
    return path


@pytest.fixture
def cold(file):
    """Not a page of it is in memory. On a busy machine the kernel keeps some at first."""
    with file.open("rb") as opened:
        for _ in range(100):
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            if not pages_in_memory(file):
                return file
            time.sleep(0.05)
    pytest.skip("files here are in memory only")


def pages_in_memory(path):
    held = (ctypes.c_ubyte * -(-SIZE // PAGE))()
    with path.open("r+b") as file, mmap.mmap(file.fileno(), SIZE) as mapped:
        first = ctypes.c_char.from_buffer(mapped)
        failed = ctypes.CDLL(None).mincore(ctypes.byref(first), ctypes.c_size_t(SIZE), held)
        del first  # else the mapping cannot be closed
    assert not failed
    return sum(page & 1 for page in held)


def cached_in_time(path):
    """Within a time that only a machine without any disk would need."""
    end = time.monotonic() + 30
    while not (found := read_ahead._is_cached(path, SIZE)) and time.monotonic() < end:
        time.sleep(0.01)
    return found


def test_a_file_that_is_not_in_memory_comes_into_it(cold):
    ReadAhead([cold]).begin()
    assert cached_in_time(cold)


def test_a_file_that_is_in_memory_is_not_read(file):
    assert list(ReadAhead([file])._all()) == []


def test_every_byte_of_every_file_is_in_one_piece(cold, tmp_path):
    other = tmp_path / "empty.gguf"
    other.write_bytes(b"")
    pieces = [at for path, at in ReadAhead([other, cold])._all() if path == cold]
    assert pieces == [0, PIECE, 2 * PIECE, 3 * PIECE]


def test_what_would_push_other_things_out_of_memory_is_not_read(cold):
    assert list(ReadAhead([cold], lambda: SIZE)._all()) == []
    assert list(ReadAhead([cold], lambda: 2 * SIZE)._all())


def test_after_the_end_no_piece_is_read(cold):
    ahead = ReadAhead([cold])
    ahead.end()
    ahead._read()
    assert not read_ahead._is_cached(cold, SIZE)


def test_a_file_that_is_gone_ends_it(tmp_path):
    ahead = ReadAhead([tmp_path / "gone.gguf"])
    ahead._look()
    assert ahead._next() is None


def test_a_file_that_goes_while_it_is_read_ends_it(cold):
    ahead = ReadAhead([cold])
    first = ahead._next()
    cold.unlink()
    ahead._read(first)
    assert ahead._next() is None


def test_what_is_read_takes_memory_only_while_it_is_read(tmp_path, monkeypatch):
    """Many starts read ahead in threads of their own, each with an arena of the C library's."""
    process, paths = psutil.Process(), [tmp_path / f"{number}.gguf" for number in range(2)]
    for path in paths:
        path.write_bytes(bytes(SIZE))
    monkeypatch.setattr(read_ahead, "_is_cached", lambda *_: False)
    before = process.memory_info().rss
    for _ in range(3):  # the library changes its ways after it was given large pieces back
        ahead = [ReadAhead(paths) for _ in range(8)]
        readers = [threading.Thread(target=each._read) for each in ahead]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert process.memory_info().rss - before < PIECE // 4, process.memory_info().rss - before


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "m.gguf")
    ahead = ReadAhead([tmp_path / "m.gguf"])
    looking = threading.Thread(target=ahead._look, daemon=True)
    looking.start()
    looking.join(10)
    assert not looking.is_alive()
