import json

import pytest

from app.telemetry.samples import HEAD, TAIL, Ends, Tokens

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
