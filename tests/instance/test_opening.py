"""From the command line and the task's hyperparameters to settings."""

import os

import pytest

from app.errors import FormError
from app.instance.invocation import PROJECT, Invocation
from app.instance.opening import open_task, write_back

SERVICES = {"CLEARML_AGENT_SERVICE_TASK": "1"}


KNOWN = (
    *("Clone Of mine", "llama.cpp", "llama.cpp x", "Llama.cpp Model Deployment (open source)"),
    *("a name of its own", "y"),
)


class Task:
    def __init__(self, parameters=None):
        self.parameters = parameters or {}
        self.opened = None
        self.done = []

    async def open(self, project, name):
        self.opened = project, name
        return self.parameters

    async def blank(self, keys):
        self.done.append(("blank", *keys))

    def write_parameters(self, values):
        self.done.append(("write", values))

    def rename(self, name, replaceable):
        kept = [known for known in KNOWN if not replaceable(known)]
        self.done.append(("rename", name, kept))


@pytest.fixture
def opened(run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def opened(task, invocation=None, environment=None):
        return run(open_task, task, invocation or Invocation(), environment or {})

    return opened


@pytest.mark.parametrize(
    "given, name",
    [
        ({"General/instance_name": "mine", "Model/model": "a/b/c.gguf"}, "mine"),
        ({"Model/endpoint_name": "chat", "Model/model": "a/b/c.gguf"}, "chat"),
        ({"Model/model": "a/b/c.gguf"}, "a/b/c.gguf"),
        ({"Model/model": "/models/b/my-00001-of-00002.gguf"}, "llama.cpp my"),
        ({"Model/endpoint_name": "x"}, "llama.cpp x"),
        ({}, "llama.cpp"),
    ],
)
def test_a_new_task_is_named_after_what_it_serves(opened, given, name):
    task = Task()
    opened(task, Invocation(given))
    assert task.opened == (PROJECT, name)


def test_the_command_line_is_over_the_task_and_the_task_over_the_file(opened):
    task = Task({"General/port": "2", "General/host": "127.0.0.2"})
    given = Invocation({"General/port": "1", "General/queue": "q12"}, {"General/host": "127.0.0.3"})
    general = opened(task, given).settings.general
    assert (general.port, general.host, general.queue) == (2, "127.0.0.3", "q12")


def test_a_token_is_taken_out_of_task_and_form(opened, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "")
    task = Task({"General/hf_token": "hf_secret", "Args/hf_token": "hf_secret"})
    found = opened(task)
    assert task.done == [("blank", "General/hf_token", "Args/hf_token")]
    assert "hf_secret" not in repr(found)
    assert os.environ["HF_TOKEN"] == "hf_secret"


@pytest.mark.parametrize("environment", [{}, SERVICES], ids=["here", "elsewhere"])
@pytest.mark.parametrize(
    "key", ["general/hf_token", "General/HF_TOKEN", "Args/hf-token", "Model/Hf_Token"]
)
def test_a_token_under_a_misspelt_name_is_removed_and_not_taken(
    opened, monkeypatch, caplog, key, environment
):
    monkeypatch.setenv("HF_TOKEN", "")
    task = Task({key: "hf_secret", "General/queue": "gpus", "Other/hf_token": "theirs"})
    opened(task, environment=environment)
    assert task.done == [("blank", key)] and os.environ["HF_TOKEN"] == ""
    assert f"{key} is no field, and was removed" in caplog.text
    assert "the token's is General/hf_token" in caplog.text and "hf_secret" not in caplog.text


@pytest.mark.parametrize(
    "given",
    [
        {"Model/model": "/a.gguf", "Args/model": "/b.gguf"},
        {"Args/hf_token": "hf_secret2"},
        {"General/models": "{"},
        {"Model/threads": "x", "General/nonsense": "1"},
    ],
    ids=lambda given: " ".join(given),
)
@pytest.mark.parametrize("environment", [{}, SERVICES], ids=["here", "elsewhere"])
def test_no_form_keeps_its_token_on_a_task_that_fails(opened, monkeypatch, given, environment):
    monkeypatch.setenv("HF_TOKEN", "")
    task = Task({"General/hf_token": "hf_secret", "General/queue": "gpus", **given})
    try:
        found = opened(task, environment=environment)
    except FormError:
        found = None
    if found is None or not environment:
        (blanked,) = task.done
        assert blanked[:2] == ("blank", "General/hf_token")
    else:
        assert task.done == [] and found.tokens[0] == "General/hf_token"


def test_a_token_stays_for_the_machine_that_will_need_it(opened):
    task = Task({"General/hf_token": "hf_secret", "General/queue": "gpus"})
    found = opened(task, environment=SERVICES)
    assert found.elsewhere and task.done == []
    assert "hf_secret" not in repr(found)


def test_what_was_merged_is_written_once_with_the_empty_fields(opened):
    task = Task({"General/instance_name": "mine", "Model/model": "/m/x.gguf"})
    found = opened(task)
    write_back(task, found)
    (_, values), renamed = task.done
    assert values["General/instance_name"] == "mine" and values["General/queue"] == ""
    assert renamed == ("rename", "mine", ["a name of its own", "y"])


def test_what_args_said_is_moved_to_its_section_in_one_request(opened):
    """A write that fails loses no text, and a clone has one place to edit."""
    task = Task({"Args/model": "a/b/c.gguf", "Args/unknown": "1", "Model/model": ""})
    write_back(task, opened(task))
    ((_, values),) = task.done
    assert values["Model/model"] == "a/b/c.gguf" and values["Args/model"] == ""
    assert "Args/unknown" not in values and "Args/threads" not in values


def test_an_unknown_hyperparameter_is_a_warning(opened, caplog):
    opened(Task({"General/prot": "1"}))
    assert "General/port" in caplog.text


def test_a_wrong_one_is_refused(opened):
    with pytest.raises(FormError, match="General/port"):
        opened(Task({"General/port": "many"}))
