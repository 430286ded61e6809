import errno
import io
import logging

import pytest

from app import console
from app.errors import ConfigError


@pytest.fixture(autouse=True)
def restored():
    """Other tests read what is logged."""
    app = logging.getLogger("app")
    handlers, level, propagate = app.handlers[:], app.level, app.propagate
    yield
    app.handlers[:], app.propagate = handlers, propagate
    app.setLevel(level)


def shown(capsys, emit):
    console.set_up()
    emit(logging.getLogger("app.test"))
    return capsys.readouterr().out


def test_one_line_an_event_with_its_subject(capsys):
    def emit(logger):
        logger.info("up")
        console.ModelLogger(logger, "tiny").error("down")
        console.plain(logger, "ready")

    lines = shown(capsys, emit).splitlines()
    assert [line[9:] for line in lines[:2]] == ["INFO app up", "ERROR tiny down"]
    assert lines[0][2] == lines[0][5] == ":"
    assert lines[2] == "ready"


def test_what_is_for_the_terminal_alone_is_neither_logged_nor_recorded(capfd, caplog, monkeypatch):
    recorded = io.StringIO()
    monkeypatch.setattr("sys.stdout", recorded)
    monkeypatch.setattr("sys.__stdout__", recorded)
    console.confide("the token")
    assert capfd.readouterr().out == "the token\n"
    assert recorded.getvalue() == "" and not caplog.records


def test_without_a_terminal_nothing_is_said(monkeypatch, tmp_path):
    with open(tmp_path / "read-only", "w+") as file, open(file.name) as unwritable:
        monkeypatch.setattr(console, "STDOUT", unwritable.fileno())
        console.confide("the token")
        assert file.read() == ""


def test_nobody_writes_a_second_line_or_a_colour(capsys):
    text = shown(capsys, lambda logger: logger.info("a\n12:00:00 INFO app forged \x1b[31m\u2028"))
    assert text.count("\n") == 1 and "\x1b" not in text and "\\x0a" in text


class Full:
    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_output_that_cannot_be_written_is_one_line(monkeypatch):
    monkeypatch.setattr("sys.stdout", Full())
    with pytest.raises(ConfigError, match="standard output cannot be written: No space"):
        console.say("text")
