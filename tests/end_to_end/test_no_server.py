"""Where no ClearML server lets us in: one line with its address and what to do, and exit status 2.

The SDK would try for hours, or print tracebacks. Real sockets, each with one answer to everything.
"""

import asyncio
import socket
import threading
from contextlib import ExitStack, contextmanager

import pytest

from app.task import login
from app.task.sdk import ClearMLError, SdkThread
from tests.clearml_api import ApiServer
from tests.end_to_end.conftest import environment_of, finished, free_port
from tests.end_to_end.test_task import form, tiny_path

# The SDK imports and reads what others have deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

PAGE = b"<!doctype html><title>ClearML</title>"
ALERT = b"\x15\x03\x03\x00\x02\x02\x46"  # TLS: what speaks it answers plain HTTP so
JSON = b'HTTP/1.0 401 X\r\nContent-Type: application/json\r\n\r\n{"meta": {"result_msg": "No"}}'
MODEL = "0" * 32
COMMANDS = {
    "export": ["export", MODEL],
    "launch": ["launch", "--queue", "work", "--repo", "https://host/x.git", "--model", "/m.gguf"],
    "check": ["check", "--model", MODEL],
    "serve": ["--model", MODEL, "--port", "0"],
}


def page(status):
    return b"HTTP/1.0 %d X\r\nContent-Type: text/html\r\n\r\n%s" % (status, PAGE)


@contextmanager
def answering(reply):
    """The port of a server that answers `reply` to everybody; None: it takes connections, and says
    nothing at all."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:

        def serve():
            while True:
                try:
                    client = stack.enter_context(listener.accept()[0])
                except OSError:
                    return
                if reply is not None:
                    client.recv(65536)
                    client.sendall(reply)
                    client.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def settings(folder, host, **more):
    """The variables that name the server."""
    return {
        "CLEARML_API_HOST": host,
        "CLEARML_API_ACCESS_KEY": "access",
        "CLEARML_API_SECRET_KEY": "not-a-real-secret",
        "CLEARML_CACHE_DIR": str(folder),
        "CLEARML_CONFIG_FILE": str(folder / "no.conf"),
        **more,
    }


def run(tmp_path, command, host, **more):
    """The command's exit status and everything that it says."""
    environment = {
        **environment_of(tmp_path),
        **settings(tmp_path, host, **more),
        "XDG_RUNTIME_DIR": str(tmp_path),
    }
    done = finished(*COMMANDS[command], environment=environment)
    return done.returncode, done.stdout + done.stderr


def holds(line, *says):
    """All of this, and nothing secret."""
    assert "ClearML: " in line
    for each in says:
        assert each in line
    assert "secret" not in line.replace("secret_key", "").replace("SECRET_KEY", "")


def check(told, *says):
    """One line of trouble, with all of this, and nothing secret."""
    (line,) = [each for each in told.splitlines() if " INFO app " not in each]
    assert " ERROR app " in line
    holds(line, *says)


NOT_OURS = "is no ClearML API server (HTTP"
ANSWERS = {
    "wrong credentials": (JSON, ["refuses the credentials: No: check CLEARML_API_ACCESS_KEY and"]),
    "the web page": (page(200), [NOT_OURS, "200, text/html", "check CLEARML_API_HOST: it is the"]),
    "404": (page(404), [NOT_OURS, "404"]),
    "405 of nginx": (page(405), [NOT_OURS, "405"]),
    "plain HTTP to nginx with TLS": (page(400), [NOT_OURS, "400"]),
    "502 of a proxy": (page(502), ["answers HTTP 502: check that the server behind it runs"]),
    "503 of a proxy": (page(503), ["answers HTTP 503"]),
    "plain HTTP to TLS": (ALERT, ["check http or https in CLEARML_API_HOST"]),
    "silence": (None, ["does not answer in 10 s: check CLEARML_API_HOST"]),
    "closed at once": (b"", ["does not answer by HTTP"]),
}


@pytest.fixture
def refusal(monkeypatch, tmp_path):
    """What the first request by the real SDK's client ends with: the text. In this process, for
    what a command makes of the text is the same for all: see below."""

    def ask(host, attempt=login.ATTEMPT, **more):
        for name, text in settings(tmp_path, host, **more).items():
            monkeypatch.setenv(name, text)
        monkeypatch.setattr(login, "ATTEMPT", attempt)

        async def enter():
            sdk = SdkThread()
            sdk.start()
            await login.enter(sdk, 0.0)

        with pytest.raises(ClearMLError) as raised:
            asyncio.run(enter())
        return str(raised.value)

    return ask


