"""ClearML's own command, `clearml-task`: an agent works on what it enqueues. Other ways to call
it are in `test_every_way`."""

import re
import subprocess

import pytest

from app.models import tiny
from tests.clearml_api import ApiServer
from tests.end_to_end.agent import GIT, Agent, repository, wait_for
from tests.end_to_end.conftest import ROOT
from tests.end_to_end.test_agent import command, log_of, status
from tests.end_to_end.test_task import edited, parameters_of


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """An agent that works on one task after the other, its server, and our repository."""
    folder = tmp_path_factory.mktemp("worker")
    with ApiServer() as api, Agent(api, folder / "agent", "work") as agent:
        wait_for(lambda: api.state.queues, lambda: agent.output)
        yield agent, api, repository(folder / "source")


@pytest.mark.parametrize(
    "code, entry",
    [
        ("repo", ["--module", "app"]),
        ("folder", ["--module", "app", "--skip-task-init"]),
    ],
    ids=lambda given: given if isinstance(given, str) else " ".join(given),
)
def test_clearml_task(worker, tmp_path, cache, code, entry):
    """ClearML's own command, also where it puts a Task.init() before ours; the code named by its
    repository, or by a checkout of it."""
    agent, api, source = worker
    where = ["--repo", source, "--branch", "main"]
    if code == "folder":
        subprocess.run([*GIT, "clone", "-q", source, tmp_path / "checkout"], check=True)
        where = ["--folder", "."]
    known = list(api.state.tasks)
    done = command(
        api,
        tmp_path,
        *["clearml-task", "--project", "Serving", "--name", "by hand", *where, *entry],
        *["--task-type", "inference", "--queue", "work", "--args"],
        *[f"model={tiny.ensure(cache)}", "endpoint_name=tiny", "idle_time_limit=0.0008"],
        cwd=tmp_path / "checkout" if code == "folder" else ROOT,
    )
    (task,) = [found for key, found in api.state.tasks.items() if key not in known]
    status(agent, api, task, "completed")
    assert "ready" in log_of(api, task).splitlines(), done.stdout
    parameters = parameters_of(task)
    arguments = {k: v for k, v in parameters.items() if k.startswith("Args/")}
    names = ["Args/endpoint_name", "Args/idle_time_limit", "Args/model"]
    assert arguments == dict.fromkeys(names, "")
    assert parameters["Model/endpoint_name"] == "tiny"
    assert "does not answer" not in log_of(api, task)
    if entry == ["--module", "app"] and code == "repo":
        edit_a_clone(agent, api, task)


def edit_a_clone(agent, api, task):
    """Both the section's field and a new one in Args are edited. Result: both count, a token that
    somebody left in two places is gone, and what was in Args is in its section."""
    clone = api.state.tasks[edited(api, task, "Model/endpoint_name", "renamed")]
    entries = {"context_size": "1024", "threads": "2", "hf_token": "hf_one"}
    for name, value in entries.items():
        entry = {"section": "Args", "name": name, "value": value}
        clone["hyperparams"]["Args"][name] = entry
    clone["hyperparams"]["General"]["hf_token"]["value"] = "hf_two"
    clone["hyperparams"]["Model"]["threads"]["value"] = "1"
    api.state.act("tasks.enqueue", {"task": clone["id"], "queue_name": "work"})
    status(agent, api, clone, "completed")
    log = log_of(api, clone)
    assert re.search("^renamed +ready +1024 ", log, re.M), log
    assert "Model/threads: Args/threads, which is set too, replaces it, '1' with '2'" in log
    parameters = parameters_of(clone)
    assert parameters["Model/threads"] == "2" and parameters["Model/context_size"] == "1024"
    assert not any(v for k, v in parameters.items() if k.startswith("Args/"))
    assert "hf_one" not in log + str(clone) and "hf_two" not in log + str(clone)
