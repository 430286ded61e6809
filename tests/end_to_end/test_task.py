"""The real ClearML SDK, in the app's own process, against the API stand-in."""

import json
import re
import shutil
import signal

import pytest

from app.models import tiny, tiny_writer
from tests.clearml_api import ApiServer
from tests.end_to_end.conftest import PATIENCE, ROOT
from tests.end_to_end.test_serving import chat, client, until
from tests.hub import Hub


@pytest.fixture
def api():
    with ApiServer() as server:
        yield server


SERVING = ("active", "idle")  # after a request, and some time later


def online(start, api, *arguments, **environment):
    # What such a task shows of its form is the app's own.
    given = {"threads": None, **api.environment, **environment}
    return start(*arguments, offline=False, **given)


def parameters_of(task):
    sections = task["hyperparams"].items()
    return {f"{s}/{n}": p["value"] for s, ps in sections for n, p in ps.items()}


def form(**fields):
    """Hyperparameters as a launch form writes them: texts, without types."""
    sections = {}
    for key, value in fields.items():
        section, name = key.split("__")
        entry = {"section": section, "name": name, "value": value}
        sections.setdefault(section, {})[name] = entry
    return sections


def tiny_path(cache):
    return str(tiny.ensure(cache))


def test_a_task_of_our_own(start, api, cache):
    """A person starts the app with credentials. Result: a task with every field, scalars, and
    `completed` at the idle end."""
    given = ["--model", tiny_path(cache), "--set", "Model/endpoint_name=tiny"]
    app = online(start, api, *given, "--set", "Idle/idle_time_limit=0.002").ready()
    chat(client(app), 7)
    assert app.wait() == 0
    (task,) = api.state.tasks.values()
    assert task["status"] == "completed", task
    assert "idle for" in task["status_message"]
    parameters = parameters_of(task)
    assert parameters["Model/endpoint_name"] == "tiny" and parameters["Model/threads"] == ""
    assert "idle for" in parameters["properties/stop_reason"]
    # What an agent installs for a clone: ours, and nothing that only the tests import.
    assert (ROOT / "requirements.txt").read_text() in task["script"]["requirements"]["pip"]
    scalars = api.scalars()
    for series in ("tiny", "total"):
        assert scalars["Total Number of Requests", series][-1] == 1
        assert scalars["Generated Tokens", series][-1] == 7
        assert all(value > 0 for value in scalars["Latency", series])
    assert api.state.projects.popitem()[1]["name"] == "Llama.cpp Model Deployment"
    recorded = json.dumps([api.state.events, api.state.tasks])
    assert "needs the token in" in recorded and app.token not in recorded


def test_a_task_from_a_form_under_an_agent(start, api, cache):
    """An agent starts us with a task id. Result: its hyperparameters are the form, the clone
    shows every field, callers need the task's key, a signal ends with the agent's "stopped"."""
    task = api.state.new_task(
        hyperparams=form(
            Model__model=tiny_path(cache),
            Model__context_size="2048",
            Model__parallel="",
            Args__endpoint_name="mine",
            General__nonsense="1",
        )
    )
    app = online(start, api, CLEARML_TASK_ID=task["id"]).ready()
    assert app.line(r"^mine +ready +2048 +4 ")
    assert "General/nonsense: no such field" in app.output
    parameters = parameters_of(task)
    assert parameters["Model/context_size"] == "2048" and parameters["Model/threads"] == ""
    assert parameters["Model/endpoint_name"] == "mine"  # Args gave it: one place to edit
    assert parameters["Args/endpoint_name"] == ""
    assert len(api.state.tasks) == 1
    key = task["runtime"]["_api_key"]
    assert key not in app.output
    assert chat(client(app, "mine", api_key=key)).usage.completion_tokens == 8
    with pytest.raises(Exception, match="401"):
        chat(client(app, "mine"))
    assert app.end(signal.SIGTERM) == 254
    assert api.scalars()["Total Number of Requests", "mine"][-1] == 1
    assert task["status"] == "in_progress"  # the agent writes the end

    # The same task again: its parameters are its own words now, and the key stays.
    again = online(start, api, CLEARML_TASK_ID=task["id"]).ready()
    assert again.line(r"^mine +ready +2048 +4 ")
    assert task["runtime"]["_api_key"] == key
    again.end()

    # Where the environment gives another key, nobody takes that of the task for it.
    given = "given-by-the-environment"
    own = online(start, api, CLEARML_TASK_ID=task["id"], LLAMACPP_API_KEY=given).ready()
    assert chat(client(own, "mine", api_key=given)).usage.completion_tokens == 8
    until(lambda: task["runtime"]["_api_key"] == "")
    own.end()


