"""The console: one line an event, `HH:MM:SS LEVEL model|app message`, and a few plain lines."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Iterator, MutableMapping
from typing import Any, TextIO

from app import stdio
from app.errors import ConfigError
from app.stdio import Patience, Pipe, Terminal

CONTROL = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
APP = "app"
STDOUT, STDERR = 1, 2  # the files
CLEAR = "\r\x1b[K"  # the line that the cursor is in


def escape(text: str) -> str:
    """Control characters as \\xNN: nobody writes a second line, or a colour, into our log, or turns
    the direction of what follows. And what cannot be written at all."""
    return CONTROL.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


class LineFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__(datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if getattr(record, "plain", False):
            return escape(message)
        subject = getattr(record, "subject", APP)
        lines = [f"{self.formatTime(record, self.datefmt)} {record.levelname} {subject} "]
        lines[0] += escape(message)
        if record.exc_info:
            # Indented, since an exception's message may have lines that look like ours.
            traced = self.formatException(record.exc_info).split("\n")
            lines += [f"  {escape(line)}" for line in traced]
        return "\n".join(lines)


class StandardHandler(logging.StreamHandler):  # type: ignore[type-arg]
    """Writes to whatever sys.stdout is now: the ClearML SDK replaces it to record the console.
    With `errors`, to sys.stderr: for a command whose output is for programs."""

    def __init__(self, *, errors: bool) -> None:
        logging.Handler.__init__(self)
        self._errors = errors
        self._lost = 0  # lines
        self._torn = False  # the last one that was written in part or whole lacks its end
        self._patience = Patience()

    @property
    def stream(self):  # type: ignore[no-untyped-def]
        return sys.stderr if self._errors else sys.stdout

    @stream.setter
    def stream(self, _: object) -> None:
        pass

    def emit(self, record: logging.LogRecord) -> None:
        """What nobody takes is lost: neither requests nor a signal wait for a reader."""
        try:
            text = f"{self.format(record)}\n"
            stream = _streams.get(self._file)
            patience = self._patience if stream is None else stream.patience
            with _shown.hidden():
                patience.renew(record.created)
                if isinstance(stream, Terminal):
                    self._show(stream, text)
                else:
                    self._pipe(text, patience)
        except Exception:  # noqa: BLE001 as logging's own
            self.handleError(record)

    def _notice(self, torn: bool) -> str:
        """How many lines are lost: "" if none is. It begins behind a line that is `torn`."""
        return "\n" * torn + self.format(_lines_lost(self._lost)) + "\n" if self._lost else ""

    def _pipe(self, text: str, patience: Patience) -> None:
        """Part by part, as there is room. What is lost is told in the first of them."""
        for part in stdio.parts(self._notice(self._torn) + text):
            while not stdio.has_room(self._file, 0):
                if self._lost or not patience.look(self._file):
                    self._lost += 1
                    return
            self.stream.write(part)
            self.stream.flush()
            self._lost, self._torn = 0, True  # should the rest be lost
        self._torn = False

    def _show(self, terminal: Terminal, text: str) -> None:
        """The terminal alone is told of lines that it has lost: the SDK, which records what is
        written to the stream, has them."""
        if self._lost and terminal.take(self._notice(terminal.torn)):
            self._lost = 0
        before = terminal.lost
        self.stream.write(text)
        self.stream.flush()
        self._lost += terminal.lost > before

    @property
    def _file(self) -> int:
        return STDERR if self._errors else STDOUT

    def handleError(self, record: logging.LogRecord) -> None:
        """A pipe without a reader, or a full disk, is no fault of the app, and not one traceback a
        line: logging would write it to sys.stderr."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


_streams: dict[int, Terminal | Pipe] = {}  # by the file that they stand for


