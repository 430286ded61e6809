"""Documents that say what the code says are held to it."""

import re
import subprocess
import sys
from pathlib import Path

from app import __version__

ROOT = Path(__file__).parent.parent


def test_the_configuration_page_is_the_forms():
    made = subprocess.check_output([sys.executable, "scripts/configuration_page"], cwd=ROOT)
    assert (ROOT / "docs/configuration.md").read_bytes() == made


def test_the_release_notes_begin_with_this_version():
    first = re.search(r"^## (\S+)", (ROOT / "docs/release-notes.md").read_text(), re.M)
    assert first[1] == __version__


def test_every_dependency_has_its_reason():
    named = (ROOT / "docs/dependencies.md").read_text()
    required = (ROOT / "requirements.txt").read_text() + (ROOT / "setup.py").read_text()
    for package in re.findall(r'^\s*"?([A-Za-z][\w-]*)(?:[<>=]=)', required, re.M):
        assert re.search(rf"\b{re.escape(package)}\b", named), package


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 180
