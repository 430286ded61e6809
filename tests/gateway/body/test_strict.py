import json

import pytest

from app.errors import RequestError
from app.gateway.body.strict import DEEPEST, parse, repair


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b'{"a": NaN}', b'{"a": Infinity}', b"\xff\xfe{}", b"{}{}", b"[]", b'"a"'],
)
def test_what_is_no_json_object(body):
    with pytest.raises(RequestError) as raised:
        parse(body)
    assert raised.value.status == 400


def test_utf16_is_not_guessed():
    with pytest.raises(RequestError):
        parse('{"model": "a"}'.encode("utf-16"))


@pytest.mark.parametrize(
    "number", ["1e999", "-1e999", "9" * 309 + ".5", "9" * 309, "-" + "9" * 5000]
)
def test_a_number_that_is_not_finite_is_refused(number):
    with pytest.raises(RequestError, match="number is too large"):
        parse(b'{"seed": [%b]}' % number.encode())


@pytest.mark.parametrize("number", [1, -1, 0.5, 1e308, 10**300, -(10**307), 2**64])
def test_other_numbers_stay_what_they_are(number):
    assert parse(json.dumps({"seed": number}).encode()) == {"seed": number}


def nested(depth):
    return b'{"a":' * depth + b"1" + b"}" * depth


def test_nesting_has_a_bound():
    parse(nested(DEEPEST))
    for depth in (DEEPEST + 1, 200_000):
        with pytest.raises(RequestError, match="nested"):
            parse(nested(depth))


@pytest.mark.parametrize(
    "sent, kept",
    [
        (r"a\ud83d", r"a\ufffd"),
        (r"\uDE00b", r"\ufffdb"),
        (r"\ud83d\ud83d\ude00", r"\ufffd\ud83d\ude00"),
        (r"\ud83d\ude00\ude00", r"\ud83d\ude00\ufffd"),
        (r"\\\ud83d", r"\\\ufffd"),
        (r"\n\uD83D\n", r"\n\ufffd\n"),
        (r"\ud83d\u0041", r"\ufffd\u0041"),
        (r"\\ud83d", r"\\ud83d"),
        (r"\\\\ud83d", r"\\\\ud83d"),
        (r"\ud83d\ude00", r"\ud83d\ude00"),
        (r"\ud7ff\ue000", r"\ud7ff\ue000"),
        (r"\"\\", r"\"\\"),
    ],
)
def test_half_an_emoji_becomes_the_replacement_character(sent, kept):
    body = repair(b'{"prompt":"%b"}' % sent.encode())
    assert body == b'{"prompt":"%b"}' % kept.encode()
    parse(body)["prompt"].encode()


def test_a_byte_order_mark_is_skipped():
    assert repair(b'\xef\xbb\xbf{"a":1}') == b'{"a":1}'


def test_a_body_without_fault_is_not_copied():
    body = rb'{"prompt":"\u00e9 \\ \n"}'
    assert repair(body) is body
