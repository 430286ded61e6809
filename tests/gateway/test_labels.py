import pytest

from app.gateway.headers import request_headers
from app.gateway.labels import LONGEST, PROJECT, label


@pytest.mark.parametrize(
    "values, expected",
    [
        ([b" team one "], "team one"),
        ([], ""),
        ([b"a", b"b"], ""),
        ([b"a\x1b[31m"], ""),
        ([b"x" * 1000], "x" * LONGEST),
        (["Größe".encode()], "Größe"),
    ],
)
def test_a_label_is_one_short_line(values, expected):
    assert label([(PROJECT, value) for value in values], PROJECT) == expected


def test_llama_server_gets_no_label():
    assert request_headers([(b"project", b"p"), (b"session", b"s")]) == []
