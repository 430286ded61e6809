import argparse
import asyncio
from pathlib import Path

import pytest

from app.commands.launch import Wish, add_options, draw_up, place, wait
from app.errors import ConfigError, FormError
from app.instance.invocation import PROJECT, Invocation
from app.task.served import Served

REPOSITORY = "https://host/x.git"
NO_CHECKOUT = Path("/")


def order(config=None, **wish):
    wanted = Invocation({"Model/model": "a/b/c.gguf", **(config or {})})
    return draw_up(wanted, Wish(**{"queue": "gpu", "repository": REPOSITORY, **wish}), NO_CHECKOUT)


def value(task, key):
    section, name = key.split("/")
    return task["hyperparams"][section][name]["value"]


class Tasks:
    """A server that notes what it is asked."""

    def __init__(self, **served):
        self.asked, self.instances = [], served

    async def queue(self, name):
        if name == "none":
            raise ConfigError("there is no queue 'none'")
        return f"id of {name}"

    async def create(self, task, project):
        self.asked.append(("create", task["name"], project))
        return f"task {len(self.asked)}"

    async def join(self, task, route, secret):
        self.asked.append(("join", task, route, secret))

    async def enqueue(self, task, queue):
        self.asked.append(("enqueue", task, queue))

    async def page(self, task):
        return f"http://web/{task}"

    async def served(self, tasks):
        return {task: self.instances[task] for task in tasks if task in self.instances}


def test_a_task_has_the_whole_form_and_its_container():
    (task,) = order({"Model/threads": "2", "General/container_args": "-v a:b"}).tasks
    assert value(task, "Model/threads") == "2" and value(task, "Model/parallel") == ""
    assert value(task, "General/queue") == "gpu"
    assert task["container"]["image"] == value(task, "General/container_image") != ""
    assert task["container"]["arguments"] == "-v a:b"


def test_the_options_come_over_the_form():
    found = order({"General/queue": "old", "General/gateway_route": "old"}, route="r", tags=["t"])
    assert found.queue == "gpu" and found.project == PROJECT
    assert value(found.tasks[0], "General/gateway_route") == "r"
    assert found.tasks[0]["tags"] == ["t"]
    found = order({"General/queue": "old", "General/project": "Mine"}, queue="")
    assert (found.project, found.queue) == ("Mine", "old")


@pytest.mark.parametrize(
    "config, wish, name",
    [
        ({}, {"name": "by option"}, "by option"),
        ({"General/instance_name": "by form"}, {}, "by form"),
        ({"Model/endpoint_name": "end/point"}, {}, "end/point"),
        ({}, {}, "a/b/c.gguf"),
        ({"Model/endpoint_name": "x"}, {}, "llama.cpp x"),  # ClearML wants three characters
    ],
)
def test_a_tasks_name(config, wish, name):
    assert [task["name"] for task in order(config, **wish).tasks] == [name]


def test_without_a_model_the_tiny_one_is_served_as_a_trial(caplog):
    (task,) = order({"Model/model": ""}).tasks
    assert task["name"] == "llama.cpp" and value(task, "Model/model") == ""
    assert "a tiny one, as a trial" in caplog.text


def test_replicas_are_numbered_and_without_a_route_warned_of(caplog):
    names = [task["name"] for task in order(replicas=2, name="serve").tasks]
    assert names == ["serve 1", "serve 2"] and "--route" in caplog.text
    caplog.clear()
    order(replicas=2, route="r")
    assert caplog.text == ""


@pytest.mark.parametrize(
    "wish, branch, commit",
    [
        ({}, "main", None),
        ({"branch": "b"}, "b", None),
        ({"commit": "c"}, None, "c"),
        ({"branch": "b", "commit": "c"}, "b", "c"),
    ],
)
def test_which_code_an_agent_fetches(wish, branch, commit):
    script = order(**wish).tasks[0]["script"]
    assert script["repository"] == REPOSITORY
    assert (script["branch"], script["version_num"]) == (branch, commit)


