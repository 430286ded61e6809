"""The executor of the last will: the real process, against the API stand-in."""

import signal
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.task import last_will, last_will_child
from app.task.last_will import LastWill
from app.task.mode import Mode
from app.task.outcome import Outcome, Run, Word, last_words
from tests.clearml_api import ApiServer
from tests.clearml_api.state import ApiError

ROW = Word("unregister_container", {"container_id": "row"}, "serving")


@pytest.fixture
def api():
    with ApiServer() as server:
        server.state.containers["row"] = {}
        yield server


def access(api, token="token"):
    pair = {"key": "access", "secret": "not-a-real-secret"}
    return {"host": api.url, "token": token, **pair, "verify": True}


def words(task, outcome=Outcome.STOPPED):
    return [*last_words(task["id"], Mode.AGENT, outcome, "killed"), ROW]


def value(task, name):
    return task["hyperparams"].get("properties", {}).get(name, {}).get("value")


def until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_last_will_is_carried_out_when_we_have_ended(api):
    task, will = api.state.new_task(status="in_progress"), LastWill()
    will.begin(access(api), Run(task["id"], "this"))
    will.leave([ROW] * 9)
    will.leave(words(task))
    assert api.calls == []
    will._executor.close()  # as the kernel does
    until(lambda: not api.state.containers)
    assert (value(task, "status"), value(task, "stop_reason")) == ("stopped", "killed")
    assert api.calls.count("serving.unregister_container") == 1


def will_of(api, task, outcome=Outcome.STOPPED, over=None):
    listed = [(word.service, word.action, word.fields) for word in words(task, outcome)]
    known = {"access": access(api), "task": task["id"], "run": "this"}
    return {**known, "words": listed, "over": over}


def test_a_refusal_costs_the_next_word_nothing_and_an_outage_is_waited_out(api):
    task = api.state.new_task(status="stopped")  # which takes no runtime properties
    api.failing["serving.unregister_container"] = 500
    answer = api.answer

    def there_again(action, fields, body):
        if api.calls.count("serving.unregister_container") == 2:
            api.failing.clear()
        return answer(action, fields, body)

    api.answer = there_again
    last_will_child.carry_out(will_of(api, task), pause=0.0)
    assert value(task, "status") == "stopped" and api.state.containers == {}
    assert api.calls.count("tasks.edit_hyper_params") == 1


def test_a_token_that_has_expired_is_renewed(api):
    task, answer = api.state.new_task(status="in_progress"), api.answer

    def once(action, fields, body):
        api.locked = action != "auth.login" and "auth.login" not in api.calls
        try:
            return answer(action, fields, body)
        finally:
            api.locked = False

    api.answer = once
    last_will_child.carry_out(will_of(api, task), pause=0.0)
    assert value(task, "status") == "stopped" and api.calls.count("auth.login") == 1


@pytest.mark.parametrize(
    "status, message, said",
    [
        ("completed", "Changed by clearml-agent", True),
        ("created", "reset", False),
        ("completed", "killed", False),  # nobody has replaced it
    ],
)
def test_a_message_is_said_again_only_where_another_replaced_it(
    api, monkeypatch, status, message, said
):
    monkeypatch.setattr(last_will_child, "LOOKS", 2)
    task = api.state.new_task(status=status, status_message=message)
    over = {"status": "completed", "status_message": "killed"}
    last_will_child.carry_out(will_of(api, task, Outcome.COMPLETED, over), look=0.0)
    assert (task["status_message"] == "killed") is (said or message == "killed")
    assert ("tasks.completed" in api.calls) is said


def showing(run):
    """Hyperparameters of a task whose run this is."""
    return {"properties": {"run": {"section": "properties", "name": "run", "value": run}}}


@pytest.mark.parametrize(
    "status, shown, said",
    [
        ("in_progress", "this", True),
        ("in_progress", "", True),  # who knows: the property could not be written
        ("failed", "this", True),
        ("queued", "this", False),
        ("created", "this", False),
        ("in_progress", "another", False),
    ],
)
def test_nothing_is_said_of_a_task_that_somebody_else_has_by_then(api, status, shown, said):
    """The will of a failure, whose status is forced: it would end the run after ours."""
    task = api.state.new_task(status=status, hyperparams=showing(shown))
    last_will_child.carry_out(will_of(api, task, Outcome.FAILED), pause=0.0)
    assert (task["status"] == "failed") is (said or status == "failed")
    assert (value(task, "stop_reason") == "killed") is said
    assert (api.state.containers == {}) is said


def test_a_task_that_is_enqueued_during_an_outage_is_left_alone_after_it(api):
    """1. The server breaks off after the first word. 2. The task is enqueued. 3. It answers."""
    task, answer = api.state.new_task(status="failed", hyperparams=showing("this")), api.answer

    def broken(action, fields, body):
        if action == "tasks.edit_runtime":
            task["status"] = "queued"
            raise ApiError(502, 0, "away")
        return answer(action, fields, body)

    api.answer = broken
    last_will_child.carry_out(will_of(api, task, Outcome.FAILED), pause=0.0)
    assert task["status"] == "queued" and "row" in api.state.containers


class Torn(BaseHTTPRequestHandler):
    """A server that goes away in the middle of its answers."""

    def do_POST(self):
        self.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 100\r\n\r\n{")

    def log_message(self, *_):
        pass


def test_an_answer_that_breaks_off_is_no_end_of_the_will(api):
    server = last_will_child.Server(access(api))
    torn = ThreadingHTTPServer(("127.0.0.1", 0), Torn)
    threading.Thread(target=torn.serve_forever, daemon=True).start()
    server._host = f"http://127.0.0.1:{torn.server_port}"
    try:
        with pytest.raises(last_will_child.FAILURES):
            server.ask("tasks", "get_all", {})
    finally:
        torn.shutdown()
        torn.server_close()


def test_the_process_ends_whatever_hangs():
    """A name that does not resolve knows no timeout: a clock of the kernel's ends the process."""
    argv = [sys.executable, "-I", "-S", "-c", HANGS, last_will_child.__file__]
    done = subprocess.run(argv, input=b'{"access": {}}\n', timeout=60, check=False)
    assert done.returncode == -signal.SIGALRM


HANGS = """
import importlib.util, sys, threading
spec = importlib.util.spec_from_file_location("child", sys.argv[1])
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
child.LONGEST = 1
child.carry_out = lambda will: threading.Event().wait()
child.main()
"""


class Session:
    host, raw_token, access_key, secret_key = "https://h", "token", "", ""


def test_certificates_are_checked_as_the_sdk_checks_them(monkeypatch, tmp_path):
    for name in last_will.BUNDLES:
        monkeypatch.delenv(name, raising=False)
    known = last_will.access(Session, True)["verify"]
    assert last_will_child._tls(known).get_ca_certs()
    assert last_will.access(Session, False)["verify"] is False
    assert last_will_child._tls(False).verify_mode == ssl.CERT_NONE
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))  # as c_rehash makes it
    assert last_will.access(Session, True)["verify"] == str(tmp_path)
    assert last_will_child._tls(str(tmp_path)).verify_mode == ssl.CERT_REQUIRED
    assert last_will.access(Session, "/of/clearml.conf")["verify"] == "/of/clearml.conf"
