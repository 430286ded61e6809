"""Documents that say what the code says are held to it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app import __version__

ROOT = Path(__file__).parent.parent


def test_the_configuration_page_is_the_forms():
    made = subprocess.check_output([sys.executable, "scripts/configuration_page"], cwd=ROOT)
    assert (ROOT / "docs/configuration.md").read_bytes() == made


def test_the_metrics_page_is_the_tables():
    made = subprocess.check_output([sys.executable, "scripts/metrics_page"], cwd=ROOT)
    assert (ROOT / "docs/metrics.md").read_bytes() == made


def test_the_release_notes_begin_with_this_version():
    first = re.search(r"^## (\S+)", (ROOT / "docs/release-notes.md").read_text(), re.M)
    assert first[1] == __version__


def test_every_dependency_has_its_reason():
    named = (ROOT / "docs/dependencies.md").read_text()
    required = (ROOT / "requirements.txt").read_text() + (ROOT / "setup.py").read_text()
    for package in re.findall(r'^\s*"?([A-Za-z][\w.-]*)(?:[<>=]=)', required, re.M):
        assert re.search(rf"\b{re.escape(package)}\b", named), package


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180


ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
NAMED = sorted(
    set(re.findall(r"`((?:app|tests|scripts|docs|templates)(?:/[\w.]+)*)`", ARCHITECTURE))
)
# "`app/x.py` `name`": the file defines it; `Class.method` too.
DEFINED = re.findall(r"`(app/[\w/]+\.py)`\s+`(\w+(?:\.\w+)?)`", ARCHITECTURE)


@pytest.mark.parametrize("path", NAMED)
def test_the_architecture_page_names_what_is_there(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("path, name", DEFINED)
def test_the_architecture_page_names_functions_that_are_there(path, name):
    nodes = ast.parse((ROOT / path).read_text()).body
    for part in name.split("."):
        found = [node for node in nodes if getattr(node, "name", "") == part]
        assert found, f"{path} has no {name}"
        nodes = getattr(found[0], "body", [])


def test_the_architecture_page_has_every_folder():
    folders = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("app/**/*.py")} - {"app"}
    assert {folder for folder in folders if f"| `{folder}` |" not in ARCHITECTURE} == set()


@pytest.mark.parametrize("page", sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"]))
def test_links_between_the_pages_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), target
