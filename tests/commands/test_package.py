"""The application's file, read as ClearML reads it, and held to what the code reads and reports."""

import functools
import io
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from pyhocon import ConfigFactory

from app import __version__
from app.commands.package import (
    ASSETS,
    FILE,
    PICTURES,
    archive,
    configuration,
    replace_file,
)
from app.errors import ConfigError
from app.form.checks import TOTAL
from app.memory.ledger import ModelState, Tier, View
from app.page.examples import Target
from app.task.presence import EXAMPLE, MODELS_TABLE, properties
from app.task.reporter import gauges, points
from app.telemetry import scalars
from app.telemetry.overview import Details, Overview, Phase

ROOT = Path(__file__).parent.parent.parent
TEMPLATES = ROOT / "templates"
TARGET = Target("a", "http://h/a/v1", False, "<key>")
VIEW = View("a", ModelState.READY, Tier.RAM, admitted=2, leased=1, requests=5, denied=3)


@functools.cache
def conf():
    """Its parser takes more time than all of these tests."""
    return ConfigFactory.parse_file(TEMPLATES / FILE)


def contents():
    return [item for line in conf()["dashboard"]["lines"] for item in line["contents"]]


def overview(name="a", **details):
    seen = (tuple, lambda: [VIEW], lambda: (0, 1))
    found = Overview("1", {name: Details(**details)}, 7200.0, 60, *seen)
    found.phase, found.begun, found.serving_since = Phase.SERVING, 0.0, 0.0
    return found


def test_the_file_is_what_the_fields_make():
    made = subprocess.check_output([sys.executable, "scripts/application"], cwd=ROOT)
    assert (TEMPLATES / FILE).read_bytes() == made


def test_every_plot_is_of_something_that_is_reported():
    told = gauges(overview(), 3600.0)
    rates = dict.fromkeys((row.key for row in scalars.reported()), 1.0)
    reported = {(p.title, p.series) for p in [*told, *points({TOTAL: rates}, 0)]}
    reported |= {MODELS_TABLE, EXAMPLE}
    for item in contents():
        for variant in item.get("variant", []):
            if not item["metric"].startswith(":monitor:"):  # the SDK's own
                assert (item["metric"], variant) in reported


def test_the_machine_plots_are_the_sdks_own():
    from clearml.utilities import resource_monitor

    source = Path(resource_monitor.__file__).read_text()
    for item in contents():
        if item.get("metric", "").startswith(":monitor:"):
            for variant in item["variant"]:
                assert re.sub(r"gpu_\d_", "", variant).rsplit("_mbs")[0] in source, variant


def test_every_property_that_the_page_shows_is_one_that_is_set():
    text = " ".join(item["text"] for item in contents() if item["type"] == "html")
    used = set(re.findall(r"\$\{hyperparams\.properties\.(\w+)\.value\}", text))
    assert used and used <= {*properties(overview(), 1.0, TARGET)}


def test_every_asset_that_is_named_is_there():
    named = set(re.findall(r"\$\{ASSET:([^}]+)\}", (TEMPLATES / FILE).read_text()))
    there = {path.name for path in ASSETS.iterdir()}
    assert named == there and {*PICTURES.values()} <= named


def test_the_task_is_this_repositorys():
    assert conf()["task"]["script"]["entry_point"] == "-m app"
    assert conf()["version"] == __version__ and conf()["details_page"] == "task"
    assert configuration("git@host:x.git", "b").count('"git@host:x.git"') == 1


def test_the_package_holds_the_file_and_its_assets():
    found = zipfile.ZipFile(io.BytesIO(archive("text")))
    assert found.read(FILE) == b"text"
    assert {*found.namelist()} == {FILE, *(f"assets/{path.name}" for path in ASSETS.iterdir())}


def test_a_picture_that_is_missing_is_named(tmp_path):
    shutil.copytree(ASSETS, tmp_path / "assets")
    (tmp_path / "assets" / "icon.svg").unlink()
    with pytest.raises(ConfigError, match="icon.svg cannot be read: No such file.*install it"):
        archive("text", tmp_path / "assets")


def test_a_file_is_replaced_whole_or_stays(tmp_path):
    (tmp_path / "a").write_text("old")
    replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_text() == "new"
    (tmp_path / "folder" / "full").mkdir(parents=True)
    for target in (tmp_path / "none" / "a", tmp_path / "folder"):
        with pytest.raises(ConfigError, match=f"{target} cannot be written"):
            replace_file(target, b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "folder"]


def test_a_link_is_followed_and_what_is_no_file_stays(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    replace_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    for name in ("pipe", "circle"):
        with pytest.raises(ConfigError, match="cannot be written"):
            replace_file(tmp_path / name, b"new")
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "circle").is_symlink()


def test_an_installed_package_writes_the_zip(tmp_path):
    """Built as `pip install` builds it, and run where there is no checkout."""
    pytest.importorskip("setuptools")
    build = [sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path / "b")]
    subprocess.run([*build, "--build-lib", str(tmp_path / "lib")], cwd=ROOT, check=True)
    (tmp_path / "empty").mkdir()
    line = [sys.executable, "-m", "app", "package"]
    options = {"cwd": tmp_path / "empty", "capture_output": True, "text": True, "timeout": 60}
    options["env"] = {**os.environ, "PYTHONPATH": str(tmp_path / "lib")}
    done = subprocess.run([*line, "--repo", "https://me:secret@host/x.git"], **options)
    assert (done.returncode, done.stdout) == (0, "llamacpp-deployment.zip\n"), done.stderr
    found = zipfile.ZipFile(tmp_path / "empty" / "llamacpp-deployment.zip").read(FILE).decode()
    assert '"https://host/x.git"' in found and "secret" not in found + done.stderr
    refused = subprocess.run(line, **options)
    assert refused.returncode == 2 and "--repo URL" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.skipif(not shutil.which("make"), reason="no make here")
def test_make_package_leaves_the_file_as_it_is_when_the_script_fails(tmp_path):
    for name in ("Makefile", "scripts", "templates"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    (tmp_path / "app").mkdir()  # nothing that can be imported is there
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    clean = {key: text for key, text in os.environ.items() if key != "PYTHONPATH"}
    made = ["make", "-o", "install", "package"]
    done = subprocess.run(made, cwd=tmp_path, env=clean, capture_output=True, timeout=60)
    assert done.returncode != 0
    kept = tmp_path / "templates" / FILE
    assert kept.read_bytes() == (TEMPLATES / FILE).read_bytes()
