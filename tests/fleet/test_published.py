"""What docs/fleet.md and the templates of a door say is what the code takes."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from app.commands import fleet
from app.commands.options import parser
from app.fleet.config import FIELDS, parse
from app.main import COMMANDS

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs/fleet.md").read_text()
UNIT = (ROOT / "templates/door.service").read_text()
MANIFEST = list(yaml.safe_load_all((ROOT / "templates/door.yaml").read_text()))


def test_the_routes_of_the_page_are_routes():
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    assert [route.name for route in parse(text)] == ["chat", "embed"]
    assert set(FIELDS) - {"project", "form"} <= set(re.findall(r"^(\w+) =", text, re.M))


@pytest.mark.parametrize("line", re.findall(r"python -m app fleet (--.*)", PAGE + UNIT))
def test_command_lines_are_taken(line):
    parser("fleet", fleet, COMMANDS).parse_args(shlex.split(line.split("#")[0]))


def test_the_file_of_docker_compose():
    (door,) = yaml.safe_load((ROOT / "templates/door-compose.yaml").read_text())[
        "services"
    ].values()
    line = door["command"]
    assert line[:4] == ["python3", "-m", "app", "fleet"]
    given = parser("fleet", fleet, COMMANDS).parse_args(line[4:])
    assert given.host == "0.0.0.0"
    mounted = dict(each.split(":")[:2] for each in door["volumes"])
    assert mounted["./routes.toml"] == given.config and mounted["../"] == door["working_dir"]
    assert door["ports"] == ["8080:8080"] and ":8080/health" in door["healthcheck"]["test"][-1]
    assert all(
        value.startswith("/tmp") for value in door["environment"].values()
    )  # all else is r/o


def test_the_manifest_of_kubernetes():
    routes, deployment, service = MANIFEST
    assert [each["kind"] for each in MANIFEST] == ["ConfigMap", "Deployment", "Service"]
    assert parse(routes["data"]["routes.toml"])
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    line = container["command"]
    assert line[:4] == ["python3", "-m", "app", "fleet"]
    parser("fleet", fleet, COMMANDS).parse_args(line[4:])
    labels = pod["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    (port,) = container["ports"]
    assert service["spec"]["ports"][0]["targetPort"] == port["name"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/health"
    mounted = container["volumeMounts"][0]["mountPath"]
    assert f"{mounted}/routes.toml" in line
