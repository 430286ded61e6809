"""A door and two machines: real agents on the API stand-in, which run real instances."""

import contextlib
import json
import platform
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.models import tiny
from app.task.checkout import Script
from app.task.launch import describe
from tests.clearml_api import ApiServer
from tests.end_to_end.agent import Agent, repository, wait_for
from tests.end_to_end.browser import PROGRAM, chromium
from tests.end_to_end.conftest import PATIENCE, App

OUTAGE = 60  # seconds
LONG = 600  # seconds that callers may wait before one more instance is started for that
KEY = "a-key-of-the-door-for-its-callers"
SECRET = "a-secret-of-the-door-and-its-agents"


@pytest.fixture
def api():
    with ApiServer() as server:
        yield server


@pytest.fixture
def fleet(api, tmp_path, cache):
    with contextlib.ExitStack() as stack:
        yield Fleet(api, tmp_path, str(tiny.ensure(cache)), stack)


class Fleet:
    """Doors and agents, whose instances serve a tiny model under the name `tiny`."""

    alone = False  # each process one of its own, as where it is measured

    def __init__(self, api, folder, weights, stack):
        self.api, self.folder, self.stack = api, folder, stack
        self.weights = weights
        self.source = repository(folder / "source")
        self.count = 0
        self.starting = []  # the names of agents

    def agent(self, queue="work", worker="one", **environment):
        self.count += 1
        folder = self.folder / f"agent{self.count}"
        given = {"LLAMACPP_ROUTE_SECRET": SECRET, "CLEARML_WORKER_ID": f"{worker}:{queue}"}
        given["CLEARML_AGENT_HOST_IP"] = "127.0.0.1"
        with self.api.lock:  # of two agents that create one queue at once the second one would end
            if queue not in {known["name"] for known in self.api.state.queues.values()}:
                self.api.state.queues_create({"name": queue})
        self.starting.append(given["CLEARML_WORKER_ID"])
        return self.stack.enter_context(Agent(self.api, folder, queue, **given, **environment))

    def routes(self, name="chat", **fields):
        form = {
            "General": {"queue": "work", "port": "0", "drain_timeout": 5},
            "Model": {"model": self.weights, "endpoint_name": "tiny", "threads": 1},
        }
        for section, values in fields.pop("form", {}).items():
            form[section] |= values
        lines = [f"[{name}]"]
        lines += [f"{key} = {json.dumps(value)}" for key, value in fields.items()]
        for section, values in form.items():
            lines += [f"form.{section}.{key} = {json.dumps(v)}" for key, v in values.items()]
        return "\n".join(lines) + "\n"

    def agents_are_there(self):
        """Whether the server knows all agents: a door refuses at once what none would take."""
        return all(any(w.startswith(s) for w in self.api.state.workers) for s in self.starting)

    def door(self, routes, *arguments, **environment):
        wait_for(self.agents_are_there, lambda: f"{self.starting} {self.api.state.workers}")
        self.starting.clear()
        self.count += 1
        folder = self.folder / f"door{self.count}"
        folder.mkdir()
        given = ["fleet", "--host", "127.0.0.1", "--port", "0", "--repo", self.source, *arguments]
        if routes:
            (folder / "routes.toml").write_text(routes)
            given += ["--config", str(folder / "routes.toml")]
        environment = {
            **self.api.environment,
            "LLAMACPP_API_KEY": KEY,
            "LLAMACPP_ROUTE_SECRET": SECRET,
            **environment,
        }
        door = App(folder, given, environment, alone=self.alone)
        self.stack.callback(door.clean_up)
        door.ready()
        return door

    def instance(self, route="chat"):
        """One that a person starts, in the route."""
        self.count += 1
        folder = self.folder / f"instance{self.count}"
        folder.mkdir()
        sets = {"General/gateway_route": route, "Model/threads": 1, "Model/endpoint_name": "tiny"}
        given = ["--model", self.weights, "--host", "127.0.0.1", "--port", "0"]
        given += [text for key, value in sets.items() for text in ("--set", f"{key}={value}")]
        environment = {**self.api.environment, "LLAMACPP_ROUTE_SECRET": SECRET}
        instance = App(folder, given, environment, alone=self.alone)
        self.stack.callback(instance.clean_up)
        return instance.ready()

    def template(self):
        """A task that serves as people want it."""
        form = {"Model/model": self.weights, "Model/endpoint_name": "tiny", "Model/threads": "1"}
        form |= {"General/port": "0", "Idle/idle_time_limit": "1"}
        described = describe("a template", Script(self.source, "main", ""), form)
        return self.api.state.tasks_create(described)["id"]

    def clones(self, template):
        return [t for t in self.api.state.tasks.values() if t.get("parent") == template]

    @property
    def tasks(self):
        """Those that a door has ordered."""
        return [t for t in self.api.state.tasks.values() if t["name"] != "llama.cpp door"]


