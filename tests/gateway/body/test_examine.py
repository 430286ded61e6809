import json

import pytest

from app.errors import RequestError
from app.gateway.body.examine import CHEAP, FEW, MOST, MOST_SURROGATES, SMALL, examine, quick
from app.telemetry.samples import Several


def examined(**fields):
    return examine(json.dumps(fields).encode(), allow_remote=False)


def test_what_the_app_has_to_know():
    found = examined(model="m", stream=True, prompt=["a", "b"], n=3)
    assert (found.model, found.streams, found.several) == ("m", True, Several(2, 3))
    assert found.repaired is None


@pytest.mark.parametrize("wrong", [1, "true", None, False])
def test_a_body_asks_for_a_stream_only_by_true(wrong):
    assert not examined(stream=wrong).streams


def test_a_repaired_body_takes_the_place_of_the_other():
    found = examine(b'\xef\xbb\xbf{"model":"a\\ud83d"}', allow_remote=False)
    assert found.repaired == b'{"model":"a\\ufffd"}' and found.model == "a\ufffd"


def test_remote_media_are_refused_unless_they_are_allowed():
    body = b'{"url":"http://h"}'
    with pytest.raises(RequestError):
        examine(body, allow_remote=False)
    examine(body, allow_remote=True)


def test_the_media_of_a_large_body_are_counted():
    data = "A" * SMALL
    parts = [{"image_url": {"url": data}}, {"source": {"data": data}}, {"text": data}]
    found = examined(messages=[{"content": parts}], prompt={"multimodal_data": [data]})
    assert found.media == 3 * SMALL


@pytest.mark.parametrize(
    "many",
    [
        b'{"a":[' + b"[]," * (MOST // 2 + 1) + b"0]}",
        b'{"a":"' + b"\\ud83d" * (MOST_SURROGATES + 1) + b'"}',
    ],
    ids=["values", "surrogates"],
)
def test_the_number_of_what_takes_time_has_a_bound(many):
    with pytest.raises(RequestError) as raised:
        examine(many, allow_remote=False)
    assert raised.value.status == 413


def test_a_body_is_quick_where_it_is_small_and_has_few_values():
    assert quick([b"a" * SMALL])
    assert not quick([b"a" * (SMALL + 1)])
    assert not quick([b"a", b"a"])
    many_escapes = (b"\\n", CHEAP * (FEW + 1) - 1), (b"\\ud83d", FEW)
    for sign, many in ((b",", FEW), (b"[", FEW), (b"{", FEW // 2), *many_escapes):
        assert quick([sign * many])
        assert not quick([sign * (many + 1)])