class Shown:
    """One line at the end of the terminal, which is drawn anew: how far things have come."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._drawn = False
        # The threads that download and log use it. The handler has the same: with two, whoever
        # shows and is made to log meanwhile would wait for one who logs, and that one for him.
        self.lock: Any = threading.RLock()

    def set(self, key: str, text: str) -> None:
        """`text` for one of several things; "" takes it away."""
        with self.lock:
            self._texts.pop(key, None)
            if text:
                self._texts[key] = escape(text)
            self._draw()

    @contextlib.contextmanager
    def hidden(self) -> Iterator[None]:
        """For lines that stay."""
        with self.lock:
            if self._drawn:
                _to_terminal(CLEAR)
                self._drawn = False
            try:
                yield
            finally:
                self._draw()

    def _draw(self) -> None:
        if not (self._drawn or self._texts) or not os.isatty(STDOUT):
            return
        width = shutil.get_terminal_size().columns
        line = "  ".join(list(self._texts.values()))[: max(0, width - 1)]
        _to_terminal(f"{CLEAR}{line}")
        self._drawn = bool(line)


_shown = Shown()
_patience = Patience()  # where standard output is neither, or could not be opened


def show(key: str, text: str) -> None:
    """How far something has come, on a terminal; elsewhere, nothing."""
    _shown.set(key, text)


def records() -> bool:
    """Whether what is logged goes elsewhere than to a terminal that also shows how far things are:
    to a file, or to ClearML, whose SDK puts itself before sys.stdout."""
    return sys.stdout is not sys.__stdout__ or not os.isatty(STDOUT)


def _to_terminal(text: str) -> None:
    """Past sys.stdout, which the SDK records."""
    stream = _streams.get(STDOUT)
    patience = _patience if stream is None else stream.patience
    patience.renew(logging.makeLogRecord({}).created)
    with contextlib.suppress(OSError):
        sys.stdout.flush()
        if stream is not None:
            stream.take(text)
            return
        while not stdio.has_room(STDOUT, 0):
            if not patience.look(STDOUT):
                return
        os.write(STDOUT, text.encode(errors="replace"))


def _lines_lost(count: int) -> logging.LogRecord:
    lines = "1 line is lost" if count == 1 else f"{count} lines are lost"
    text = f"nobody read this log for a while: {lines}"
    return logging.LogRecord("app", logging.WARNING, "", 0, text, None, None)


def set_up(*, errors: bool = False) -> None:
    """With `errors`, everything that is logged goes to sys.stderr."""
    handler = StandardHandler(errors=errors)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger("app")
    root.setLevel(logging.INFO)
    _shown.lock = handler.lock
    for each in (root, logging.getLogger("asyncio")):
        each.handlers[:] = [handler]
        each.propagate = False
    global _asked, _aside
    _asked, _aside = (sys.stdout, sys.stderr) if errors else (None, None)
    for file in (STDOUT, STDERR):
        _open(file, root)


_asked: TextIO | None = None  # standard output, of a command: what it was asked for waits
_aside: TextIO | None = None  # standard error, of a command: the same
_given_up: set[TextIO] = set()  # of these, those that `say` could not write, or not yet


def _open(file: int, log: logging.Logger) -> None:
    """Let nobody who writes to sys.stdout or sys.stderr wait for a reader."""
    name = "stdout" if file == STDOUT else "stderr"
    try:
        raw = stdio.unblocked(file)
    except OSError as error:
        if _asked is None:  # an instance; who asks for something waits for it
            log.info("whoever reads %s too slowly holds this instance up: %s", name, error)
        return
    if raw is None:
        return
    _streams[file] = raw
    before = getattr(sys, name)
    stream = io.TextIOWrapper(raw, before.encoding, before.errors, write_through=True)
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)


def flush() -> None:
    """Instead of logging.shutdown, in which the SDK's own handler waits for its server."""
    for stream in (sys.stdout, sys.stderr):
        if stream not in _given_up:
            with contextlib.suppress(OSError):
                stream.flush()


def plain(logger: logging.Logger, text: str) -> None:
    """A line without a head: what people and scripts look for (`listening on …`, `ready`, the
    curl)."""
    logger.info(text, extra={"plain": True})


def confide(text: str) -> None:
    """A line for whoever sees the terminal: neither the page's log nor ClearML's console has it,
    because the SDK records what is written to sys.stdout and sys.__stdout__."""
    with _shown.hidden():
        _to_terminal(f"{text}\n")


class ModelLogger(logging.LoggerAdapter):  # type: ignore[type-arg]
    """A logger whose lines are headed by the model's name."""

    def __init__(self, logger: logging.Logger, name: str) -> None:
        super().__init__(logger, {"subject": escape(name)})

    def process(
        self, msg: object, kwargs: MutableMapping[str, Any]
    ) -> tuple[object, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(self.extra or {}), **kwargs.get("extra", {})}
        return msg, kwargs


def say(text: str, *, aside: bool = False) -> None:
    """What a command was asked for, on stdout; what happens meanwhile is on stderr, and so is what
    is said `aside`, so that `>` does not take it. It waits for a slow reader, or until Ctrl-C.
    Raises ConfigError."""
    if aside:
        stream, name = _aside or sys.stderr, "standard error"
    else:
        stream, name = _asked or sys.stdout, "standard output"
    _given_up.add(stream)
    try:
        with _shown.hidden(), stdio.interruptible():
            stream.write(f"{text}\n")
            stream.flush()
    except OSError as error:
        raise ConfigError(f"{name} cannot be written: {error.strerror}") from None
    _given_up.discard(stream)
