from pathlib import Path

import pytest

from app.errors import FormError, TransferError
from app.models.files import Registered
from app.task import weights
from app.task.sdk import ClearMLError
from app.task.weights import Weights
from tests.task.fakes import FakeTask

FOUND = {"models": [{"id": "m1", "name": "My Model"}]}


def test_a_model_is_found_by_its_id(run):
    async def scenario():
        task = FakeTask({"models.get_all": FOUND})
        assert await Weights(task).find("m1") == Registered("m1", "My Model")
        assert task.asked == [("models.get_all", {"id": ["m1"]})]

    run(scenario)


def test_a_model_without_a_name_has_its_id(run):
    async def scenario():
        task = FakeTask({"models.get_all": {"models": [{"id": "m1", "name": None}]}})
        assert (await Weights(task).find("m1")).name == "m1"

    run(scenario)


@pytest.mark.parametrize(
    "task, said",
    [
        (FakeTask(offline=True), "m1 is a ClearML model: that needs a server"),
        (FakeTask({"models.get_all": {"models": []}}), "there is no model m1 in ClearML"),
        (FakeTask({"models.get_all": ClearMLError("ClearML: no token")}), "m1: ClearML: no token"),
    ],
    ids=["offline", "unknown", "an outage"],
)
def test_a_model_that_is_not_found_is_a_fault_of_its_field(run, task, said):
    async def scenario():
        with pytest.raises(FormError, match=f"^Model/model: {said}"):
            await Weights(task).find("m1")

    run(scenario)


def fetched(run, monkeypatch, download):
    async def scenario():
        monkeypatch.setattr(weights, "_prepared", lambda: None)
        monkeypatch.setattr(weights, "_download", lambda found, _: download(found.id))
        return await Weights(FakeTask()).fetch(Registered("m1", "My Model"), begin=None)

    return run(scenario)


def test_a_fetched_model_is_a_path(run, monkeypatch):
    assert fetched(run, monkeypatch, lambda model_id: f"/cache/{model_id}") == Path("/cache/m1")


class LoginError(Exception):
    """As the SDK's own: of no class that we know."""


@pytest.mark.parametrize("raised", [LoginError("no token"), ValueError("x"), OSError(28, "full")])
def test_whatever_the_sdk_raises_is_a_failed_transfer(run, monkeypatch, raised):
    def fail(_):
        raise raised

    with pytest.raises(TransferError, match=r"^My Model \(m1\): "):
        fetched(run, monkeypatch, fail)


def test_no_file_is_a_failed_transfer(run, monkeypatch):
    with pytest.raises(TransferError, match="could not bring its files"):
        fetched(run, monkeypatch, lambda _: None)


def named(run, *models, projects=({"id": "p1"},)):
    async def scenario():
        answers = {
            "projects.get_all": {"projects": [*projects]},
            "models.get_all": {"models": models},
        }
        return await Weights(FakeTask(answers)).find_named("team/llm", "chat")

    return run(scenario)


def test_the_newest_model_of_a_name_is_found(run):
    models = (
        {"id": "m3", "name": "other"},
        {"id": "m2", "name": "chat"},
        {"id": "m1", "name": "chat"},
    )
    assert named(run, *models) == Registered("m2", "chat")


def test_a_name_that_is_not_there_is_told_with_those_that_are(run):
    with pytest.raises(FormError, match="has no model 'chat': it has chat-7b, other"):
        named(run, {"id": "m3", "name": "other"}, {"id": "m2", "name": "chat-7b"})
    with pytest.raises(FormError, match="there is no project 'team/llm'"):
        named(run, projects=())
