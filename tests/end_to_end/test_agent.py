"""The real clearml-agent clones us and runs us, against the API stand-in."""

import collections
import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from app.models import tiny, tiny_writer
from tests.clearml_api import ApiServer
from tests.end_to_end.agent import GIT, Agent, Executing, repository, wait_for
from tests.end_to_end.conftest import PATIENCE, ROOT, environment_of, finished, free_port
from tests.end_to_end.test_task import SERVING, edited, form, parameters_of


@pytest.fixture
def api():
    with ApiServer() as server:
        yield server


@pytest.fixture
def source(tmp_path):
    return repository(tmp_path / "source")


@pytest.fixture
def weights(cache):
    return str(tiny.ensure(cache))


def command(api, tmp_path, *line, cwd=ROOT):
    """A command of a person's, with credentials."""
    environment = {**environment_of(tmp_path), **api.environment}
    environment["CLEARML_CONFIG_FILE"] = str(tmp_path / "no.conf")
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    environment |= {"CLEARML_CACHE_DIR": str(tmp_path / "person"), "PATH": path}
    if line[:3] == (sys.executable, "-m", "app") and cwd == ROOT:
        return finished(*line[3:], environment=environment)
    return subprocess.run(
        line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )


def launched(api, tmp_path, source, weights, *given):
    """`launch` as a person calls it: how it ends."""
    line = [sys.executable, "-m", "app", "launch", "--repo", source, "--queue", "work"]
    fields = {
        "Model/model": weights,
        "Model/endpoint_name": "tiny",
        "Model/threads": "1",
        "Idle/last_action_interval": "1",
        "General/drain_timeout": "1",
        "General/port": str(free_port()),
    }
    sets = [text for key, value in fields.items() for text in ("--set", f"{key}={value}")]
    return command(api, tmp_path, *line, *sets, *given)


def launch(*given):
    """The new task."""
    api, done = given[0], launched(*given)
    assert done.returncode == 0, done.stderr
    assert f"{api.url}/projects/*/tasks/{done.stdout.strip()}" in done.stderr
    return api.state.tasks[done.stdout.split()[-1]]


def log_of(api, task):
    events = [e for e in api.state.events if e.get("type") == "log" and e["task"] == task["id"]]
    return "\n".join(event["msg"] for event in events)


def status(agent, api, task, wanted, timeout=PATIENCE):
    def there():
        return task["status"] == wanted if wanted in STATUSES else serving(task)

    def what():
        """The last lines are those that are read."""
        shown = {key: text for key, text in parameters_of(task).items() if "properties/" in key}
        calls = [*collections.Counter(api.calls[-60:]).items()]
        heard = f"{log_of(api, task)}\n{agent.output}"
        return f"{heard}\n{task['status']}, not {wanted}: {shown}, last calls {calls}"

    wait_for(there, what, timeout)


def serving(task):
    """A machine under load shows it when it has been idle for a while already."""
    return property_of(task, "status") in SERVING


STATUSES = ("queued", "in_progress", "stopped", "completed", "failed")


def property_of(task, name):
    return parameters_of(task).get(f"properties/{name}")


def answers(task):
    """Whether the address that the task's page shows, also after the end, takes a connection."""
    host, port = re.search(r"http://([^/:]+):(\d+)/", property_of(task, "curl")).groups()
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


