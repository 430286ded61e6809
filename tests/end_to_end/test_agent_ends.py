"""How a task ends under the real clearml-agent, whose own last words must not replace ours."""

import psutil
import pytest

from app.models import tiny
from tests.clearml_api import ApiServer
from tests.end_to_end.agent import Agent, repository, wait_for
from tests.end_to_end.conftest import PATIENCE, free_port
from tests.end_to_end.test_agent import log_of, property_of, status
from tests.end_to_end.test_task import edited, form


@pytest.fixture
def api():
    with ApiServer() as server:
        yield server


@pytest.fixture
def source(tmp_path):
    return repository(tmp_path / "source")


def queued(api, source, **fields):
    """A task of this form on the queue."""
    script = {"repository": source, "branch": "main", "entry_point": "-m app", "working_dir": "."}
    task = api.state.new_task(
        script={**script, "requirements": {}, "diff": "", "binary": "python3"},
        hyperparams=form(**fields, General__port=str(free_port())),
    )
    api.state.act("tasks.enqueue", {"task": task["id"], "queue_name": "work"})
    return task


@pytest.mark.long
def test_the_reason_of_an_end_survives_the_agent(api, tmp_path, source, cache):
    """1. A form is refused. 2. The same task, mended and enqueued once more, ends idle. Result: the
    INFO panel has our words of the failure, not the agent's; the second run shows nothing of the
    first. 3. A clone serves, and the agent is ended. Result: everything is as after an end."""
    with Agent(api, tmp_path / "agent", "work") as agent:
        wait_for(lambda: api.state.queues, lambda: agent.output)
        task = queued(api, source, Model__model=str(tiny.ensure(cache)), Model__threads="x")
        status(agent, api, task, "failed")
        wait_for(lambda: "DONE: Running task" in agent.output, lambda: agent.output)
        polls = api.calls.count("queues.get_next_task")  # the next comes after the last words
        wait_for(lambda: api.calls.count("queues.get_next_task") > polls, lambda: agent.output)
        completed = api.calls.count("tasks.completed")  # 1 if the agent saw our exit status first
        reason = "Model/threads: 'x' is not a whole number"
        assert (task["status"], task["status_message"], task["status_reason"]) == (
            ("failed", reason, reason)
        )
        assert property_of(task, "status") == "failed"
        assert property_of(task, "stop_reason") == reason
        assert reason in log_of(api, task)

        section = task["hyperparams"]
        section["Model"]["threads"]["value"] = ""
        limit = {"section": "Idle", "name": "idle_time_limit", "value": "0.002"}
        section["Idle"] = {**section.get("Idle", {}), "idle_time_limit": limit}
        api.state.act("tasks.enqueue", {"task": task["id"], "queue_name": "work"})
        status(agent, api, task, "serving")
        assert property_of(task, "stop_reason") == ""
        status(agent, api, task, "completed")
        wait_for(lambda: agent.output.count("DONE: Running task") == 2, lambda: agent.output)
        assert property_of(task, "status") == "stopped"
        assert "idle for" in property_of(task, "stop_reason")
        # The agent writes "completed" over ours, and we once more over the agent's.
        last = lambda: (  # noqa: E731
            api.calls.count("tasks.completed") == completed + 3
            and "idle for" in task["status_message"]  # a call is counted before it is answered
        )
        wait_for(last, lambda: f"{task['status_message']}: {api.calls}")
        assert task["status"] == "completed"

        # The agent itself is ended: it kills us without a word.
        clone = api.state.tasks[edited(api, task, "Idle/idle_time_limit", "1")]
        api.state.act("tasks.enqueue", {"task": clone["id"], "queue_name": "work"})
        status(agent, api, clone, "serving")
        (server,) = agent.servers
        assert len(executors(tmp_path)) == 1
        wait_for(lambda: api.state.containers, lambda: agent.output)
        agent.process.terminate()
        agent.process.wait(PATIENCE)
        wait_for(lambda: property_of(clone, "status") == "stopped", lambda: str(clone))
        wait_for(lambda: not api.state.containers, lambda: str(api.state.containers))
        assert clone["status"] == "stopped"
        assert property_of(clone, "stop_reason") == "the process was killed"
        wait_for(lambda: not psutil.pid_exists(server), lambda: "llama-server was left behind")
        wait_for(lambda: not executors(tmp_path), lambda: str(executors(tmp_path)))


def executors(folder):
    """The processes that say what an instance no longer can; the agent's checkout is there."""
    lines = [" ".join(each.info["cmdline"] or []) for each in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(folder) in line and "last_will_child" in line]