def test_a_bad_form_fails_the_task_with_the_fields_name(start, api):
    """It is a clone. Result: the reason, and nothing of its ancestor. The status is 0, or the agent
    would write its own reason over ours."""
    task = api.state.new_task(
        hyperparams=form(
            Model__model="a/b/c.gguf",
            Model__threads="x",
            properties__status="stopped",
            properties__endpoint="http://ancestor",
            properties__stop_reason="idle for 24 hours",
            properties__owner="somebody",
        )
    )
    app = online(start, api, CLEARML_TASK_ID=task["id"])
    assert app.wait() == 0
    reason = "Model/threads: 'x' is not a whole number"
    assert task["status"] == "failed"
    assert task["status_message"] == task["status_reason"] == reason
    parameters = parameters_of(task)
    shown = {name: parameters[f"properties/{name}"] for name in ("status", "endpoint", "owner")}
    assert shown == {"status": "failed", "endpoint": "", "owner": "somebody"}
    assert parameters["properties/stop_reason"] == reason


def test_online_without_a_model_is_refused(start, api):
    app = online(start, api)
    assert app.wait() == 2
    assert "Model/model: is empty" in app.output
    (task,) = api.state.tasks.values()
    assert task["status"] == "failed"


def test_a_task_that_names_no_model_serves_the_tiny_one(start, api):
    """As `launch` makes it without a model. Result: a trial, under the task's own name."""
    fields = form(Model__model="", General__instance_name="trial run")
    task = api.state.new_task(hyperparams=fields, name="by hand")
    app = online(start, api, CLEARML_TASK_ID=task["id"]).ready()
    assert app.line("^tiny +ready ") and "a tiny model is served, as a trial" in app.output
    app.end()
    assert task["name"] == "by hand"


def test_an_abort_drains_and_ends_as_stopped(start, api, cache):
    app = online(start, api, "--model", tiny_path(cache)).ready()
    (task,) = api.state.tasks.values()
    children = app.children
    until(lambda: "_abort_callback_timeout" in task["runtime"])
    api.state.act("tasks.stop", {"task": task["id"]})
    app.line("stopping: aborted in ClearML")
    assert app.wait() == 143
    assert task["status"] == "stopped"
    assert "aborted" in task["status_message"]
    assert app.folders == [] and children
    import psutil

    assert not any(psutil.pid_exists(pid) for pid in children)


@pytest.mark.long
def test_an_outage_of_the_server_does_not_stop_serving(start, api, cache):
    """1. The server goes silent while we serve. 2. We are stopped. Result: requests are served
    all the same, and the end waits for ClearML no longer than its budget."""
    app = online(
        start, api, "--model", tiny_path(cache), "--set", "Model/endpoint_name=tiny"
    ).ready()
    api.delay = 2 * PATIENCE
    for _ in range(3):
        assert chat(client(app)).usage.completion_tokens == 8
    assert app.end() == 143
    assert "ClearML does not answer" in app.output


