import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GIVE = "from app.machine import limits; limits.give_less(); "
OPENED = (
    "import resource; from app.machine import limits; limits.open_more_files(); "
    "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
)
MADE = "import os; os.close(os.open('made', os.O_CREAT, 0o666)); os.mkdir('folder'); "
TELL = "print(oct(os.stat('made').st_mode)[-3:], oct(os.stat('folder').st_mode)[-3:]); "
CORE = "import resource; print(*resource.getrlimit(resource.RLIMIT_CORE))"


@pytest.mark.parametrize("limit", [14, 31])
def test_too_few_descriptors_are_told_in_one_line(tmp_path, limit):
    """Before anything is written or opened that would be left."""
    done = subprocess.run(
        ["sh", "-c", f'ulimit -n {limit}; exec "$0" -m app --no-clearml --port 0', sys.executable],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and list(tmp_path.iterdir()) == []
    assert f"at most {limit} files may be open (ulimit -n): allow 32" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_as_many_descriptors_as_there_may_be():
    done = subprocess.run(
        ["sh", "-c", 'ulimit -Sn 14; ulimit -Hn 100; exec "$0" -c "$1"', sys.executable, OPENED],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "100\n", done.stderr


def told(folder, umask):
    done = subprocess.run(
        [sys.executable, "-c", GIVE + MADE + TELL + CORE],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        umask=umask,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    ("umask", "file", "folder"), [(0, "664", "775"), (0o022, "644", "755"), (0o077, "600", "700")]
)
def test_not_everybody_may_write_what_we_make_and_no_crash_leaves_our_memory(
    tmp_path, umask, file, folder
):
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    assert told(tmp_path, umask) == [file, folder, "0", str(hard)]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) == 1, reason="one core has one thread in any case")
def test_the_sdks_numpy_starts_no_threads():
    code = GIVE + "import os, numpy; print(len(os.listdir('/proc/self/task')))"
    ours = {n: v for n, v in os.environ.items() if n != "OPENBLAS_NUM_THREADS"}
    told = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=ours, timeout=60)
    assert told.split() == [b"1"]
