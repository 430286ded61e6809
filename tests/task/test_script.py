"""What a task records of its code, with the API's answers written down here."""

import threading
from types import SimpleNamespace

import pytest

from app.errors import ConfigError
from app.task import api, checkout, script


@pytest.fixture
def asked(monkeypatch):
    """The requests, and in their order when the SDK's own detection had ended."""
    found = []
    monkeypatch.setattr(api, "ask", lambda *request: found.append(request))
    monkeypatch.setattr(api, "task", lambda _: {"script": {"diff": "d", "version_num": "c"}})
    return found


def sdk_task(asked):
    detection = threading.Thread(target=lambda: asked.append("detected"))
    detection.start()
    return SimpleNamespace(id="t", _detect_repo_async_thread=detection)


def test_an_agent_runs_the_app_without_the_arguments_of_a_person(asked, monkeypatch, tmp_path):
    monkeypatch.setattr(checkout, "origin", lambda _: "https://host/x.git")
    monkeypatch.setattr(checkout, "lost", lambda *_: [])
    script.record(sdk_task(asked), tmp_path)
    told = {"entry_point": "-m app", "working_dir": ".", "repository": "https://host/x.git"}
    edit = ("tasks", "edit", {"task": "t", "script": told, "force": True})
    assert asked == ["detected", edit]


def test_what_an_agent_would_not_have_is_said_in_one_line(asked, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(checkout, "origin", lambda _: "https://host/x.git")
    monkeypatch.setattr(checkout, "lost", lambda *_: ["one", "two"])
    script.record(sdk_task(asked), tmp_path)
    (line,) = caplog.messages
    assert line == "a clone of this task could not run as this one does: one; two"


def test_a_folder_that_is_no_checkout_is_said(asked, monkeypatch, tmp_path, caplog):
    def none(_):
        raise ConfigError("none")

    monkeypatch.setattr(checkout, "origin", none)
    script.record(SimpleNamespace(id="t", _detect_repo_async_thread=None), tmp_path)
    assert "is not the checkout of a repository with an origin" in caplog.text
    assert "repository" not in asked[0][2]["script"]
