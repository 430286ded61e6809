import time

import pytest

from app.errors import TransferError
from app.models.beginning import MAX_BEGINNING, STEP, Beginning
from app.models.retry import CutError
from app.models.web import Web
from tests.hub.storage import Storage

DATA = bytes(range(256)) * (3 * STEP // 256)


@pytest.fixture
def storage():
    with Storage({"/m.gguf": DATA}) as server:
        yield server


def beginning(storage, **more):
    return Beginning(Web(storage.url + "/m.gguf"), len(DATA), **more)


def test_as_much_as_is_read_is_fetched(storage):
    begun = beginning(storage)
    assert begun.read(0, 10) == DATA[:10] and storage.sent == STEP
    assert begun.read(5, STEP) == DATA[5 : STEP + 5] and storage.sent == 2 * STEP
    assert begun.read(len(DATA) - 5, 100) == DATA[-5:] and storage.sent == len(DATA)


@pytest.mark.parametrize("ranges", [True, False])
def test_it_goes_on_after_interruptions(storage, ranges):
    storage.ranges = ranges
    storage.troubles = [("cut", 1000), ("status", 503, {}), ("cut", 5000), ("status", 429, {})]
    assert beginning(storage, ranges=ranges).read(0, STEP) == DATA[:STEP]


def test_who_brings_nothing_is_given_up(storage):
    storage.troubles = [("status", 503, {})] * 100
    with pytest.raises(TransferError, match="m.gguf: the server answers 503.*its header cannot"):
        beginning(storage).read(0, 10)
    assert len(storage.asked) == 4


def test_a_server_that_says_how_long_to_wait_is_obeyed(storage):
    storage.troubles = [("status", 429, {"Retry-After": "1"})] * 2
    begun = time.monotonic()
    assert beginning(storage).read(0, 10) == DATA[:10]
    assert time.monotonic() - begun >= 2


def test_without_ranges_a_long_header_is_not_sent_again_for_each_piece(storage):
    storage.ranges = False
    storage.files["/m.gguf"] = bytes(40 * STEP)
    begun = Beginning(Web(storage.url + "/m.gguf"), 40 * STEP, ranges=False)
    for offset in range(0, 40 * STEP, STEP // 4):
        begun.read(offset, STEP // 4)
    assert len(storage.asked) <= 8


class Silent:
    """A server that never answers, and a client that does not say why."""

    title = "org/repo/m.gguf"

    def get(self, start, end, size, version):
        raise CutError(f"{self.title}: TimeoutError")


def test_a_time_out_without_a_word_is_told_by_its_kind():
    with pytest.raises(TransferError, match="m.gguf: TimeoutError; its header cannot be read$"):
        Beginning(Silent(), 100).read(0, 10)


def test_a_header_has_a_bound():
    with pytest.raises(TransferError, match="a header of more than 256 MiB"):
        Beginning(Silent(), 1 << 40).read(MAX_BEGINNING, 10)
