import json

import pytest

from app.gateway.streams import EVENT_END, Messages, Native, OfPrompts, Plain, Responses, stream_of

MESSAGE = b"event: message_start\ndata: {}\n\n"
MISSING = {"created_at": 7, "model": "tiny", "output": []}


def event(name, **data):
    told = json.dumps({"type": f"response.{name}", **data}, separators=(",", ":"))
    return f"event: response.{name}\ndata: {told}\n\n".encode()


FIRST = {"id": "resp_1", "object": "response", "status": "in_progress"}
CREATED, BEGUN = event("created", response=FIRST), event("in_progress", response=FIRST)
DONE = event("completed", response={"id": "resp_1", "output": []})
ITEMS = [  # as llama-server tells of a thought, a text and a call
    event("output_item.added", item={"id": "rs_1", "content": []}),
    event("reasoning_text.delta", delta='"item_id":"x"', item_id="rs_1"),
    event("output_item.added", item={"content": [], "id": "msg_1"}),
    event("content_part.added", item_id="msg_1", part={}),
    event("output_text.delta", item_id="msg_1", delta='"output_index":'),
    event("output_text.delta", item_id="msg_1", delta="b"),
    event("output_item.added", item={"id": "fc_1", "arguments": ""}),
    event("function_call_arguments.delta", delta="{", item_id="fc_1"),
    event("output_item.done", item={"id": "rs_1", "content": [{"text": "x"}]}),
    event("output_text.done", item_id="msg_1", text="a"),
    event("content_part.done", item_id="msg_1", part={}),
    event("output_item.done", item={"type": "message", "id": "msg_1"}),
    event("output_item.done", item={"id": "fc_1"}),
]
PLACES = [0, 0, 1, 1, 1, 1, 2, 2, 0, 1, 1, 1, 2]
STREAM = CREATED + b": ping\n\n" + BEGUN + b"".join(ITEMS) + BEGUN + DONE


def fed(stream, pieces):
    return b"".join(map(stream.feed, pieces)) + stream.rest()


def datas(told):
    return [json.loads(line[6:]) for line in told.split(b"\n") if line.startswith(b"data: ")]


def test_the_first_events_of_a_response_are_filled_in():
    told = fed(Responses("tiny", 7), [STREAM])
    assert b"}\n\n: ping\n\nevent: response.in_progress\n" in told and told.endswith(DONE)
    for data in datas(told):
        if data["type"] in ("response.created", "response.in_progress"):
            assert data["response"] == MISSING | FIRST


def test_the_events_of_items_tell_their_places():
    told = datas(fed(Responses("tiny", 7), [STREAM]))[2:-2]
    assert [data.pop("output_index") for data in told] == PLACES
    with_content = [data["type"] for data in told if data.pop("content_index", None) == 0]
    assert with_content == [
        f"response.{name}"
        for name in (
            "reasoning_text.delta",
            "content_part.added",
            "output_text.delta",
            "output_text.delta",
            "output_text.done",
            "content_part.done",
        )
    ]
    assert told == datas(b"".join(ITEMS))  # and nothing else is changed


def test_where_the_stream_is_cut_does_not_matter():
    whole = fed(Responses("tiny", 7), [STREAM])
    assert fed(Responses("tiny", 7), [bytes([byte]) for byte in STREAM]) == whole
    for cut in range(len(STREAM)):
        assert fed(Responses("tiny", 7), [STREAM[:cut], STREAM[cut:]]) == whole
    events = [event + EVENT_END for event in STREAM.split(EVENT_END)[:-1]]
    assert fed(Responses("tiny", 7), events) == whole
    assert fed(Responses("tiny", 7), [b"", *events, b""]) == whole


def test_an_event_is_told_as_soon_as_it_is_whole():
    stream = Responses("tiny", 7)
    assert stream.feed(CREATED[:-1]) == b""
    assert stream.feed(CREATED[-1:] + BEGUN[:9]).count(EVENT_END) == 1
    assert stream.feed(BEGUN[9:] + DONE).endswith(DONE) and stream.rest() == b""


