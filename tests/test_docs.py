"""Documents that say what the code says are held to it."""

import ast
import importlib
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from app import __version__
from app.commands.launch import NOT_SERVED
from app.errors import AppError
from app.instance.lifetime import AGENT_INTERRUPTED
from app.main import INTERRUPTED
from tests.monitoring import ALERTS

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


OPERATIONS = (ROOT / "docs/operations.md").read_text()
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def section(title):
    """The lines of docs/operations.md below a heading."""
    return OPERATIONS.split(f"\n## {title}\n")[1].split("\n## ")[0]


def errors(base=AppError):
    """Every class of errors that end the app, wherever it is."""
    for path in sorted(ROOT.glob("app/**/*.py")):
        if path.stem not in ("__main__", "__init__"):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    found = [base]
    for each in found:
        found += each.__subclasses__()
    return {each for each in found if each.__module__.startswith("app.")}


def test_the_operations_page_has_every_exit_status():
    cells = re.findall(r"^\| ([\d, ]+) \|", section("Exit statuses"), re.M)
    told = {int(status) for cell in cells for status in cell.split(", ")}
    ours = {error.exit_status for error in errors()}
    ours |= {0, NOT_SERVED, INTERRUPTED, AGENT_INTERRUPTED, *(128 + each for each in SIGNALS)}
    assert told == ours | {128 + signal.SIGKILL}


def test_the_operations_page_has_every_class_of_error_with_its_status():
    rows = re.findall(r"^\| `(\w+)` \| (\d) \|", section("Error messages"), re.M)
    known = {error.__name__: error.exit_status for error in errors() if error is not AppError}
    assert {name: int(status) for name, status in rows} == known


def test_the_operations_page_has_every_status_that_callers_are_told():
    told = {
        int(status)
        for cell in re.findall(r"^\| (\d{3}(?:, \d{3})*) \|", section("Error messages"), re.M)
        for status in cell.split(", ")
    }
    raised = r"(?:RequestError\(|refuse\(|status=)\s*([45]\d\d)\b"
    sources = [path.read_text() for path in ROOT.glob("app/**/*.py")]
    ours = {int(found) for source in sources for found in re.findall(raised, source)}
    assert ours >= {400, 401, 429, 431, 503} and ours <= told


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_the_operations_page_says_what_to_do_about_an_alert(rule):
    assert f"| `{rule['alert']}` |" in section("Alerts")


def test_links_within_a_page_lead_to_a_heading():
    for page in sorted([*ROOT.glob("docs/*.md"), ROOT / "README.md"]):
        text = page.read_text()
        for target, anchor in re.findall(r"\]\(([\w./-]*\.md)?#([\w-]+)\)", text):
            headings = re.findall(
                r"^#+ (.+)$", (page.parent / target).read_text() if target else text, re.M
            )
            assert anchor in map(slug, headings), f"{page.name}: {target}#{anchor}"


def slug(heading):
    """As GitHub makes an anchor of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_the_security_page_names_tests_that_are_there():
    told = (ROOT / "docs/security.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", told)
    assert len(named) > 20
    for file, test in named:
        assert f"def {test}(" in (ROOT / file).read_text() if test else (ROOT / file).exists(), test