def test_clearml_models_beside_each_other(start, api, tmp_path):
    """By their IDs: files, and a package of parts; nothing is known of any before it is here.
    Result: each has a llama-server of its own under its name, and is an input of the task."""
    (tmp_path / "parts").mkdir()
    tiny_writer.write(tmp_path / "parts" / "m.gguf", shard_tensors=8)
    archive = shutil.make_archive(str(tmp_path / "package"), "zip", tmp_path / "parts")
    models = {"parts": api.state.new_model("parts", f"file://{archive}", ["package"])}
    for name, context in (("My Short", 512), ("long", 2048)):
        tiny_writer.write(tmp_path / f"{name}.gguf", context=context)
        uri = f"file://{tmp_path}/{name}.gguf"
        models[name.replace(" ", "-")] = api.state.new_model(name, uri)
    given = json.dumps([{"model": model} for model in models.values()])
    app = online(start, api, "--set", f"General/models={given}").ready()
    assert app.line("^My-Short +ready +512 ") and app.line("^long +ready +2048 ")
    assert len(app.children) == 3
    for name in models:
        assert chat(client(app, name)).usage.completion_tokens == 8
    (task,) = api.state.tasks.values()
    listed = [{"name": name, "model": model} for name, model in models.items()]
    assert sorted(task["models"]["input"], key=str) == sorted(listed, key=str)


def test_parts_that_are_clearml_models_each(start, api, tmp_path):
    """A split model, each part of it registered as a model in one project; by the ID of the first,
    and by project and name. Result: it is served, under the name of the set; a part that is not
    registered is named."""
    tiny_writer.write(tmp_path / "big.gguf", shard_tensors=8)
    paths = sorted(tmp_path.glob("big-*.gguf"))
    project = api.state.act("projects.create", {"name": "team"})["id"]
    with Hub({"org/repo": {path.name: path.read_bytes() for path in paths}}) as files:
        ids = [
            api.state.new_model(
                path.stem, f"{files.url}/org/repo/resolve/main/{path.name}", project=project
            )
            for path in paths
        ]
        for given in (ids[0], f"clearml://team/{paths[0].stem}"):
            app = online(start, api, "--model", given).ready()
            assert app.line("^big +ready ")
            assert chat(client(app, "big")).usage.completion_tokens == 8
            app.end()
        del api.state.models[ids[1]]
        app = online(start, api, "--model", ids[0])
        assert app.wait() == 2
        assert f"its project has no model '{paths[1].name}'" in app.output


def test_the_task_is_told_while_a_clearml_model_comes(start, api, tmp_path):
    """A download of minutes, aborted in the UI. Result: the task says what it is doing, and then
    why it ended; nobody waits for the download."""
    tiny_writer.write(tmp_path / "m.gguf")
    with Hub({"org/repo": {"m.gguf": (tmp_path / "m.gguf").read_bytes()}}) as files:
        files.pause = 20.0
        model = api.state.new_model("slow", f"{files.url}/org/repo/resolve/main/m.gguf")
        app = online(start, api, "--model", model)
        app.line("listening on")
        (task,) = api.state.tasks.values()
        until(lambda: "downloading" in parameters_of(task).get("properties/progress", ""))
        api.state.act("tasks.stop", {"task": task["id"]})
        app.line("stopping: aborted in ClearML")
        assert app.wait() == 143
    assert "does not answer" not in app.output
    assert parameters_of(task)["properties/stop_reason"] == "aborted in ClearML"


@pytest.mark.long
def test_the_sdk_writes_nothing_of_its_own_on_the_console(start, api, tmp_path):
    """A download of a ClearML model, and the machine's monitor, which finds no GPU here. Result:
    our lines alone, besides those that tell where the task is."""
    tiny_writer.write(tmp_path / "m.gguf")
    large = (tmp_path / "m.gguf").read_bytes() + bytes(30 << 20)
    with Hub({"org/repo": {"m.gguf": large}}) as files:
        model = api.state.new_model("large", f"{files.url}/org/repo/resolve/main/m.gguf")
        app = online(start, api, "--model", model).ready()
        until(lambda: any(title == ":monitor:machine" for title, _ in api.scalars()))
        app.end()
    assert "fetching from ClearML" in app.output and "results page" in app.output
    assert "INFO large downloaded " in app.output
    for noise in ("MB [", "clearml.storage", "ClearML Monitor"):  # the first is a bar's
        assert noise not in app.output


@pytest.mark.parametrize("kind, status", [("unknown", 2), ("gone", 3)])
def test_a_clearml_model_that_cannot_be_had(start, api, tmp_path, kind, status):
    model = "0" * 32
    if kind == "gone":
        model = api.state.new_model("gone", f"file://{tmp_path}/none.gguf")
    app = online(start, api, "--model", model)
    assert app.wait() == status
    assert model in app.output and "Traceback" not in app.output