@pytest.mark.long
def test_a_clone_of_a_task_started_by_hand(api, tmp_path, source, weights):
    """A person starts the app in a checkout with local changes, from another folder, with a file
    and options. Result: an agent runs a clone by its own form, edits included, with the changes;
    neither the command line nor the file of the first one counts any more."""
    checkout, second = tmp_path / "checkout", str(tmp_path / "second.gguf")
    subprocess.run([*GIT, "clone", "-q", source, checkout], check=True)
    (checkout / "app" / "__init__.py").write_text('__version__ = "9.9.9"\n')
    tiny_writer.write(tmp_path / "second.gguf", context=2048)
    form = {"General": {"drain_timeout": 1, "port": free_port()}, "Model": {"parallel": 2}}
    (tmp_path / "form.json").write_text(json.dumps(form))
    (tmp_path / "elsewhere").mkdir()
    line = [sys.executable, "-m", "app", "--config", "../form.json", "--model", weights]
    with Agent(api, tmp_path / "agent", "work") as agent:
        wait_for(lambda: api.state.queues, lambda: agent.output)
        environment = {**agent.environment, "PYTHONPATH": str(checkout)}
        with (tmp_path / "person.log").open("w") as log:
            person = subprocess.Popen(
                line, cwd=tmp_path / "elsewhere", env=environment, stdout=log, stderr=log
            )
        said = (tmp_path / "person.log").read_text
        wait_for(lambda: api.state.tasks, said)
        (task,) = api.state.tasks.values()
        wait_for(lambda: serving(task), said)
        person.terminate()
        assert person.wait(PATIENCE) == 143
        assert "a clone of this task could not" not in said()
        assert task["script"]["entry_point"] == "-m app" and task["script"]["repository"] == source
        assert "9.9.9" in task["script"]["diff"]

        clone = api.state.tasks[edited(api, task, "Model/model", second)]
        port = str(free_port())
        clone["hyperparams"]["General"]["port"]["value"] = port
        api.state.act("tasks.enqueue", {"task": clone["id"], "queue_name": "work"})
        status(agent, api, clone, "serving")
        row = re.compile("^second +ready +2048 +2 ", re.M)
        wait_for(lambda: row.search(log_of(api, clone)), lambda: log_of(api, clone))
        assert property_of(clone, "endpoint").endswith(f":{port}")
        parameters = parameters_of(clone)
        assert (parameters["Model/model"], parameters["General/port"]) == (second, port)
        headers = {"X-Api-Key": clone["runtime"]["_api_key"]}
        asked = urllib.request.Request(f"http://127.0.0.1:{port}/api/status", headers=headers)
        with urllib.request.urlopen(asked) as answer:
            assert json.load(answer)["version"] == "9.9.9"
        api.state.act("tasks.stop", {"task": clone["id"]})
        status(agent, api, clone, "stopped")


@pytest.mark.long
@pytest.mark.skipif(not os.environ.get("EVERY_WAY"), reason="every package anew: make every-way")
def test_an_idle_end_with_all_requirements_installed(api, tmp_path, source, weights):
    """The agent makes an environment and installs what requirements.txt says."""
    with Agent(api, tmp_path / "agent", "work", install=True) as agent:
        wait_for(lambda: api.state.queues, lambda: agent.output)
        given = ["--set", "Idle/idle_time_limit=0.0005"]
        task = launch(api, tmp_path, source, weights, *given)
        status(agent, api, task, "completed", timeout=400)
        assert "idle for" in property_of(task, "stop_reason")
        assert str(tmp_path / "agent" / "venvs") in log_of(api, task)


@pytest.mark.long
def test_a_services_agent_hands_the_task_on(api, tmp_path, source, weights):
    """Enterprise starts an application's task where there is no GPU. Result: it moves to the
    queue that the form names and runs there, the same task; its container and project are the
    form's; the token in the form is still there for it, and gone afterwards."""
    api.state.act("queues.create", {"name": "work"})
    task = launch(api, tmp_path, source, weights, "--set", "General/project=Team One")
    api.state.act("tasks.dequeue", {"task": task["id"]})
    task["container"], task["project"] = {}, None
    task["hyperparams"]["properties"] = {}
    secret = {"section": "General", "name": "hf_token", "value": "hf_tokenOfTheForm"}
    task["hyperparams"]["General"]["hf_token"] = secret
    with Agent(api, tmp_path / "agent", "work") as agent:
        with Executing(api, tmp_path / "services", task["id"]) as services:
            services.process.wait(PATIENCE)
            assert services.process.returncode == -signal.SIGKILL
            status(agent, api, task, "serving")
            assert task["status"] == "in_progress"
            assert task["container"]["image"] == parameters_of(task)["General/container_image"]
            assert api.state.projects[task["project"]]["name"] == "Team One"
            assert parameters_of(task)["General/hf_token"] == ""
            assert "moving to the queue work" in log_of(api, task)
        api.state.act("tasks.stop", {"task": task["id"]})
        status(agent, api, task, "stopped")
        told = json.dumps(api.state.events) + agent.output + services.output
        assert "hf_tokenOfTheForm" not in told


