import pytest

from app.errors import ConfigError
from app.task.api import RefusedError
from app.task.checkout import Script
from app.task.container import SET_UP
from app.task.launch import (
    Launcher,
    describe,
    task_name,
)
from tests.task.fakes import FakeTask


def test_a_description_has_the_form_by_section():
    parameters = {"Model/threads": "2", "General/container_image": "i", "General/queue": ""}
    found = describe("n", Script("r", commit="c"), parameters, ["t"])
    assert found["hyperparams"]["Model"]["threads"]["value"] == "2"
    assert found["container"] == {"image": "i", "setup_shell_script": SET_UP}
    assert found["script"]["version_num"] == "c" and found["script"]["branch"] is None
    assert found["script"]["requirements"] == {}


def test_a_task_has_a_name_that_clearml_takes():
    assert [task_name(name) for name in ("", "a", "abc")] == ["llama.cpp", "llama.cpp a", "abc"]


def launcher(**answers):
    task = FakeTask({name.replace("__", "."): answer for name, answer in answers.items()})
    return task, Launcher(task)


QUEUES = {"queues": [{"id": "q1", "name": "gpus"}, {"id": "q2", "name": "cpus"}]}


@pytest.mark.parametrize("name", ["gpus", "q1"])
def test_a_queue_is_found_by_its_name_or_id(run, name):
    async def scenario():
        _, server = launcher(queues__get_all=QUEUES)
        assert await server.queue(name) == "q1"

    run(scenario)


def test_a_queue_that_is_not_there_is_refused_with_those_that_are(run):
    async def scenario():
        _, server = launcher(queues__get_all=QUEUES)
        with pytest.raises(ConfigError, match="no queue 'x'; there is: cpus, gpus"):
            await server.queue("x")

    run(scenario)


def test_a_project_that_somebody_else_has_just_created_is_taken(run):
    async def scenario():
        task, server = launcher(projects__create=RefusedError("it exists", 400))
        answers = [{"projects": []}, {"projects": [{"id": "theirs"}]}]

        async def look(fields):
            return answers.pop(0)

        task.answers["projects.get_all"] = look
        assert await server.project("a") == "theirs"

    run(scenario)


def test_a_project_is_made_where_there_is_none(run):
    async def scenario():
        task, server = launcher(projects__get_all={"projects": []}, projects__create={"id": "new"})
        assert await server.project("a.b") == "new"
        assert dict(task.asked)["projects.get_all"] == {"name": r"^a\.b$"}
        task, server = launcher(projects__get_all={"projects": [{"id": "known"}]})
        assert await server.project("a.b") == "known"
        assert task.names() == ["projects.get_all"]

    run(scenario)


def test_a_task_is_created_in_its_project_and_enqueued(run):
    async def scenario():
        there = {"projects": [{"id": "p1"}]}
        task, server = launcher(projects__get_all=there, tasks__create={"id": "t1"})
        assert await server.create({"name": "n"}, "team") == "t1"
        await server.enqueue("t1", "q1")
        asked = dict(task.asked)
        assert asked["tasks.create"] == {"name": "n", "project": "p1"}
        assert asked["tasks.enqueue"] == {"task": "t1", "queue": "q1"}

    run(scenario)


def test_a_tasks_form_is_read_as_texts(run):
    async def scenario():
        sections = {"Model": {"model": {"value": "m"}, "threads": {"value": None}}}
        _, server = launcher(tasks__get_by_id={"task": {"hyperparams": sections}})
        assert await server.parameters("t1") == {"Model/model": "m", "Model/threads": ""}

    run(scenario)