def call(door, path="/v1/chat/completions", body=None, key=KEY, timeout=PATIENCE, **headers):
    """Status and answer."""
    body = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], **(body or {})}
    given = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
    request = urllib.request.Request(door.url + path, json.dumps(body).encode(), given)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def get(door, path="/api/status", key=KEY):
    request = urllib.request.Request(door.url + path, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.loads(answer.read())


def test_from_zero(fleet):
    """Sixteen callers at once, some of streams, and no instance. Result: one task, all are
    answered, and the instance's task shows how it was ordered."""
    fleet.agent()
    door = fleet.door(fleet.routes(max=2, queue_wait=LONG))
    answers = []

    def ask(number):
        answers.append(call(door, body={"max_tokens": 4, "stream": number % 2 == 0}))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [status for status, _ in answers] == [200] * 16, (answers, door.output)
    assert not any('"error"' in text for _, text in answers), answers
    assert len(fleet.tasks) == 1, door.output
    (route,) = get(door)["routes"]
    assert route["serving"] == 1 and route["served"] == 16
    assert all(SECRET not in json.dumps(task) for task in fleet.api.state.tasks.values())
    assert KEY not in json.dumps(fleet.tasks) and "_api_key" not in json.dumps(fleet.tasks)


def test_a_replica_that_is_killed_costs_no_request(fleet, endless):
    """Two instances, callers of short answers and of long streams; one of the instances is killed
    by SIGKILL. Result: every short request is answered; the streams of the killed one end with an
    error event, and those of the other one end as they should."""
    fleet.weights = str(endless)
    killed, _ = fleet.instance(), fleet.instance()
    door = fleet.door(fleet.routes(min=0, max=2))
    wait_for(lambda: serving(door) == 2, lambda: door.output)
    ended, stop = [], threading.Event()

    def short(number):
        while not stop.is_set():
            ended.append(call(door, body=conversation(f"{number} {len(ended)}", max_tokens=8)))

    # Those of one instance fit into its KV cache together: else some would wait for others' ends.
    streams = [Stream(door, conversation(f"stream {n}", max_tokens=2000)) for n in range(6)]
    wait_for(lambda: all(stream.begun for stream in streams), lambda: door.output)
    loads = [each["in_flight"] for each in get(door)["routes"][0]["instances"]]
    assert sum(loads) == 6 and min(loads) > 0, loads
    threads = [threading.Thread(target=short, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: ended, lambda: door.output)
    killed.process.kill()
    before = len(ended)
    wait_for(lambda: len(ended) > before + 6, lambda: door.output)
    stop.set()
    for thread in (*threads, *(stream.thread for stream in streams)):
        thread.join(PATIENCE)
    assert {status for status, _ in ended} == {200}, ended
    broken = ['"error"' in stream.end for stream in streams]
    whole = ["[DONE]" in stream.end for stream in streams]
    assert 0 < sum(broken) < 6, [stream.end for stream in streams]
    assert [each != other for each, other in zip(broken, whole, strict=True)] == [True] * 6


def test_rolling_replacement(fleet):
    """An instance is told to stop while another one serves: its requests end, and none fails."""
    old = fleet.instance()
    door = fleet.door(fleet.routes(min=0, max=2))
    wait_for(lambda: serving(door) == 1, lambda: door.output)
    answers, stop = [], threading.Event()

    def ask(number):
        while not stop.is_set():
            answers.append(call(door, body=conversation(f"{number}", max_tokens=16)))
            time.sleep(0.05)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    fleet.instance()
    wait_for(lambda: serving(door) == 2, lambda: door.output)
    assert old.end() == 143
    done = len(answers)
    wait_for(lambda: len(answers) > done + 8, lambda: door.output)
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200}, answers


def test_a_template_is_cloned_and_a_new_one_takes_over(fleet):
    """A route of a template, from zero; then its text names another template. Result: a clone
    serves, which shows its route; a clone of the other one comes up beside it and takes over, and
    no request fails meanwhile."""
    fleet.agent(worker="one")
    fleet.agent(worker="two")
    templates = [fleet.template(), fleet.template()]
    routes = [f'[chat]\ntemplate = "{each}"\nqueue = "work"\n' for each in templates]
    door = fleet.door(routes[0])
    assert call(door, body={"max_tokens": 2})[0] == 200
    (first,) = fleet.clones(templates[0])
    assert first["hyperparams"]["General"]["gateway_route"]["value"] == "chat"
    answers, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            answers.append(call(door, body={"max_tokens": 8}))
            time.sleep(0.05)

    thread = threading.Thread(target=ask)
    thread.start()
    (task,) = [t for t in fleet.api.state.tasks.values() if t["name"] == "llama.cpp door"]
    task["configuration"]["routes"]["value"] = routes[1]
    wait_for(lambda: first["status"] == "completed", lambda: door.output)
    done = len(answers)
    wait_for(lambda: len(answers) > done + 2, lambda: door.output)
    stop.set()
    thread.join()
    assert {status for status, _ in answers} == {200}, answers
    (second,) = fleet.clones(templates[1])
    assert second["status"] == "in_progress" and len(fleet.clones(templates[0])) == 1


def test_to_two_and_back(fleet):
    """More requests than one instance has slots, for long. Result: a second one is started; when
    all is quiet both are let go, one after the other, and their tasks are completed."""
    fleet.agent(worker="one")
    fleet.agent(worker="two")
    routes = fleet.routes(max=2, queue_wait=0.001, quiet_minutes=0.05, form=ONE_SLOT)
    door = fleet.door(routes)
    stop, answers = threading.Event(), []

    def ask(number):
        while not stop.is_set():
            answers.append(call(door, body=conversation(f"{number}", max_tokens=16)))
            stop.wait(0.3)

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    wait_for(lambda: serving(door) == 2, lambda: door.output)
    stop.set()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200}, answers
    wait_for(lambda: serving(door) == 0, lambda: door.output)
    statuses = lambda: [task["status"] for task in fleet.tasks]  # noqa: E731
    wait_for(lambda: statuses() == ["completed"] * 2, lambda: f"{statuses()} {door.output}")
    assert call(door)[0] == 200  # and from zero again


