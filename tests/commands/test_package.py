"""The application's file, read as ClearML reads it, and held to what the code reads and reports."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from pyhocon import ConfigFactory

from app import __version__
from app.commands.package import ASSETS, FILE, PICTURES, archive, configuration
from app.errors import ConfigError
from app.form.checks import TOTAL
from app.memory.ledger import ModelState, Tier, View
from app.page.examples import Target
from app.task.presence import EXAMPLE, MODELS_TABLE, models_table, progress, properties
from app.telemetry.overview import Details, Held, Overview, Phase
from app.telemetry.scalars import gauges, points
from app.telemetry.windows import Rates

TEMPLATES = Path(__file__).parent.parent.parent / "templates"
CONF = ConfigFactory.parse_file(TEMPLATES / FILE)
CONTENTS = [item for line in CONF["dashboard"]["lines"] for item in line["contents"]]
TARGET = Target("a", "http://h/a/v1", False, "<key>")
VIEW = View("a", ModelState.READY, Tier.RAM, "", None, 2, 1, 5, 3, 0.0)


def overview(name="a", **details):
    seen = (tuple, lambda: [VIEW], lambda: (0, 1))
    found = Overview("1", {name: Details(**details)}, 7200.0, 60, *seen)
    found.phase, found.begun, found.serving_since = Phase.SERVING, 0.0, 0.0
    return found


def test_the_file_is_what_the_fields_make():
    made = subprocess.check_output([sys.executable, "scripts/application"], cwd=TEMPLATES.parent)
    assert (TEMPLATES / FILE).read_bytes() == made


def test_every_plot_is_of_something_that_is_reported():
    told = gauges(overview(), 3600.0)
    rates = Rates(1, 1, 1, 1.0, 1.0, 1.0, 1.0)
    reported = {(p.title, p.series) for p in [*told, *points({TOTAL: rates}, 0)]}
    reported |= {MODELS_TABLE, EXAMPLE}
    for item in CONTENTS:
        for variant in item.get("variant", []):
            if not item["metric"].startswith(":monitor:"):  # the SDK's own
                assert (item["metric"], variant) in reported


def test_the_machine_plots_are_the_sdks_own():
    from clearml.utilities import resource_monitor

    source = Path(resource_monitor.__file__).read_text()
    for item in CONTENTS:
        if item.get("metric", "").startswith(":monitor:"):
            for variant in item["variant"]:
                assert re.sub(r"gpu_\d_", "", variant).rsplit("_mbs")[0] in source, variant


def test_every_property_that_the_page_shows_is_one_that_is_set():
    text = " ".join(item["text"] for item in CONTENTS if item["type"] == "html")
    used = set(re.findall(r"\$\{hyperparams\.properties\.(\w+)\.value\}", text))
    assert used and used <= {*properties(overview(), 1.0, TARGET)}


def test_every_asset_that_is_named_is_there():
    named = set(re.findall(r"\$\{ASSET:([^}]+)\}", (TEMPLATES / FILE).read_text()))
    there = {path.name for path in ASSETS.iterdir()}
    assert named == there and {*PICTURES.values()} <= named


def test_the_task_is_this_repositorys():
    assert CONF["task"]["script"]["entry_point"] == "-m app"
    assert CONF["version"] == __version__ and CONF["details_page"] == "task"
    assert configuration("git@host:x.git", "b").count('"git@host:x.git"') == 1


def test_the_package_holds_the_file_and_its_assets(tmp_path):
    found = zipfile.ZipFile(archive(tmp_path / "a.zip", "text"))
    assert found.read(FILE) == b"text"
    assert {f"assets/{name}" for name in PICTURES.values()} <= {*found.namelist()}
    with pytest.raises(ConfigError, match="cannot be written"):
        archive(tmp_path / "none" / "a.zip", "text")


def test_the_properties_say_how_long_it_is_idle():
    found = overview()
    found.view = lambda: [
        View(*(getattr(VIEW, f) for f in "name state tier reason".split()), None, 0, 0, 5, 3, 0.0)
    ]
    told = properties(found, 5400.0, TARGET)
    assert told["status"] == "idle" and told["idle_hours"] == "1.5"
    assert told["idle_limit_hours"] == "2" and "&lt;key&gt;" in told["curl"]
    assert told["progress"] == ""
    found.idle_limit = None
    assert properties(found, 0.0, TARGET)["idle_limit_hours"] == "\u221e"


def test_the_progress_while_it_is_set_up():
    found = overview()
    found.phase = Phase.SETTING_UP
    found.view = lambda: [
        View("a", ModelState.DOWNLOADING, Tier.NONE, "", 0.456, 0, 0, 0, 0, 0.0),
        View("b", ModelState.FAILED, Tier.NONE, "no <such> file", None, 0, 0, 0, 0, 0.0),
        View("c", ModelState.PENDING, Tier.NONE, "", None, 0, 0, 0, 0, 0.0),
    ]
    assert progress(found) == "a: downloading 46%, b: failed: no <such> file, c: pending"
    assert "no &lt;such&gt; file" in properties(found, 1.0, TARGET)["progress"]


def test_the_table_of_models():
    found = overview(
        endpoint="http://h/a/v1", context=4096, slots=4, memory=lambda: Held(host=5_000_000)
    )
    heading, row = models_table(found)
    assert dict(zip(heading, row, strict=True)) == {
        "Model Name": "a",
        "Endpoint": "http://h/a/v1",
        "State": "ready",
        "Tier": "ram",
        "Context": "4096",
        "Slots": "4",
        "Memory (MB)": "5",
        "Requests": "5",
    }


def test_gauges_are_by_model_and_in_total():
    told = {(g.title, g.series): g.value for g in gauges(overview(), 3600.0)}
    assert told["Requests in Flight", "a"] == told["Requests in Flight", TOTAL] == 2
    assert told["Denied Requests", TOTAL] == 3
    assert told["Idle Time", TOTAL] == 0  # a request is leased
