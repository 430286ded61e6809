import contextlib
import errno
import fcntl
import io
import logging
import os
import pty
import re
import select
import sys
import termios
import threading
import time

import pytest

from app import console, stdio
from app.errors import ConfigError
from tests.pipes import PAGE, pipe

STREAMS = ("stdout", "__stdout__", "stderr", "__stderr__")


@pytest.fixture(autouse=True)
def restored():
    """Other tests read what is logged."""
    loggers = [logging.getLogger(name) for name in ("app", "asyncio")]
    before = [(each.handlers[:], each.level, each.propagate) for each in loggers]
    streams = {name: getattr(sys, name) for name in STREAMS}
    console._shown._texts.clear()  # what others have shown
    yield
    console._shown._texts.clear()
    for each, (handlers, level, propagate) in zip(loggers, before, strict=True):
        each.handlers[:], each.propagate = handlers, propagate
        each.setLevel(level)
    for name, stream in streams.items():
        setattr(sys, name, stream)
    console._asked = console._aside = None
    console._given_up.clear()
    while console._streams:
        console._streams.popitem()[1].close()


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


@pytest.mark.parametrize("impatient", [False, True])
def test_what_nobody_reads_is_not_shown_and_holds_nobody_up(monkeypatch, impatient):
    """A pipe that is full. Result: as much as there was room for is there, and no more."""
    reader, writer = pipe()
    monkeypatch.setattr(console, "STDOUT", writer)
    while impatient and console._patience.look(writer):
        pass
    saying = threading.Thread(target=console.confide, args=("the token",), daemon=True)
    saying.start()
    saying.join(10)
    assert not saying.is_alive()
    assert os.read(reader, 2 * PAGE) == b"x" * PAGE
    os.close(reader)
    os.close(writer)


def test_nobody_writes_a_second_line_or_a_colour(capsys):
    text = shown(
        capsys, lambda logger: logger.info("a\n12:00:00 INFO app forged \x1b[31m\u2028\ud800\u202e")
    )
    assert text.count("\n") == 1 and "\x1b" not in text and "\\x0a" in text
    assert "\u202e" not in text


def test_a_line_without_a_head_is_one_line(capsys):
    text = shown(
        capsys, lambda logger: console.plain(logger, "ready\n12:00:00 INFO app forged\x1b")
    )
    assert text == "ready\\x0a12:00:00 INFO app forged\\x1b\n"


def test_the_message_of_an_exception_writes_no_line_of_ours(capsys):
    def emit(logger):
        try:
            raise ValueError("\n12:00:00 INFO app forged\r\x1b[31m")
        except ValueError:
            logger.exception("a fault")

    first, *traced = shown(capsys, emit).split("\n")[:-1]
    assert first.endswith("ERROR app a fault")
    assert "forged" in traced[-1] and all(line.startswith("  ") for line in traced)
    assert not any(mark in "".join(traced) for mark in "\r\x1b")


class Full:
    def write(self, text):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_an_output_that_cannot_be_written_is_one_line(monkeypatch):
    monkeypatch.setattr("sys.stdout", Full())
    with pytest.raises(ConfigError, match="standard output cannot be written: No space"):
        console.say("text")


def test_a_log_that_cannot_be_written_is_no_traceback_a_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout", Full())
    console.set_up()
    logging.getLogger("app.test").info("up")
    logging.getLogger("app.test").info("%d", "a fault of the app")
    told = capsys.readouterr().err
    assert "No space left" not in told and told.count("TypeError") == 1


def read_all(master):
    """What comes until nothing has come for a moment: a terminal passes it on in its own time."""
    found = b""
    while select.select([master], [], [], 0.2)[0]:
        found += os.read(master, 1 << 16)
    return found.decode(errors="replace")


@pytest.fixture
def terminal(monkeypatch):
    """A pseudo-terminal as the app's stdout; what it shows can be read at the other end."""
    master, slave = pty.openpty()
    monkeypatch.setattr(console, "STDOUT", slave)
    with open(slave, "w", closefd=False) as stdout:
        yield stdout, lambda: read_all(master)
    os.close(slave)
    os.close(master)


def test_how_far_things_are_is_one_line_below_the_others(terminal, monkeypatch):
    stdout, terminal = terminal
    monkeypatch.setattr(console, "_shown", console.Shown())
    monkeypatch.setattr("sys.stdout", stdout)
    console.set_up()
    console.show("a", "a 10 %")
    assert terminal() == "\r\x1b[Ka 10 %"
    console.show("b", "b 5 %\nforged")
    assert terminal() == "\r\x1b[Ka 10 %  b 5 %\\x0aforged"
    logging.getLogger("app.test").info("up")
    told = terminal()
    assert told.startswith("\r\x1b[K") and told.index("INFO app up\r\n") < told.index("a 10 %")
    console.show("a", "")
    console.show("b", "")
    assert terminal().endswith("\r\x1b[K")
    logging.getLogger("app.test").info("up")
    assert "\x1b" not in terminal()