def edited(api, source, key, value):
    """A clone of a task with one field edited, as the web page does it."""
    clone = api.state.act("tasks.clone", {"task": source["id"]})["id"]
    section, name = key.split("/")
    entry = {"section": section, "name": name, "value": value, "type": "str"}
    sections = {**api.state.tasks[clone]["hyperparams"]}
    sections[section] = {**sections.get(section, {}), name: entry}
    api.state.act("tasks.edit", {"task": clone, "hyperparams": sections})
    return clone


def test_a_clone_of_a_list_task_does_what_its_edit_says(start, api, cache):
    path = tiny_path(cache)
    items = [{"model": path, "endpoint_name": name} for name in ("a", "b")]
    task = api.state.new_task(hyperparams=form(General__models=json.dumps(items)))
    online(start, api, CLEARML_TASK_ID=task["id"]).ready().end()
    assert "Model" not in task["hyperparams"]
    items[0]["context_size"], items[1]["context_size"] = "2048", "1024"  # in the list itself
    clone = edited(api, task, "General/models", json.dumps(items))
    clone = edited(api, api.state.tasks[clone], "Model_2/context_size", "512")  # beside it
    app = online(start, api, CLEARML_TASK_ID=clone).ready()
    assert app.line("^a +ready +2048 ") and app.line("^b +ready +512 ")


def test_a_cold_model_is_in_the_endpoints_table_with_its_url(start, api, cache):
    """Two models, one of them loaded at the start. Result: both can be asked, and the table has
    the address of both."""
    items = [{"model": tiny_path(cache), "endpoint_name": name} for name in ("a", "b")]
    items[1]["preload"] = "false"
    app = online(start, api, "--set", f"General/models={json.dumps(items)}").ready()
    assert app.line("^b +cold ")
    rows = api.state.containers
    until(lambda: len(rows) == 2 and all(row.get("endpoint_url") for row in rows.values()))
    assert {row["endpoint_url"] for row in rows.values()} == {f"{app.url}/{n}/v1" for n in "ab"}


def test_a_server_without_the_endpoints_table_is_asked_once(start, cache):
    with ApiServer(lacking=["serving"]) as api:
        app = online(start, api, "--model", tiny_path(cache)).ready()
        app.line("has no Model Endpoints table")
        assert app.end() == 143
    assert [call for call in api.calls if call.startswith("serving.")] == [
        "serving.register_container"
    ]
    assert app.output.count("Model Endpoints") == 1


def test_a_task_that_runs_again_has_one_table_and_one_page(start, api, cache):
    """Twice the same task. Result: its scalars go on where they ended, each with its own time; of
    the table and of the page of examples there is one, the second run's."""
    task = api.state.new_task(hyperparams=form(Model__model=tiny_path(cache)))
    last = -1
    for _ in range(2):
        app = online(start, api, CLEARML_TASK_ID=task["id"]).ready()
        seen = len(api.calls)
        until(lambda n=seen: "events.add_batch" in api.calls[n:])
        until(lambda url=app.url: any(url in str(data) for data in api.files.values()))
        app.end()
        events = [event for event in api.state.events if event.get("iter") is not None]
        ours = [e for e in events if e["metric"] == "Requests in Flight"]
        assert max(event["iter"] for event in ours) > last
        last = max(event["iter"] for event in ours)
    (table,) = [e for e in events if e["type"] == "plot"]
    (page,) = [e for e in events if e["type"] == "training_debug_image"]
    assert table["iter"] == page["iter"] == 0
    assert app.url in table["plot_str"]


