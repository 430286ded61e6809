"""The table of raw messages through real nginx and HAProxy, which share their connections to us.

Whatever a proxy makes of a message, a good client beside it gets its own answers, no body becomes a
request, and nobody waits for ever.
"""

import asyncio
import contextlib
import shutil
import subprocess

import pytest

from app.machine.network import free_port
from tests.fakes import RawClient, serving
from tests.gateway.http.asking import whole
from tests.gateway.http.cases import CASES

PATIENCE = 20
AT_ONCE = 100

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1; master_process off;
events {{}}
http {{
  access_log off;
  client_header_timeout 5s; client_body_timeout 5s; keepalive_timeout 1s;
  proxy_request_buffering off; proxy_http_version 1.1; proxy_set_header Connection "";
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream front {{ server 127.0.0.1:{behind}; keepalive 2; }}
  server {{
    listen 127.0.0.1:{port}; server_name h;
    ignore_invalid_headers off; underscores_in_headers on;
    location / {{ proxy_pass http://front; proxy_set_header Host $http_host; }}
  }}
}}
"""
HAPROXY = """
global
  nbthread 1
defaults
  mode http
  option http-keep-alive
  timeout connect 5s
  timeout client 5s
  timeout server 5s
  timeout http-request 5s
  timeout http-keep-alive 1s
  retries 0
frontend in
  bind 127.0.0.1:{port}
  default_backend front
backend front
  http-reuse always
  server front 127.0.0.1:{behind} pool-max-conn 2
"""


def nginx(folder, configuration):
    return ["nginx", "-p", str(folder), "-c", str(configuration)]


def haproxy(folder, configuration):
    return ["haproxy", "-db", "-q", "-f", str(configuration)]


@pytest.fixture(params=[(nginx, NGINX), (haproxy, HAPROXY)], ids=["nginx", "haproxy"])
def proxy(request, tmp_path):
    """A context manager: the port of a proxy before the port `behind`."""
    command, text = request.param
    name = command.__name__
    binary = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if binary is None:
        pytest.skip(f"{name} is not installed")

    @contextlib.asynccontextmanager
    async def before(behind):
        port = free_port()
        configuration = tmp_path / "proxy.conf"
        configuration.write_text(text.format(folder=tmp_path, port=port, behind=behind))
        arguments = [binary, *command(tmp_path, configuration)[1:]]
        process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
        try:
            await listening(process, port)
            yield port
        finally:
            process.terminate()
            process.wait(PATIENCE)

    return before


async def listening(process, port):
    while process.poll() is None:
        with contextlib.suppress(OSError):
            await (await RawClient.to(port)).close()
            return
        await asyncio.sleep(0.02)
    pytest.fail("the proxy did not start")


class Front:
    """What the front is asked, answered by what it was asked."""

    def __init__(self):
        self.targets = []

    async def __call__(self, request):
        self.targets.append(request.target)
        body = await whole(request)
        name = request.header(b"x-name") or b""
        request.reply(200, b"%b|%b|%d\n" % (request.target.encode("latin-1"), name, len(body)))


async def hostile(port, case):
    """Sends a message as it is, and reads until the proxy has enough of it."""
    client = await RawClient.to(port)
    with contextlib.suppress(ConnectionError):
        await client.send(case.data)
        await asyncio.wait_for(client.rest(), PATIENCE)
    await client.close()


async def good(port, number):
    client = await RawClient.to(port)
    body = b"b" * (number % 50)
    head = b"POST /good/%d HTTP/1.1\r\nhost: h\r\nx-name: n%d\r\ncontent-length: %d\r\n\r\n"
    await client.send(head % (number, number, len(body)) + body)
    status, _, answer = await asyncio.wait_for(client.response(), PATIENCE)
    await client.close()
    return status, answer == b"/good/%d|n%d|%d\n" % (number, number, len(body))


def test_a_good_client_beside_hostile_ones_gets_its_own_answers(proxy, caplog):
    async def scenario():
        front, gate = Front(), asyncio.Semaphore(AT_ONCE)

        async def beside(number, case, port):
            async with gate:
                _, answer = await asyncio.gather(hostile(port, case), good(port, number))
            return answer

        async with serving(front) as behind, proxy(behind) as port:
            pairs = [beside(number, case, port) for number, case in enumerate(CASES)]
            answers = await asyncio.gather(*pairs)
        assert answers == [(200, True)] * len(CASES)
        assert not any("smuggled" in target for target in front.targets)
        assert sum(not target.startswith("/good/") for target in front.targets) > len(CASES) // 4

    asyncio.run(scenario())
    assert caplog.records == []
