import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import RequestError
from app.gateway.body.examine import FEW, SMALL, examine, examine_outline
from app.gateway.body.media import NEVER_MEDIA, media_in, media_size
from app.gateway.body.outline import BEGINNING, LONG, SCHEME, SIZE, SLICE, STRINGS, Outline
from app.gateway.body.strict import parse

URL = "http://h/x.png"
TEXT = 'word \\n\\"\\\\ \\u00e9 \\ud83d\\ude00 é ' * LONG  # escapes as they are sent


def outlined(raw, cuts=()):
    outline, begin = Outline(), 0
    for cut in [*sorted(cuts), len(raw)]:
        outline.feed(raw[begin:cut])
        begin = cut
    return outline.end()


def by_outline(raw, cuts=(), *, allow_remote=False):
    """What the outline says, as of a large body, whose media are counted."""
    found = outlined(raw, cuts)
    return found and examine_outline(found, SMALL + 1, allow_remote=allow_remote)


def by_whole(raw, *, allow_remote=False):
    """The same of the body as a whole; None if it is refused."""
    try:
        found = examine(raw, allow_remote=allow_remote)
    except RequestError:
        return None
    repaired = None if found.repaired == raw else found.repaired
    media = media_size(media_in(parse(repaired or raw)), {})
    return replace(found, media=media, repaired=repaired)


def long_text(text, padding="x"):
    return text + padding * (LONG + 1)


# Fragments of JSON, which is valid or not.
CHARACTERS = st.sampled_from([*'"\\ux/{}[]:, \n\t\r\x00\x1f\x7f0aé\u4e2d😀\ud83d\ude00'])
TAILS = st.sampled_from(
    ["", "x" * (LONG - 3), "x" * (LONG + 1), "\n" * LONG, " " * LONG, "é" * 400]
)
TEXTS = st.builds(
    lambda begin, tail, end: begin + tail + end,
    st.sampled_from(["", URL, f" {URL}", " " * 125 + URL, "FILE:/x", "data:", "\x85", "\ud83d"]),
    TAILS,
    st.text(CHARACTERS, max_size=3),
)
KEYS = st.one_of(
    st.sampled_from(["url", "data", "image_url", "file", "content", "input", "type", "model"]),
    st.sampled_from(["stream", "n", "prompt", "multimodal_data", *NEVER_MEDIA]),
    st.builds(lambda pad, end: "k" * pad + end, st.sampled_from([LONG, 300]), TEXTS),
)
VALUES = st.recursive(
    st.one_of(TEXTS, st.booleans(), st.none(), st.integers(), st.just("tool_use")),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=12,
)
BODIES = st.builds(
    lambda fields, plain: json.dumps(fields, ensure_ascii=plain).encode("utf-8", "surrogatepass"),
    st.dictionaries(KEYS, VALUES, max_size=5),
    st.booleans(),
)
CUTS = st.lists(st.integers(0, 2000), max_size=6)
HOSTILE = [
    b'"',
    b"\\",
    b"\\ud83d",
    b"\\u12",
    b"\x00",
    b"\xff",
    b"\xc3",
    b",",
    b"}",
    b"1e999",
    b"NaN",
]
HOSTILE += [
    b"\xef\xbb\xbf",
    b"\xed\xa0\xbd",
    b"/*",
    b'"url":"http://h",',
    b'"a":1,"a":2,',
    b"[" * 300,
]


@given(BODIES, CUTS)
def test_what_an_outline_says_is_what_the_whole_body_says(raw, cuts):
    found = by_outline(raw, [cut for cut in cuts if cut <= len(raw)])
    assert found is None or found == by_whole(raw)


@given(BODIES, CUTS, st.integers(0, 2000), st.sampled_from(HOSTILE), st.integers(0, 3))
def test_a_broken_body_passes_by_no_outline_that_the_whole_would_not(raw, cuts, at, bad, gone):
    broken = raw[:at] + bad + raw[at + gone :]
    found = by_outline(broken, [cut for cut in cuts if cut <= len(broken)])
    assert found is None or found == by_whole(broken)