@pytest.mark.long  # it mostly sleeps
def test_while_the_server_is_away(fleet):
    """The ClearML server answers nothing for a minute; a route has an instance, and one has none.
    Result: requests of the first go on, those of the second are told why they wait in vain, the
    door's log is not flooded, and nothing is started twice afterwards."""
    fleet.agent()
    fleet.instance()
    door = fleet.door(fleet.routes(min=1, max=2, queue_wait=LONG) + fleet.routes("zero", max=1))
    wait_for(lambda: serving(door) == 1, lambda: door.output)
    fleet.api.behind = 502
    until, lines, answers = time.monotonic() + OUTAGE, len(door.lines), []
    ask = lambda: answers.append(call(door, "/zero/v1/chat/completions"))  # noqa: E731
    wait = {"X-Wait-Timeout": "2"}
    early = call(door, "/zero/v1/chat/completions", {"stream": False}, **wait)
    while time.monotonic() < until:
        assert call(door, body={"max_tokens": 2})[0] == 200
        time.sleep(1)
    late = call(door, "/zero/v1/chat/completions", {"stream": False}, **wait)
    for status, told in (early, late):
        assert status == 503 and "HTTP 502" in told, told
    assert get(door)["listed"] > OUTAGE - 10 and len(door.lines) - lines < 20, door.output
    thread = threading.Thread(target=ask)  # it waits, and is served once the server is back
    thread.start()
    fleet.api.behind = None
    wait_for(lambda: get(door)["listed"] < 4, lambda: door.output, 30)
    thread.join()
    assert answers[0][0] == 200, answers
    assert len(fleet.tasks) == 2 and serving(door) == 1


