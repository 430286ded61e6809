"""The container's recipe: linted, since nothing here can build it."""

import re
import subprocess
import sys
from pathlib import Path

FILE = Path(__file__).parent.parent / "templates" / "Dockerfile"


def test_it_is_clean():
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, str(FILE)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_has_what_the_agent_and_we_need():
    text = FILE.read_text()
    for package in ("git", "python3", "python3-pip", "python3-venv", "util-linux"):
        assert re.search(rf"\s{package}\s", text), package
    assert (
        "/app/llama-fit-params" in text and "requirements.txt" in text and "ENTRYPOINT []" in text
    )
