import json
from dataclasses import replace

import pytest

from app.engine.capabilities import Capabilities
from app.engine.resolved import Resolved, Wanted
from app.form.settings import ModelSettings
from app.models.files import ModelFiles, Registered
from app.models.header import Header
from app.models.reference import ClearMLModel, Tiny
from app.planning.candidate import Candidate, Files
from app.planning.footprint import Footprint
from app.planning.plan import Plan
from app.planning.report import LATER, aligned, as_json, placed_text, resolved_text, table
from app.planning.site import Machine, Site

GB = 10**9


FILES = ModelFiles((), Header({"general.architecture": "llama"}, (), 0))


def allotted(devices, layers=9999, placement=(), *, whole=True):
    resolved = Resolved(4096, layers, 4, 2, 2, 100, placement, whole)
    model = Candidate(ModelSettings(endpoint_name="m"), Tiny(), Files(FILES), Wanted())
    return model.allotted(FILES, resolved, Footprint(devices, GB // 2))


@pytest.mark.parametrize(
    "model, expected",
    [
        (allotted({}, None), ""),
        (allotted({"CUDA0": 8 * GB}), "CUDA0 8.00 GB, host 0.50 GB"),
        (
            allotted({"CUDA0": 8 * GB, "CUDA1": GB}, 17, ("-ts", "2,1"), whole=False),
            "CUDA0 8.00 GB, CUDA1 1.00 GB, host 0.50 GB; cut to fit: context 4096, "
            "17 layers on the GPU",
        ),
        (
            allotted({"CUDA0": 8 * GB}, placement=("-ot", r"blk\.1\.=CPU"), whole=False),
            r"CUDA0 8.00 GB, host 0.50 GB; cut to fit: context 4096, tensors in host memory: "
            r"blk\.1\.=CPU",
        ),
    ],
)
def test_where_a_model_lies(model, expected):
    assert placed_text(model) == expected


def test_what_was_resolved():
    found = resolved_text(allotted({"CUDA0": GB}, 17, ("-ts", "2,1"), whole=False))
    assert found == (
        "context 4096, gpu_layers 17, parallel 4, threads 2, threads_batch 2, cache_ram 100, "
        "-ts 2,1, cut to fit"
    )


def test_what_a_file_says_is_one_cell_of_one_line():
    head, row = aligned([("architecture", "type"), ("l\x1b[31m\n12:00:00 INFO app forged", "F16")])
    assert head.startswith("architecture ") and row.endswith("forged  F16")
    assert "\\x1b[31m\\x0a12:00:00" in row and head.index("type") == row.index("F16")


class Nowhere:
    """A store whose folder is there; nobody asks it for anything."""

    def __init__(self, folder):
        self.cache = self.hub_folder = folder


def plan_of(*models, folder):
    site = Site(Capabilities({}, folder / "llama-server"), Machine(9 * GB, 2, 2, {}))
    return Plan(models, site, Nowhere(folder), {"host": 9 * GB}, sharing=False)


def test_a_models_further_names_and_its_time_are_told(tmp_path):
    model = Candidate(
        ModelSettings(endpoint_name="m", aliases="gpt-4o, chat", ttl=0.05),
        Tiny(),
        Files(FILES),
        Wanted(),
    )
    found = plan_of(model, folder=tmp_path)
    assert "m: also called gpt-4o, chat" in table(found)
    assert "m: leaves memory after 3 seconds without a request" in table(found)
    (told,) = json.loads(as_json(found))["models"]
    assert told["aliases"] == ["gpt-4o", "chat"] and told["ttl"] == 0.05


def test_one_that_cannot_be_loaded_is_told_and_takes_no_room_from_others(tmp_path):
    odd = allotted({})
    odd = replace(odd, footprint=Footprint({}, 99 * GB, fault="llama.cpp cannot load it: odd"))
    plan = plan_of(allotted({}), odd, folder=tmp_path)
    _, good, bad, *more = table(plan)
    assert good.endswith(" ok") and bad.endswith(" cannot be loaded")
    assert "m: llama.cpp cannot load it: odd" in more
    told = json.loads(as_json(plan))
    assert told["verdict"] == "m: llama.cpp cannot load it: odd"
    assert [each["fault"] for each in told["models"]] == ["", "llama.cpp cannot load it: odd"]
    assert "fault" not in told["models"][1]["memory"]


def test_one_whose_files_are_still_to_come_has_a_row_and_nothing_in_it(tmp_path):
    meant = ClearMLModel("0" * 32)
    later = Candidate(
        ModelSettings(endpoint_name="later", model=meant.id),
        meant,
        Files(Registered(meant.id, "later")),
        Wanted(),
    )
    plan = plan_of(allotted({}), later, folder=tmp_path)
    heading, here, there, resolved, disk = table(plan)
    assert heading.split()[:4] == ["model", "architecture", "type", "size"]
    assert here.split() == "m llama ? 0.0 MB ? 4096 4 - 0.50 GB - ok".split()
    assert there.split() == f"later {LATER} ok".split()
    assert resolved.startswith("m: context 4096") and disk.startswith("disk: 0.0 MB needed")
    first, second = json.loads(as_json(plan))["models"]
    assert first["resolved"]["context"] == 4096 and first["memory"]["host"] == GB // 2
    assert second == {
        "name": "later",
        "aliases": [],
        "ttl": None,
        "reference": meant.id,
        "architecture": None,
        "quantisation": None,
        "size": 0,
        "to_download": 0,
        "training_context": None,
        "resolved": None,
        "memory": None,
        "fault": "",
    }
