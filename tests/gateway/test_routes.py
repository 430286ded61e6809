import pytest

from app.errors import RequestError
from app.gateway.routes import MODEL, MODELS, Own, ToModel, named_in_body, route

NAMES = {"tiny": "tiny", "gpt-4o": "tiny", "org/repo/m.gguf": "org/repo/m.gguf"}


@pytest.mark.parametrize(
    "target, expected",
    [
        ("/v1/chat/completions", ToModel(None, "/v1/chat/completions", False)),
        ("/tiny/v1/chat/completions", ToModel("tiny", "/v1/chat/completions", False)),
        ("/tiny/completion", ToModel("tiny", "/completion", False)),
        ("/org/repo/m.gguf/v1/embeddings", ToModel("org/repo/m.gguf", "/v1/embeddings", False)),
        ("/org%2Frepo%2Fm.gguf/v1/rerank", ToModel("org/repo/m.gguf", "/v1/rerank", False)),
        ("/%74iny/v1/completions", ToModel("tiny", "/v1/completions", False)),
        ("/tiny/v1/messages?beta=true", ToModel("tiny", "/v1/messages?beta=true", False)),
        ("/service/0123abcd/v1/completions", ToModel(None, "/v1/completions", False)),
        ("/service/0123abcd/tiny/v1/responses", ToModel("tiny", "/v1/responses", False)),
        ("/gate/way/tiny/tokenize", ToModel("tiny", "/tokenize", False)),
        ("http://host:1/tiny/infill", ToModel("tiny", "/infill", False)),
        ("/chat/completions/input_tokens", ToModel(None, "/chat/completions/input_tokens", False)),
        ("/tiny/responses/input_tokens", ToModel("tiny", "/responses/input_tokens", False)),
        ("/tiny/v1/audio/transcriptions", ToModel("tiny", "/v1/audio/transcriptions", True)),
        ("/gpt-4o/v1/chat/completions", ToModel("tiny", "/v1/chat/completions", False)),
    ],
)
def test_to_a_model(target, expected):
    assert route("POST", target, NAMES, ("/gate/way",)) == expected


@pytest.mark.parametrize(
    "target, expected",
    [
        ("/health", Own("/health")),
        ("/service/abc/ready", Own("/ready")),
        ("/api/status", Own("/api/status")),
        ("/api/history", Own("/api/history")),
        ("/v1/models", Own(MODELS)),
        ("/models?x=1", Own(MODELS)),
        ("/tiny/v1/models", Own(MODELS, "tiny")),
        ("/v1/models/tiny", Own(MODEL, "tiny")),
        ("/v1/models/org%2Frepo%2Fm.gguf", Own(MODEL, "org/repo/m.gguf")),
        ("/tiny/v1/models/tiny", Own(MODEL, "tiny")),
        ("/service/abc/tiny/models/tiny", Own(MODEL, "tiny")),
        ("/org/repo/m.gguf/v1/models/org/repo/m.gguf", Own(MODEL, "org/repo/m.gguf")),
        ("/tiny/health", Own("/health", "tiny")),
        ("/gpt-4o/health", Own("/health", "tiny")),
        ("/gpt-4o/v1/models", Own(MODELS, "tiny")),
        ("/v1/models/gpt-4o", Own(MODEL, "gpt-4o")),
        ("/tiny/v1/models/gpt-4o", Own(MODEL, "gpt-4o")),
        ("/gpt-4o/v1/models/tiny", Own(MODEL, "tiny")),
        ("/", Own("/")),
        ("/?theme=dark", Own("/")),
        ("/service/abc", Own("/")),
        ("/service/abc/", Own("/")),
        ("/gate/way", Own("/")),
        ("/gate/way/api/events", Own("/api/events")),
        ("/service/abc/metrics", Own("/metrics")),
    ],
)
def test_to_a_page_of_ours(target, expected):
    prefixes = ("/gate/way",)
    assert route("GET", target, NAMES, prefixes) == expected
    assert route("HEAD", target, NAMES, prefixes) == expected
    with pytest.raises(RequestError) as raised:
        route("POST", target, NAMES, prefixes)
    assert raised.value.status == 405


