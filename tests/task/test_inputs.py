from pathlib import Path

import pytest

from app.models.files import ModelFiles, Registered
from app.models.parts import OnHub, OnWeb, Part, WebPart
from app.task import api, inputs
from app.task.api import RefusedError
from app.task.inputs import Input, Source, parts, show, source

COMMIT = "0a" * 20
URI = f"https://huggingface.co/org/repo/resolve/{COMMIT}/dir/m.gguf"
HUB = Source(URI, "Hugging Face")


def files(path):
    return ModelFiles((Path(path),), header=None)


@pytest.mark.parametrize(
    "located, expected",
    [
        (OnHub("org/repo", "main", COMMIT, (Part("dir/m.gguf", 9),)), HUB),
        (files(f"/c/hub/models--org--repo/snapshots/{COMMIT}/dir/m.gguf"), HUB),
        (files("/data/my model.gguf"), Source("file:///data/my%20model.gguf", "file")),
        (Registered("m1", "My Model"), Registered("m1", "My Model")),
    ],
    ids=["on the hub", "in its cache", "a path", "of the registry"],
)
def test_a_source_says_where_the_file_comes_from(located, expected):
    assert source(located) == expected


def test_a_model_is_named_as_its_file_is_not_as_its_address():
    assert source(files("/data/my model.gguf")).title == "my model"


def test_each_part_of_a_split_model_is_one_to_register():
    names = [f"dir/m-0000{number}-of-00002.gguf" for number in (1, 2)]
    at = f"https://huggingface.co/org/repo/resolve/{COMMIT}"
    on_hub = OnHub("org/repo", "main", COMMIT, tuple(Part(name, 9) for name in names))
    sources = [Source(f"{at}/{name}", "Hugging Face") for name in names]
    assert parts(on_hub) == sources and sources[0] == source(on_hub)
    cached = Path(f"/c/hub/models--org--repo/snapshots/{COMMIT}")
    assert parts(ModelFiles(tuple(cached / name for name in names), header=None)) == sources
    web = [WebPart(f"m{n}.gguf", 9, url=f"https://h/m{n}.gguf?key=1") for n in (1, 2)]
    assert [each.uri for each in parts(OnWeb(tuple(web)))] == [
        "https://h/m1.gguf",
        "https://h/m2.gguf",
    ]
    assert parts(Registered("m1", "My Model")) == [Registered("m1", "My Model")]


@pytest.fixture
def server(monkeypatch):
    """The requests to it, and its answers by action."""

    class Server:
        asked, listed, models, failing = [], [], {}, set()

        def ask(self, service, action, fields):
            self.asked.append((f"{service}.{action}", fields))
            if action in self.failing:
                raise RefusedError(f"ClearML: {service}.{action}: no", 403)
            if action == "get_all":
                return {"models": [{"id": m} for m in self.models.get(fields["uri"][0], ())]}
            if action == "create":
                return {"id": "made"}
            return {"task": {"id": "t", "project": "p", "models": {"input": self.listed}}}

    server = Server()
    server.asked, server.failing = [], set()
    monkeypatch.setattr(api, "ask", server.ask)
    monkeypatch.setattr(inputs.api, "task", lambda _: server.ask("tasks", "get_by_id", {})["task"])
    return server


def test_a_file_is_registered_once_and_listed(server):
    server.listed = [{"name": "old", "model": "x"}]
    show("t", [Input("a", HUB)])
    names = [name for name, _ in server.asked[1:]]
    listing = ["tasks.add_or_update_model", "tasks.delete_models"]
    assert names == ["models.get_all", "models.create", *listing]
    created = server.asked[2][1]
    assert created["uri"] == URI and created["name"] == "m" and created["project"] == "p"
    assert server.asked[3][1]["model"] == "made"
    assert server.asked[4][1]["models"] == [{"name": "old", "type": "input"}]


def test_what_is_listed_already_is_left_as_it_is(server):
    server.listed, server.models = [{"name": "a", "model": "m7"}], {URI: ["m7"]}
    show("t", [Input("a", HUB)])
    assert [name for name, _ in server.asked[1:]] == ["models.get_all"]


def test_one_that_is_refused_costs_the_others_nothing(server):
    server.failing = {"create"}
    with pytest.raises(RefusedError, match=r"models\.create"):
        show("t", [Input("a", HUB), Input("b", Registered("m1", "n"))])
    assert server.asked[-1][1]["model"] == "m1"
