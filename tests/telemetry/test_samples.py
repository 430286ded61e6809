import json

import pytest

from app.engine.passage import Passage
from app.gateway.body.asked import asked as asked_of
from app.telemetry.samples import HEAD, TAIL, Ends, Tokens, Whole
from tests.telemetry.examples import sample

TIMINGS = b'"timings":{"cache_n":18,"prompt_n":1,"prompt_ms":0.4,"predicted_n":3}'
USAGE = (
    b'"usage":{"completion_tokens":3,"prompt_tokens":19,"total_tokens":22,'
    b'"prompt_tokens_details":{"cached_tokens":18}}'
)
ANTHROPIC = (
    b'data: {"type":"message_start","message":{"usage":{"input_tokens":2,'
    b'"cache_read_input_tokens":17,"output_tokens":0}}}\n\n' + b"x" * 10_000 + b"\n\n"
    b'data: {"type":"message_delta","usage":{"output_tokens":5}}\n\n'
)


def tokens(body, step=7):
    ends = Ends()
    for start in range(0, len(body), step):
        ends.feed(body[start : start + step])
    return ends.tokens()


class Wire:
    """A client's transport."""

    def is_closing(self):
        return False

    def write(self, data): ...


def test_what_passes_by_counts_as_what_is_fed_does():
    events = [b"data: %d\n\n" % number for number in range(99)]
    events += [b"data: {" + TIMINGS + b"}\n\n", b"data: [DONE]\n\n"]
    fed, ends = Ends(), Ends()
    ends.passage = Passage(Wire())
    for number, event in enumerate(events):
        fed.feed(event)
        if number in (0, 41, 42):
            ends.feed(event)
        else:
            assert ends.passage.takes(b"%x\r\n%b\r\n" % (len(event), event))
    assert (ends.size, ends.tokens()) == (fed.size, Tokens(19, 18, 3))
    assert ends.tail == b"".join([events[0], *events[37:43], *events[-4:]])
    more = b"data: more\n\n"
    assert ends.passage.takes(b"%x\r\n%b\r\n" % (len(more), more))
    assert ends.tail.endswith(b"[DONE]\n\n" + more)


@pytest.mark.parametrize(
    "body, expected",
    [
        pytest.param(
            b'{"choices":[],' + USAGE + b"," + TIMINGS + b"}", Tokens(19, 18, 3), id="chat"
        ),
        pytest.param(b'{"choices":[],' + USAGE + b"}", Tokens(19, 18, 3), id="usage-only"),
        pytest.param(
            b"data: {" + TIMINGS + b"}\n\ndata: [DONE]\n\n", Tokens(19, 18, 3), id="stream"
        ),
        pytest.param(
            b'{"object":"list","usage":{"prompt_tokens":4,"total_tokens":4},"data":['
            + b"0.1," * 9000
            + b"1]}",
            Tokens(4, 0, 0),
            id="embeddings",
        ),
        pytest.param(ANTHROPIC, Tokens(19, 17, 5), id="messages"),
        pytest.param(ANTHROPIC.replace(b"x", b""), Tokens(19, 17, 5), id="messages, a short one"),
        pytest.param(
            b'{"usage":{"cache_read_input_tokens":39,"input_tokens":1,"output_tokens":3}}',
            Tokens(40, 39, 3),
            id="messages-whole",
        ),
        pytest.param(
            b'{"usage":{"input_tokens":9,"output_tokens":3,'
            b'"input_tokens_details":{"cached_tokens":8}}}',
            Tokens(9, 8, 3),
            id="responses",
        ),
        pytest.param(b"", Tokens(), id="nothing"),
        pytest.param(b'{"error":{"code":500}}', Tokens(), id="error"),
        pytest.param(b'"timings":{"cache_n":18,"prompt_', Tokens(), id="cut"),
        pytest.param(b'"usage":"none"', Tokens(), id="not-an-object"),
    ],
)
def test_tokens(body, expected):
    assert tokens(body) == expected
    assert tokens(body, step=100_000) == expected


def test_a_models_words_are_not_taken_for_a_count():
    said = json.dumps({"content": '"usage":{"prompt_tokens":99,"completion_tokens":99}'}).encode()
    assert tokens(said) == Tokens()


def test_only_the_ends_are_kept():
    ends = Ends()
    for _ in range(1000):
        ends.feed(b"x" * 1000)
    assert len(ends._head) == HEAD
    assert ends._size < TAIL + 1000


def choices(*said):
    told = [
        {"index": n, "finish_reason": end, "message": {"content": text}}
        for n, (end, text) in enumerate(said)
    ]
    return json.dumps({"choices": told})[:-1].encode() + b"," + USAGE + b"," + TIMINGS + b"}"


def streamed(*counts):
    made = [
        b'data: {"timings":{"cache_n":%d,"prompt_n":%d,"predicted_n":%d}}\n\n' % count
        for count in counts
    ]
    return (b"data: {}\n\n" * 4000).join(made) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "asked, body, expected",
    [
        pytest.param(
            {"n": 3},
            choices(("length", "a b c"), ("length", "x y z"), ("length", "")),
            Tokens(19, 18, 9),
            id="all-of-them-at-the-limit",
        ),
        pytest.param(
            {"n": 2},
            choices(("length", "123456"), ("stop", "1234")),
            Tokens(19, 18, 5),
            id="one-shorter",
        ),
        pytest.param(
            {"n": 3},
            streamed((0, 19, 5), (18, 1, 4), (18, 1, 2)),
            Tokens(19, 0, 11),
            id="a-stream-tells-of-each",
        ),
        pytest.param(
            {"prompt": ["a", "b"]},
            streamed((0, 19, 5), (10, 1, 4)),
            Tokens(30, 10, 9),
            id="several-prompts",
        ),
        pytest.param(
            {"prompt": [[1, 2], [3]]},
            choices(("length", "a"), ("length", "b")),
            Tokens(38, 36, 6),
            id="several-prompts-whole",
        ),
        pytest.param(
            {"n": 2}, b'{"error":{"code":400}}', Tokens(), id="an-error-is-not-multiplied"
        ),
    ],
)
def test_several_choices(asked, body, expected):
    found = Whole(asked_of(asked).several)
    for start in range(0, len(body), 1000):
        found.feed(body[start : start + 1000])
    assert found.tokens() == expected and found.size == len(body)


def test_several_answers_come_side_by_side():
    """Their tokens are counted together, and tell nothing of how long one takes."""
    stream = {"latency": 2.1, "first_token": 0.1, "tokens": Tokens(generated=401)}
    assert sample(**stream).per_token == 0.005
    assert sample(**stream, answers=4).per_token is None