def test_without_a_terminal_it_is_not_shown(capfd):
    console.show("a", "a 10 %")
    console.show("a", "")
    assert capfd.readouterr().out == ""


@contextlib.contextmanager
def logged_to_a_pipe(monkeypatch, *room):
    """The app's stdout is a pipe with this room; its other end."""
    reader, writer = pipe(*room)
    with os.fdopen(writer, "w") as stdout, os.fdopen(reader, "rb", 0) as read:
        monkeypatch.setattr(console, "STDOUT", writer)
        monkeypatch.setattr("sys.stdout", stdout)
        console.set_up()
        yield read
        monkeypatch.undo()


def test_a_log_that_nobody_reads_holds_nobody_up(monkeypatch):
    with logged_to_a_pipe(monkeypatch) as read:
        for _ in range(3):
            logging.getLogger("app.test").info("down")
        assert read.read(PAGE) == b"x" * PAGE
        logging.getLogger("app.test").info("up")
        told = read.read(PAGE).decode()
    assert "3 lines are lost" in told and "INFO app up" in told and "down" not in told


def test_a_line_for_which_there_is_too_little_room_holds_nobody_up(monkeypatch):
    """There is room for one page of two; then for all."""
    with logged_to_a_pipe(monkeypatch, 2, 1) as read:
        logging.getLogger("app.test").info("y" * 9000)
        logging.getLogger("app.test").info("down")
        told = read.read(2 * PAGE).decode()
        assert told.endswith("y") and "INFO app y" in told
        logging.getLogger("app.test").info("up")
        torn, lost, up, _ = read.read(PAGE).decode().split("\n")
    assert torn == "" and "2 lines are lost" in lost and up.endswith("INFO app up")


@pytest.mark.parametrize("errors", [False, True])
def test_a_terminal_that_nobody_reads_holds_nobody_up(monkeypatch, errors):
    """It is full but for some bytes, which is not said of it. A door logs to standard error."""
    ours, theirs = pty.openpty()
    read = threading.Timer(10, read_all, [ours])  # who waits is freed, and has lost nothing
    read.start()
    with os.fdopen(theirs, "w") as stdout, os.fdopen(ours, "rb", 0):
        monkeypatch.setattr(console, "STDERR" if errors else "STDOUT", theirs)
        monkeypatch.setattr("sys.stderr" if errors else "sys.stdout", stdout)
        console.set_up(errors=errors)
        logger = logging.getLogger("app.test")
        for number in range(1000):
            logger.info("%d %s", number, "é" * 101)
            console.show("a", f"a {number}")
        console.show("a", "")
        read.cancel()
        told = read_all(ours)
        logger.info("up")
        told += read_all(ours)
        monkeypatch.undo()
    kept = len(re.findall("INFO app [0-9]+ é{101}\r\n", told))
    notices = re.findall("([0-9]+) lines? (?:is|are) lost", told)
    # Before a notice a line may be whole but for its end, and count as lost.
    assert 0 <= kept + sum(map(int, notices)) - 1000 <= len(notices)
    assert 0 < kept < 1000 and told.endswith(" INFO app up\r\n")


def test_a_terminal_that_has_been_stopped_holds_nobody_up(monkeypatch):
    """By Ctrl-S. Result: nothing is shown, and it is told afterwards."""
    ours, theirs = pty.openpty()
    goes_on = threading.Timer(10, termios.tcflow, [theirs, termios.TCOON])  # who waits is freed
    with os.fdopen(theirs, "w") as stdout, os.fdopen(ours, "rb", 0):
        monkeypatch.setattr(console, "STDOUT", theirs)
        monkeypatch.setattr("sys.stdout", stdout)
        console.set_up()
        termios.tcflow(theirs, termios.TCOOFF)
        goes_on.start()
        console.show("a", "a 10 %")
        logging.getLogger("app.test").info("down")
        console.show("a", "")
        assert goes_on.is_alive()
        goes_on.cancel()
        termios.tcflow(theirs, termios.TCOON)
        logging.getLogger("app.test").info("up")
        told = read_all(ours)
        monkeypatch.undo()
    assert "down" not in told and "1 line is lost" in told and told.endswith("INFO app up\r\n")


