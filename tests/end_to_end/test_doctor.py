"""`python -m app doctor`, as a person runs it."""

import json
import os
import socket
import subprocess
import sys

import pytest

from app.engine.capabilities import find
from tests.clearml_api import ApiServer
from tests.end_to_end.conftest import PATIENCE, ROOT, environment_of, finished
from tests.gpus import NAME, Gpus
from tests.hub import Hub

NOWHERE = "http://127.0.0.1:9"  # nobody listens there


@pytest.fixture
def doctor(tmp_path):
    def run(*arguments, status=0, **environment):
        """What was found, by check."""
        environment = {
            **environment_of(tmp_path),
            "CLEARML_CONFIG_FILE": str(tmp_path / "no.conf"),
            "HF_ENDPOINT": NOWHERE,
            **environment,
        }
        line = ["doctor", "--json", "--port", "0", *arguments]
        done = finished(*line, environment=environment)
        assert done.returncode == status and "Traceback" not in done.stderr, done
        return {row["check"]: row for row in json.loads(done.stdout)}

    return run


def verdicts(found, *names):
    return [found[name]["verdict"] for name in names]


def test_a_machine_with_nothing(doctor):
    """No GPU, no ClearML, no network: each says so, and none of it is a problem."""
    found = doctor()
    assert "no NVIDIA GPU" in found["GPU"]["seen"]
    assert verdicts(found, "driver", "parking", "ClearML", "queue") == ["not checked"] * 4
    assert verdicts(found, "llama-server", "its GPUs", "its flags") == ["ok"] * 3
    assert found["hub"]["verdict"] == "warning" and "cannot be reached" in found["hub"]["seen"]
    assert all(row["advice"] for row in found.values() if row["verdict"] == "warning")


def test_lines_for_a_person(tmp_path):
    """And without llama-server, which is a problem: the exit status says so."""
    done = subprocess.run(
        [sys.executable, "-m", "app", "doctor", "--no-clearml", "--port", "0"],
        cwd=ROOT,
        env={**environment_of(tmp_path), "HF_HUB_OFFLINE": "1", "LLAMA_SERVER": "/none"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2, done
    lines = {" ".join(line[13:].split()): line[:11].strip() for line in done.stdout.splitlines()}
    assert lines["llama-server LLAMA_SERVER: /none is no program"] == "problem"
    assert lines["its flags no llama-server that runs"] == "not checked"
    assert any(line.startswith("hub HF_HUB_OFFLINE is set") for line in lines)


def test_gpus_with_a_llama_server_that_uses_them(doctor, tmp_path):
    gpus = Gpus(tmp_path, 16384, 8192)
    gpus.driver()
    found = doctor(**gpus.llama_server(find("", os.environ), 1, 1))
    assert found["GPU"]["seen"] == f"{NAME}, 16 GiB; {NAME}, 8 GiB"
    assert found["driver"]["seen"] == "580.65.06"
    assert found["parking"]["verdict"] == "ok", found["parking"]
    assert found["its GPUs"]["seen"] == "it uses CUDA0, CUDA1"


def test_gpus_that_cannot_park(doctor, tmp_path):
    gpus = Gpus(tmp_path, 16384)
    gpus.driver(parks=False)
    environment = gpus.llama_server(find("", os.environ), 1, 1)
    assert doctor(**environment)["parking"]["verdict"] == "warning"
    found = doctor(**environment, FAKE_NVML_DRIVER="535.104.05")
    assert "cannot park" in found["driver"]["seen"] and "570" in found["driver"]["advice"]
    assert found["parking"]["verdict"] == "not checked"
    found = doctor(**environment, CUDA_VISIBLE_DEVICES="")
    assert "hides them all" in found["GPU"]["seen"]


def test_a_llama_server_for_the_cpu_beside_gpus(doctor, tmp_path):
    found = doctor(status=2, **Gpus(tmp_path, 16384).environment)
    assert found["its GPUs"]["verdict"] == "problem"
    assert "built without GPU support" in found["its GPUs"]["seen"]


def test_an_old_llama_server(doctor, tmp_path):
    real = find("", os.environ)
    old = tmp_path / "llama-server"
    old.write_text(
        f"""#!/bin/sh
        case "$1" in
        --version) echo "version: 8000 (abcdef)" >&2 ;;
        --help) {real} --help | grep -v -e --log-jsonl ;;
        *) exec {real} "$@" ;;
        esac
        """
    )
    old.chmod(0o755)
    found = doctor(LLAMA_SERVER=str(old))
    assert found["llama-server"]["verdict"] == "warning"
    assert "CVE-2026-27940" in found["llama-server"]["seen"]
    assert "made before 3 April 2026" in found["llama-server"]["seen"]
    assert "no --log-jsonl" in found["its flags"]["seen"]


def test_one_that_hangs_costs_the_others_nothing(doctor, tmp_path):
    """The hub accepts a connection, and says no more."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        found = doctor("--no-clearml", HF_ENDPOINT=endpoint)
    assert found["hub"]["verdict"] == "warning"
    assert verdicts(found, "llama-server", "cache", "port") == ["ok"] * 3


def test_clearml_and_the_hub(doctor):
    with ApiServer() as api, Hub({}, private={"org/repo": "hf_secret"}) as hub:
        given = {**api.environment, "HF_ENDPOINT": hub.url}
        found = doctor(**given, HF_TOKEN="hf_secret")
        assert verdicts(found, "ClearML", "App Gateway", "endpoints", "clock") == ["ok"] * 4
        assert "somebody" in found["hub"]["seen"]
        wrong = doctor(**given, HF_TOKEN="hf_wrong")["hub"]
        assert wrong["verdict"] == "warning" and "does not accept the token" in wrong["seen"]
        assert "no token" in doctor(**given)["hub"]["seen"]
        assert "hf_" not in json.dumps([found, wrong]).replace("HF_", "")


def test_a_port_that_is_taken(doctor):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        found = doctor("--no-clearml", "--port", str(other.getsockname()[1]), status=2)
    assert found["port"]["verdict"] == "problem"
