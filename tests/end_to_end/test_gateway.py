"""App Gateway and Model Endpoints: the real SDK against the API stand-in, real nginx as gateway."""

import json
import shutil
import subprocess
import urllib.request

import pytest

from app.models import tiny
from tests.clearml_api import ApiServer
from tests.end_to_end.conftest import PATIENCE, free_port
from tests.end_to_end.test_serving import until
from tests.end_to_end.test_task import form, online, parameters_of

pytestmark = pytest.mark.quick

ROUTES = {
    "team": {"name": "team", "type": "path", "enabled": True, "status": "inactive"},
    "off": {"name": "off", "type": "path", "enabled": False, "status": "inactive"},
    "taken": {"name": "taken", "type": "path", "enabled": True, "status": "active"},
}
for known in ROUTES.values():
    known["load_balancer"] = {"enabled": False}


@pytest.fixture
def api():
    with ApiServer(feature_set="advanced", routes=ROUTES) as server:
        yield server


@pytest.fixture
def model(tmp_path):
    return str(tiny.ensure(tmp_path))


def ask(url, **headers):
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}).encode()
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(f"{url}/chat/completions", body, headers)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)["usage"]["completion_tokens"]


@pytest.mark.parametrize("route", ["", "team"])
def test_a_route_is_asked_for_and_its_address_is_shown(start, api, model, tmp_path, route):
    """The gateway passes its path on. Result: the task shows the gateway's address, a request
    through it arrives without a key of ours; the table has the model until the end."""
    port, behind = free_port(), free_port()
    api.state.gateway = f"http://127.0.0.1:{port}/gw"
    fields = {
        "Model__model": model,
        "Model__endpoint_name": "mine",
        "General__gateway_route": route,
    }
    task = api.state.new_task(hyperparams=form(**fields))
    app = online(
        start,
        api,
        "--set",
        "Idle/last_action_interval=1",
        port=str(behind),
        CLEARML_TASK_ID=task["id"],
        LLAMACPP_ALLOW_FROM="127.0.0.0/8",
    ).ready()
    path = f"/gw/{route}" if route else f"/gw/service/{task['id']}"
    app.line("the App Gateway's endpoint is")
    assert task["runtime"]["_PORT"] == behind
    until(lambda: parameters_of(task)["properties/endpoint"] == f"http://127.0.0.1:{port}{path}")
    with nginx(tmp_path, port, behind):
        assert ask(f"http://127.0.0.1:{port}{path}/mine/v1", Authorization="Bearer gw") == 3
    rows = api.state.containers
    until(
        lambda: (
            [
                row.get("endpoint_url", "").startswith(f"http://127.0.0.1:{port}/gw")
                for row in rows.values()
            ]
            == [True]
        )
    )
    (row,) = rows.values()
    assert row["endpoint_name"] == "mine" and row["timeout"] == 120
    assert row["endpoint_url"].endswith("/mine/v1")
    assert row["machine_stats"]["cpu_usage"]
    app.end()
    assert api.state.containers == {} and len(api.state.gone) == 1
    assert "_api_key" not in task["runtime"]


def nginx(folder, port, behind):
    """A gateway that passes the path on as it is."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if binary is None:
        pytest.skip("nginx is not installed")
    configuration = folder / "nginx.conf"
    configuration.write_text(
        f"""
        daemon off; pid {folder}/nginx.pid; error_log stderr;
        events {{}}
        http {{
          access_log {folder}/access.log;
          client_body_temp_path {folder}/b; proxy_temp_path {folder}/p;
          fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
          server {{
            listen 127.0.0.1:{port};
            location / {{ proxy_pass http://127.0.0.1:{behind}; }}
          }}
        }}
        """
    )
    return Gateway([binary, "-p", str(folder), "-c", str(configuration)], port)


class Gateway:
    def __init__(self, command, port):
        self.command, self.port = command, port

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stderr=subprocess.DEVNULL)
        until(self.listens)

    def listens(self):
        import socket

        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)


@pytest.mark.parametrize(
    "route, problem",
    [("none", "does not exist"), ("off", "is disabled"), ("taken", "is active")],
)
def test_a_static_route_that_cannot_be_had_is_refused(start, api, model, route, problem):
    fields = {"Model__model": model, "General__gateway_route": route}
    task = api.state.new_task(hyperparams=form(**fields))
    app = online(start, api, CLEARML_TASK_ID=task["id"])
    assert app.wait() == 0  # the task has the reason
    assert f"General/gateway_route: Static route {route}" in app.output.replace("'", "")
    assert problem in app.output and "Traceback" not in app.output


def test_an_open_source_server_has_the_table_and_no_gateway(start, model):
    with ApiServer() as api:
        fields = {"Model__model": model, "General__gateway_route": "team"}
        task = api.state.new_task(hyperparams=form(**fields))
        app = online(start, api, CLEARML_TASK_ID=task["id"]).ready()
        assert "this ClearML server has no App Gateway" in app.output
        assert "in the route team of `python -m app fleet`" in app.output
        until(lambda: api.state.containers)
        app.end()
        assert api.state.containers == {}


def test_who_is_not_allowed_gets_no_connection(start, model):
    app = start("--model", model, LLAMACPP_ALLOW_FROM="10.1.0.0/16,192.168.0.0/24").ready()
    with pytest.raises(OSError):
        urllib.request.urlopen(f"{app.url}/health", timeout=5)
    bad = start("--model", model, LLAMACPP_ALLOW_FROM="10.1.0.0/99")
    assert bad.wait() == 2
    assert "LLAMACPP_ALLOW_FROM" in bad.output
