"""A door behind the proxies for which a configuration is published, which are run for real."""

import http.client
import json
import shutil
import socket
import ssl
from pathlib import Path

import pytest

from tests.end_to_end.conftest import PATIENCE, ROOT, free_port
from tests.end_to_end.test_fleet import KEY, api, certificate, fleet, get  # noqa: F401 fixtures
from tests.end_to_end.test_gateway import Gateway

NAME = "llm.example.com"


def program(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def published(name, replaced):
    """A published text, with these parts of it replaced."""
    text = (ROOT / "templates" / name).read_text()
    for part, ours in replaced.items():
        assert part in text
        text = text.replace(part, str(ours))
    return text


def nginx(folder, port, door):
    given = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "127.0.0.1:8080": f"127.0.0.1:{door}",
        "/etc/letsencrypt/live/llm.example.com/fullchain.pem": folder / "cert.pem",
        "/etc/letsencrypt/live/llm.example.com/privkey.pem": folder / "key.pem",
    }
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; {places}\n{published('door-nginx.conf', given)} }}"
    )
    return [program("nginx"), "-p", str(folder), "-c", str(configuration)]


def caddy(folder, port, door):
    own = f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {folder}/cert.pem {folder}/key.pem"
    given = {"llm.example.com {": own, "127.0.0.1:8080": f"127.0.0.1:{door}"}
    configuration = folder / "Caddyfile"
    options = "{\n\tadmin off\n\tauto_https off\n\tstorage file_system %s\n}\n" % (folder / "caddy")
    configuration.write_text(options + published("door.Caddyfile", given))
    return [program("caddy"), "run", "--config", str(configuration), "--adapter", "caddyfile"]


@pytest.mark.parametrize("proxy", [nginx, caddy])
def test_a_stream_arrives_as_it_comes(fleet, tmp_path, proxy):  # noqa: F811
    """A caller of a stream waits, through the proxy, for an instance that does not come. Result:
    the door's comments arrive while it still waits, and then an error event."""
    program(proxy.__name__)
    fleet.api.state.queues_create({"name": "work"})
    door = fleet.door(fleet.routes(max=1, autoscaled=True))
    certificate(str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    port, behind = free_port(), int(door.url.rpartition(":")[2])
    context = ssl.create_default_context(cafile=tmp_path / "cert.pem")
    context.check_hostname = False
    with Gateway(proxy(Path(tmp_path), port, behind), port):
        connection = http.client.HTTPConnection(NAME)
        plain = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        connection.sock = context.wrap_socket(plain, server_hostname=NAME)
        body = json.dumps({"model": "tiny", "stream": True, "messages": [{"role": "user"}]})
        headers = {"Authorization": f"Bearer {KEY}", "X-Wait-Timeout": "20"}
        headers["Content-Type"] = "application/json"
        connection.request("POST", "/v1/chat/completions", body, headers)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.readline().startswith(b":")
        assert get(door)["routes"][0]["waiting"] == 1
        assert b'"error"' in answer.read()
        connection.close()
