from app.gateway.headers import request_headers, response_headers

JSON, ANY = (b"content-type", b"application/json"), (b"accept", b"*/*")


def test_the_child_gets_content_type_and_accept_and_nothing_else():
    others = b"range content-encoding x-conversation-id cookie user-agent x-api-key te host"
    given = [(name, b"1") for name in others.split()]
    assert request_headers([*given, JSON, *given, ANY]) == [JSON, ANY]
    assert request_headers(given) == []


def test_many_headers_become_few():
    assert request_headers([JSON, *[ANY] * 3]) == [JSON, (b"accept", b"*/*, */*, */*")]
    assert request_headers([ANY] * 2000) == []
    assert request_headers([JSON, (b"content-type", b"text/plain")]) == [JSON]


def test_a_value_longer_than_llama_server_takes_stays_here():
    assert request_headers([JSON, (b"accept", b"a" * 4097)]) == [JSON]


def test_headers_of_an_answer_that_end_here():
    headers = [(b"connection", b"x-a, X-B"), (b"x-a", b"1"), (b"x-b", b"2"), (b"x-c", b"3")]
    assert response_headers(
        [*headers, (b"access-control-allow-origin", b"*"), (b"server", b"s"), (b"date", b"d")]
    ) == [(b"x-c", b"3")]