def test_files_are_the_tasks_input_models(start, api, cache):
    """1. A task serves a file. 2. So does a clone. 3. An edited clone has another. Result: it does
    what its edits say; one model of the registry for each file, and each task lists what it serves,
    and nothing else."""
    path, other = tiny_path(cache), cache / "other.gguf"
    tiny_writer.write(other, context=512)
    given = ["--model", path, "--set", "Model/endpoint_name=mine"]
    app = online(start, api, *given).ready()
    (task,) = api.state.tasks.values()
    until(lambda: task["models"]["input"])
    app.end()
    (model,) = api.state.models.values()
    assert model["uri"] == f"file://{path}" and model["framework"] == "GGUF"
    assert not model["ready"] and model["project"] == task["project"]
    assert task["models"]["input"] == [{"name": "mine", "model": model["id"]}]
    clone = api.state.act("tasks.clone", {"task": task["id"]})["id"]
    online(start, api, CLEARML_TASK_ID=clone).ready().end()
    assert list(api.state.models) == [model["id"]]
    clone = edited(api, task, "Model/model", str(other))
    clone = edited(api, api.state.tasks[clone], "Model/endpoint_name", "new")
    clone = edited(api, api.state.tasks[clone], "Model/context_size", "256")
    app = online(start, api, CLEARML_TASK_ID=clone).ready()
    assert app.line("^new +ready +256 +4 ")
    listed = api.state.tasks[clone]["models"]
    until(lambda: [each["name"] for each in listed["input"]] == ["new"])
    app.end()
    (named,) = listed["input"]
    assert api.state.models[named["model"]]["uri"] == f"file://{other}"


def test_a_registry_that_refuses_costs_the_start_nothing(start, api, cache):
    api.failing["models.create"] = 403
    app = online(start, api, "--model", tiny_path(cache)).ready()
    app.line("showing the input models: .*told to fail|models.create: told to fail")
    assert app.end() == 143 and app.output.count("models.create") == 1
    (task,) = api.state.tasks.values()
    assert (task["status"], "SIGTERM" in task["status_message"]) == ("stopped", True)


def partial_files(app):
    return [
        path.name for path in app.clearml.rglob("*") if "_1" in path.name and ".lmd-" in path.name
    ]


def coming(start, api, tmp_path, files, **environment):
    """Start with a model of ClearML that is on its way for long."""
    tiny_writer.write(tmp_path / "m.gguf")
    files.repositories["org/repo"] = {"m.gguf": (tmp_path / "m.gguf").read_bytes() + bytes(1 << 24)}
    files.pause = 0.05  # after 64 KiB; the SDK takes 5 MiB at a time
    model = api.state.new_model("slow", f"{files.url}/org/repo/resolve/main/m.gguf")
    app = online(start, api, "--model", model, **environment)
    app.line("listening on")
    return app


@pytest.mark.parametrize("signals", [1, 2])
def test_an_aborted_download_leaves_nothing(start, api, tmp_path, signals):
    """A signal while a model of ClearML comes, or two. Result: its progress was told, and no file
    of it is left."""
    with Hub({}) as files:
        app = coming(start, api, tmp_path, files)
        (task,) = api.state.tasks.values()
        wanted = r"downloading [1-9]\d*%"
        until(lambda: re.search(wanted, parameters_of(task)["properties/progress"]))
        for _ in range(signals):
            app.process.send_signal(signal.SIGTERM)
        app.wait()
        assert partial_files(app) == []
        assert not list(app.clearml.rglob("lmd-*"))


def test_what_a_killed_download_has_left_is_removed_by_the_next(start, api, tmp_path):
    with Hub({}) as files:
        app = coming(start, api, tmp_path, files)
        until(lambda: partial_files(app))
        app.end(signal.SIGKILL)
        (left,) = partial_files(app)
        again = coming(start, api, tmp_path, files, CLEARML_CACHE_DIR=str(app.clearml))
        until(lambda: partial_files(app) and left not in partial_files(app))
        again.end()
        assert partial_files(app) == []


def test_token_usage_is_reported_where_the_form_says_so(start, cache):
    given = ["--set", "Model/endpoint_name=tiny", "--set", "General/report_usage=true"]
    with ApiServer(feature_set="advanced") as api:
        app = online(start, api, "--model", tiny_path(cache), *given).ready()
        (task,) = api.state.tasks.values()
        caller = client(app).with_options(default_headers={"project": "team", "session": "s"})
        chat(caller, 5)
        assert app.end() == 143
    (event,) = api.state.usage
    assert event["completion_tokens"] == 5 and event["prompt_tokens"] > 0
    assert (event["model"], event["project"], event["task"]) == ("tiny", "team", task["id"])
