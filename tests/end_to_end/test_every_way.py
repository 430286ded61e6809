"""Every way in, and every second run: the real clearml-agent runs each against the API stand-in.

`make every-way` runs all with all. `make test` runs those ways that no other test goes, and those
second runs that no other test makes, each with one of them.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests
from pyhocon import ConfigFactory

from app.models import tiny
from tests.clearml_api import ApiServer
from tests.end_to_end.agent import GIT, Agent, Executing, repository, wait_for
from tests.end_to_end.conftest import PATIENCE, ROOT, App, free_port
from tests.end_to_end.test_agent import answers, command, log_of, property_of, serving, status
from tests.end_to_end.test_task import edited, form, parameters_of

FIELDS = {
    "Model/endpoint_name": "tiny",
    "Idle/last_action_interval": "1",
    "General/drain_timeout": "1",
}


@dataclass
class Place:
    """An agent that works on one task after the other, its server, and our repository."""

    agent: Agent
    api: ApiServer
    source: str
    weights: str
    folder: Path

    def fields(self, **more):
        return {"Model/model": self.weights, **FIELDS, "General/port": str(free_port()), **more}

    def run(self, *line, cwd=ROOT):
        done = command(self.api, self.folder, *line, cwd=cwd)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def checkout(self):
        """A clone of our repository, as a person has it."""
        folder = self.folder / f"checkout-{len(list(self.folder.iterdir()))}"
        subprocess.run([*GIT, "clone", "-q", self.source, folder], check=True)
        return folder

    def enqueue(self, task):
        self.api.state.act("tasks.enqueue", {"task": task["id"], "queue_name": "work"})

    def until(self, task, wanted):
        status(self.agent, self.api, task, wanted)

    def nothing_left(self, task):
        wait_for(lambda: not self.agent.servers, lambda: f"left: {self.agent.servers}")
        assert not answers(task)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("every-way")
    weights = str(tiny.ensure(tmp_path_factory.mktemp("weights")))
    with ApiServer() as api, Agent(api, folder / "agent", "work") as agent:
        wait_for(lambda: api.state.queues, lambda: agent.output)
        (folder / "person").mkdir()
        source = repository(folder / "source")
        yield Place(agent, api, source, weights, folder / "person")


# The ways in: each returns a task that has been started once, by an agent or by hand.


def launched(place):
    sets = [text for key, value in place.fields().items() for text in ("--set", f"{key}={value}")]
    line = [sys.executable, "-m", "app", "launch", "--repo", place.source, "--queue", "work"]
    return place.api.state.tasks[place.run(*line, *sets).split()[-1]]


def from_the_form(place, **more):
    """As ClearML makes a task of the application's file and of what a person typed."""
    conf = ConfigFactory.parse_file(ROOT / "templates" / "llamacpp-deployment.app.conf")
    typed = place.fields(**more)
    item = {k.split("/")[1]: v for k, v in typed.items() if k.startswith("Model/")}
    rest = {k: v for k, v in typed.items() if not k.startswith("Model/")}
    shipped = conf["task"]["hyperparams"].as_plain_ordered_dict()
    defaults = {f"{s}/{n}": text for s, fields in shipped.items() for n, text in fields.items()}
    texts = {**defaults, **rest, "General/models": json.dumps([item])}
    script = {**conf["task"]["script"].as_plain_ordered_dict(), "repository": place.source}
    return place.api.state.new_task(
        name="from the form",
        script={**script, "binary": "python3", "requirements": {}, "diff": ""},
        hyperparams=form(**{key.replace("/", "__"): text for key, text in texts.items()}),
    )


def the_form(place):
    task = from_the_form(place)
    place.enqueue(task)
    return task


def the_form_by_services(place):
    """The services agent has no GPU: the task moves to the queue that its form names."""
    task = from_the_form(place, **{"General/queue": "work"})
    folder = place.folder / f"services-{task['id']}"
    with Executing(place.api, folder, task["id"]) as services:
        services.process.wait(PATIENCE)
    return task


def clearml_task(*entry, checkout=False):
    def way(place):
        where = ["--folder", "."] if checkout else ["--repo", place.source, "--branch", "main"]
        given = {key.split("/")[1]: text for key, text in place.fields().items()}
        known = set(place.api.state.tasks)
        place.run(
            *["clearml-task", "--project", "Serving", "--name", "by its command", *where, *entry],
            *["--task-type", "inference", "--queue", "work", "--args"],
            *[f"{name}={text}" for name, text in given.items()],
            cwd=place.checkout() if checkout else ROOT,
        )
        (new,) = set(place.api.state.tasks) - known
        return place.api.state.tasks[new]

    return way


def by_hand(*, config=False):
    """A person starts it in a checkout and ends it; then the task goes to an agent."""

    def way(place):
        checkout, known = place.checkout(), set(place.api.state.tasks)
        # By a path that is one in this folder only.
        shutil.copy(place.weights, checkout.parent / "mine.gguf")
        fields = place.fields(**{"Model/model": "../mine.gguf"})
        given = [text for key, value in fields.items() for text in ("--set", f"{key}={value}")]
        if config:
            sections = {}
            for key, text in fields.items():
                section, name = key.split("/")
                sections.setdefault(section, {})[name] = text
            (checkout.parent / "form.json").write_text(json.dumps(sections))
            given = ["--config", "../form.json"]
        home = checkout.parent / f"home-{checkout.name}"
        home.mkdir()
        app = App(home, given, place.api.environment, cwd=checkout)
        try:
            app.ready()
            (new,) = set(place.api.state.tasks) - known
            task = place.api.state.tasks[new]
            wait_for(lambda: serving(task), lambda: app.output)
            assert app.end() == 143 and task["status"] == "stopped"
        finally:
            app.clean_up()
        assert property_of(task, "stop_reason") == "stopped by SIGTERM"
        place.enqueue(task)
        return task

    return way


