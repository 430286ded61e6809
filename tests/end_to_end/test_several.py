"""Several models side by side in one instance."""

import json

import openai
import psutil
import pytest

from app.models import tiny_writer
from tests.end_to_end.conftest import checked, refused
from tests.end_to_end.test_serving import HELLO, chat, client, get

pytestmark = pytest.mark.quick


@pytest.fixture
def models(tmp_path):
    """Two models that say different things."""
    for seed, name in enumerate(("one", "two"), start=1):
        tiny_writer.write(tmp_path / f"{name}.gguf", seed=seed)
    return tmp_path


def listing(folder, *names, **fields):
    items = [{"model": str(folder / f"{n}.gguf"), "endpoint_name": n, **fields} for n in names]
    return json.dumps(items)


def test_two_models_by_path_and_by_body(start, models, tmp_path):
    config = tmp_path / "c.json"
    items = json.loads(listing(models, "one", "two", context_size=2048))
    config.write_text(json.dumps({"General": {"models": items}}))
    given = "--config", str(config), "--set", "Model_2/parallel=2"
    app = start(*given, recorded=True).ready()
    assert len(app.children) == 2
    assert app.line(r"^one +ready +2048 +4 ") and app.line(r"^two +ready +2048 +2 ")
    assert "model 2: parallel is overridden with 2" in app.output
    said = {}
    for name in ("one", "two"):
        by_path = chat(client(app, name), temperature=0).choices[0].message.content
        api = client(app, name=None)
        options = {"model": name, "messages": HELLO, "temperature": 0}
        by_body = api.chat.completions.create(**options, max_tokens=8).choices[0].message.content
        assert by_path == by_body
        said[name] = by_path
    assert said["one"] != said["two"]
    with pytest.raises(openai.BadRequestError, match="there are: one, two"):
        client(app, name=None).post("/completions", body={"prompt": "x"}, cast_to=object)
    assert [m["id"] for m in get(app, "/v1/models")[1]["data"]] == ["one", "two"]
    # Both may run at once: the cores are divided, not given out twice.
    threads = []
    for pid in app.children:
        argv = psutil.Process(pid).cmdline()
        threads.append(int(argv[argv.index("--threads") + 1]))
    assert sum(threads) <= max(2, psutil.cpu_count())
    app.end()
    parameters, scalars = app.record()
    assert "Model/threads" not in parameters and "one" in parameters["General/models"]
    last = {(e["metric"], e["variant"]): e["value"] for e in scalars}
    for series, requests in (("one", 2), ("two", 2), ("total", 4)):
        assert last["Total Number of Requests", series] == requests


def test_an_alias_is_a_name_of_its_model(start, models):
    """`one` is called gpt-4o, too. Result: callers reach it by that name in the body, in the path
    and in the list, and what is counted goes by the endpoint name."""
    items = json.loads(listing(models, "one", "two"))
    items[0]["aliases"] = "gpt-4o, org/chat"
    app = start("--set", f"General/models={json.dumps(items)}", recorded=True).ready()
    assert app.line(r"^one: also called gpt-4o, org/chat$")
    api = client(app, name=None)
    asked = {"messages": HELLO, "max_tokens": 4, "temperature": 0}
    said = {
        name: api.chat.completions.create(model=name, **asked)
        for name in ("one", "two", "gpt-4o", "org/chat")
    }
    by_path = client(app, "org/chat").chat.completions.create(model="two", **asked)
    words = {name: answer.choices[0].message.content for name, answer in said.items()}
    assert words["gpt-4o"] == words["org/chat"] == words["one"] != words["two"]
    assert by_path.choices[0].message.content == words["one"]
    assert {said["gpt-4o"].model, said["org/chat"].model, by_path.model} == {"one"}
    for opened in (api.completions, api.responses):
        text = {"input": "x"} if opened is api.responses else {"prompt": "x", "max_tokens": 2}
        assert opened.create(model="gpt-4o", **text).model == "one"
    assert [m.id for m in api.models.list()] == ["one", "gpt-4o", "org/chat", "two"]
    assert api.models.retrieve("gpt-4o").id == "gpt-4o"
    assert api.models.retrieve("org/chat").model_extra["aliases"] == ["one", "gpt-4o", "org/chat"]
    with pytest.raises(openai.NotFoundError, match="there are: one, gpt-4o, org/chat, two"):
        api.models.retrieve("gpt-5")
    told = get(app, "/api/status")[1]["models"]
    assert {m["name"]: m["requests"] for m in told} == {"one": 6, "two": 1}
    app.end()
    _, scalars = app.record()
    series = {e["variant"] for e in scalars if e["metric"] == "Total Number of Requests"}
    assert series == {"one", "two", "total"}


def test_one_of_several_that_cannot_be_loaded_does_not_stop_the_others(start, models):

    given = listing(models, "one", "two")
    adapter = f"Model_2/extra_args=--lora {models / 'one.gguf'}"  # it is a model
    app = start("--set", f"General/models={given}", "--set", adapter)
    app.ready()
    assert chat(client(app, "one")).usage.completion_tokens == 8
    with pytest.raises(openai.APIStatusError) as failed:
        chat(client(app, "two"))
    assert failed.value.status_code == 503 and "lora" in str(failed.value)
    states = {m["name"]: m["state"] for m in get(app, "/api/status")[1]["models"]}
    assert states == {"one": "ready", "two": "failed"}
    assert get(app, "/health")[0] == 200


@pytest.mark.parametrize(
    "given, problem",
    [
        ('[{"model": ""}, {"model": "x"}]', "General/models[1].model: is empty"),
        ('[{"model": "a b"}]', "General/models[1].model: 'a b' is neither a path"),
        ("[]", "General/models: is not a list"),
    ],
)
def test_a_bad_list(tmp_path, given, problem):
    refused(checked(tmp_path, "--set", f"General/models={given}"), problem)


def test_an_alias_that_is_another_models_name(models):
    items = json.loads(listing(models, "one", "two"))
    items[1]["aliases"] = "one"
    done = checked(models, "--set", f"General/models={json.dumps(items)}")
    refused(done, "General/models[2].aliases: 'one' is the name of two models")


def test_two_models_of_one_name(models):
    done = checked(models, "--set", f"General/models={listing(models, 'one', 'one')}")
    refused(done, "General/models[2].endpoint_name: 'one' is the name of two models")
