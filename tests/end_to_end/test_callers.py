"""Named callers of a keys file, through the real openai and anthropic clients."""

import hashlib
import importlib
import json
import signal
import subprocess
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import openai
import psutil
import pytest

from app.gateway.guesses import ALLOWED
from tests.clearml_api import ApiServer
from tests.end_to_end.conftest import PATIENCE, ROOT
from tests.end_to_end.test_serving import HELLO, ONE, chat, client, until
from tests.end_to_end.test_task import tiny_path
from tests.end_to_end.test_telemetry import events_of

pytestmark = pytest.mark.quick

VARIABLE, OWN = "LLAMACPP_API_KEYS_FILE", "the-key-of-the-instance"


class KeysFile:
    """Each caller's key is its name, and `-key`."""

    def __init__(self, path):
        self.path = path

    def write(self, **callers):
        """The fields of each caller, as lines of TOML."""
        tables = []
        for name, fields in callers.items():
            digest = hashlib.sha256(key_of(name).encode()).hexdigest()
            tables.append(f'[{name}]\nsha256 = "{digest}"\n{fields}\n')
        self.path.write_text("\n".join(tables))
        return self


def key_of(name):
    return f"{name}-key"


@pytest.fixture
def keys(tmp_path):
    return KeysFile(tmp_path / "keys.toml")


@pytest.fixture
def api():
    with ApiServer() as server:
        yield server


@pytest.fixture
def starts(start, keys):
    """Start the app with the keys file and a key of its own."""

    def starter(*arguments, **environment):
        return start(
            *ONE, *arguments, **{"LLAMACPP_API_KEY": OWN, VARIABLE: str(keys.path), **environment}
        )

    return starter


def caller(app, name, model="tiny"):
    return client(app, model, api_key=key_of(name))


def look(app, path, key=OWN):
    request = urllib.request.Request(app.url + path, headers={"X-Api-Key": key})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.read().decode()


def in_flight(app):
    return json.loads(look(app, "/api/status"))["models"][0]["in_flight"]


@contextmanager
def messages(app, name):
    anthropic = importlib.import_module("anthropic")
    options = {"api_key": key_of(name), "max_retries": 0, "timeout": PATIENCE}
    with anthropic.Anthropic(base_url=app.url, **options) as api:
        yield lambda model="tiny": api.messages.create(model=model, messages=HELLO, max_tokens=3)


def test_a_limit_of_requests_is_each_callers_own_and_a_leaver_frees_its_place(
    starts, keys, endless
):
    """1. A stream of alice's. 2. Her next request is refused to both clients; bob's and the
    instance's own are served. 3. She leaves the stream. Result: she is served again."""
    anthropic = importlib.import_module("anthropic")
    keys.write(alice="max_concurrent_requests = 1", bob="max_concurrent_requests = 1")
    app = starts("--model", str(endless), "--set", "Model/endpoint_name=tiny").ready()
    alice = caller(app, "alice")
    stream = chat(alice, -1, stream=True)
    assert next(iter(stream))
    with pytest.raises(openai.RateLimitError, match="alice: 1 requests are in flight") as refused:
        chat(alice)
    assert refused.value.response.headers["retry-after"] == "1"
    assert refused.value.body["type"] == "rate_limit_error"
    with messages(app, "alice") as create, pytest.raises(anthropic.RateLimitError) as refused:
        create()
    assert refused.value.body["type"] == "error"
    assert refused.value.body["error"]["type"] == "rate_limit_error"
    for key in (key_of("bob"), OWN):
        assert chat(client(app, api_key=key)).usage.completion_tokens == 8
    stream.close()
    until(lambda: in_flight(app) == 0)
    assert chat(alice).usage.completion_tokens == 8
    metrics = look(app, "/metrics")
    for name, refusals in (("alice", 2), ("bob", 0)):
        denied = f'llamacpp_caller_denied_requests_total{{caller="{name}"}}'
        assert f"{denied} {refusals}.0" in metrics
    assert not [name for name in ("alice", "bob") if key_of(name) in app.output]
    for pid in app.children:
        assert str(keys.path) not in str(psutil.Process(pid).environ())


def test_tokens_per_minute_are_taken_as_llama_server_counts_them(starts, keys):
    """Each request is of some 20 tokens. Result: the one after the first that leaves the bucket
    empty is refused, until the time that the answer names; others are not."""
    keys.write(alice="tokens_per_minute = 30", bob="tokens_per_minute = 100000")
    app = starts().ready()
    alice, used = caller(app, "alice"), 0
    with pytest.raises(openai.RateLimitError, match="its 30 tokens per minute") as refused:
        while True:
            used += chat(alice).usage.total_tokens
    assert used >= 30
    again = int(refused.value.response.headers["retry-after"])
    assert 1 <= again <= 1 + (used - 30) * 2 + 1
    assert chat(caller(app, "bob")).usage.completion_tokens == 8