@pytest.mark.long
def test_launch_waits_and_key_tells_how_to_call(api, tmp_path, source, weights):
    """1. Launched with a form that fails on the agent's machine: said with the reason. 2. Launched
    well: what `--wait` prints works as it stands. 3. `key` prints the same endpoint and key, and
    the endpoint takes no other. 4. After an abort it says that nothing serves."""
    with Agent(api, tmp_path / "agent", "work") as agent:
        wait_for(lambda: api.state.queues, lambda: agent.output)
        missing = ["--set", f"Model/model={tmp_path}/none.gguf", "--wait"]
        done = launched(api, tmp_path, source, weights, *missing)
        task = done.stdout.strip()
        assert done.returncode == 1 and len(task) == 32
        assert re.search(f"ERROR app {task} does not serve: failed: .*no such file", done.stderr)

        done = launched(api, tmp_path, source, weights, "--wait")
        assert done.returncode == 0, done.stderr + agent.output
        task, named, endpoint, key, page, curl = done.stdout.splitlines()
        assert named == f"task {task}" and page.endswith(f"/tasks/{task}/output/log")
        assert re.search(f"INFO app {task} \\(tiny\\): ", done.stderr)
        answer = subprocess.run(curl, shell=True, capture_output=True, text=True, timeout=PATIENCE)
        assert json.loads(answer.stdout)["usage"]["completion_tokens"] > 0

        told = command(api, tmp_path, sys.executable, "-m", "app", "key", task)
        assert told.returncode == 0 and told.stdout.splitlines() == [endpoint, key]
        status = endpoint.split()[1] + "/api/status"
        headers = {"Authorization": f"Bearer {key.split()[1]}"}
        with urllib.request.urlopen(urllib.request.Request(status, headers=headers)) as answer:
            assert json.load(answer)["status"] in ("active", "idle")
        with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(status):
            pass
        assert refused.value.code == 401
        refused.value.close()
        assert key.split()[1] not in log_of(api, {"id": task}) + done.stderr

        api.state.act("tasks.stop", {"task": task})
        wait_for(lambda: api.state.tasks[task]["status"] == "stopped", lambda: agent.output)
        told = command(api, tmp_path, sys.executable, "-m", "app", "key", task)
        assert told.returncode == 2 and told.stdout == ""
        assert f"task {task} does not serve: stopped: aborted in ClearML" in told.stderr


def test_who_interrupts_a_launch_that_waits_leaves_the_task(api, tmp_path, weights):
    api.state.act("queues.create", {"name": "work"})
    line = [sys.executable, "-m", "app", "launch", "--repo", "https://host/x.git"]
    line += ["--queue", "work", "--wait", "--replicas", "2", "--model", weights]
    environment = {**environment_of(tmp_path), **api.environment}
    environment |= {"CLEARML_CACHE_DIR": str(tmp_path), "CLEARML_CONFIG_FILE": str(tmp_path / "no")}
    with subprocess.Popen(
        line, cwd=ROOT, env=environment, stdout=-1, stderr=subprocess.PIPE, text=True
    ) as child:
        seen = [next(each for each in child.stderr if each.strip().endswith(": queued"))]
        child.send_signal(signal.SIGINT)
        ids, rest = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130 and "the tasks go on" in rest, (seen, rest)
    assert [api.state.tasks[task]["status"] for task in ids.split()] == ["queued", "queued"]


@pytest.mark.parametrize(
    "fields, problem",
    [
        ({"status": "queued"}, "does not serve yet: queued"),
        ({}, "its key is not in the task: it was given as LLAMACPP_API_KEY"),
        ({"system_tags": ["development"]}, "no agent runs it"),
        ({"system_tags": ["external_service"]}, "a token of ClearML's App Gateway, not a key"),
    ],
)
def test_key_says_where_the_key_is(api, tmp_path, fields, problem):
    runtime = {"endpoint": "http://gateway/x"}
    shown = form(properties__status="active", properties__endpoint="http://h:1")
    given = {"status": "in_progress", "runtime": runtime, "hyperparams": shown, **fields}
    task = api.state.new_task(**given)
    done = command(api, tmp_path, sys.executable, "-m", "app", "key", task["id"])
    assert done.returncode == 2 and problem in done.stderr


def test_there_is_no_key_of_an_unknown_task(api, tmp_path):
    unknown = command(api, tmp_path, sys.executable, "-m", "app", "key", "0" * 32)
    assert unknown.returncode == 2 and "there is no task" in unknown.stderr


