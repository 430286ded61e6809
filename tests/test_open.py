"""What is open without a key: a rule over the whole tables of routes of instances and doors."""

import asyncio
import contextlib
import time

import pytest

from app.fleet.config import Route
from app.fleet.metrics import Metrics
from app.fleet.pages import Pages
from app.fleet.routes import Routes
from app.gateway import routes
from app.gateway.admission import Keys
from app.gateway.body.reading import Reading
from app.gateway.body.sizes import allowance
from app.gateway.body.workers import Workers
from app.gateway.keys_file import UNNAMED, Holder
from app.gateway.proxy import OPEN_PAGES, Proxy
from app.gateway.roster import Roster
from app.gateway.routes import FOR_CALLERS, KEEP, UPSTREAM_PATHS
from app.gateway.rules import Rules
from app.gateway.trust import Membership
from app.instance.callers import Callers
from app.instance.doorway import Doorway
from app.instance.ending import Ending
from app.instance.front import Front
from app.memory.ledger import Model
from app.memory.pool import Pool
from app.telemetry.logs import LogBook
from app.telemetry.overview import Details, Overview, Phase

KEY, NAMED = "the-key-of-the-instance", "the-key-of-a-named-caller"
SECRET = "a secret of more than 16 characters"
MODEL = "name-of-a-model"
METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS TRACE".split()
SAFE = {"GET", "HEAD"}
OPEN = {"/", "/health", "/ready", "/api/proof"}  # as docs/security.md has it
# Other ways to write a path: none of them may open what is closed.
SPELLINGS = (
    "{}",
    "/service/x{}",
    "http://h{}",
    "/{}",
    "{}/",
    "{}/.",
    "/.{}",
    "/health/..{}",
    "/service/health{}",
    "/health%2f..{}",
    "{}%00",
    "{};x",
    "{}?x=/health",
    "{}%23/health",
)


def rules():
    roster = Roster()
    roster.replace([Holder("alice", Keys([NAMED])._own[0][0])], time.monotonic())
    return Rules(Keys([KEY], roster), allowed=frozenset({"h"}), prefixes=["/service"])


@contextlib.asynccontextmanager
async def an_instance():
    """The port, and the paths of its own."""
    callers = Callers(rules(), "", membership=Membership("r", "t", "http://h", SECRET))
    pool = Pool([Model(MODEL)], {"d": 1}, time.monotonic)
    overview = Overview(
        "0",
        {MODEL: Details(reference=MODEL)},
        idle_limit=None,
        active_for=60,
        devices=list,
        view=pool.view,
        host=lambda: (1, 2),
        phase=Phase.SERVING,
    )
    doorway, ending = Doorway(callers), Ending()
    _, port = await doorway.listen("127.0.0.1", 0, ending)
    front = Front(overview, pool, callers, doorway, LogBook(), [])
    front.start(ending)
    try:
        yield port, front._proxy._pages
    finally:
        await ending.run()
        await pool.close()


@contextlib.asynccontextmanager
async def a_door():
    callers = Callers(rules(), "")
    doorway, ending = Doorway(callers, "door.html"), Ending()
    _, port = await doorway.listen("127.0.0.1", 0, ending)
    of_door = Routes(0.0, SECRET)
    of_door.configure([Route("chat", template="t", max=0)])
    of_door.states["chat"].models = (MODEL,)
    of_door.rename()
    metrics, workers = Metrics(of_door.states), Workers()
    pages = Pages(of_door, time.monotonic, metrics, doorway.document, "0").by_path()
    reading = Reading(workers, lambda _: allowance(None), allow_remote=True)
    doorway.open(Proxy(of_door, of_door.names, callers.rules, pages, metrics.add, reading), ending)
    try:
        yield port, pages
    finally:
        await doorway.close()
        await workers.close()


async def asked(port, method, path, key=""):
    """Status and all that came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    sent = f"{method} {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n"
    sent += f"authorization: Bearer {key}\r\n" if key else ""
    writer.write(f"{sent}content-length: 2\r\n\r\n{{}}".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    streams = b"event-stream" in head
    came = head if streams else head + await reader.read(-1)
    writer.close()
    return int(head.split()[1]), came.decode()


def paths(pages):
    """All that there are: of ours by the table, and llama-server's, for one model and for any."""
    constants = [value for value in vars(routes).values() if isinstance(value, str)]
    own = {path for path in (*pages, *constants) if path.startswith("/")} - {"/api/models/"}
    told = [path.replace("{model}", MODEL) for path in own if "{action}" not in path]
    told += ["/models", f"/models/{MODEL}", f"/{MODEL}/v1/models", f"/{MODEL}/health"]
    told += [below + path for path in UPSTREAM_PATHS for below in ("", f"/{MODEL}")]
    return sorted({*told, "/nothing", "/slots", "/props", "/index.html", f"/{MODEL}"})


@pytest.mark.parametrize("place", [an_instance, a_door])
def test_without_a_key_nothing_is_answered_but_what_is_open(run, place):
    async def scenario():
        async with place() as (port, pages):
            assert len(pages) > 6 and set(OPEN_PAGES) == OPEN
            for path in paths(pages):
                for method in METHODS:
                    status, came = await asked(port, method, path)
                    if path not in OPEN:
                        assert status == 401, (method, path, came)
                    elif method not in SAFE:
                        assert status in (204, 404, 405), (method, path, came)
                    assert MODEL not in came.replace(path, ""), (method, path, came)
                    assert "access-control" not in came.lower()

    run(scenario)


@pytest.mark.parametrize("place", [an_instance, a_door])
def test_no_other_spelling_of_a_path_opens_it(run, place):
    async def scenario():
        async with place() as (port, pages):
            closed = [path for path in paths(pages) if path not in OPEN]
            for path in [p for p in closed if not p.endswith(UPSTREAM_PATHS[1:])]:
                for spelling in SPELLINGS:
                    target = spelling.format(path)
                    status, came = await asked(port, "GET", target)
                    assert status in (400, 401), (target, came)

    run(scenario)


@pytest.mark.parametrize("place", [an_instance, a_door])
def test_a_named_caller_gets_what_is_for_callers_and_no_more(run, place):
    async def scenario():
        async with place() as (port, pages):
            for page in pages:
                acts = page == KEEP or "/api/models/" in page
                target = page.replace("{model}", MODEL)
                status, came = await asked(port, "POST" if acts else "GET", target, NAMED)
                assert (status == 403) == (page not in FOR_CALLERS), (page, came)
                status, came = await asked(port, "POST" if acts else "GET", target, KEY)
                assert status not in (401, 403), (page, came)

    run(scenario)


def test_the_instances_own_key_is_nobodys_name():
    assert rules().keys.holder([KEY.encode()]) is UNNAMED
