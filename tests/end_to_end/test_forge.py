"""What comes from the forge is what `python -m app` is, started alone."""

import json
import os
import signal
import subprocess

import httpx
import psutil
import pytest

from tests.end_to_end.conftest import forge
from tests.end_to_end.forge import Forge, Forged

WAYS = pytest.mark.parametrize("alone", [True, False], ids=["alone", "forged"])


def kind(app):
    return Forged if isinstance(app.process, Forged) else subprocess.Popen


@WAYS
def test_what_is_wrong_is_said_and_ends_with_its_status(start, alone):
    app = start("--set", "Model/context_size=many", alone=alone)
    assert app.wait() == 2 and kind(app) is (subprocess.Popen if alone else Forged)
    assert app.output.endswith("ERROR app Model/context_size: 'many' is not a whole number")
    unknown = start("--no-such-option", alone=alone)
    assert unknown.wait() == 2
    assert "app: error: unrecognized arguments: --no-such-option" in unknown.output


@WAYS
def test_a_record_has_the_same_script(start, alone):
    """The SDK finds what was started, and its arguments, by itself."""
    app = start("--set", "Model/endpoint_name=x", recorded=True, alone=alone).ready()
    assert app.end() == 143
    parameters, _ = app.record()
    assert parameters["Model/endpoint_name"] == "x"
    (session,) = [p for p in (app.clearml / "offline").iterdir() if p.is_dir()]
    script = json.loads((session / "task.json").read_text())["script"]
    assert script["entry_point"].startswith("-m app.__main__  --cache-dir ")
    assert script["working_dir"] == "." and script["binary"].startswith("python")


@WAYS
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it_and_what_it_has_started(start, alone, signum):
    app = start(alone=alone).ready()
    children = app.children
    assert app.process.poll() is None
    status = app.end(signum)
    assert status == (-9 if signum == signal.SIGKILL else 128 + signum)
    assert app.process.poll() == status
    psutil.wait_procs([psutil.Process(p) for p in children if psutil.pid_exists(p)], timeout=20)
    assert not [pid for pid in children if psutil.pid_exists(pid)]


def test_it_has_its_own_variables_and_files(start):
    """And none of those of the process that forked it, nor of one that was forked before it."""
    first = start(LLAMACPP_API_KEY="the-first-ones-key-of-32-characters").ready()
    second = start(LLAMACPP_CACHE_LIMIT="5").ready()
    pids = first.process.pid, second.process.pid
    outputs = {os.readlink(f"/proc/{pid}/fd/1") for pid in pids}
    assert len(outputs) == 2
    for pid in pids:
        links = [os.readlink(f"/proc/{pid}/fd/{n}") for n in os.listdir(f"/proc/{pid}/fd")]
        assert len(outputs & set(links)) == 1
    (child,) = second.children
    assert "LLAMACPP_API_KEY" not in psutil.Process(child).environ()
    assert [httpx.get(app.url + "/api/status").status_code for app in (first, second)] == [401, 200]


def test_variables_of_the_interpreter_want_one_of_its_own(start):
    assert not forge().starts({"PYTHONWARNINGS": "error"})
    assert kind(start("--help", LD_LIBRARY_PATH="/none")) is subprocess.Popen
    assert kind(start("--help")) is Forged


def test_what_still_runs_ends_with_the_forge(tmp_path):
    hot = Forge()
    environment = {**hot.variables, "HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}
    given = ["--no-clearml", "--port", "0", "--cache-dir", str(tmp_path)]
    app = hot.start(given, environment)
    while app.stdout.readline() != "ready\n":
        assert app.poll() is None
    family = psutil.Process(app.pid).children(recursive=True)
    assert family
    hot.close()
    assert app.wait(20) == -9
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
    app.stdout.close()