def test_a_services_agent_refuses_a_bad_form(api, tmp_path, source):
    queue = api.state.act("queues.create", {"name": "work"})["id"]
    script = {"repository": source, "branch": "main", "entry_point": "-m app", "working_dir": "."}
    task = api.state.new_task(
        status="queued",
        script={**script, "requirements": {}, "diff": "", "binary": "python3"},
        hyperparams=form(Model__model="a/b/c", General__queue="work"),
    )
    with Executing(api, tmp_path / "services", task["id"]) as services:
        services.process.wait(PATIENCE)
        assert task["status"] == "failed"
        assert "Model/model: 'a/b/c' does not end in .gguf" in property_of(task, "stop_reason")
        assert api.state.queues[queue]["entries"] == []


def test_launch_prints_what_it_would_do(api, tmp_path, weights):
    line = [sys.executable, "-m", "app", "launch", "--dry-run"]
    line += ["--repo", "https://me:ghp_secret@host/x.git"]
    sets = ["--set", f"Model/model={weights}", "--set", "General/container_args=-v /models:/models"]
    done = command(api, tmp_path, *line, *sets, "--queue", "gpu", "--route", "r", "--replicas", "2")
    told = json.loads(done.stdout)
    assert told["queue"] == "gpu" and [t["name"] for t in told["tasks"]] == [
        "tiny-v1 1",
        "tiny-v1 2",
    ]
    task = told["tasks"][0]
    assert task["script"]["repository"] == "https://host/x.git"
    assert "ghp_secret" not in done.stdout + done.stderr
    assert task["hyperparams"]["General"]["gateway_route"]["value"] == "r"
    assert task["container"]["arguments"] == "-v /models:/models"
    assert api.state.tasks == {} and api.calls == []


@pytest.mark.parametrize(
    "given, problem",
    [
        (["--queue", "none"], "there is no queue 'none'; there is: work"),
        ([], "General/queue: is empty"),
        (["--queue", "work", "--set", "Model/threads=x"], "Model/threads: 'x' is not"),
        (["--queue", "work", "--config", "token.json"], "General/hf_token: everybody who may read"),
    ],
)
def test_launch_refuses(api, tmp_path, weights, given, problem):
    api.state.act("queues.create", {"name": "work"})
    (tmp_path / "token.json").write_text(json.dumps({"General": {"hf_token": "hf_secretToken"}}))
    given = [str(tmp_path / text) if text == "token.json" else text for text in given]
    line = [sys.executable, "-m", "app", "launch", "--repo", "https://host/x.git"]
    done = command(api, tmp_path, *line, "--model", weights, *given)
    assert done.returncode == 2 and problem in done.stderr, done.stderr
    assert "hf_secretToken" not in done.stderr and api.state.tasks == {}


def test_export_is_what_config_takes(api, tmp_path, weights):
    items = [{"model": weights, "endpoint_name": "a"}, {"model": weights, "endpoint_name": "b"}]
    fields = form(General__models=json.dumps(items), General__hf_token="hf_x", Model_2__threads="1")
    task = api.state.new_task(hyperparams=fields)
    done = command(api, tmp_path, sys.executable, "-m", "app", "export", task["id"])
    told = json.loads(done.stdout)
    assert told["General"]["models"] == [items[0], {**items[1], "threads": 1}]
    assert "hf_token" not in told["General"]
    (tmp_path / "c.json").write_text(done.stdout)
    line = [sys.executable, "-m", "app", "check", "--offline", "--config", str(tmp_path / "c.json")]
    assert command(api, tmp_path, *line).returncode == 0
    unknown = command(api, tmp_path, sys.executable, "-m", "app", "export", "0" * 32)
    assert unknown.returncode == 2 and "Invalid task id" in unknown.stderr
    other = api.state.new_task(hyperparams=form(General__epochs="3"))
    foreign = command(api, tmp_path, sys.executable, "-m", "app", "export", other["id"])
    assert foreign.returncode == 2 and "has no field of this app" in foreign.stderr
    assert foreign.stdout == ""
    misspelt = api.state.new_task(hyperparams=form(Model__modle="x"))
    warned = command(api, tmp_path, sys.executable, "-m", "app", "export", misspelt["id"])
    assert warned.returncode == 0 and "did you mean Model/model?" in warned.stderr
