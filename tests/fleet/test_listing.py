import pytest

from app.fleet.listing import LIVING, read, seconds

NOW = 1_800_000_000.0
STAMP = "2027-01-15T08:00:00.000000+00:00"  # NOW


def task(**changes):
    found = {
        "id": "t1",
        "name": "chat",
        "status": "in_progress",
        "created": STAMP,
        "last_update": STAMP,
        "runtime": {"llamacpp_route": "t1 chat", "llamacpp_address": "http://10.0.0.7:8080"},
        "hyperparams": {"General": {"gateway_route": {"value": "chat"}}},
    }
    for name, value in changes.items():
        found[name] = {**found[name], **value} if isinstance(value, dict) else value
    return found


def test_an_instance_of_a_route():
    (found,) = read([task()], NOW)
    assert (found.task, found.route, found.host, found.port) == ("t1", "chat", "10.0.0.7", 8080)
    assert found.serves and found.created == NOW


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"runtime": {"llamacpp_route": "t0 chat"}}, id="copied from another task"),
        pytest.param({"runtime": {"llamacpp_route": ""}}, id="of no route"),
        pytest.param({"hyperparams": {"General": {}}}, id="its form names no route any more"),
        pytest.param({"status": "stopped"}, id="it has ended"),
        pytest.param({"status": "created"}, id="a draft"),
    ],
)
def test_what_does_not_count(changes):
    assert read([task(**changes)], NOW) == []


@pytest.mark.parametrize(
    "address",
    [
        "",
        "https://a:1",
        "ftp://a",
        "http://",
        "http://a:99999",
        "http://[::1",
        "file:///etc",
        "a:1",
    ],
)
def test_an_address_that_is_none(address):
    (found,) = read([task(runtime={"llamacpp_address": address})], NOW)
    assert not found.serves


@pytest.mark.parametrize("key", ["k\r\nX: y", "k\nPOST / HTTP/1.1", "two words", "\u20ac", "k\0"])
def test_a_key_writes_no_line_of_a_request(key):
    (found,) = read([task(runtime={"_api_key": key})], NOW)
    assert found.key == "" and found.serves
    assert read([task(runtime={"_api_key": "a-Key_9"})], NOW)[0].key == "a-Key_9"


def test_one_in_the_queue_is_to_come_however_long_it_waits():
    (found,) = read([task(status="queued", last_update="2026-01-01T00:00:00")], NOW)
    assert not found.serves and found.fresh


@pytest.mark.parametrize(
    ("stamp", "told"),
    [
        (STAMP, NOW),
        ("2027-01-15T08:00:00", NOW),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T10:00:00+02:00", NOW),
        ("yesterday", 5.0),
        (None, 5.0),
    ],
)
def test_stamps(stamp, told):
    assert seconds(stamp, 5.0) == told


def test_an_outage_of_the_server_does_not_count_as_silence():
    later = NOW + 1000
    outage = (NOW + 100, later - 10)
    for outages, fresh in (((), False), ([outage], True), ([(NOW - 900, NOW)], False)):
        assert [each.fresh for each in read([task()], later, outages)] == [fresh]
    assert [each.fresh for each in read([task()], later + 100, [outage])] == [False]


def test_a_sign_of_life_lasts():
    assert [each.fresh for each in read([task()], NOW + LIVING - 1)] == [True]
    assert [each.fresh for each in read([task()], NOW + LIVING + 1)] == [False]