PLAIN = {
    "a text": b'{"model":"m","stream":true,"prompt":"%b"}' % TEXT.encode(),
    "a picture": b'{"messages":[{"content":[{"image_url":{"url":"data:%b"}}]}]}' % (b"A" * SLICE),
    "an escape at the end": b'{"a":"%b\\n"}' % (b"x" * LONG),
    "texts": json.dumps({"input": [long_text("a"), "b", long_text("c", "é")], "n": 2}).encode(),
    "a URL in a text": json.dumps({"content": long_text(URL)}).encode(),
    "a URL of a tool": json.dumps({"tools": [{"url": long_text(URL)}]}).encode(),
    "a twin of a stand-in": json.dumps({"data": ["a" * LONG, long_text("a"), "\x7f"]}).encode(),
}


@pytest.mark.parametrize("raw", PLAIN.values(), ids=PLAIN)
def test_a_body_of_few_values_has_an_outline_wherever_it_is_cut(raw):
    whole = by_whole(raw)
    assert whole is not None and by_outline(raw) == whole
    for cut in range(1, min(len(raw), 2 * LONG)):
        assert by_outline(raw, [cut]) == whole, cut


def test_the_size_of_media_is_that_of_the_whole_strings():
    parts = [{"url": "A" * size} for size in (LONG, LONG + 1, 3 * SLICE)]
    raw = json.dumps({"content": parts, "data": long_text("é")}, ensure_ascii=False).encode()
    assert by_outline(raw).media == LONG + LONG + 1 + 3 * SLICE


def remote(key, text):
    return json.dumps({"messages": [{"content": [{key: text}]}]}).encode()


REFUSED = {
    "a long URL": remote("url", long_text(URL)),
    "after a blank": remote("image_url", long_text("\u3000\n " + URL)),
    "after many blanks": remote("url", " " * BEGINNING + URL + "x" * LONG),
    "its scheme after the beginning": remote(
        "url", " " * (BEGINNING - SCHEME + 1) + long_text(URL)
    ),
    "in escapes": remote("url", "U").replace(b"U", b"\\u0068\\u0074\\u0074p:\\/\\/h" + b"x" * LONG),
    "a long key": remote("a" * LONG + "_url", URL),
    "two long keys with one beginning": b'{"a":{"%bx":{"url":"%b"},"%by":1}}'
    % (b"k" * LONG, URL.encode(), b"k" * LONG),
    "a list": remote("data", ["a", long_text(URL)]),
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
def test_remote_media_are_refused_in_long_strings_too(raw):
    assert by_whole(raw) is None
    for cut in range(0, len(raw), 7):
        assert by_outline(raw, [cut]) is None, cut
    assert by_outline(raw, allow_remote=True) in (None, by_whole(raw, allow_remote=True))


NONE = {
    "half an emoji": b'{"a":"%b\\ud83d"}' % (b"x" * LONG),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "a control character": b'{"a":"%b\n"}' % (b"x" * LONG),
    "no UTF-8": b'{"a":"%b\xff"}' % (b"x" * LONG),
    "a half character": b'{"a":1}\xc3',
    "an unknown escape": b'{"a":"%b\\x41"}' % (b"x" * LONG),
    "no end": b'{"a":"%b' % (b"x" * LONG),
    "an escape's beginning": b'{"a":"%b\\' % (b"x" * LONG),
    "an escape's beginning after the end": b'{"a":1}\\',
    "a long model": b'{"model":"%b"}' % (b"x" * (LONG + 1)),
    "a long key": b'{"%b" :1}' % (b"x" * (LONG + 1)),
    "1e999": b'{"a":"%b","b":1e999}' % (b"x" * LONG),
    "nested deeply": b'{"a":%b%b}' % (b"[" * 256, b"]" * 256),
    "many strings": b'{"a":[%b""]}' % (b'"",' * STRINGS),
    "much beside strings": b'{"a":%b1}' % (b" " * SIZE),
    "many values": b'{"a":[%b0]}' % (b"0," * FEW),
}


@pytest.mark.parametrize("raw", NONE.values(), ids=NONE)
def test_what_has_no_outline(raw):
    assert by_outline(raw) is None
