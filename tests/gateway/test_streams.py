import json

import pytest

from app.gateway.streams import EVENT_END, Messages, Opening, Plain, stream_of

MISSING = {"created_at": 7, "model": "tiny", "output": []}


def event(name, **data):
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


FIRST = {"id": "resp_1", "object": "response", "status": "in_progress"}
CREATED = event("response.created", response=FIRST)
BEGUN = event("response.in_progress", response=FIRST)
ADDED = event("response.output_item.added", item={})
LATER = event("response.in_progress", response=FIRST)
STREAM = CREATED + b": ping\n\n" + BEGUN + BEGUN + ADDED + LATER


def fed(stream, pieces):
    return b"".join(map(stream.feed, pieces)) + stream.rest()


def test_only_the_first_events_of_a_response_are_filled_in():
    told = fed(Opening("tiny", 7), [STREAM]).split(EVENT_END)
    assert told[1] == b": ping" and told[-3:] == [ADDED[:-2], LATER[:-2], b""]
    for position, name in (0, "created"), (2, "in_progress"), (3, "in_progress"):
        head, data = told[position].split(b"\ndata: ")
        assert head == f"event: response.{name}".encode()
        assert json.loads(data)["response"] == MISSING | FIRST


def test_where_the_stream_is_cut_does_not_matter():
    whole = fed(Opening("tiny", 7), [STREAM])
    assert fed(Opening("tiny", 7), [bytes([byte]) for byte in STREAM]) == whole
    for cut in range(len(STREAM)):
        assert fed(Opening("tiny", 7), [STREAM[:cut], STREAM[cut:]]) == whole


def test_an_event_is_told_as_soon_as_it_is_whole():
    opening = Opening("tiny", 7)
    assert opening.feed(CREATED[:-1]) == b""
    assert opening.feed(CREATED[-1:] + BEGUN[:9]).count(EVENT_END) == 1 and not opening.over
    assert opening.feed(BEGUN[9:] + ADDED).endswith(ADDED) and opening.over


def test_what_the_response_has_already_is_kept():
    theirs = event("response.created", response=FIRST | {"model": "theirs", "output": [1]})
    told = fed(Opening("tiny", 7), [theirs])
    response = json.loads(told.split(b"data: ")[1])["response"]
    assert (response["model"], response["output"], response["created_at"]) == ("theirs", [1], 7)


@pytest.mark.parametrize(
    "stream",
    [
        b'data: {"error":{}}\n\n' + CREATED,
        b"event: response.created\ndata: {nope\n\n",
        event("response.created", response=3),
        event("response.created"),
        b"event: response.created\ndata: []\n\n",
        b"no event at all",
        b"x" * 99999 + EVENT_END + CREATED,
        b"",
    ],
)
def test_what_is_not_expected_passes_as_it_is(stream):
    assert fed(Opening("tiny", 7), [stream[:9], stream[9:]]) == stream


def test_an_error_within_messages_has_both_shapes():
    theirs = {"code": 500, "message": "no", "type": "server_error"}
    told = (
        event("message_start") + b"event: error\ndata: " + json.dumps(theirs).encode() + EVENT_END
    )
    before, data = Messages().feed(told).split(b"event: error\ndata: ")
    assert before == event("message_start")
    assert json.loads(data) == {"type": "error", "error": theirs}


@pytest.mark.parametrize("data", [b'{"type":"error","error":{}}', b"{nope", b"3"])
def test_another_event_of_messages_passes_as_it_is(data):
    told = b"event: error\ndata: " + data + EVENT_END
    assert Messages().feed(told) == told
    assert Messages().feed(data) == data


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/v1/responses?a=/v1/messages", Opening),
        ("/responses", Opening),
        ("/v1/messages", Messages),
        ("/v1/responses/input_tokens", Plain),
        ("/v1/chat/completions", Plain),
    ],
)
def test_which_paths_streams_are_changed(path, kind):
    assert type(stream_of(path, "tiny", 7)) is kind


def test_errors_are_told_as_each_kind_of_client_reads_them():
    body = {"error": {"message": "no"}}
    assert Plain().error(body) == b'data: {"error": {"message": "no"}}\n\n'
    name, data = Messages().error(body).split(b"\ndata: ")
    assert name == b"event: error" and json.loads(data) == {"type": "error", **body}
