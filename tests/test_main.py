import subprocess
import sys
from pathlib import Path

import pytest

from app import main
from app.commands.options import DEFAULT, parser
from app.main import COMMANDS

ROOT = Path(__file__).parent.parent


def test_every_module_of_the_folder_is_a_command():
    modules = {path.stem for path in (ROOT / "app" / "commands").glob("*.py")}
    assert modules - {"__init__", "options"} == {*COMMANDS}
    for name, command in COMMANDS.items():
        assert command.__name__ == f"app.commands.{name}"
        assert command.__doc__.startswith(f"`{name}`: ")


def test_the_help_names_every_command():
    told = parser(DEFAULT, COMMANDS).format_help()
    for name, command in COMMANDS.items():
        assert name in parser(DEFAULT, COMMANDS).format_usage()
        assert command.DESCRIPTION in told
        assert command.DESCRIPTION in parser(name, COMMANDS).format_help()


def test_a_command_runs_on_a_loop_of_its_own():
    async def seven():
        return 7

    assert main.run(seven()) == 7


@pytest.mark.parametrize(
    "words, problem",
    [
        (["--set", "Model/thread=1"], "--set Model/thread: no such field; did you mean Model/t"),
        (["serve", "--port", "-1"], "General/port: -1 is less than 0"),
        (["package", "--repo", "x", "/none/a.zip"], "/none/a.zip cannot be written: No such file"),
    ],
)
def test_an_error_is_one_line_and_an_exit_status(tmp_path, words, problem):
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "CLEARML_OFFLINE_MODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "app", *words],
        cwd=tmp_path,
        env={**environment, "HOME": str(tmp_path), "CLEARML_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = done.stdout + done.stderr
    assert done.returncode == 2 and "Traceback" not in told
    assert len([line for line in told.splitlines() if problem in line]) == 1, told