def test_two_doors(fleet):
    """Two doors of one route, and callers of both at once. Result: one task."""
    fleet.agent()
    doors = [fleet.door(fleet.routes(max=2, queue_wait=LONG)) for _ in range(2)]
    answers = []
    threads = [
        threading.Thread(target=lambda d=door: answers.append(call(d, body={"max_tokens": 2})))
        for door in doors * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200}, answers
    assert len(fleet.tasks) == 1
    queues = [queue["name"] for queue in fleet.api.state.queues.values()]
    assert queues == ["work"]


@pytest.mark.parametrize("edits_runtime", [True, False])
def test_the_last_door_takes_back_what_waits_in_the_queue(fleet, edits_runtime):
    """Two doors of a route have ordered an instance, which no agent takes. Result: the order stays
    while one of them is here, and is gone with the other one, also on a server that has no
    `tasks.edit_runtime`."""
    fleet.api.state.edits_runtime = edits_runtime
    fleet.api.state.queues_create({"name": "work"})
    doors = [fleet.door(fleet.routes(min=1, max=1, autoscaled=True)) for _ in range(2)]
    tasks = fleet.api.state.tasks
    told = lambda: [t["runtime"].get("llamacpp_door", "") for t in list(tasks.values())]  # noqa: E731
    output = lambda: doors[0].output + doors[1].output  # noqa: E731
    wait_for(lambda: len([each for each in told() if each.endswith(" chat")]) == 2, output)
    wait_for(lambda: [task["status"] for task in fleet.tasks] == ["queued"], output)
    assert doors[0].end() == 143
    assert [task["status"] for task in fleet.tasks] == ["queued"]
    assert doors[1].end() == 143
    assert fleet.tasks == [] and "nobody waits for task" in output()


def test_what_callers_are_told_while_none_serves(fleet):
    """No agent on the queue, then a template that fails. Result: 503 that says so, at once."""
    fleet.api.state.queues_create({"name": "empty"})
    routes = fleet.routes("alone", queue="empty", max=1)
    routes += fleet.routes("wrong", max=1, form={"Model": {"model": "/no/such/file.gguf"}})
    fleet.agent()
    door = fleet.door(routes)
    status, told = call(door, "/service/alone/tiny/v1/chat/completions")
    assert status == 503 and "no agent takes tasks from the queue empty" in told, told
    status, told = call(door, "/service/wrong/v1/chat/completions", body={"model": "wrong"})
    assert status == 503 and ": file.gguf: no such file" in told, told


def test_keys_and_names(fleet, tmp_path):
    """A caller of the keys file reaches the models that it may use, by every spelling, and sees no
    other; the door's own key sees all."""
    hashed = "6ca13d52ca70c883e0f0bb101e425a89e8624de51db2d2392593af6a84118090"  # of abc123
    (tmp_path / "keys.toml").write_text(f'[alice]\nsha256 = "{hashed}"\nmodels = ["chat/tiny"]\n')
    fleet.instance()
    routes = fleet.routes(min=0, max=1) + fleet.routes("other", max=0)
    door = fleet.door(routes, LLAMACPP_API_KEYS_FILE=str(tmp_path / "keys.toml"))
    wait_for(lambda: serving(door) == 1, lambda: door.output)
    for path, model in (
        ("/v1/chat/completions", "chat/tiny"),
        ("/service/chat/tiny/v1/chat/completions", "anything"),
        ("/chat/v1/chat/completions", "chat"),
    ):
        for key in (KEY, "abc123"):
            status, told = call(door, path, {"model": model, "max_tokens": 2}, key)
            assert status == 200 and json.loads(told)["usage"], (path, told)
    assert call(door, "/other/tiny/v1/chat/completions", key="abc123")[0] == 404
    assert call(door, "/other/tiny/v1/chat/completions")[0] == 503
    assert call(door, key="wrong")[0] == 401
    listed = {each["id"] for each in get(door, "/v1/models", "abc123")["data"]}
    assert listed == {"chat/tiny", "chat", "tiny"}
    assert "other" in {route["name"] for route in get(door)["routes"]}
    assert "instances" not in json.dumps(get(door, key="abc123")["routes"])