@pytest.mark.parametrize("answer", ANSWERS)
def test_a_server_that_does_not_let_us_in(refusal, answer):
    reply, says = ANSWERS[answer]
    attempt = 1.0 if reply is None else login.ATTEMPT  # on a busy machine answers come late
    with answering(reply) as port:
        told = refusal(f"http://user:secret@127.0.0.1:{port}/", attempt)
    holds(told, f"http://127.0.0.1:{port} ", *(text.replace("10 s", "1 s") for text in says))


@pytest.mark.parametrize(
    "command, answer",
    [
        ("export", "wrong credentials"),
        ("launch", "the web page"),
        ("check", "silence"),
        ("serve", "wrong credentials"),
        ("serve", "the web page"),
        ("serve", "silence"),
    ],
)
def test_every_command_that_needs_a_server_says_so(tmp_path, command, answer):
    reply, says = ANSWERS[answer]
    with answering(reply) as port:
        status, told = run(tmp_path, command, f"http://127.0.0.1:{port}")
    assert status == 2
    check(told, f"http://127.0.0.1:{port} ", *says)
    offline = command == "serve" and answer != "wrong credentials"
    assert told.strip().endswith("or start with --offline") == offline


def test_a_server_without_credentials_for_it(tmp_path):
    missing = {"CLEARML_API_ACCESS_KEY": "", "CLEARML_API_SECRET_KEY": ""}
    status, told = run(tmp_path, "export", "http://user:secret@127.0.0.1:1", **missing)
    warning, error = told.splitlines()
    assert status == 2 and " WARNING app " in warning and " ERROR app " in error
    holds(warning, "no credentials for http://127.0.0.1:1:", "set CLEARML_API_ACCESS_KEY and")


@pytest.mark.parametrize(
    "host, says",
    [
        ("http://127.0.0.1:{port}", "Connection refused: check CLEARML_API_HOST, and that the"),
        ("http://user:secret@no.such.host.invalid:8008", "the name does not resolve"),
        ("127.0.0.1:{port}", "is no address of a server, http://host:port"),
    ],
)
def test_no_server_there(refusal, host, says):
    host = host.format(port=free_port())
    holds(refusal(host), host.replace("user:secret@", ""), says)


def test_tls_where_the_server_has_none(refusal):
    with ApiServer() as api:
        host = api.url.replace("http", "https")
        told = refusal(host)
    holds(told, host, "cannot be reached by TLS", "check http or https in CLEARML_API_HOST")


def test_a_proxy_that_is_not_there(refusal):
    told = refusal(
        "http://10.255.255.1:8008", http_proxy=f"http://127.0.0.1:{free_port()}", no_proxy=""
    )
    holds(
        told,
        "http://10.255.255.1:8008",
        "by the proxy that the environment names",
    )


def test_what_is_set_in_clearml_conf_is_named(tmp_path):
    (tmp_path / "clearml.conf").write_text(
        'api { credentials { access_key: "k", secret_key: "s" } }'
    )
    more = {"CLEARML_API_ACCESS_KEY": "", "CLEARML_API_SECRET_KEY": ""}
    more["CLEARML_CONFIG_FILE"] = str(tmp_path / "clearml.conf")
    with answering(JSON) as port:
        _, told = run(tmp_path, "export", f"http://127.0.0.1:{port}", **more)
    check(told, "check access_key in clearml.conf and secret_key in clearml.conf")


def test_what_needs_no_server_asks_none(tmp_path, cache):
    """`check` of a file: nobody has to let us in."""
    COMMANDS["check a file"] = ["check", "--model", tiny_path(cache)]
    status, told = run(tmp_path, "check a file", f"http://127.0.0.1:{free_port()}")
    assert status == 0, told


def test_an_agents_task_waits_for_a_short_outage(start, cache):
    """1. Nobody listens when an agent starts the task. 2. The server is back. Result: said in a
    line with the address, and served."""
    with ApiServer() as api:
        task = api.state.new_task(hyperparams=form(Model__model=tiny_path(cache)))
        more = {**api.environment, "CLEARML_TASK_ID": task["id"]}
        with api.away():
            app = start(offline=False, **more)
            app.line(f"WARNING app ClearML: {api.url} cannot be reached: .*; trying again")
        assert app.ready().end() == 254