def test_what_a_terminal_loses_is_recorded_all_the_same(monkeypatch):
    """The SDK puts itself before sys.stdout. Result: it has each line, and no notice."""
    ours, theirs = pty.openpty()
    recorded = []
    with os.fdopen(theirs, "w") as stdout, os.fdopen(ours, "rb", 0):
        monkeypatch.setattr(console, "STDOUT", theirs)
        monkeypatch.setattr("sys.stdout", stdout)
        console.set_up()
        write = sys.stdout.write
        sys.stdout.write = lambda text: (recorded.append(text), write(text))
        termios.tcflow(theirs, termios.TCOOFF)
        for _ in range(3):
            logging.getLogger("app.test").info("down")
        termios.tcflow(theirs, termios.TCOON)
        logging.getLogger("app.test").info("up")
        told = read_all(ours)
        monkeypatch.undo()
    assert [text.split()[-1] for text in recorded] == ["down"] * 3 + ["up"]
    assert "3 lines are lost" in told and "down" not in told


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_who_reads_slowly_is_waited_for_a_moment_in_each_second(monkeypatch, kind):
    """Whenever it is waited for, the reader takes something. Result: of 100 long lines in a second
    some are taken, and the looks have their bound."""
    waits, has_room = [], stdio.has_room
    ours, theirs = pty.openpty() if kind == "terminal" else os.pipe()
    if kind == "pipe":
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, select.PIPE_BUF)
    os.set_blocking(ours, False)

    def looked(file, wait):
        if wait:
            waits.append(wait)
            os.read(ours, select.PIPE_BUF)
            time.sleep(wait / 1000)  # a terminal passes it on in its own time
        return has_room(file, 0)

    with os.fdopen(theirs, "w") as stdout, os.fdopen(ours, "rb", 0):
        monkeypatch.setattr(console, "STDOUT", theirs)
        monkeypatch.setattr(stdio, "has_room", looked)
        monkeypatch.setattr("sys.stdout", stdout)
        console.set_up()
        (handler,) = logging.getLogger("app").handlers
        for second in (7, 8):
            read_all(ours)  # it has caught up: what is lost is not waited for again before
            handler.handle(logging.makeLogRecord({"msg": "up", "created": second}))
            before = sum(waits)
            for _ in range(100):
                handler.handle(logging.makeLogRecord({"msg": "y" * 5000, "created": second}))
            assert 0 < sum(waits) - before <= stdio.MOMENT
        monkeypatch.undo()


def test_who_else_writes_to_a_pipe_does_not_wait_for_its_reader(monkeypatch):
    """As ClearML's SDK does, in its thread."""
    with logged_to_a_pipe(monkeypatch, 2, 1) as read:
        printing = threading.Thread(target=print, args=("y" * 2 * PAGE,), daemon=True)
        printing.start()
        printing.join(10)
        assert not printing.is_alive()
        assert read.read(2 * PAGE) == b"x" * PAGE + b"y" * PAGE
        sys.stdout.write("z\n")
        assert read.read(PAGE) == b"z\n" and os.get_blocking(console.STDOUT)


def test_what_is_lost_of_a_pipe_is_told_once(monkeypatch):
    """Three lines are lost; then there is room for a part of a long one, which tells of them."""
    with logged_to_a_pipe(monkeypatch, 2) as read:
        for _ in range(3):
            logging.getLogger("app.test").info("down")
        read.read(PAGE)
        logging.getLogger("app.test").info("y" * 9000)
        told = read.read(2 * PAGE).decode()
        logging.getLogger("app.test").info("up")
        told += read.read(2 * PAGE).decode()
    assert re.findall("([0-9]+ lines?) (?:is|are) lost", told) == ["3 lines", "1 line"]


def test_who_shows_and_who_logs_wait_for_one_lock(capsys):
    """One shows something, and is made to log meanwhile, as by the garbage collector."""
    console.set_up()
    shows = threading.Event()

    def show():
        with console._shown.hidden():
            shows.set()
            time.sleep(0.1)  # the other one waits for what this one has
            logging.getLogger("app.test").info("a")

    def log():
        shows.wait()
        logging.getLogger("app.test").info("b")

    threads = [threading.Thread(target=each, daemon=True) for each in (show, log)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


def test_what_is_for_the_terminal_is_waited_for_in_each_second(terminal, monkeypatch):
    stdout, terminal = terminal
    monkeypatch.setattr("sys.stdout", stdout)
    console.set_up()
    patience = console._streams[console.STDOUT].patience
    patience.renew(time.time() - 2)
    while patience.look(stdout.fileno()):
        pass
    console.confide("the token")
    assert patience._looks == stdio.LOOKS and "the token" in terminal()


def test_what_asyncio_says_is_logged_as_well(capsys):
    def emit(_):
        logging.getLogger("asyncio").error("Task exception was never retrieved")

    assert shown(capsys, emit)[9:] == "ERROR app Task exception was never retrieved\n"
