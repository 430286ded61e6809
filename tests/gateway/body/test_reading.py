from app.gateway.body.reading import Body, read_json


def test_what_is_repaired_is_what_is_passed_on():
    body = read_json(b'\xef\xbb\xbf{"prompt":"a\\ud83d","stream":true}')
    assert body.raw == b'{"prompt":"a\\ufffd","stream":true}'
    assert body.fields["prompt"] == "a\ufffd" and body.streams


def test_a_body_asks_for_a_stream_only_by_true():
    assert Body(b"", {"stream": True}).streams
    assert not any(Body(b"", {"stream": wrong}).streams for wrong in (1, "true", None))
