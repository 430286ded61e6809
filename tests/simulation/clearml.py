"""ClearML: its API server (the state is that of tests/clearml_api), and the SDK as far as app/task
uses it. The real SDK has threads and waits of its own, which no virtual clock reaches."""

import contextlib
from types import SimpleNamespace

from app.machine import clock
from tests.clearml_api.state import ApiError, State

TASK, HOST = "task-1", "http://api.simulated:8008"
WATCH = 10.0  # seconds between two looks of the SDK at its task
SILENCE = 30.0  # seconds
AGAIN, LONGEST = 1.0, 60.0  # seconds between two tries of the SDK


class Answer:
    """As of `requests`."""

    def __init__(self, call, status, meta, data):
        self.url, self.status_code, self.ok = f"{HOST}/{call}", status, status < 400
        self.headers = {"Content-Type": "application/json"}
        self._told = {"meta": {"result_code": status, **meta}, "data": data}

    def json(self):
        return self._told


class Server:
    """`weather` is how it is: fine, down, silent, failing or slow."""

    def __init__(self, world, hyperparameters):
        self.world, self.weather = world, "fine"
        self.state = State()
        self.token = "token-1"
        self.asked = []  # when, and what
        self.state.new_task(
            id=TASK, name="Simulated", status="in_progress", hyperparams=hyperparameters
        )

    @property
    def task(self):
        return self.state.tasks[TASK]

    @property
    def key(self):
        return self.task["runtime"].get("_api_key", "")

    def ask(self, call, fields, token, timeout):
        """In a simulated thread. Raises OSError."""
        self.asked.append((self.world.loop.time(), call))
        draw = self.world.draw("clearml")
        clock.sleep(draw.uniform(1, 8) if self.weather == "slow" else draw.uniform(0.001, 0.05))
        self.world.trace(f"ClearML, {self.weather}: {call}")
        if self.weather == "down":
            raise ConnectionRefusedError(111, "Connection refused")
        if self.weather == "silent":
            clock.sleep(timeout)
            raise TimeoutError(110, "timed out")
        if self.weather == "failing":
            return Answer(call, 500, {"result_msg": "General data error"}, {})
        if call == "auth.login":
            return Answer(call, 200, {}, {"token": self.token})
        if token != self.token:
            return Answer(call, 401, {"result_msg": "the token has expired"}, {})
        try:
            return Answer(call, 200, {}, self.state.act(call, fields))
        except ApiError as error:
            return Answer(call, error.code, {"result_msg": str(error)}, {})


class Http:
    """A session of `requests`, without retries."""

    verify = True

    def __init__(self, server):
        self._server = server

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def post(self, url, json=None, headers=None, timeout=0.0, auth=None):
        token = (headers or {}).get("Authorization", "").removeprefix("Bearer ")
        return self._server.ask(url.rpartition("/")[2], json or {}, token, timeout)

    def request(self, method, url, timeout, **given):
        return self.post(url, timeout=timeout)


class LoginError(Exception):
    """Of the SDK."""


class Session:
    """The SDK's way to a server."""

    host, config = HOST, {}
    access_key, secret_key = "key", "secret"

    def __init__(self, server):
        self._server, self.raw_token = server, server.token

    def send(self, call, fields):
        answer = self._server.ask(call, fields, self.raw_token, SILENCE)
        if answer.status_code == 401:
            self.raw_token = self._server.token
            answer = self._server.ask(call, fields, self.raw_token, SILENCE)
        return answer

    def send_request(self, service, action, json, method):
        """The SDK does not give up."""
        pause = AGAIN
        while True:
            with contextlib.suppress(OSError):
                answer = self.send(f"{service}.{action}", json)
                if answer.status_code < 500:
                    return answer
            clock.sleep(pause)
            pause = min(2 * pause, LONGEST)

    @staticmethod
    def verify_feature_set(name):
        raise ValueError(name)

    @staticmethod
    def get_api_server_host():
        return HOST

    get_app_server_host = get_api_server_host


class SdkTask:
    """What Task.init returns."""

    _detect_repo_async_thread = None

    def __init__(self, world, session):
        self.id, self.session = TASK, session
        self._world = world
        self._edit_lock = contextlib.nullcontext()
        self._dev_worker = SimpleNamespace(unregister=self._unwatched)
        self._reporter = SimpleNamespace(_report=world.reported.append)
        self._abort, self._watched = None, True
        world.steps.call(self._watch)

    def _ask(self, call, **fields):
        service, _, action = call.partition(".")
        return self.session.send_request(service, action, {"task": TASK, **fields}, "post").json()

    def _reload(self):
        return self._ask("tasks.get_by_id")["data"]["task"]

    @property
    def name(self):
        return self._reload()["name"]

    def set_name(self, name):
        self._ask("tasks.edit", name=name)

    def get_parameters(self):
        sections = self._reload()["hyperparams"]
        return {f"{s}/{n}": e["value"] for s, found in sections.items() for n, e in found.items()}

    def update_parameters(self, values):
        split = [(key.partition("/"), text) for key, text in values.items()]
        items = [{"section": k[0], "name": k[2], "value": text} for k, text in split]
        self._ask("tasks.edit_hyper_params", hyperparams=items)

    def _get_runtime_properties(self):
        return self._reload()["runtime"]

    def _set_runtime_properties(self, values):
        self._ask("tasks.edit", runtime={**self._get_runtime_properties(), **values})

    def get_initial_iteration(self):
        return 0

    def get_logger(self):
        return self

    def get_default_upload_destination(self):
        return "http://files.simulated:8081"

    def report_table(self, title, series, iteration, table_plot):
        self._world.reported.append((title, series))

    def report_media(self, title, series, iteration, stream, **named):
        self._world.reported.append((title, series))

    def flush(self, wait=False, wait_for_uploads=False):
        self._ask("events.add_batch")

    def register_abort_callback(self, callback, timeout):
        self._abort = callback

    def _unwatched(self):
        self._watched = False

    def _watch(self):
        """In a thread of the SDK: has somebody asked for the task to be stopped?"""
        while self._watched:
            clock.sleep(WATCH)
            task = self._reload()
            if self._watched and self._abort and "stopping" in task["status_message"]:
                return self._abort()


def agent_ends(server, status):
    """What an agent writes of a task whose process has ended, and our last will after that."""
    if server.weather == "fine" and server.task["status"] == "in_progress":
        said = {"task": TASK, "status_message": "", "force": True}
        ended = {0: "completed", 254: "stopped"}.get(status, "failed")
        server.state.act(f"tasks.{ended}", said)
    for will in server.world.machine.wills:
        carry_out(server, will.last)


def carry_out(server, will):
    """What the process of the last will does after our end (app/task/last_will_child.py)."""
    if will and will["over"] is None and server.weather == "fine":
        properties = server.task["hyperparams"].get("properties", {})
        if properties.get("run", {}).get("value") == will["run"]:
            for service, action, fields in will["words"]:
                with contextlib.suppress(ApiError):
                    server.state.act(f"{service}.{action}", fields)
