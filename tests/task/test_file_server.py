import pytest

from app.machine import network
from app.task import file_server
from app.task.sdk import ClearMLError


@pytest.mark.parametrize(
    "url, place",
    [
        ("http://files.example:8081/x", ("files.example", 8081)),
        ("http://files.example", ("files.example", 80)),
        ("https://me:secret@files.example", ("files.example", 443)),
    ],
)
def test_a_file_server_is_asked_for_a_connection(monkeypatch, url, place):
    asked = []

    def answers(host, port, timeout):
        asked.append((host, port))
        return len(asked) == 1

    monkeypatch.setattr(network, "answers", answers)
    file_server.check(url)
    with pytest.raises(ClearMLError) as caught:
        file_server.check(url)
    assert asked == [place] * 2
    assert "files.example" in str(caught.value) and "secret" not in str(caught.value)


def test_other_storage_is_not_asked(monkeypatch):
    monkeypatch.setattr(network, "answers", lambda *_: pytest.fail("asked"))
    file_server.check("s3://bucket/folder")
    with pytest.raises(ClearMLError):
        file_server.check("")