WAYS = {
    "form": the_form,
    "form by services": the_form_by_services,
    "clearml-task module": clearml_task("--module", "app", "--skip-task-init"),
    "clearml-task script": clearml_task("--script", "app/__main__.py"),
    "clearml-task folder": clearml_task("--module", "app", checkout=True),
    "launch": launched,
    "by hand": by_hand(),
    "by hand with a file": by_hand(config=True),
}


# The second runs: each is given a task that has ended, and returns one that has been enqueued.


def aborted_and_enqueued(place, task):
    place.enqueue(task)
    return task


def after_a_kill(place, task):
    place.enqueue(task)
    serves(place, task)
    (server,) = place.agent.servers
    psutil.Process(server).parent().kill()
    place.until(task, "failed")
    wait_for(lambda: not psutil.pid_exists(server), lambda: "llama-server was left behind")
    # What nobody is left to say, the instance's last will says.
    wait_for(lambda: property_of(task, "status") == "stopped", lambda: "it still looks alive")
    assert "killed" in property_of(task, "stop_reason")
    place.enqueue(task)
    return task


def reset(place, task):
    place.api.state.act("tasks.reset", {"task": task["id"], "force": True})
    place.enqueue(task)
    return task


def cloned(place, task):
    clone = place.api.state.act("tasks.clone", {"task": task["id"], "new_task_name": "my clone"})
    clone = place.api.state.tasks[clone["id"]]
    place.enqueue(clone)
    return clone


def cloned_and_edited(place, task):
    port = str(free_port())
    clone = edited(place.api, task, "General/port", port)
    clone = place.api.state.tasks[clone]
    set_field(clone, "Model/context_size", "1024")
    place.enqueue(clone)
    serves(place, clone)
    assert property_of(clone, "endpoint").endswith(f":{port}")
    assert parameters_of(clone)["General/port"] == port
    row = re.compile("^tiny +ready +1024 ", re.M)
    wait_for(lambda: row.search(log_of(place.api, clone)), lambda: log_of(place.api, clone))
    return clone


def after_a_failure(place, task):
    set_field(task, "Model/threads", "many")
    place.enqueue(task)
    place.until(task, "failed")
    problem = "'many' is not a whole number"
    assert problem in property_of(task, "stop_reason")
    assert problem in task["status_message"] + task["status_reason"]
    assert property_of(task, "status") == "failed"
    set_field(task, "Model/threads", "")
    place.enqueue(task)
    return task


SECOND = [
    cloned,
    cloned_and_edited,
    reset,
    aborted_and_enqueued,
    after_a_failure,
    after_a_kill,
]


def set_field(task, key, text):
    section, name = key.split("/")
    entry = {"section": section, "name": name, "value": text}
    task["hyperparams"].setdefault(section, {})[name] = entry


def serves(place, task):
    """The task says that it serves, where, and nothing of a run before; its key, and no other,
    opens that address."""
    place.until(task, "in_progress")
    place.until(task, "serving")
    told = parameters_of(task)
    assert task["status"] == "in_progress"
    assert not told.get("properties/stop_reason")
    endpoint, key = property_of(task, "endpoint"), task["runtime"]["_api_key"]
    assert endpoint in property_of(task, "curl")
    body = {"model": "tiny", "max_tokens": 3, "messages": [{"role": "user", "content": "Hi"}]}

    def asked(key):
        sent = {"Authorization": f"Bearer {key}"}
        return requests.post(
            f"{endpoint}/v1/chat/completions", json=body, headers=sent, timeout=PATIENCE
        )

    assert asked(key).json()["usage"]["completion_tokens"] == 3
    assert asked("another").status_code == 401


def aborts(place, task):
    place.api.state.act("tasks.stop", {"task": task["id"]})
    place.until(task, "stopped")
    assert property_of(task, "status") == "stopped"
    assert property_of(task, "stop_reason") == "aborted in ClearML"
    place.nothing_left(task)


ALL = bool(os.environ.get("EVERY_WAY"))
# The other ways are in `test_agent` and `test_clearml_task`. Of the other second runs `cloned` is
# part of `cloned_and_edited`, `aborted_and_enqueued` is part of `after_a_kill`, and
# `after_a_failure` is in `test_agent_ends`.
UNIQUE = {
    "form": cloned_and_edited,
    "clearml-task script": reset,
    "by hand with a file": after_a_kill,
}


def chosen(way):
    """All second runs, or this way's own."""
    return SECOND if ALL else [UNIQUE[way]]


@pytest.fixture
def idle(place):
    """The agent is free for the next test, also after one that failed half-way."""
    yield
    for task in place.api.state.tasks.values():
        if task["status"] in ("queued", "in_progress"):
            place.api.state.act("tasks.stop", {"task": task["id"]})
            place.until(task, "stopped")


@pytest.mark.long
@pytest.mark.usefixtures("idle")
@pytest.mark.parametrize("way", WAYS if ALL else UNIQUE)
def test_every_way_in_and_every_second_run(place, way):
    task = WAYS[way](place)
    serves(place, task)
    aborts(place, task)
    for second in chosen(way):
        again = second(place, task)
        serves(place, again)
        aborts(place, again)
