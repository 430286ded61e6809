"""Files from a server by ranges, over real connections, and what goes wrong with them."""

import errno
import hashlib
import json
import os
import random
import threading
import time

import pytest

from app.errors import TransferError
from app.models import arrival, part_file, pieces, retry, session, web
from app.models.arrival import Content, Target
from app.models.part_file import PartFile, record_of
from app.models.public import is_public
from app.models.web import Body, Web
from tests.hub.storage import Storage

SIZE = 3_000_000
DATA = random.Random(1).randbytes(SIZE)
DIGEST = hashlib.sha256(DATA).hexdigest()
NAME = "/m.gguf"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Pieces of a small file, and short pauses."""
    monkeypatch.setattr(pieces, "LEAST", 1 << 17)
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.02)


@pytest.fixture
def storage():
    with Storage({NAME: DATA}) as server:
        yield server


class Place:
    """Where the file comes to."""

    def __init__(self, folder):
        self.folder, self.told = folder, []
        self.file, self.part = folder / "m.gguf", folder / "parts" / "m.part"
        self.target = Target(self.part, self.file.exists, lambda part: part.placed(self.file))

    def fetch(self, storage, path=NAME, token="", here=0, **content):
        headers = {"Authorization": token} if token else {}
        content = {"identity": "one", "size": SIZE, **content}
        if "digest" not in content:
            content |= {"digest": DIGEST, "hasher": hashlib.sha256}
        source = Web(storage.url + path, headers)
        arrival.fetch(source, Content(**content), self.target, self.told.append, here)
        assert self.file.read_bytes() == DATA
        assert not self.part.exists() and not record_of(self.part).exists()


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def test_a_file_arrives_over_several_connections(storage, place):
    place.fetch(storage)
    assert storage.sent == sum(place.told) == SIZE
    assert len({first for _, first, _ in storage.asked}) > pieces.CONNECTIONS


def test_a_disk_that_fills_up_meanwhile(storage, place):
    """What has come is kept, and used once there is room."""

    def full(part):
        raise OSError(errno.ENOSPC, "No space left on device")

    real, place.target = place.target, Target(place.part, place.file.exists, full)
    with pytest.raises(TransferError, match="what has come is kept"):
        place.fetch(storage)
    place.target = real
    place.fetch(storage)
    assert storage.sent == SIZE


def test_it_goes_on_after_every_cut(storage, place):
    """Result: what had arrived is not asked for again."""
    storage.cut = 50_000
    place.fetch(storage)
    assert storage.sent == SIZE


TROUBLES = [
    ("status", 500, {}),
    ("status", 503, {"Retry-After": "0"}),
    ("status", 429, {"RateLimit": '"resolvers";r=0;t=0'}),
    ("cut", 0),
    ("cut", 1),
]


@pytest.mark.parametrize("seed", range(8))
def test_it_arrives_whatever_passes(storage, place, seed):
    dice = random.Random(seed)
    storage.troubles = [dice.choice(TROUBLES) for _ in range(20)]
    storage.troubles = [t for trouble in storage.troubles for t in (trouble, ("cut", 300_000))]
    place.fetch(storage)


def test_a_server_that_is_away_is_said_after_a_few_tries(storage, place):
    storage.troubles = [("status", 502, {})] * 1000
    with pytest.raises(TransferError, match=r"m.gguf: the server answers 502 .*6 tries"):
        place.fetch(storage)
    storage.troubles = []
    place.fetch(storage)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416])
def test_what_will_not_be_otherwise_is_not_asked_again(storage, place, status):
    storage.troubles = [("status", status, {})] * pieces.CONNECTIONS
    with pytest.raises(TransferError, match=f"answers {status}"):
        place.fetch(storage)
    assert len(storage.asked) <= pieces.CONNECTIONS


def interrupted(storage, place, **content):
    """So much has arrived, and then the server is away."""
    storage.troubles = [("cut", 100_000)] * 8 + [("status", 500, {})] * 1000
    with pytest.raises(TransferError):
        place.fetch(storage, **content)
    storage.troubles, storage.asked, arrived = [], [], storage.sent
    storage.sent = 0
    assert arrived == sum(place.told) > 0
    return arrived


def test_another_try_fetches_the_rest(storage, place):
    arrived = interrupted(storage, place)
    place.fetch(storage, here=arrived)
    assert storage.sent == SIZE - arrived
    assert sum(place.told) == SIZE


@pytest.mark.parametrize("content", [{"identity": "two"}, {"identity": ""}])
def test_of_another_content_nothing_is_used(storage, place, content):
    interrupted(storage, place)
    place.fetch(storage, **content)
    assert storage.sent == SIZE


WRONG = [
    b"",
    b"[1]",
    b"{" * 5000,
    b'{"identity": "one", "size": 3000000, "spans": [[0, 9000000]]}',
    b'{"identity": "one", "size": 3000000, "spans": [[0, -1]]}',
    b'{"identity": "one", "size": 3000000, "spans": [[0, 1e400]]}',
    b'{"identity": "one", "size": 3000000, "spans": 7}',
    b'{"identity": "one", "size": 5, "spans": []}',
]


@pytest.mark.parametrize("record", WRONG)
def test_a_wrong_record_is_none(storage, place, record):
    interrupted(storage, place)
    record_of(place.part).write_bytes(record)
    place.fetch(storage)
    assert storage.sent == SIZE


def test_what_was_damaged_meanwhile_is_fetched_again(storage, place):
    interrupted(storage, place)
    spans = json.loads(record_of(place.part).read_text())["spans"]
    with place.part.open("r+b") as file:
        file.seek(spans[0][0])
        file.write(b"other bytes")
    place.fetch(storage)


def test_wrong_bytes_are_refused_and_not_kept(storage, place):
    storage.files[NAME] = DATA[:-1] + b"?"
    with pytest.raises(TransferError, match="not what was promised"):
        place.fetch(storage)
    assert not place.file.exists()
    storage.files[NAME], storage.sent = DATA, 0
    place.fetch(storage)
    assert storage.sent == SIZE


def test_a_file_that_changes_meanwhile_is_refused(storage, place):
    storage.troubles = [("", None)] * 3 + [("etag", '"2"')]
    with pytest.raises(TransferError, match="changed while it was fetched"):
        place.fetch(storage, version='"1"')


@pytest.mark.parametrize("other", [DATA[:-5], DATA + b"more"])
def test_a_file_of_another_size_is_refused(storage, place, other):
    storage.files[NAME] = other
    with pytest.raises(TransferError, match="other bytes than it was asked"):
        place.fetch(storage)


def test_a_connection_that_all_but_stops_is_given_up(storage, place, monkeypatch):
    """Also where there is no other one: another try fetches what it has not brought."""
    monkeypatch.setattr(pieces, "LEAST", SIZE)
    monkeypatch.setattr(pieces, "SLOW_AFTER", 0.3)
    storage.troubles = [("trickle",)]
    place.fetch(storage)
    assert SIZE - 5000 < storage.sent < SIZE + 65536


@pytest.mark.parametrize("trouble", ["hang", "slow head"])
def test_a_server_that_does_not_come_to_its_answer_is_given_up(
    storage, place, monkeypatch, trouble
):
    monkeypatch.setattr(web, "TIMEOUTS", (1.0, 0.5))
    monkeypatch.setattr(session, "HEAD", 0.5)
    released = threading.Event()
    storage.troubles = [(trouble, released)] * 3
    place.fetch(storage)
    released.set()


@pytest.mark.parametrize("what", ["part", "lock"])
def test_nothing_is_written_through_a_link(storage, place, what):
    victim = place.folder / "victim"
    victim.write_text("theirs")
    place.part.parent.mkdir()
    name = {"part": place.part, "lock": place.part.with_name(f"{place.part.name}.lock")}[what]
    name.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        place.fetch(storage)
    assert victim.read_text() == "theirs"


def test_a_pipe_is_no_part(storage, place):
    place.part.parent.mkdir()
    os.mkfifo(place.part)
    with pytest.raises(OSError, match="it is no file"):
        place.fetch(storage)


def test_what_a_killed_one_was_writing_down_goes(storage, place):
    place.part.parent.mkdir()
    left = place.part.with_name(f"{record_of(place.part).name}.abc.tmp")
    left.write_text("half")
    place.fetch(storage)
    assert not left.exists()


def test_a_file_that_is_cut_off_while_it_is_hashed(storage, place):
    part = PartFile.read

    def short(self, offset, size):
        return b"" if offset > SIZE // 2 else part(self, offset, min(size, SIZE // 2))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartFile, "read", short)
        with pytest.raises(OSError, match="was cut off while it was fetched"):
            place.fetch(storage)


def test_a_fault_in_a_thread_ends_the_transfer(storage, place, monkeypatch):
    """Of ours, or of a library: else all others would wait for its piece."""

    def broken(self, most):
        raise ZeroDivisionError

    monkeypatch.setattr("app.models.web.Body.read", broken)
    with pytest.raises(ZeroDivisionError):
        place.fetch(storage)


def test_what_comes_late_of_a_stopped_connection_is_not_kept(storage, place, monkeypatch):
    """A TLS socket that another thread shuts down passes on what is encrypted."""
    read, troubles = Body.read, iter([True])

    def late(self, most):
        data = read(self, most)
        if next(troubles, False):
            time.sleep(0.2)  # the others have begun
            raise OSError("the disk is full")
        time.sleep(0.6)
        return b"?" * len(data)

    monkeypatch.setattr("app.models.web.Body.read", late)
    with pytest.raises(OSError, match="full"):
        place.fetch(storage)
    assert part_file.bytes_here(place.part) == 0


def test_progress_goes_back_with_what_cannot_be_used(storage, place):
    arrived = interrupted(storage, place)
    with place.part.open("r+b") as file:
        file.write(b"?" * SIZE)
    place.fetch(storage, here=arrived)
    assert sum(place.told) == SIZE and min(place.told) < 0


@pytest.mark.parametrize("target", ["http://[x/m.gguf", "file:///etc/passwd", "http://a:b:c/"])
def test_redirects_to_what_is_no_address(storage, place, target):
    storage.troubles = [("redirect", target)] * 1000
    with pytest.raises(TransferError):
        place.fetch(storage)
    assert len(storage.asked) <= pieces.CONNECTIONS


def test_a_server_that_wants_us_to_wait_for_long_is_told(storage, place):
    storage.troubles = [("status", 429, {"Retry-After": "900"})] * 1000
    with pytest.raises(TransferError, match="it may be asked again in 900 s"):
        place.fetch(storage)


def test_a_date_to_come_back_at(storage, place):
    for date in ("Wed, 21 Oct 2015 07:28:00 GMT", "Fri, 01 Jan 99999999999 00:00:00 GMT"):
        storage.troubles = [("status", 503, {"Retry-After": date})] * 3
    place.fetch(storage)


def test_user_and_password_of_an_address_are_sent_to_its_host(storage, place):
    with Storage({}) as hub:
        hub.troubles = [("redirect", storage.url + NAME)] * 100
        own = hub.url.replace("://", "://us%40er:pass@")
        source = Web(own + NAME)
        assert source.find().size == SIZE and "pass" not in source.title
        assert all(token for *_, token in hub.asked)
        assert not any(token for *_, token in storage.asked)


def test_a_server_without_ranges(storage, place):
    """1. It cuts the file each time. Result: it is given up. 2. It does not. Result: it arrives."""
    storage.ranges, storage.cut = False, 1_000_000
    with pytest.raises(TransferError, match="tries brought nothing"):
        place.fetch(storage, ranges=False)
    storage.cut = None
    place.fetch(storage, ranges=False)


def test_a_token_stays_with_its_host_and_an_expired_address_is_asked_for_anew(storage, place):
    """The storage that a hub redirects to names addresses that expire."""
    with Storage({}) as hub:
        hub.troubles = [("redirect", f"{storage.url}{NAME}?signature=s3cr3t")] * 100
        storage.troubles = [("", None)] * 4 + [("status", 403, {})] * 3
        place.fetch(hub, token="Bearer t")
        assert all(token for *_, token in hub.asked)
        assert not any(token for *_, token in storage.asked)
        assert 1 < len(hub.asked) < len(storage.asked)


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there_behind_a_redirect_is_asked_for_once(storage, place, status):
    with Storage({}) as hub:
        hub.troubles = [("redirect", storage.url + NAME)] * 100
        storage.troubles = [("status", status, {})] * 100
        with pytest.raises(TransferError, match=f"answers {status}"):
            Web(hub.url + NAME).find()
        assert len(storage.asked) == len(hub.asked) == 1


def test_no_error_tells_the_secrets_of_an_address(storage, place):
    with Storage({}) as hub:
        secret = f"{storage.url}/none?signature=s3cr3t"
        for trouble in (("redirect", secret), ("redirect", "http://127.0.0.1:1/?s3cr3t")):
            hub.troubles = [trouble] * 1000
            with pytest.raises(TransferError) as error:
                place.fetch(hub, path="/m.gguf?token=s3cr3t")
            assert "s3cr3t" not in str(error.value)


def test_one_of_two_fetches_and_both_tell_how_far_it_is(storage, place):
    """Two instances want one file at the same time."""
    storage.pause = 0.2
    other = Place(place.folder)
    threads = [threading.Thread(target=p.fetch, args=(storage,)) for p in (place, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert storage.sent == SIZE
    assert sum(place.told) == sum(other.told) == SIZE
    assert min(len(place.told), len(other.told)) > 1


def test_a_full_disk_is_the_reason_and_nothing_is_placed(storage, place, monkeypatch):
    def full(self, offset, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("app.models.part_file.PartFile.write", full)
    with pytest.raises(
        TransferError, match=f"^{place.part.parent}: the disk, or a quota, is full: "
    ):
        place.fetch(storage)
    assert not place.file.exists()


def test_only_public_addresses_are_asked_where_that_is_wanted(storage):
    """Also where a redirect leads: nothing is sent there."""
    with pytest.raises(TransferError, match=r"127\.0\.0\.1 is no public address"):
        Web(storage.url + NAME, allows=is_public).find()
    assert storage.asked == []
    with Storage({}) as hub:
        hub.troubles = [("redirect", storage.url + NAME)]
        own = []

        def first_only(address):
            own.append(address)
            return len(own) <= 2  # before and after the first connection is made

        with pytest.raises(TransferError, match="no public address"):
            Web(hub.url + NAME, allows=first_only).find()
    assert storage.asked == []


SPELLINGS = """localhost 2130706433 0x7f000001 0x7f.1 0177.0.0.1 127.1 0 0.0.0.0 [::ffff:127.0.0.1]
[::ffff:7f00:1] 8.8.8.8@127.0.0.1"""


@pytest.mark.parametrize("host", SPELLINGS.split())
def test_no_other_spelling_makes_an_address_public(storage, host):
    port = storage.url.rpartition(":")[2]
    with pytest.raises(TransferError, match="no public address"):
        Web(f"http://{host}:{port}{NAME}", allows=is_public).find()
    assert storage.asked == []


PRIVATE = """127.0.0.1 10.1.2.3 172.16.0.1 192.168.1.1 169.254.169.254 0.0.0.0 100.64.0.1 224.0.0.1
192.88.99.1 ::1 :: ::127.0.0.1 fe80::1%eth0 fec0::1 fd00::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1
64:ff9b::a9fe:a9fe 64:ff9b:1::7f00:1 2002:7f00:1::1"""


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808"])
def test_addresses_that_are(address):
    assert is_public(address)


def test_what_a_server_says_of_a_file(storage):
    found = Web(storage.url + NAME).find()
    assert (found.size, found.version, found.ranges) == (SIZE, '"1"', True)
    storage.ranges = False
    found = Web(storage.url + NAME).find()
    assert (found.size, found.ranges) == (SIZE, False)