def test_where_we_are_no_checkout_the_repository_is_asked_for():
    with pytest.raises(ConfigError, match="--repo URL"):
        order(repository="")


@pytest.mark.parametrize(
    "config, wish, problem",
    [
        ({}, {"queue": ""}, "General/queue: is empty: name the queue with --queue"),
        ({"General/hf_token": "hf_x"}, {}, "General/hf_token: everybody"),
        ({"Model/threads": "x"}, {}, "Model/threads"),
        ({"Model/model": "a/b/c"}, {}, "Model/model: 'a/b/c' does not end in .gguf"),
    ],
)
def test_a_form_that_would_fail_there_is_refused_here(config, wish, problem):
    with pytest.raises(FormError, match=problem) as raised:
        order(config, **wish)
    assert "hf_x" not in str(raised.value)


def test_each_task_is_created_enqueued_and_printed(capsys, caplog):
    """Scripts read the IDs, and nothing else, from stdout."""
    tasks = Tasks()
    caplog.set_level("INFO")
    asyncio.run(place(order(replicas=2, name="serve", route="r"), tasks, "a secret"))
    assert tasks.asked == [
        ("create", "serve 1", PROJECT),
        ("join", "task 1", "r", "a secret"),
        ("enqueue", "task 1", "id of gpu"),
        ("create", "serve 2", PROJECT),
        ("join", "task 4", "r", "a secret"),
        ("enqueue", "task 4", "id of gpu"),
    ]
    assert capsys.readouterr().out == "task 1\ntask 4\n"
    assert caplog.messages[0] == "serve 1 is in the queue gpu: http://web/task 1"


CURL = "curl 'http://h' \\\n  -H 'Authorization: Bearer YOUR_API_KEY' \\\n  -d '{\n  \"x\": 1\n}'"
SERVES = Served("a", "n", "in_progress", state="idle", endpoint="http://h", curl=CURL, key="k")


def test_what_serves_is_printed_with_all_that_a_caller_needs(capsys):
    assert asyncio.run(wait({"a": "http://web/a"}, 1, Tasks(a=SERVES)))
    assert capsys.readouterr().out.splitlines() == [
        "task a",
        "endpoint http://h",
        "key k",
        "http://web/a",
        "curl 'http://h' -H 'Authorization: Bearer k' -d '{ \"x\": 1 }'",
    ]


def test_who_interrupts_is_told_that_the_task_goes_on(caplog):
    async def scenario():
        waiting = asyncio.create_task(wait({"a": ""}, 1, Tasks(a=Served("a", "n", "queued"))))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(scenario())
    assert "the tasks go on: `python -m app key TASK`" in caplog.text


@pytest.mark.parametrize(
    "words, minutes", [([], None), (["--wait"], 60), (["--wait", "0.5"], 0.5), (["--wait", "0"], 0)]
)
def test_how_long_is_waited(words, minutes):
    parser = argparse.ArgumentParser()
    add_options(parser)
    if minutes == 0:
        with pytest.raises(SystemExit):
            parser.parse_args(words)
    else:
        assert parser.parse_args(words).wait == minutes


def test_without_the_queue_no_task_is_created():
    tasks = Tasks()
    with pytest.raises(ConfigError, match="no queue"):
        asyncio.run(place(order(queue="none"), tasks))
    assert tasks.asked == []


@pytest.mark.parametrize("text, accepted", [("1", 1), ("100", 100), ("0", None), ("101", None)])
def test_how_many_replicas_there_may_be(text, accepted, capsys):
    parser = argparse.ArgumentParser()
    add_options(parser)
    if accepted:
        assert parser.parse_args(["--replicas", text]).replicas == accepted
        return
    with pytest.raises(SystemExit):
        parser.parse_args(["--replicas", text])
    assert f"'{text}' is not a number from 1 to 100" in capsys.readouterr().err
