"""The set-up script, joined as the agent joins it and run with stand-ins for apt-get and curl."""

import hashlib
import os
import subprocess
import tarfile

import pytest

from app.engine.capabilities import CONTAINER
from app.form.fields import CONTAINER_IMAGE
from app.task.container import ARCHIVE, RELEASE, SET_UP, SHA256, URL, describe

CURL = """#!/bin/sh
echo "curl $*" >> {log}
while [ $# -gt 1 ]; do [ "$1" = -o ] && cp {source} "$2"; shift; done
"""


@pytest.fixture
def machine(tmp_path):
    """`run(**environment)`: the script's end; `called`: what it called; `server`: what it made."""
    return Machine(tmp_path)


class Machine:
    def __init__(self, folder):
        self.folder, self.log = folder, folder / "called"
        self.server = folder / "app" / "llama-server"
        (folder / "bin").mkdir()
        self.release = folder / "release.tar.gz"
        with tarfile.open(self.release, "w:gz") as packed:
            self.program("built")
            packed.add(folder / "bin" / "built", f"llama-{RELEASE}/llama-server")
        self.digest = hashlib.sha256(self.release.read_bytes()).hexdigest()
        self.program("apt-get", f'#!/bin/sh\necho "apt-get $*" >> {self.log}\n')
        self.program("curl", CURL.format(log=self.log, source=self.release))

    def program(self, name, text="#!/bin/sh\n"):
        (self.folder / "bin" / name).write_text(text)
        (self.folder / "bin" / name).chmod(0o755)

    def run(self, **environment):
        joined = " ; ".join(SET_UP.splitlines()) + ' ; echo "went on"'
        for text, instead in (
            (ARCHIVE, str(self.folder / "fetched.tar.gz")),
            (str(CONTAINER.parent), str(self.folder / "app")),
            (SHA256, self.digest),
        ):
            assert text in joined
            joined = joined.replace(text, instead)
        clean = {"PATH": f"{self.folder / 'bin'}:/usr/bin:/bin", **environment}
        done = subprocess.run(
            ["bash", "-c", joined], env=clean, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.endswith("went on\n"), done.stderr
        assert not (self.folder / "fetched.tar.gz").exists()
        return done

    @property
    def called(self):
        return self.log.read_text().splitlines() if self.log.exists() else []


def test_an_image_without_llama_server_gets_the_release(machine):
    machine.run()
    assert os.access(machine.server, os.X_OK)
    update, install, fetch = machine.called
    assert update == "apt-get update" and " libgomp1" in install and fetch.endswith(URL)


def test_what_is_not_the_release_is_not_unpacked(machine):
    machine.digest = "0" * 64
    done = machine.run()
    assert not machine.server.exists()
    assert "FAILED" in done.stdout  # sha256sum's own word


def test_without_a_network_the_task_goes_on_to_say_so_itself(machine):
    machine.program("curl", "#!/bin/sh\nexit 6\n")
    machine.run()
    assert not machine.server.exists()


@pytest.mark.parametrize("where", ["path", "app", "environment", "other machine"])
def test_nothing_is_fetched_where_it_is_not_wanted(machine, where):
    if where == "path":
        machine.program("llama-server")
    elif where == "app":
        machine.server.parent.mkdir()
        (machine.folder / "bin" / "built").rename(machine.server)
    elif where == "other machine":
        machine.program("uname", "#!/bin/sh\necho aarch64\n")
    machine.run(**({"LLAMA_SERVER": "/x"} if where == "environment" else {}))
    assert machine.called == []


def test_every_line_is_a_command_of_its_own():
    for line in SET_UP.splitlines():
        subprocess.run(["bash", "-nc", line], check=True)
        assert line.strip() == line and not line.startswith("#")


def test_a_container_says_all_three_things():
    assert describe(CONTAINER_IMAGE, "-v a:b") == {
        "image": CONTAINER_IMAGE,
        "arguments": "-v a:b",
        "setup_shell_script": SET_UP,
    }


def test_whoever_names_a_llama_server_gets_no_other():
    assert describe("i", "", "/opt/llama-server")["setup_shell_script"] == ""


def test_the_default_image_lets_the_agents_command_through():
    """llama.cpp's own images start llama-server whatever they are told to run."""
    assert "llama.cpp" not in CONTAINER_IMAGE
    assert "cuda-12.8" in URL and CONTAINER_IMAGE.startswith("nvidia/cuda:12.8.")
    assert CONTAINER_IMAGE.endswith("-ubuntu24.04")
