import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app import console, main
from app.commands.options import DEFAULT, parser
from app.main import COMMANDS
from tests.pipes import pipe

ROOT = Path(__file__).parent.parent


def test_every_module_of_the_folder_is_a_command():
    modules = {path.stem for path in (ROOT / "app" / "commands").glob("*.py")}
    assert modules - {"__init__", "options", "paths"} == {*COMMANDS}
    for name in COMMANDS:
        command = main.load(name)
        assert command.__doc__.startswith(f"`{name}`: ")


def test_the_help_names_every_command():
    default = parser(DEFAULT, main.load(DEFAULT), COMMANDS)
    for name, description in COMMANDS.items():
        assert name in default.format_usage()
        assert description in default.format_help()
        assert description in parser(name, main.load(name), COMMANDS).format_help()


def test_a_command_runs_on_a_loop_of_its_own():
    async def seven():
        return 7

    assert main.run(seven()) == 7


@pytest.mark.parametrize(
    "words, problem",
    [
        (["--set", "Model/thread=1"], "--set Model/thread: no such field; did you mean Model/t"),
        (["serve", "--port", "-1"], "General/port: -1 is less than 0"),
        (["--no-clearml", "check"], "unrecognized arguments: check (a command comes first: python"),
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


@pytest.mark.parametrize("phase", ["import 'uvloop'", "waiting"])
def test_an_interrupt_ends_a_command_without_a_traceback(tmp_path, phase):
    """While modules are imported (the first one tells us), and while a command waits."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        status, errors = interrupted(silent, phase)
    assert status in (-signal.SIGINT, 130)
    assert "Traceback" not in errors


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_command_runs_without_standard_streams(tmp_path, closed):
    words = ["check", "--no-clearml", "--model", str(tmp_path / "none.gguf")]
    done = subprocess.run(
        [sys.executable, "-m", "app", *words],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        preexec_fn=lambda: [os.close(number) for number in closed],
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr


def heed_interrupts():
    """Whoever runs the tests in the background of a shell ignores them, and so would the child."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupted(silent, phase):
    host = f"http://127.0.0.1:{silent.getsockname()[1]}"
    keys = {"CLEARML_API_ACCESS_KEY": "k", "CLEARML_API_SECRET_KEY": "s", "CLEARML_API_HOST": host}
    environment = {**os.environ, **keys, "CLEARML_WEB_HOST": host, "CLEARML_FILES_HOST": host}
    importing = phase.startswith("import")
    command = [sys.executable, *(["-v"] if importing else []), "-m", "app", "export", "0" * 32]
    with subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    ) as child:
        if importing:
            next(line for line in child.stderr if phase in line)
            child.send_signal(signal.SIGINT)
            _, errors = child.communicate(timeout=60)
        else:
            with silent.accept()[0]:
                child.send_signal(signal.SIGINT)
                _, errors = child.communicate(timeout=60)
    return child.returncode, errors


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["--version"], ["check", "--help"], ["cache"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_cannot_be_told_is_an_error(tmp_path, words, unbuffered):
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    with FULL.open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "app", *words],
            env={**environment, "PYTHONUNBUFFERED": unbuffered},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "standard output cannot be written: No space left on device" in done.stderr


SAYS = """
import os
from app import console, main

async def say():
    os.write(2, b"there\\n")  # who is interrupted before that is no concern of `main`
    console.say("asked for")
    return 0

console.set_up(errors=True)
status = main.run(say())
console.flush()
os._exit(status)
"""


def full_pipe():
    reader, writer = pipe()
    return os.fdopen(reader, "rb"), os.fdopen(writer, "wb", 0)


def full_socket():
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            writer.send(b"x" * 4096)
    writer.setblocking(True)
    return reader, writer


@pytest.mark.parametrize("full", [full_pipe, full_socket])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_who_does_not_read_what_was_asked_for_may_interrupt_it(full, unbuffered):
    reader, writer = full()
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-c", SAYS]
    with (
        reader,
        writer,
        subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=writer, stderr=subprocess.PIPE
        ) as saying,
    ):
        try:
            assert saying.stderr.readline() == b"there\n"
            for _ in range(30):  # it may not have come so far at the first one
                with contextlib.suppress(subprocess.TimeoutExpired):
                    saying.wait(2)
                    break
                saying.send_signal(signal.SIGINT)
            assert saying.poll() == main.INTERRUPTED
        finally:
            saying.kill()


def test_an_interrupt_of_what_is_asked_for_is_told_once(monkeypatch):
    """Else it would cut off what the command still has to do."""

    class Slow:
        def write(self, text):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)  # a KeyboardInterrupt ends it

    async def says():
        with pytest.raises(asyncio.CancelledError):
            console.say("asked for")
        await asyncio.sleep(0.2)
        return 7

    monkeypatch.setattr(console, "_asked", Slow())
    assert main.run(says()) == 7


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_mistake_is_one_where_nobody_can_be_told(unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "app", "--nothing"]
        done = subprocess.run(command, cwd=ROOT, env=environment, stderr=full, timeout=60)
        assert done.returncode == 2


PRINTS = """
import os
from app import console

console.set_up(errors=True)
print("of a library")
console.flush()
os._exit(0)
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_a_library_prints_is_in_the_file(tmp_path, unbuffered):
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with (tmp_path / "out").open("w") as out:
        command = [sys.executable, "-c", PRINTS]
        subprocess.run(command, cwd=ROOT, env=environment, stdout=out, timeout=60, check=True)
    assert (tmp_path / "out").read_text() == "of a library\n"
