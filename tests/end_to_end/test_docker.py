"""The real clearml-agent in docker mode, with a stand-in for docker that notes how it is called."""

import json
import os
import sys

import pytest

from app.form.fields import CONTAINER_IMAGE
from app.task.container import SET_UP
from tests.clearml_api import ApiServer
from tests.end_to_end.agent import Agent, wait_for
from tests.end_to_end.conftest import ROOT
from tests.end_to_end.test_agent import command


class DockerAgent(Agent):
    """`docker run` writes its arguments to `started`, and ends at once."""

    def __init__(self, api, folder, queue):
        super().__init__(api, folder, queue, CLEARML_WORKER_ID=f"docker:{os.getpid()}")
        self.started = folder / "docker.json"
        (folder / "bin").mkdir()
        docker = folder / "bin" / "docker"
        docker.write_text(
            f"#!{sys.executable}\n"
            "import json, os, pathlib, sys\n"
            f"started = pathlib.Path({str(self.started)!r})\n"
            "if sys.argv[1:2] == ['run']:\n"
            "    started.with_suffix('.part').write_text(json.dumps(sys.argv[1:]))\n"
            "    os.replace(started.with_suffix('.part'), started)\n"
        )
        docker.chmod(0o755)
        self.environment["PATH"] = f"{folder / 'bin'}:{self.environment['PATH']}"

    def arguments(self):
        return [*super().arguments(), "--docker"]


@pytest.fixture
def api():
    with ApiServer() as server:
        yield server


def test_docker_is_told_what_the_form_says(api, tmp_path):
    """Result: our image and arguments, nothing that replaces the entry point, and `bash -c` with
    the agent's own lines, then all of our set-up script's, then the task."""
    with DockerAgent(api, tmp_path / "agent", "work") as agent:
        wait_for(lambda: api.state.queues, lambda: agent.output)
        line = [sys.executable, "-m", "app", "launch", "--repo", "https://host/x.git"]
        line += ["--set", "General/container_args=--network host -v /m:/m --entrypoint x"]
        done = command(api, tmp_path, *line, "--model", "a/b/c.gguf", "--queue", "work", cwd=ROOT)
        assert done.returncode == 0, done.stderr
        wait_for(agent.started.exists, lambda: agent.output)
    called = json.loads(agent.started.read_text())
    at = called.index(CONTAINER_IMAGE)
    assert called[at + 1 : at + 3] == ["bash", "-c"] and len(called) == at + 4
    options = " ".join(called[:at])
    assert "--network host -v /m:/m" in options and "--entrypoint" not in options
    assert f"CLEARML_DOCKER_IMAGE={CONTAINER_IMAGE}" in options
    before, ours, after = called[-1].partition(" ; ".join(SET_UP.splitlines()))
    assert ours and "python3" in before and "-m clearml_agent execute" in after