def test_what_the_stream_has_already_is_kept():
    theirs = event("created", response=FIRST | {"model": "theirs", "output": [1]})
    (data,) = datas(fed(Responses("tiny", 7), [theirs]))
    response = data["response"]
    assert (response["model"], response["output"], response["created_at"]) == ("theirs", [1], 7)
    placed = event("output_text.delta", item_id="msg_1", output_index=5, content_index=6)
    assert fed(Responses("tiny", 7), [placed]) == placed


@pytest.mark.parametrize(
    "stream",
    [
        b'data: {"error":{}}\n\n',
        b"event: response.created\ndata: {nope\n\n",
        b'event: response.created\ndata: {"type":"response.created",nope\n\n',
        event("created", response=3),
        event("created"),
        event("output_text.delta", delta="no item"),
        b"event: response.created\ndata: []\n\n",
        b"no event at all",
        b"\n\n\n\n\n",
        b"",
    ],
)
def test_what_is_not_expected_passes_as_it_is(stream):
    assert fed(Responses("tiny", 7), [stream[:9], stream[9:]]) == stream


def test_an_event_without_end_is_not_kept(monkeypatch):
    monkeypatch.setattr("app.gateway.streams.LONGEST", 100)
    stream = Responses("tiny", 7)
    assert stream.feed(b"x" * 60) == b"" and not stream.over
    assert stream.feed(b"x" * 60) == b"x" * 120 and stream.over


def test_a_door_sees_that_a_response_of_an_instance_is_over():
    """An instance has written its last event anew, because it ended at its limit."""
    instance, door = Responses("tiny", 7), Responses("tiny", 7)
    instance.limit = 5
    last = event("completed", response={"output": [], "usage": {"output_tokens": 5}})
    assert not door.ended(b"")
    told = door.feed(instance.feed(last))
    assert told.startswith(b"event: response.incomplete\n") and door.ended(b"")


@pytest.mark.parametrize("cut", range(1, 60, 4))
def test_the_last_event_of_a_native_answer_may_be_split(cut):
    whole = b'data: {"content":"","stop":true,"timings":{}}\n\n' * 2
    stream = Native(2)
    assert fed(stream, [whole[:cut], whole[cut:]]) == whole and stream.ended(b"")
    stream = Native(3)
    assert fed(stream, [whole[:cut], whole[cut:]]) == whole and not stream.ended(b"")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 11, 13, 1000])
def test_events_that_have_nothing_are_left_out(size):
    event = b'data: {"content":"data: null\\n\\n","stop":false}\n\n'
    nothing, comment = b"data: null\n\n", b": ping\n\n"
    sent = (
        nothing + comment + event + event + nothing + nothing + event + b"data: nul\n\n" + nothing
    )
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    told = comment + event + event + event + b"data: nul\n\n"
    assert fed(Native(2), pieces) == fed(OfPrompts(), pieces) == told
    left = OfPrompts()
    assert left.feed(event + nothing[:-1]) == event and left.rest() == b""


def test_an_error_within_messages_has_both_shapes():
    theirs = {"code": 500, "message": "no", "type": "server_error"}
    told = MESSAGE + b"event: error\ndata: " + json.dumps(theirs).encode() + EVENT_END
    before, data = Messages().feed(told).split(b"event: error\ndata: ")
    assert before == MESSAGE
    assert json.loads(data) == {"type": "error", "error": theirs}


@pytest.mark.parametrize("data", [b'{"type":"error","error":{}}', b"{nope", b"3"])
def test_another_event_of_messages_passes_as_it_is(data):
    told = b"event: error\ndata: " + data + EVENT_END
    assert Messages().feed(told) == told
    assert Messages().feed(data) == data


@pytest.mark.parametrize(
    "path, kind",
    [
        ("/v1/responses?a=/v1/messages", Responses),
        ("/responses", Responses),
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
