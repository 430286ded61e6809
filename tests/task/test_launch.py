import subprocess

import pytest

from app.errors import ConfigError
from app.task.container import SET_UP
from app.task.launch import (
    Launcher,
    Script,
    checkout,
    describe,
    origin,
    task_name,
    without_credentials,
)
from tests.task.fakes import FakeTask

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]


def git(folder, *arguments):
    subprocess.run([*GIT, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "remote").mkdir()
    git(tmp_path / "remote", "init", "-q", "--bare")
    found = tmp_path / "work"
    found.mkdir()
    git(found, "init", "-q", "-b", "main")
    (found / "requirements.txt").write_text("clearml>=2\n")
    git(found, "add", "-A")
    git(found, "commit", "-q", "-m", "one")
    return found


def test_a_checkout_tells_where_an_agent_finds_it(folder, tmp_path):
    git(folder, "remote", "add", "origin", str(tmp_path / "remote"))
    git(folder, "push", "-q", "origin", "main")
    script, warnings = checkout(folder)
    assert script.repository == str(tmp_path / "remote") and script.branch == "main"
    assert len(script.commit) == 40 and script.requirements == "clearml>=2\n"
    assert warnings == []


def test_what_an_agent_would_not_find_is_said(folder):
    git(folder, "remote", "add", "origin", "https://user:ghp_secret@host/x.git")
    (folder / "requirements.txt").write_text("changed\n")
    script, warnings = checkout(folder)
    assert script.repository == "https://host/x.git"
    assert len(warnings) == 2 and "not pushed" in warnings[1]


@pytest.mark.parametrize(
    "address, expected",
    [
        ("https://user:ghp_secret@host/x.git", "https://host/x.git"),
        ("https://ghp_secret@host/x.git", "https://host/x.git"),
        ("http://user:p%40ss@host:80/x", "http://host:80/x"),
        ("https://user:p@ss@host/x", "https://host/x"),
        ("ssh://git:p@ss@host/x", "ssh://git@host/x"),
        ("ssh://git@host:22/x.git", "ssh://git@host:22/x.git"),  # without it ssh asks as another
        ("ssh://git:secret@host/x.git", "ssh://git@host/x.git"),
        ("git@host:team/x.git", "git@host:team/x.git"),
        ("https://host/@team/x.git", "https://host/@team/x.git"),
        ("/folder/x", "/folder/x"),
    ],
)
def test_an_address_keeps_no_credentials(address, expected):
    assert without_credentials(address) == expected


def test_without_an_origin_the_repository_must_be_named(folder, tmp_path):
    with pytest.raises(ConfigError, match="--repo URL"):
        checkout(folder)
    with pytest.raises(ConfigError, match="--repo URL"):
        checkout(tmp_path)


def test_the_checkout_around_an_installed_package_is_not_ours(folder):
    git(folder, "remote", "add", "origin", "https://host/somebody-elses.git")
    installed = folder / ".venv" / "site-packages"
    installed.mkdir(parents=True)
    with pytest.raises(ConfigError, match="--repo URL"):
        origin(installed)
    assert origin(folder) == "https://host/somebody-elses.git"


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
