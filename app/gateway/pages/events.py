"""/api/events: what an open page is told as it happens, one response of server-sent events.

Format: WHATWG HTML, 9.2. The page reads it with fetch, since EventSource cannot send a key. Events:
`hello` (once), `status` (like /api/status, when that has changed), `history` (all rows) and `row`
(one more) for the plots, `requests` (a list of those that have ended) and `moves` (of models into
memory and out of it) like /api/history, `log` (a list of lines). Each event is encoded once for all
viewers. A viewer that does not keep up is sent nothing until it does, and then everything. Viewers
keep no model in memory, and no instance from its idle end.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from app.errors import RequestError
from app.gateway.http.request import Request
from app.machine import clock
from app.memory.moves import Move
from app.telemetry.history import INTERVAL, History
from app.telemetry.logs import Entry, LogBook
from app.telemetry.past import Ended, Past, move_row, request_row

logger = logging.getLogger(__name__)

TICK = 0.25  # seconds between two looks at what is new
CALM = 5.0  # seconds after which the status is sent even if nothing has happened
MAX_VIEWERS = 64
HEAD = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
# These keys of the status change although nothing has happened.
CLOCKS = ("time", "uptime", "idle", "last_activity", "host", "devices")


@dataclass(frozen=True)
class Sources:
    """`hello` tells a viewer what does not change, `status` is /api/status, `values` are a row of
    the history. `renew` has the machine's memory read anew, before `status` tells of it."""

    hello: Callable[[Request], Mapping[str, object]]
    status: Callable[[], Mapping[str, object]]
    values: Callable[[], list[float | None]]
    history: History
    past: Past
    logs: LogBook
    renew: Callable[[], Awaitable[None]]


class _Viewer:
    """One open response; the Flow of gateway.http.request."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.paused = False
        self.fresh = True  # it has to be told everything
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def send(self, events: bytes) -> None:
        if self.paused:
            self.fresh = True
        elif not self.fresh:
            self.request.write(events)


class Live:
    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._viewers: dict[_Viewer, None] = {}
        self._sampling: asyncio.Task[None] | None = None
        self._telling: asyncio.Task[None] | None = None
        self._closed = False
        self._told_status: Mapping[str, object] = {}
        self._told_at = 0.0
        self._told_line = 0
        self._told_request = 0
        self._told_moves: dict[str, int] = {}  # by model

    def start(self) -> None:
        self._sampling = asyncio.create_task(self._sample())

    def stop(self) -> None:
        """Tell the viewers the last news, and end every response even if the telling fails."""
        self._closed = True
        for task in (self._sampling, self._telling):
            if task is not None:
                task.cancel()
        if self._viewers:
            self._tell_or_log()
        for viewer in self._viewers:
            if not viewer.gone.done():
                viewer.gone.set_result(None)

    async def show(self, request: Request) -> None:
        """Answer one viewer until it leaves or the instance stops. Raises RequestError 503."""
        if self._closed or len(self._viewers) >= MAX_VIEWERS:
            full = f"{MAX_VIEWERS} pages are open, and no more may be"
            problem = "the instance is stopping" if self._closed else full
            raise RequestError(503, problem, retry_after=10)
        request.keep_alive = False
        request.start(200, HEAD)
        if request.method == "HEAD":
            request.finish()
            return
        viewer = _Viewer(request)
        self._viewers[viewer] = None
        request.flow_from(viewer)
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell_on())
        try:
            await viewer.gone
            request.finish()
        finally:
            request.flow_from(None)
            self._viewers.pop(viewer, None)

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                row = self._sources.history.add(clock.wall(), self._sources.values())
            except Exception:  # noqa: BLE001 the next rows do not depend on this one
                logger.exception("the plots' row could not be made")
                continue
            self._send(_event("row", row))

    async def _tell_on(self) -> None:
        """Tell the news while there are viewers."""
        try:
            while self._viewers:
                await self._sources.renew()
                self._tell_or_log()
                await asyncio.sleep(TICK)
        finally:
            self._telling = None

    def _tell_or_log(self) -> None:
        try:
            self._tell()
        except Exception:  # noqa: BLE001 neither the next news nor the end depend on these
            logger.exception("open pages could not be told")

    def _tell(self) -> None:
        status = self._sources.status()
        news = self._new_requests() + self._new_moves() + self._new_lines()
        now = clock.now()
        if now - self._told_at >= CALM or _happened(status) != _happened(self._told_status):
            self._told_status, self._told_at = status, now
            news += _event("status", _json(status))
        if news:
            self._send(news)
        for viewer in [v for v in self._viewers if v.fresh and not v.paused]:
            viewer.fresh = False
            viewer.send(self._everything(viewer.request, status))

    def _new_lines(self) -> bytes:
        lines = self._sources.logs.after(self._told_line)
        if not lines:
            return b""
        self._told_line = lines[-1].number
        return _event("log", _lines(lines))

    def _new_requests(self) -> bytes:
        requests = self._sources.past.requests(self._told_request)
        if not requests:
            return b""
        self._told_request = requests[-1].number
        return _event("requests", _requests(requests))

    def _new_moves(self) -> bytes:
        moves = self._sources.past.moves(self._told_moves)
        if not moves:
            return b""
        self._told_moves |= {model: move.number for model, move in moves}
        return _event("moves", _moves(moves))

    def _everything(self, request: Request, status: Mapping[str, object]) -> bytes:
        sources = self._sources
        columns = [list(column) for column in sources.history.columns]
        hello = {**sources.hello(request), "columns": columns, "interval": INTERVAL}
        kept = [line for line in sources.logs.after(0) if line.number <= self._told_line]
        return (
            _event("hello", _json(hello))
            + _event("status", _json(status))
            + _event("history", sources.history.rows())
            + _event("requests", _requests(sources.past.requests()))
            + _event("moves", _moves(sources.past.moves({})))
            + _event("log", _lines(kept))
        )

    def _send(self, events: bytes) -> None:
        for viewer in self._viewers:
            viewer.send(events)


def _happened(status: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in status.items() if key not in CLOCKS}


def _lines(lines: list[Entry]) -> bytes:
    """Time, level, subject and text of each line."""
    return _json([[round(e.time, 3), e.level, e.subject, e.text] for e in lines])


def _requests(requests: list[Ended]) -> bytes:
    return _json([request_row(ended) for ended in requests])


def _moves(moves: list[tuple[str, Move]]) -> bytes:
    return _json([move_row(model, move) for model, move in moves])


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)
