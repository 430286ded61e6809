"""One llama-server process: start it, wait until it answers, stop it, notice its end.

A process is never restarted here: the pool awaits `exited` and decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from app.console import ModelLogger
from app.engine import output
from app.engine.lifecycle import Event, State, next_state
from app.engine.program import Program, Starts
from app.engine.speech import Speech
from app.errors import LoadError
from app.machine import activity, children, clock
from app.machine.activity import Standing

POLL_INTERVAL = 0.02
RELAY_DRAIN = 1.0  # seconds that output may still come after the exit
SECOND_SIGTERM = 1.0
LEAVE = b"cmd_router_to_child:exit\n"
LEVELS = {"error": logging.ERROR, "warn": logging.WARNING}


class Process:
    def __init__(
        self,
        name: str,
        program: Program,
        ready: Callable[[], Awaitable[bool]],
        *,
        beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
        stall_timeout: float = 600,
        grace: float = 10,
    ) -> None:
        """`ready` asks the child once; `beside` runs from the child's start to its end. A load ends
        after `stall_timeout` seconds without a sign of life. SIGKILL follows `grace` seconds after
        the request to stop."""
        self.name = name
        self.state = State.STOPPED
        self._program = program
        self._ready = ready
        self._beside = beside
        self._stall_timeout = stall_timeout
        self._grace = grace
        self._log = ModelLogger(logging.getLogger(__name__), name)
        self._lock = asyncio.Lock()  # one start or stop at a time; a start waits for a stop
        self._speech = Speech(self._tell, program.on_buffers)
        self._was_ready = False
        self._given_up = ""  # for which reason
        self._starts = Starts(program, self._log)
        self._stdin = -1
        self._child: children.Child
        self._exit: asyncio.Task[int]
        self._relays: list[asyncio.Task[None]]

    @property
    def argv(self) -> Sequence[str]:
        """Of its next start."""
        return self._starts.argv

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def progress(self) -> float | None:
        """Of the load under way, 0..1."""
        return self._speech.progress

    @property
    def context(self) -> int:
        """Tokens, as the child itself says when it is ready."""
        return self._speech.context

    @property
    def listens(self) -> bool:
        """It has said so; one that does not speak the protocol never does."""
        return self._speech.ready.is_set()

    @property
    def running(self) -> bool:
        return self.state in (State.STARTING, State.READY, State.STOPPING)

    async def start(self) -> None:
        """Start the process if it does not run, and return once it answers. Raises LoadError."""
        async with self._lock:
            if self.state is State.READY:
                return
            self._spawn()
            try:
                await self._wait_ready()
            except BaseException:
                await self._terminate()
                raise
            self._was_ready = True
            self._starts.succeeded()
            self._move(Event.BECAME_READY)

    async def stop(self) -> None:
        async with self._lock:
            if self.state is State.READY:
                await self._terminate()

    async def exited(self) -> int:
        """The exit code, once the process has ended; negative for a signal."""
        return await asyncio.shield(self._exit)

    async def ends(self, within: float | None, unless: asyncio.Future[None] | None = None) -> bool:
        """Whether it has ended, at the latest after so many seconds, or when the other is done."""
        waited: set[asyncio.Future[Any]] = {self._exit} if unless is None else {self._exit, unless}
        await asyncio.wait(waited, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        return self._exit.done()

    def do_without_heads(self, why: LoadError) -> bool:
        """Whether a load failed because of the heads for multi-token prediction; they are not used
        from now on."""
        return self._starts.do_without_heads(str(why))

    def give_up(self, reason: str) -> None:
        """SIGKILL it for this reason, which explains its end."""
        self._given_up = reason
        self.kill()

    def kill(self) -> None:
        """SIGKILL, without waiting: for an end that cannot wait."""
        if self.running:
            children.signal_group(self._child, signal.SIGKILL)

    def explain(self, code: int) -> str:
        """Why it ended: its exit status, and its own complaints if it had any."""
        if self._given_up:
            return f"llama-server was ended: {self._given_up}"
        what = f"killed by signal {-code}" if code < 0 else f"ended with {code}"
        if code == -signal.SIGILL:
            what += " (built for another processor than this: build it here, or give --no-repack)"
        complaints = self._speech.complaints(loading=not self._was_ready)
        words = self._starts.without_folders(complaints)
        return f"llama-server {what}: {words}" if words else f"llama-server {what}"

    def _spawn(self) -> None:
        self._starts.check()
        self._speech = Speech(self._tell, self._program.on_buffers)
        self._speech.progress = 0.0
        self._was_ready = False
        self._given_up = ""
        # Our own pipes: with PIPE, asyncio's wait() lasts until the last process that has inherited
        # them is gone.
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            try:
                said, child_output = _pipe(ours, theirs)
                # Apart: callers may have written what comes there.
                complained, child_errors = _pipe(ours, theirs)
                child_input, self._stdin = _pipe(theirs, ours)
                os.set_blocking(self._stdin, False)
                self._child = children.spawn(
                    self._starts.argv,
                    self._program.environment,
                    stdin=child_input,
                    stdout=child_output,
                    stderr=child_errors,
                )
            except OSError as error:  # no such program, or no descriptors, memory or processes
                program = self._program.argv[0]
                raise LoadError(f"{program} cannot be run: {error.strerror}") from None
            ours.pop_all()
        self._move(Event.SPAWNED)
        heard = (said, output.read), (complained, output.read_text)
        self._relays = [asyncio.create_task(self._speech.follow(*each)) for each in heard]
        self._exit = asyncio.create_task(self._reap(self._stdin, self._accompany()))

    def _accompany(self) -> asyncio.Task[None] | None:
        if self._beside is None:
            return None
        task = asyncio.create_task(self._beside())
        task.add_done_callback(self._left_alone)
        return task

    def _left_alone(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("nobody looks after llama-server any more", exc_info=error)

    def _tell(self, line: output.LogLine) -> None:
        self._program.on_line(line.level, line.message)
        if line.level in self._program.show:
            level, child = LEVELS.get(line.level, logging.INFO), {"child": True}
            self._log.log(level, "%s", line.message, extra=child)

    async def _reap(self, stdin: int, beside: asyncio.Task[None] | None) -> int:
        code = await children.exit_status(self._child)
        if beside is not None:
            beside.cancel()
        await asyncio.wait(self._relays, timeout=RELAY_DRAIN)
        for relay in self._relays:
            relay.cancel()
        os.close(stdin)
        self._speech.progress = None
        self._move(Event.EXITED)
        return code

    async def _wait_ready(self) -> None:
        answering = asyncio.create_task(self._answering())
        stalled = asyncio.create_task(self._stalled())
        waiting: set[asyncio.Task[object]] = {answering, stalled, self._exit}
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            answering.cancel()
            stalled.cancel()
        if self._exit.done():
            code = self._exit.result()
            raise LoadError(f"cannot be loaded: {self.explain(code)}")
        if not answering.done():
            seconds = f"{self._stall_timeout:.0f} s"
            raise LoadError(f"cannot be loaded: no sign of progress for {seconds}")
        answering.result()

    async def _answering(self) -> None:
        """A child that speaks the protocol says `ready`, and one question confirms it; any other
        child is asked again and again."""
        while True:
            if self._speech.speaks_protocol:
                await self._speech.ready.wait()
            if await self._ready():
                return
            await asyncio.sleep(POLL_INTERVAL)

    async def _stalled(self) -> None:
        left = self._stall_timeout
        while left > 0:  # every line that the child writes moves the deadline
            await asyncio.sleep(left)
            left = self._speech.last + self._stall_timeout - clock.now()

    async def _terminate(self) -> None:
        """Ask it to end, ask again, SIGKILL it after the grace period, and reap it."""
        if self._exit.done():
            return
        self._move(Event.STOP_REQUESTED)
        with contextlib.suppress(OSError):  # it has closed the pipe, or does not read it
            os.write(self._stdin, LEAVE)
        stopped = activity.of(self.pid).standing is Standing.STOPPED  # it would not hear SIGTERM
        grace = 0.0 if stopped else self._grace
        for signum, patience in (
            (signal.SIGTERM, min(SECOND_SIGTERM, grace)),
            (signal.SIGTERM, max(0.0, grace - SECOND_SIGTERM)),
            (signal.SIGKILL, None),
        ):
            children.signal_group(self._child, signum)
            await asyncio.wait({self._exit}, timeout=patience)
            if self._exit.done():
                break
        await self._exit

    def _move(self, event: Event) -> None:
        self.state = next_state(self.state, event)


def _pipe(reads: contextlib.ExitStack, writes: contextlib.ExitStack) -> tuple[int, int]:
    """Its two ends, each of which is closed where its owner's stack is."""
    reader, writer = os.pipe()
    reads.callback(os.close, reader)
    writes.callback(os.close, writer)
    return reader, writer
