import pytest

from app.task.served import Served, command, read, standing


def task(standing="in_progress", *, tags=(), runtime=None, **properties):
    entries = {name: {"value": value} for name, value in properties.items()}
    said = {"status_reason": "", "status_message": ""}
    hyperparams = {"properties": entries}
    rest = {"system_tags": list(tags), "runtime": runtime or {}, "hyperparams": hyperparams}
    return {"id": "t", "name": "n", "status": standing, **said, **rest}


def test_an_instance_as_user_properties_tell_it():
    """They are escaped for ClearML's dashboard."""
    runtime = {"_api_key": "a-secret"}
    found = read(task(status="active", endpoint="http://h:1", curl="a &lt; b", runtime=runtime))
    assert (found.endpoint, found.curl, found.key) == ("http://h:1", "a < b", "a-secret")
    assert found.serves and not found.over and "a-secret" not in repr(found)


def test_runtime_properties_tell_it_first():
    """The server clears them when a task is reset or cloned."""
    runtime = {"llamacpp_endpoint": "http://new", "llamacpp_status": "idle"}
    found = read(task(endpoint="http://old", runtime=runtime))
    assert found.endpoint == "http://new" and found.state == "idle"


def test_a_route_is_where_the_gateway_says():
    tags = ["external_service"]
    found = read(task(endpoint="http://own", tags=tags, runtime={"endpoint": "http://gw/x/"}))
    assert found.routed and found.endpoint == "http://gw/x"
    found = read(task(endpoint="http://own", tags=tags))
    assert not found.reachable and standing(found) == "waits for an address of the App Gateway"


def test_a_task_that_has_nothing_yet():
    found = read({"id": "t"})
    assert not found.reachable and found.over  # of no status that we know


@pytest.mark.parametrize(
    "status, reason, expected",
    [
        ("queued", "", "queued"),
        ("failed", "worker: no room", "failed: no room"),
        ("stopped", "", "stopped"),
    ],
)
def test_how_it_stands(status, reason, expected):
    assert standing(read({**task(status), "status_reason": reason})) == expected


def test_what_is_left_of_an_earlier_run_is_not_taken_for_this_one():
    assert standing(Served("t", "n", "in_progress", state="stopped")) == "an agent prepares it"


def test_without_a_key_the_command_keeps_its_placeholder():
    assert command(Served("t", "n", "x", curl="curl \\\n -H YOUR_API_KEY")) == (
        "curl -H YOUR_API_KEY"
    )
    assert command(Served("t", "n", "x")) == ""
