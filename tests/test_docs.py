"""Documents that say what the code says are held to it."""

import ast
import re
import subprocess
import sys
from pathlib import Path

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


def test_the_architecture_page_names_what_is_there():
    assert [path for path in NAMED if not (ROOT / path).exists()] == []


def test_the_architecture_page_names_functions_that_are_there():
    assert [(path, name) for path, name in DEFINED if not defines(path, name)] == []


def defines(path, name):
    nodes = ast.parse((ROOT / path).read_text()).body
    for part in name.split("."):
        found = [node for node in nodes if getattr(node, "name", "") == part]
        if not found:
            return False
        nodes = getattr(found[0], "body", [])
    return True


def test_the_architecture_page_has_every_folder():
    folders = {str(path.parent.relative_to(ROOT)) for path in ROOT.glob("app/**/*.py")} - {"app"}
    assert {folder for folder in folders if f"| `{folder}` |" not in ARCHITECTURE} == set()


def test_links_between_the_pages_lead_somewhere():
    links = [
        (page.name, page.parent / target)
        for page in sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"])
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    ]
    assert [(page, str(target)) for page, target in links if not target.exists()] == []
