"""The real ClearML SDK, where its server gives no token or something else answers in its place."""

import re

import pytest

from tests.clearml_api import ApiServer
from tests.end_to_end.conftest import environment_of, finished
from tests.end_to_end.test_serving import chat, client, until
from tests.end_to_end.test_task import SERVING, online, parameters_of, tiny_path


@pytest.fixture
def api():
    with ApiServer() as server:
        yield server


COMMANDS = {
    "export": ["export", "0" * 32],
    "launch": ["launch", "--queue", "work", "--repo", "https://host/x.git", "--model", "/m.gguf"],
    "check": ["check", "--model", "0" * 32],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_ends_with_one_line(api, tmp_path, command):
    """A proxy lets logins pass, and answers everything else itself. (Where nobody is let in:
    `test_no_server`.)"""
    api.behind = 404
    clean = environment_of(tmp_path)
    places = {"CLEARML_CACHE_DIR": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    places["CLEARML_CONFIG_FILE"] = str(tmp_path / "no")
    environment = {**clean, **api.environment, **places}
    done = finished(*COMMANDS[command], environment=environment)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    (line,) = [each for each in done.stderr.splitlines() if " ERROR " in each]
    assert re.search("ClearML: .*not a ClearML server's", line), line


def test_a_token_that_cannot_be_renewed_is_waited_for(start, api, cache):
    """1. While we serve the server gives no token any more. 2. It does again. Result: requests are
    served all along, it is said in a line, and what the task shows goes on afterwards."""
    given = ["--model", tiny_path(cache), "--set", "Model/endpoint_name=tiny"]
    app = online(start, api, *given, "--set", "Idle/last_action_interval=1").ready()
    (task,) = api.state.tasks.values()
    until(lambda: parameters_of(task).get("properties/status") in SERVING)
    api.locked = True
    app.line("LoginError: .*trying again until it answers")
    asked = len(api.calls)
    chat(client(app))
    until(lambda: len(api.calls) >= asked + 2)
    shown = parameters_of(task)["properties/last_activity"]
    api.locked = False
    until(lambda: parameters_of(task)["properties/last_activity"] > shown)
    assert app.end() == 143
    assert task["status"] == "stopped" and api.state.containers == {}
    assert "Traceback" not in app.output
