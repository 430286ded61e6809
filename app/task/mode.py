"""Whether this process is an offline, a local or an agent's task, and how it becomes one.

`find`, `prepare` and `become` run in the SDK's thread.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.machine import threads
from app.task import api, configuration, quiet
from app.task.direct import Direct

REQUIREMENTS = Path(__file__).parents[2] / "requirements.txt"  # of a checkout
KEY_VARIABLES = ("CLEARML_API_ACCESS_KEY", "TRAINS_API_ACCESS_KEY", "CLEARML_AUTH_TOKEN")
LOOK = 10.0  # seconds between the SDK's looks for an abort; by default 2
PING = 60.0  # seconds between signs of life; by default 30, but every report is one, too
FALSE = ("", "0", "false", "no")
MONITOR = {  # the SDK's machine monitor, on an axis of seconds from the first report on
    "sample_frequency_per_sec": 0.2,  # by default twice a second, at 5 ms of CPU time
    "report_frequency_sec": 15,
    "first_report_sec": 15,
    "wait_for_first_iteration_to_start_sec": 0,
    "max_wait_for_first_iteration_to_start_sec": 0,
    "report_mem_used_per_process": False,
}


class Mode(enum.Enum):
    OFFLINE = "offline"
    LOCAL = "local"  # online, but no agent started this process
    AGENT = "agent"


def known_offline(wanted: bool, environment: Mapping[str, str]) -> bool:
    """Whether the process is offline whatever the SDK's configuration says."""
    return wanted or environment.get("CLEARML_OFFLINE_MODE", "").lower() not in FALSE


def find(environment: Mapping[str, str]) -> Mode:
    """Online if an agent started this process, or if there are credentials."""
    configuration.skip_comments()
    if environment.get("CLEARML_TASK_ID"):
        return Mode.AGENT
    if any(environment.get(name) for name in KEY_VARIABLES):
        return Mode.LOCAL
    settings = importlib.import_module("clearml.config").ConfigWrapper
    return Mode.LOCAL if settings.get("api.credentials.access_key", None) else Mode.OFFLINE


def prepare() -> None:
    """What has to be done before the first request to a server."""
    from clearml.backend_api import Session
    from clearml.backend_api.session.session import LoginError

    api.be_patient(Session, LoginError)
    watch_calmly()


def watch_calmly() -> None:
    """Each look at the task's status is a request, of each of all instances, day and night."""
    from clearml.backend_interface.task.development.worker import DevWorker

    DevWorker.report_period, DevWorker.ping_period = LOOK, PING


def have_one_lock() -> None:
    """The SDK makes the lock of a task when somebody asks for it. Two of its threads that ask at
    once, as at a start, get one each, of one file, and wait for each other for good."""
    from clearml import Task

    given = getattr(Task, "_edit_lock", None)
    if "_edit_lock" in vars(Task) or not isinstance(given, property) or given.fget is None:
        return  # it is done, or this SDK does otherwise
    read, guard = given.fget, threads.Lock()

    def get(task: Any) -> Any:
        with guard:
            return read(task)

    Task._edit_lock = property(get, given.fset)


def become(mode: Mode, project: str, name: str) -> Any:
    """Become a task; returns the SDK's object of it."""
    from clearml import Task  # takes half a second, so it is imported when it is needed

    configuration.skip_comments()  # where it was known without `find`
    have_one_lock()
    # The SDK's reporter would be a fork of this process that shares our sockets.
    Task._report_subprocess_enabled = False
    quiet.hush()
    if REQUIREMENTS.is_file():
        # Else the SDK parses all files around the app to see what they import: that takes seconds,
        # and an agent would install for a clone what only the tests need.
        Task.force_requirements_env_freeze(requirements_file=str(REQUIREMENTS))
    if mode is Mode.OFFLINE:
        Task.set_offline(True)
    task = Task.init(
        project_name=project,
        task_name=name,
        task_type=Task.TaskTypes.inference,
        reuse_last_task_id=False,
        continue_last_task=False,
        output_uri=False,
        auto_connect_arg_parser=False,
        auto_connect_frameworks=False,
        auto_resource_monitoring=dict(MONITOR),
        auto_connect_streams={"stdout": True, "stderr": True, "logging": False},
    )
    if mode is Mode.OFFLINE:
        hide(task)
    return task


def hide(task: Any) -> None:
    """Only this user may read an offline task's record: addresses in its form may have secrets."""
    with contextlib.suppress(OSError):  # of a file system without rights
        Path(task.get_offline_mode_folder()).chmod(0o700)


def close_hidden(task: Any) -> None:
    """End an offline task; only this user may read the zip that the SDK makes of its record."""
    with contextlib.suppress(OSError):
        path = f"{task.get_offline_mode_folder()}.zip"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    task.close()


def direct(task: Any) -> Direct:
    """A way to the server of this task past the SDK."""
    return Direct(task.session)
