"""What is run as a llama-server, and with which arguments: a first start, later ones, and those
after the heads of the file turned out to be of no use."""

from __future__ import annotations

import contextlib
import csv
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.console import ModelLogger
from app.engine.stuck import PATIENCE, Patience
from app.errors import LoadError

OF_HEADS = re.compile(r"\bMTP\b|nextn", re.I)  # a complaint of multi-token prediction
OF_MEMORY = re.compile(r"alloc|out of memory", re.I)
SHOWN = ("info", "warn", "error", "trace", "debug")


def may_mean(value: str) -> list[tuple[str, str]]:
    """What an option's value may name: itself, and each part of a list with commas, which has
    quotes as CSV does; also as `FILE:SCALE`, so each without what follows the last colon, too."""
    try:
        parts = next(csv.reader([value]), [])
    except csv.Error:  # a line break, and others that are in no name
        parts = []
    return [(word, word.rpartition(":")[0]) for word in (value, *parts)]


@dataclass(frozen=True)
class Program:
    """What to run. `again` are further arguments of every start but the first; `show` are the
    levels of its log that go to our console; `patience` says how long it may be without work or
    progress; `files` are the model's; they are read `ahead` of a start where that is of use.
    `on_line` is called with the level and the text of every line, `on_buffers` at its end with
    the bytes that its buffers took of each GPU. `plain` is the argv without a file's heads for
    multi-token prediction, where they are used: files have them of architectures whose heads
    llama.cpp cannot run yet. `on_plain` is called where that is so. `before` is called before each
    start; it may raise LoadError."""

    argv: Sequence[str]
    environment: Mapping[str, str]
    plain: Sequence[str] = ()
    show: Sequence[str] = ("warn", "error")
    again: Sequence[str] = ()
    patience: Patience = PATIENCE
    files: Sequence[Path] = ()
    ahead: bool = True
    on_line: Callable[[str, str], None] = lambda level, text: None
    on_buffers: Callable[[Mapping[str, int]], None] = lambda devices: None
    on_plain: Callable[[], None] = lambda: None
    before: Callable[[], None] = lambda: None

    def may_name(self) -> list[Path]:
        """The model's files, and whatever an argument may name: adapters and control vectors decide
        what is computed, too. Most are no files, or none yet."""
        names = {name for word in self.argv[1:] for part in may_mean(word) for name in part}
        return sorted({*self.files, *map(Path, names - {""})})


class Starts:
    """The argv of the next start of a program."""

    def __init__(self, program: Program, log: ModelLogger) -> None:
        self._program = program
        self._log = log
        self._first = program.argv
        self._again: Sequence[str] = ()

    @property
    def argv(self) -> Sequence[str]:
        return [*self._first, *self._again]

    def check(self) -> None:
        """Raises LoadError if one of the model's files would keep it waiting for ever, or what is
        to be done before a start cannot be."""
        self._program.before()
        for file in self._program.files:
            with contextlib.suppress(OSError):  # it says itself what else is wrong with one
                if file.is_fifo():
                    raise LoadError(f"cannot be loaded: {file.name} is a pipe, no file")

    def succeeded(self) -> None:
        """It has answered: the next start is not the first."""
        self._again = self._program.again

    def without_folders(self, text: str) -> str:
        """What llama-server says, for callers: with the files of its argv by their names."""
        folders = {os.path.dirname(word) for word in self.argv if os.path.isabs(word)} - {"/"}
        for folder in sorted(folders, key=len, reverse=True):
            text = re.sub(rf"(?<![\w./-]){re.escape(folder)}/", "", text)
        return text

    def do_without_heads(self, why: str) -> bool:
        """Whether llama-server complained of the heads for multi-token prediction when it ended;
        they are not used from now on."""
        tried = self._program.plain and self._first is not self._program.plain
        if not tried or not OF_HEADS.search(why) or OF_MEMORY.search(why):
            return False
        self._log.warning(
            "Speculative Decoding guesses by the text: this llama-server cannot run the heads for "
            "multi-token prediction in the model's file (%s)",
            why,
        )
        self._first = self._program.plain
        self._program.on_plain()
        return True
