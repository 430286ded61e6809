"""The real clearml-agent on a queue of the API stand-in, and a repository for it to clone."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.end_to_end.conftest import PATIENCE, ROOT, end_family, environment_of

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]


def repository(folder):
    """What is in our working tree, as the one commit of a repository that can be cloned."""
    folder.mkdir()
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT)
    for name in listed.decode().splitlines():
        ours = name.startswith(("app/", "requirements.txt", "templates/", "__main__.py"))
        if ours and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*GIT, *command], cwd=folder, check=True)
    return f"file://{folder}"


class Agent:
    """`with Agent(...) as agent`: works on a queue until then; `install` lets it install the
    requirements, else it runs tasks in our own environment."""

    def __init__(self, api, folder, queue, *, install=False, **environment):
        self.folder, self.queue = folder, queue
        folder.mkdir()
        # The agent keeps who is at work in the folder for temporary files; ours has sockets there.
        self.temporary = Path(tempfile.mkdtemp(prefix="t-", dir="/tmp"))
        configuration = folder / "clearml.conf"
        configuration.write_text(
            f"""
            api {{
              api_server: "{api.url}", web_server: "{api.url}", files_server: "{api.url}"
              credentials {{ access_key: "access", secret_key: "not-a-real-secret" }}
            }}
            agent {{
              venvs_dir: "{folder}/venvs", venvs_cache.path: "{folder}/cache"
              vcs_cache.path: "{folder}/vcs", pip_download_cache.path: "{folder}/pip"
              package_manager.pip_version: ""
            }}
            """
        )
        binary = Path(sys.executable).parent
        bare = {} if install else {"CLEARML_AGENT_SKIP_PYTHON_ENV_INSTALL": "1"}
        self.environment = {
            **environment_of(folder),
            **api.environment,
            "CLEARML_CONFIG_FILE": str(configuration),
            "CLEARML_CACHE_DIR": str(folder / "clearml"),
            "CLEARML_AGENT_QUEUE_POLL_FREQ_SEC": "0.5",
            "CLEARML_WORKER_ID": f"here:{queue}",
            "LLAMACPP_CACHE_DIR": str(folder / "models"),
            "LLAMA_SERVER": str(binary.parent / llama_server()),
            "PATH": f"{binary}:{os.environ['PATH']}",
            "PIP_NO_COMPILE": "1",  # what is installed runs once
            "PYTHONPATH": str(Path(__file__).parent / "quick"),
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self.temporary),
            **bare,
            **environment,
        }

    def __enter__(self):
        self.log = (self.folder / "agent.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "clearml_agent", *self.arguments()],
            cwd=self.folder,
            env=self.environment,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def arguments(self):
        return ["daemon", "--queue", self.queue, "--create-queue", "--foreground", "--cpu-only"]

    def __exit__(self, *_):
        """Killed with all that it started: an interrupt alone does not always end it."""
        end_family(self.process)
        self.log.close()
        shutil.rmtree(self.temporary, ignore_errors=True)

    @property
    def output(self):
        return (self.folder / "agent.log").read_text()

    @property
    def servers(self):
        """The pids of the llama-servers that run below it."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [child.pid for child in family if child.name() == "llama-server"]


class Executing(Agent):
    """The agent as a services container runs it: for this one task."""

    def __init__(self, api, folder, task, **environment):
        super().__init__(api, folder, task, CLEARML_AGENT_SERVICE_TASK="1", **environment)

    def arguments(self):
        return ["execute", "--full-monitoring", "--cpu-only", "--id", self.queue]


def llama_server():
    from app.engine.capabilities import find

    return find("", {})


def wait_for(condition, what, timeout=PATIENCE):
    deadline = time.monotonic() + timeout
    while not (found := condition()):  # a machine under load takes its time
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)
    return found