def test_an_instance_that_proves_nothing_gets_no_key(fleet):
    """A task of another user claims to be of the route, at an address where somebody listens.
    Result: it is asked for a proof, without a key, and gets no request."""
    asked = []

    class Thief(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            asked.append((self.path, self.headers.get("Authorization", "")))
            body = b'{"proof": "00"}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Thief) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        door = fleet.door(fleet.routes(max=0))
        project = next(iter(fleet.api.state.projects))
        task = fleet.api.state.new_task(project=project, status="in_progress")
        task["hyperparams"] = {"General": {"gateway_route": {"value": "chat"}}}
        task["runtime"] = {
            "llamacpp_route": f"{task['id']} chat",
            "llamacpp_address": f"http://127.0.0.1:{server.server_port}",
        }
        door.line("does not prove that it is its instance")
        status, told = call(door, "/chat/tiny/v1/chat/completions", **{"X-Wait-Timeout": "2"})
        assert status == 503 and "does not prove" in told
        server.shutdown()
    assert {path.partition("?")[0] for path, _ in asked} == {"/api/proof"}
    assert {authorization for _, authorization in asked} <= {"", "Bearer "}


def test_tls(fleet, tmp_path):
    """The door serves HTTPS, and a renewed certificate without a restart."""
    paths = [str(tmp_path / name) for name in ("cert.pem", "key.pem")]
    first = certificate(*paths)
    fleet.instance()
    door = fleet.door(fleet.routes(max=0), "--tls-cert", paths[0], "--tls-key", paths[1])
    url = door.line(r"listening on (https://\S+)")[1]
    port = int(url.rpartition(":")[2])

    def answer():
        context = ssl.create_default_context(cafile=paths[0])
        context.check_hostname = False
        request = urllib.request.Request(f"{url}/v1/models")
        request.add_header("Authorization", f"Bearer {KEY}")
        with urllib.request.urlopen(request, timeout=PATIENCE, context=context) as told:
            return json.loads(told.read())

    wait_for(lambda: answer()["data"], lambda: door.output)
    assert ssl.get_server_certificate(("127.0.0.1", port)).strip() == first.strip()
    second = certificate(*paths)
    seen = lambda: ssl.get_server_certificate(("127.0.0.1", port)).strip()  # noqa: E731
    wait_for(lambda: seen() == second.strip(), lambda: door.output)
    assert answer()["data"]


def test_routes_are_edited_in_the_task(fleet):
    """The configuration of the door's task gets a second route. Result: it is there within
    seconds, and what is no TOML changes nothing."""
    door = fleet.door(fleet.routes(max=0))
    (task,) = [t for t in fleet.api.state.tasks.values() if t["name"] == "llama.cpp door"]
    held = task["configuration"]["routes"]
    held["value"] = "[chat"
    door.line("not TOML")
    held["value"] = fleet.routes(max=0) + fleet.routes("second", max=0)
    wait_for(lambda: len(get(door)["routes"]) == 2, lambda: door.output)
    assert door.end() == 143


ONE_SLOT = {"Model": {"parallel": 1}}


def serving(door):
    return get(door)["routes"][0]["serving"]


def conversation(text, **fields):
    return {"messages": [{"role": "user", "content": text}], **fields}


def certificate(certificate, key):
    """A new self-signed one for this machine, as PEM."""
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    line = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*line, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return Path(certificate).read_text()


class Stream:
    """A caller of a stream, who reads it in the background: whether it has `begun`, and its last
    characters."""

    def __init__(self, door, body):
        self._url, self._body = door.url, {"model": "tiny", "stream": True, **body}
        self.begun, self.end = False, ""
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        given = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        path = f"{self._url}/v1/chat/completions"
        request = urllib.request.Request(path, json.dumps(self._body).encode(), given)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            for line in answer:
                self.begun = self.begun or line.startswith(b"data:")
                self.end = self.end[-600:] + line.decode()


@pytest.mark.skipif(PROGRAM is None, reason="there is no chromium")
def test_the_page_of_a_door(fleet):
    """The page asks for a key, and shows routes and instances, and an answer counts."""
    fleet.instance()
    door = fleet.door(fleet.routes(max=1))
    wait_for(lambda: serving(door) == 1, lambda: door.output)
    assert call(door)[0] == 200
    with chromium() as browser:
        page = browser.new_page()
        errors = []
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(door.url)
        page.get_by_text("key needed").wait_for()
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Use").click()
        page.get_by_role("heading", name="chat").wait_for()
        page.get_by_text("1 of 0 to 1 instances").wait_for()
        row = page.locator("tbody tr")
        row.get_by_text("tiny: ready").wait_for()
        row.get_by_text(platform.node()).wait_for()
        assert page.locator("svg.history path").count() == 2
        assert errors == []
