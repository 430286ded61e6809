import asyncio

import pytest

from app.errors import ConfigError, FormError
from app.form.settings import GeneralSettings, IdleSettings, ModelSettings, Settings
from app.gateway.admission import listening_host
from app.models import hub
from app.models.header import Header
from app.models.store import Preview
from app.planning import plan as module
from app.planning.plan import Surroundings, plan
from app.planning.report import as_json, table
from app.planning.settle import check_names, settle

GB = 10**9
HELP = "-m, --model FNAME  path\n-c, --ctx-size N  size\n-np, --parallel N  slots"


class HubStore:
    """A hub of files, none of which is here: `files` are references and their parts' bytes."""

    def __init__(self, folder, files):
        self.cache = self.hub_folder = folder
        self.files = files

    async def locate(self, reference):
        sizes = self.files[reference.path]
        stem = reference.path.removesuffix(".gguf")
        names = [reference.path, *(f"{stem}-{n}" for n in range(1, len(sizes)))]
        parts = map(hub.Part, names, sizes)
        return hub.Located(reference.repo, "main", "0" * 40, tuple(parts))

    async def inspect(self, located, folder):
        projector = located.paths[0].startswith("mmproj")
        architecture = "clip" if projector else "llama"
        header = Header({"general.architecture": architecture, "llama.context_length": 8}, (), 0)
        return Preview(folder / "m.gguf", header, located.size)


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """`planned(files, models)`: the plan on a machine without GPU with 10 GB of free disk."""
    server = tmp_path / "llama-server"
    server.write_text(f"#!/bin/sh\necho '{HELP}'\n")
    server.chmod(0o755)
    monkeypatch.setattr(module.gpu, "devices", list)
    monkeypatch.setattr(module.host, "disk_free", lambda folder: 10 * GB)

    def planned(files, *models):
        listed = tuple(
            ModelSettings(endpoint_name=f"m{number}", **model)
            for number, model in enumerate(models)
        )
        settings = Settings(listed, GeneralSettings(llama_server=str(server)), IdleSettings())
        around = Surroundings(HubStore(tmp_path, files), {}, tmp_path, offline=True)
        return asyncio.run(plan(settings, around))

    return planned


M, SET, PROJECTOR = "org/repo/m.gguf", "org/repo/s-00001-of-00003.gguf", "org/repo/mmproj.gguf"


@pytest.mark.parametrize(
    "models, needed",
    [
        ([{"model": M}], 6),
        ([{"model": M}, {"model": M, "context_size": 4}], 6),
        ([{"model": SET}, {"model": SET}], 9),
        ([{"model": M, "mmproj": PROJECTOR}, {"model": M, "mmproj": PROJECTOR}], 8),
    ],
    ids=["one model", "one file", "a split file", "a projector"],
)
def test_a_file_that_several_models_use_is_downloaded_once(planned, models, needed):
    files = {"m.gguf": [6 * GB], "s-00001-of-00003.gguf": [3 * GB] * 3, "mmproj.gguf": [2 * GB]}
    found = planned(files, *models)
    assert f"disk: {needed}.00 GB needed" in table(found)[-1]
    assert f'"needed": {needed * GB}' in as_json(found)


def test_files_that_do_not_fit_on_the_disk_together_are_refused(planned):
    files = {"m.gguf": [6 * GB], "n.gguf": [6 * GB]}
    with pytest.raises(ConfigError, match="12.0 GB are to be downloaded, but only 10.0 GB"):
        planned(files, {"model": M}, {"model": "org/repo/n.gguf"})


@pytest.mark.parametrize(
    "given, agent, key, expected",
    [
        ("", False, False, "127.0.0.1"),
        ("", True, True, "0.0.0.0"),
        ("", False, True, "0.0.0.0"),
        ("10.0.0.1", False, True, "10.0.0.1"),
        ("127.0.0.2", False, False, "127.0.0.2"),
        ("localhost", False, False, "localhost"),
        ("::1", False, False, "::1"),
        ("127.0.0.1", True, True, "127.0.0.1"),
    ],
)
def test_where_to_listen(given, agent, key, expected):
    assert listening_host(given, under_agent=agent, has_key=key) == expected


def test_two_models_of_one_name_are_refused():
    check_names(["a", "b"])
    with pytest.raises(FormError, match="'b' is the name of two models"):
        check_names(["a", "b", "b"])


@pytest.mark.parametrize("given", ["0.0.0.0", "10.0.0.1", "::", "host.example"])
def test_on_a_persons_machine_the_network_needs_a_key(given):
    with pytest.raises(ConfigError, match="LLAMACPP_API_KEY"):
        listening_host(given, under_agent=False, has_key=False)


def test_a_command_line_fills_model_and_name():
    model = settle(ModelSettings(cli="-m /m.gguf -a name -c 1"))
    assert (model.model, model.endpoint_name) == ("/m.gguf", "name")


def test_the_forms_name_comes_before_the_command_lines():
    assert settle(ModelSettings(cli="-a cli", endpoint_name="form")).endpoint_name == "form"


def test_two_different_models_are_refused():
    assert settle(ModelSettings(cli="-m /a.gguf", model="/a.gguf")).model == "/a.gguf"
    with pytest.raises(FormError, match="-m '/b.gguf'"):
        settle(ModelSettings(cli="-m /b.gguf", model="/a.gguf"))


def test_a_command_lines_name_is_checked():
    with pytest.raises(FormError, match="not a URL path"):
        settle(ModelSettings(cli="-m /a.gguf -a 'a,b'"))
