"""How a task ends, and what its next run or its clone shows: the real SDK, the API stand-in."""

import json

import pytest

from tests.clearml_api import ApiServer
from tests.end_to_end.test_serving import chat, client, until
from tests.end_to_end.test_task import SERVING, edited, online, parameters_of, tiny_path


@pytest.fixture(params=[True, False], ids=["API 2.34", "before"])
def api(request):
    with ApiServer(edits_runtime=request.param) as server:
        yield server


def shown(task):
    keys = parameters_of(task)
    return {k.partition("/")[2]: v for k, v in keys.items() if k.startswith("properties/")}


def test_a_clone_shows_nothing_of_its_ancestor_from_its_first_moment(start, api, cache):
    """1. An instance serves, and ends. 2. A clone of its task starts, and so does the same task
    once more, and the clone after a reset. Result: before anything else, all that is ours is
    cleared, and nothing of others; programs find the state in the runtime properties, and nobody
    else's keys are lost."""
    given = ["--model", tiny_path(cache), "--set", "Model/endpoint_name=tiny"]
    app = online(start, api, *given).ready()
    (task,) = api.state.tasks.values()
    until(lambda: shown(task).get("status") == "active")
    if api.state.edits_runtime:
        until(lambda: task["runtime"].get("llamacpp_status") == "active")
        assert json.loads(task["runtime"]["llamacpp_models"]) == {"tiny": "ready"}
        assert task["runtime"]["llamacpp_endpoint"] == app.url
        assert "models" not in shown(task) or shown(task)["models"] == ""
    else:
        until(lambda: shown(task).get("models") == '{"tiny":"ready"}')
        assert not any(key.startswith("llamacpp_") for key in task["runtime"])
    until(lambda: "_abort_callback_timeout" in task["runtime"])
    task["runtime"]["theirs"] = "1"
    chat(client(app))
    app.end()
    assert (shown(task)["status"], shown(task)["stop_reason"]) == ("stopped", "stopped by SIGTERM")
    assert task["runtime"]["theirs"] == "1"
    if api.state.edits_runtime:
        told = [task["runtime"][f"llamacpp_{key}"] for key in ("status", "endpoint")]
        assert told == ["stopped", ""]

    clone = api.state.tasks[edited(api, task, "Model/threads", "1")]
    entry = {"section": "properties", "name": "owner", "value": "somebody"}
    clone["hyperparams"]["properties"]["owner"] = entry
    task["runtime"]["_api_key"] = "a-key-of-the-run-before"
    runs = [shown(task)["run"]]
    # Before API 2.34 it is said elsewhere, and that is all that differs.
    for again in (clone, task, clone) if api.state.edits_runtime else (clone,):
        if again["status"] == "in_progress":
            api.state.act("tasks.reset", {"task": again["id"]})
        api.calls.clear()
        seen, act = [], api.state.act

        def watch(name, fields, act=act, seen=seen, again=again):
            answer = act(name, fields)
            if name == "tasks.edit_hyper_params":
                seen.append(shown(again))
            return answer

        api.state.act = watch
        app = online(start, api, CLEARML_TASK_ID=again["id"]).ready()
        api.state.act = act
        first = {k: v for k, v in seen[0].items() if k != "owner"}
        assert first.pop("status") == "setting up" and first.pop("run") not in runs
        assert not any(first.values()), first
        runs.append(shown(again)["run"])
        assert shown(again).get("owner") == ("somebody" if again is clone else None)
        writes = [call for call in api.calls if "edit" in call or call == "events.add_batch"]
        assert writes.index("tasks.edit_hyper_params") <= 2, writes  # after Task.init's own
        until(lambda again=again: shown(again)["status"] == "active")
        assert shown(again)["stop_reason"] == ""
        app.end()
    assert task["runtime"]["_api_key"] == "a-key-of-the-run-before"


@pytest.mark.parametrize("api", [True], indirect=True)
def test_an_outage_at_the_end_is_waited_out(start, api, cache):
    """1. The server is away when an instance has been idle for too long. 2. It returns. Result:
    the GPU is free meanwhile, and the task says how it ended."""
    given = ["--model", tiny_path(cache), "--set", "Idle/idle_time_limit=0.002"]
    app = online(start, api, *given).ready()
    (task,) = api.state.tasks.values()
    api.behind = 502
    app.line("ClearML does not answer: .*trying again")
    assert app.children == [] and app.folders == [] and task["status"] == "in_progress"
    api.behind = None
    assert app.wait() == 0
    assert task["status"] == "completed" and "idle for" in task["status_message"]
    assert shown(task)["status"] == "stopped" and "idle for" in shown(task)["stop_reason"]
    assert task["runtime"]["llamacpp_status"] == "stopped"


@pytest.mark.parametrize("api", [True], indirect=True)
def test_a_task_that_is_aborted_and_enqueued_at_once_stays_in_its_queue(start, api, cache):
    """1. Somebody aborts a task that runs by hand, and enqueues it before its instance has seen
    that. 2. The instance ends. Result: an agent may take the task; nothing is written over it."""
    app = online(start, api, "--model", tiny_path(cache)).ready()
    (task,) = api.state.tasks.values()
    api.state.act("queues.create", {"name": "work"})
    api.state.act("tasks.stop", {"task": task["id"]})
    api.state.act("tasks.enqueue", {"task": task["id"], "queue_name": "work"})
    app.end()
    assert (task["status"], shown(task)["stop_reason"]) == ("queued", "")
    assert "nothing more of this run is written" in app.output


@pytest.mark.parametrize("api", [True], indirect=True)
def test_an_instance_that_was_cut_off_leaves_the_next_run_alone(start, api, cache):
    """1. An instance cannot reach the server for a while. 2. Meanwhile its task is enqueued, and
    another run serves. 3. It reaches the server again. Result: it ends by itself, and nothing of
    the other run is written over or taken out of the table."""
    given = ["--model", tiny_path(cache), "--set", "Model/endpoint_name=tiny"]
    app = online(start, api, *given, "--set", "Idle/last_action_interval=1").ready()
    (task,) = api.state.tasks.values()
    until(lambda: shown(task).get("status") in SERVING and api.state.containers)
    api.behind = 502
    app.line("not a ClearML server's")
    with api.lock:
        row = {"endpoint_url": "http://other/tiny/v1"}
        api.state.containers.update(dict.fromkeys(api.state.containers, row))
        for name, value in (("run", "another"), ("endpoint", "http://other")):
            task["hyperparams"]["properties"][name]["value"] = value
        task["runtime"]["llamacpp_endpoint"] = "http://other"
        before = json.dumps([shown(task), task["runtime"], api.state.containers])
    api.behind = None
    assert app.wait() == 143
    assert json.dumps([shown(task), task["runtime"], api.state.containers]) == before
    assert task["status"] == "in_progress" and api.state.gone == []
    assert app.output.count("nothing more of this run is written") == 1
    assert app.output.count("stopping: another run has the task") == 1
    assert app.children == [] and "Traceback" not in app.output
