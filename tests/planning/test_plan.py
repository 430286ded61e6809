import asyncio
from contextlib import nullcontext

import pytest

from app.errors import ConfigError, FormError
from app.form.settings import GeneralSettings, IdleSettings, ModelSettings, Settings
from app.models import hub
from app.models.files import Preview
from app.models.header import Header
from app.planning import plan as module
from app.planning.plan import Surroundings, plan
from app.planning.report import as_json, table

GB = 10**9
HELP = (
    "-m, --model FNAME  path\n-c, --ctx-size N  size\n-np, --parallel N  slots\n"
    "--spec-type T  kind\n--lora FNAME  adapter"
)


class HubStore:
    """A hub of files, none of which is here: `files` are references and their parts' bytes."""

    def __init__(self, folder, files):
        self.cache = self.hub_folder = folder
        self.files = files

    usable = staticmethod(nullcontext)

    def coming(self, folder, wanted):
        return 0

    def spare(self, folder):
        return 0

    def folder(self, located):
        return self.hub_folder

    async def locate(self, reference):
        sizes = self.files[reference.path]
        stem = reference.path.removesuffix(".gguf")
        names = [reference.path, *(f"{stem}-{n}" for n in range(1, len(sizes)))]
        parts = map(hub.Part, names, sizes)
        return hub.OnHub(reference.repo, "main", "0" * 40, tuple(parts))

    async def inspect(self, located, folder):
        projector = located.paths[0].startswith("mmproj")
        architecture = "clip" if projector else "llama"
        kind = "adapter" if located.paths[0].startswith("adapter") else "model"
        about = {"general.architecture": architecture, "general.type": kind}
        header = Header({**about, "llama.context_length": 8}, (), 0)
        return Preview(folder / "m.gguf", header, located.size)


@pytest.fixture
def planned(tmp_path, monkeypatch):
    """`planned(files, models)`: the plan on a machine without GPU with 10 GB of free disk."""
    server = tmp_path / "llama-server"
    server.write_text(f"#!/bin/sh\necho '{HELP}'\n")
    server.chmod(0o755)
    monkeypatch.setattr(module.gpu, "devices", list)
    monkeypatch.setattr(module.host, "disk_free", lambda folder: 10 * GB)

    def planned(files, *models, text=""):
        listed = tuple(
            ModelSettings(endpoint_name=f"m{number}", **model)
            for number, model in enumerate(models)
        )
        general = GeneralSettings(models=text, llama_server=str(server))
        settings = Settings(listed, general, IdleSettings())
        around = Surroundings(HubStore(tmp_path, files), {}, tmp_path, trial=True)
        return asyncio.run(plan(settings, around))

    return planned


M, SET, PROJECTOR = "org/repo/m.gguf", "org/repo/s-00001-of-00003.gguf", "org/repo/mmproj.gguf"


@pytest.mark.parametrize(
    "models, needed",
    [
        ([{"model": M}], 6),
        ([{"model": M}, {"model": M, "context_size": 400}], 6),
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


def test_a_list_names_its_only_model(planned):
    with pytest.raises(FormError, match="is empty: name a GGUF file") as raised:
        planned({}, {"model": ""}, text='[{"model": ""}]')
    assert raised.value.field == "General/models[1].model"


def test_an_adapter_that_is_not_there_is_refused_before_anything_is_asked_for(planned):
    with pytest.raises(FormError, match="--lora: '/none.gguf' is no file of this machine"):
        planned({}, {"model": M, "extra_args": "--lora /none.gguf"})


def test_an_adapter_is_no_model(planned):
    with pytest.raises(
        FormError, match="is an adapter: name its model here, and it in Model/extra"
    ):
        planned({"adapter.gguf": [GB]}, {"model": "org/repo/adapter.gguf"})


def test_a_model_that_is_to_guess_for_itself_is_told_of(planned, caplog):
    planned({"m.gguf": [2 * GB]}, {"model": M, "speculative": M})
    assert "Model/speculative names the model itself" in caplog.text
    caplog.clear()
    planned({"m.gguf": [2 * GB], "d.gguf": [GB]}, {"model": M, "speculative": "org/repo/d.gguf"})
    assert "names the model itself" not in caplog.text