def test_a_model_that_is_not_a_callers_own_is_not_there_for_it(starts, keys, cache, tmp_path):
    anthropic = importlib.import_module("anthropic")
    model = {"model": tiny_path(cache)}
    models = [{**model, "endpoint_name": name, "aliases": f"{name}-2"} for name in ("a", "b")]
    config = tmp_path / "form.json"
    config.write_text(json.dumps({"General": {"models": models}}))
    keys.write(alice='models = ["a-2"]', bob="")
    app = starts("--config", str(config)).ready()
    alice = client(app, "", api_key=key_of("alice"))
    assert [model.id for model in alice.models.list()] == ["a", "a-2"]
    assert alice.models.retrieve("a").id == "a"
    assert chat(caller(app, "alice", "a")).usage.completion_tokens == 8
    for model in ("b", "b-2"):
        with pytest.raises(openai.NotFoundError, match="there are: a, a-2"):
            alice.models.retrieve(model)
        with pytest.raises(openai.NotFoundError, match="there are: a, a-2"):
            alice.chat.completions.create(model=model, messages=HELLO)
        with pytest.raises(openai.NotFoundError):
            chat(caller(app, "alice", model))
        with messages(app, "alice") as create, pytest.raises(anthropic.NotFoundError) as refused:
            create(model)
        assert refused.value.body["error"]["type"] == "not_found_error"
    with messages(app, "alice") as create:
        assert create("a-2").usage.output_tokens == 3
    assert '"b"' not in look(app, "/api/status", key_of("alice"))
    assert len(list(client(app, "", api_key=key_of("bob")).models.list())) == 4
    for path in ("/metrics", "/api/events"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            look(app, path, key_of("bob"))


def test_the_file_changes_under_load_and_no_request_fails(starts, keys):
    """1. Two callers send requests, streamed and not, all the time. 2. Meanwhile limits change, and
    others come and go; some changes are told by SIGHUP, and some files are broken. 3. A caller is
    taken out while its stream runs. Result: no request of theirs fails, and the stream ends as it
    should; the last file counts."""
    keys.write(alice="", bob='class = "batch"', carol="")
    app = starts("--set", "Model/parallel=4").ready()
    with asking(app, "alice", "bob") as asked:
        stream = chat(caller(app, "carol"), 60, stream=True)
        chunks = [next(iter(stream))]
        for turn, write in enumerate(changes(keys)):
            told, before = len(app.lines), list(asked.done)
            write()
            if turn % 2:
                app.process.send_signal(signal.SIGHUP)
            until(lambda told=told: any(VARIABLE in line for line in app.lines[told:]))
            until(lambda before=before: asked.failed or asked.more_than(before))
    assert asked.failed == []
    chunks += list(stream)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert f"{keys.path}: not TOML: " in app.output
    assert not any(served(app, name) for name in ("carol", "new0", "new1", "new3"))
    assert served(app, "new4") and app.process.poll() is None


def changes(keys):
    """What is done to the file, one after the other."""
    for turn in range(6):
        if turn in (2, 5):
            yield partial(keys.path.write_text, "[alice")
        else:
            yield partial(keys.write, alice=f"weight = {turn + 1}", bob="", **{f"new{turn}": ""})


class Asking:
    """Callers that send requests all the time, streamed and not."""

    def __init__(self, app, names):
        self.over, self.done, self.failed = threading.Event(), [0] * len(names), []
        self.threads = [
            threading.Thread(target=self._ask, args=(caller(app, name), number))
            for number, name in enumerate(names)
        ]

    def more_than(self, before):
        return all(now > then for now, then in zip(self.done, before, strict=True))

    def _ask(self, api, number):
        while not self.over.is_set() and not self.failed:
            try:
                assert len(list(chat(api, 20, stream=True))) >= 20
                assert chat(api, 4).usage.completion_tokens == 4
            except Exception as error:  # noqa: BLE001 whatever it is, it is told
                self.failed.append(error)
            self.done[number] += 1


@contextmanager
def asking(app, *names):
    asked = Asking(app, names)
    for thread in asked.threads:
        thread.start()
    try:
        yield asked
    finally:
        asked.over.set()
        for thread in asked.threads:
            thread.join()


def served(app, name):
    try:
        return chat(caller(app, name), 1).usage.completion_tokens == 1
    except openai.AuthenticationError:
        return False


@pytest.mark.parametrize(
    "text, problem",
    [
        (None, "cannot be read: No such file or directory"),
        ("[alice]\nsha256 = 'alice-key'", "alice: sha256: not a hash: put the SHA-256 of the key"),
        ("[alice]\nkey = 'alice-key'", "alice: key: no such field; there are: sha256, models"),
    ],
)
def test_a_broken_file_is_an_error_at_the_start_that_says_what_to_do(starts, keys, text, problem):
    if text is not None:
        keys.path.write_text(text)
    app = starts()
    assert app.wait() == 2
    assert f"{VARIABLE}: {keys.path}: {problem}" in app.output
    assert "alice-key" not in app.output and "Traceback" not in app.output


def test_a_made_key_works_once_its_lines_are_in_the_file(starts, keys):
    """Without a key of the instance's own: its token is one. Result: the key serves, the page's
    token sees what a caller does not."""
    command = [sys.executable, "-m", "app", "key", "new", "alice"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    keys.path.write_text(made.stdout)
    key = made.stderr.split()[-1]
    assert key not in made.stdout
    app = starts(LLAMACPP_API_KEY=None).ready()
    assert chat(client(app, api_key=key)).usage.completion_tokens == 8
    for wrong in ("none", key + "x"):
        with pytest.raises(openai.AuthenticationError):
            chat(client(app, api_key=wrong))
    assert 'llamacpp_caller_requests_total{caller="alice"} 1' in look(app, "/metrics", app.token)
    assert key not in app.output


def test_no_lines_are_made_for_a_key_that_nobody_has_seen():
    command = [sys.executable, "-m", "app", "key", "new", "alice"]
    with open("/dev/full", "w") as full:
        made = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=full, timeout=60)
    assert made.returncode == 2 and not made.stdout


def test_wrong_keys_are_slowed_down_and_a_right_key_from_the_same_address_passes(starts, keys):
    keys.write(alice="")
    app = starts().ready()
    alice, wrong = caller(app, "alice"), client(app, api_key="wrong")
    for _ in range(ALLOWED):
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()
    answers = []

    def guess(_):
        with pytest.raises(openai.APIStatusError) as refused:
            wrong.models.list()
        answers.append(refused.value)

    with ThreadPoolExecutor(16) as pool:
        while 429 not in {answer.status_code for answer in answers}:  # one a second is answered
            list(pool.map(guess, range(16)))
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert isinstance(refused, openai.RateLimitError) and "too many wrong ones" in str(refused)
    assert refused.response.headers["retry-after"] == "1"
    assert chat(alice).usage.completion_tokens == 8


def test_what_callers_use_is_counted_by_their_names(starts, keys, api, cache):
    """1. Requests of two callers and with the instance's own key. 2. One caller is taken out of the
    file. Result: /metrics, the status and ClearML's table say who used what, and no key."""
    keys.write(alice="", bob="")
    given = "--model", tiny_path(cache), "--set", "Model/endpoint_name=tiny"
    app = starts(*given, offline=False, **api.environment).ready()
    used = {name: chat(caller(app, name)).usage for name in ("alice", "bob")}
    used["other"] = chat(client(app, api_key=OWN)).usage
    chat(caller(app, "alice"))

    def told():
        callers = json.loads(look(app, "/api/status"))["callers"]
        return {each["name"]: each["requests"] for each in callers}

    until(lambda: told() == {"alice": 2, "bob": 1, "other": 1})
    metrics = look(app, "/metrics")
    for name, usage in used.items():
        counted = usage.completion_tokens * (2 if name == "alice" else 1)
        assert f'llamacpp_caller_generated_tokens_total{{caller="{name}"}} {counted}.0' in metrics
    assert f'caller_prompt_tokens_total{{caller="bob"}} {used["bob"].prompt_tokens}.0' in metrics
    keys.write(alice="")
    until(lambda: told() == {"alice": 2, "other": 2})
    assert "bob" not in look(app, "/metrics")
    own = json.loads(look(app, "/api/status", key_of("alice")))["callers"]
    assert [each["name"] for each in own] == ["alice"]
    app.end()
    (*_, last) = [e for e in events_of(api, "plot") if e["metric"] == "Callers"]
    shown = json.dumps(last)
    assert "alice" in shown and "Generated Tokens" in shown and "bob" not in shown
    for secret in (OWN, key_of("alice")):
        assert secret not in app.output + metrics + shown