@pytest.mark.parametrize(
    "method, target, status",
    [
        ("POST", "/other/v1/completions", 404),
        ("POST", "/tiny/x/v1/completions", 404),
        ("POST", "/Tiny/v1/completions", 404),
        ("POST", "/tiny/../tiny/v1/completions", 404),
        ("POST", "//v1/completionss", 404),
        ("POST", "/slots/0?action=erase", 404),
        ("GET", "/tiny/slots", 404),
        ("GET", "/props", 404),
        ("POST", "/models/load", 404),
        ("POST", "/tools", 404),
        ("GET", "/v1/models/other", 404),
        ("GET", "/tiny/v1/models/other", 404),
        ("GET", "/tiny/v1/models/org/repo/m.gguf", 404),
        ("GET", "/org/repo/m.gguf/v1/models/gpt-4o", 404),
        ("OPTIONS", "/other/v1/completions", 404),
        ("OPTIONS", "/none", 404),
        ("GET", "/service", 404),
        ("GET", "/tiny/v1/chat/completions", 405),
        ("POST", "/%ff/v1/completions", 400),
        ("POST", "tiny", 400),
        ("POST", "*", 400),
    ],
)
def test_refused(method, target, status):
    with pytest.raises(RequestError) as raised:
        route(method, target, NAMES)
    assert raised.value.status == status


@pytest.mark.parametrize(
    "method, target, allowed",
    [
        ("POST", "/api/status", b"GET, HEAD, OPTIONS"),
        ("DELETE", "/v1/models/tiny", b"GET, HEAD, OPTIONS"),
        ("PUT", "/api/models/tiny/load", b"POST, OPTIONS"),
        ("GET", "/v1/chat/completions", b"POST, OPTIONS"),
    ],
)
def test_a_path_names_the_methods_that_it_answers(method, target, allowed):
    with pytest.raises(RequestError, match="answers") as raised:
        route(method, target, NAMES)
    assert raised.value.status == 405 and raised.value.headers == ((b"allow", allowed),)


@pytest.mark.parametrize(
    "target, allowed",
    [
        ("/api/status", b"GET, HEAD, OPTIONS"),
        ("/tiny/v1/models", b"GET, HEAD, OPTIONS"),
        ("/api/models/tiny/load", b"POST, OPTIONS"),
        ("/tiny/v1/chat/completions", b"POST, OPTIONS"),
        ("*", b"GET, HEAD, POST, OPTIONS"),
    ],
)
def test_options_are_told(target, allowed):
    assert route("OPTIONS", target, NAMES).headers() == [(b"allow", allowed)]


def test_an_action_by_an_alias_is_one_on_its_model():
    found = route("POST", "/api/models/gpt-4o/load", NAMES)
    assert found == route("POST", "/api/models/tiny/load", NAMES)


def test_an_unknown_model_is_told_which_there_are():
    with pytest.raises(RequestError, match="there are: tiny, gpt-4o, org/repo/m.gguf"):
        route("POST", "/other/v1/completions", NAMES)


@pytest.mark.parametrize(
    "body, names, expected",
    [
        ({"model": "tiny"}, NAMES, "tiny"),
        ({"model": "gpt-4o"}, NAMES, "tiny"),
        ({}, {"tiny": "tiny", "gpt-4o": "tiny"}, "tiny"),
        ({}, {"tiny": "tiny"}, "tiny"),
        ({"model": None}, {"tiny": "tiny"}, "tiny"),
        ({"model": ""}, {"tiny": "tiny"}, "tiny"),
        ({}, NAMES, 400),
        ({"model": "gpt"}, {"tiny": "tiny"}, 404),
        ({"model": 1}, {"tiny": "tiny"}, 400),
        ({"model": ["tiny"]}, {"tiny": "tiny"}, 400),
    ],
)
def test_the_body_names_the_model(body, names, expected):
    if isinstance(expected, str):
        assert named_in_body(body, names) == expected
        return
    with pytest.raises(RequestError) as raised:
        named_in_body(body, names)
    assert raised.value.status == expected


def test_a_long_name_is_not_told_back_whole():
    with pytest.raises(RequestError) as raised:
        named_in_body({"model": "n" * 1_000_000}, NAMES)
    assert raised.value.status == 404 and len(raised.value.message) < 1000
