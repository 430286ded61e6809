"""What is told of requests: to ClearML (the real SDK against the API stand-in), to Prometheus, and
on our own pages, held to what the callers themselves counted."""

import json
import random
import threading
import time
from collections import Counter
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.gateway.call import BYTES_PER_TOKEN
from app.page import examples
from app.page.examples import Target
from tests.clearml_api import ApiServer
from tests.end_to_end.conftest import PATIENCE, free_port
from tests.end_to_end.test_page import held_back, two_models
from tests.end_to_end.test_serving import chat, client, get, until
from tests.end_to_end.test_task import SERVING, online, parameters_of, tiny_path

CALLERS, REQUESTS = 16, 1000


@pytest.fixture
def api():
    with ApiServer() as server:
        yield server


def events_of(api, kind):
    return [event for event in api.state.events if event["type"] == kind]


class Caller(threading.Thread):
    """Sends requests of every kind, and counts what it is told, by model and kind."""

    def __init__(self, url, number, share):
        super().__init__()
        self.address = urlsplit(url).netloc
        self.random = random.Random(number)
        self.share = share
        self.counted, self.wrong = Counter(), []

    def run(self):
        kinds = [self.whole, self.stream, self.choices, self.streamed_choices, self.completion]
        kinds += [self.embedding_refused, self.leaver, self.nobody, self.invalid, self.messages]
        for number in range(self.share):
            name = self.random.choice(["alpha", "team/beta-2.x"])
            try:
                kinds[number % len(kinds)](name, self.random.randrange(1, 9))
            except Exception as error:  # noqa: BLE001 an assertion in a thread would be lost
                self.wrong.append(repr(error))

    def ask(self, path, body):
        connection = HTTPConnection(self.address, timeout=PATIENCE)
        text = body if isinstance(body, bytes) else json.dumps(body)
        connection.request("POST", path, text, {"Content-Type": "application/json"})
        return connection, connection.getresponse()

    def answer(self, path, body, expected=200):
        connection, response = self.ask(path, body)
        text = response.read()
        connection.close()
        assert response.status == expected, text
        return text

    def count(self, name, prompt, generated):
        self.counted[name, "requests"] += 1
        self.counted[name, "prompt"] += prompt
        self.counted[name, "generated"] += generated

    def body(self, tokens, **more):
        said = " ".join(self.random.choices("the load line token small".split(), k=6))
        return {"messages": [{"role": "user", "content": said}], "max_tokens": tokens, **more}

    def whole(self, name, tokens):
        usage = json.loads(self.answer(f"/{name}/v1/chat/completions", self.body(tokens)))["usage"]
        self.count(name, usage["prompt_tokens"], usage["completion_tokens"])

    def usages(self, text):
        lines = [line[6:] for line in text.decode().split("\n") if line.startswith("data: {")]
        return [u for line in lines if (u := json.loads(line).get("usage"))]

    def stream(self, name, tokens):
        body = self.body(tokens, stream=True, stream_options={"include_usage": True}, model=name)
        (usage,) = self.usages(self.answer("/v1/chat/completions", body))
        self.count(name, usage["prompt_tokens"], usage["completion_tokens"])

    def choices(self, name, tokens):
        told = json.loads(self.answer(f"/{name}/v1/chat/completions", self.body(tokens, n=3)))
        assert [choice["finish_reason"] for choice in told["choices"]] == ["length"] * 3
        self.count(name, told["usage"]["prompt_tokens"], 3 * tokens)

    def streamed_choices(self, name, tokens):
        options = {"stream": True, "stream_options": {"include_usage": True}, "n": 2}
        text = self.answer(f"/{name}/v1/chat/completions", self.body(tokens, **options))
        usages = self.usages(text)
        assert len(usages) == 2
        generated = sum(usage["completion_tokens"] for usage in usages)
        self.count(name, usages[0]["prompt_tokens"], generated)

    def completion(self, name, tokens):
        body = {"prompt": "the load", "max_tokens": tokens, "model": name}
        usage = json.loads(self.answer("/v1/completions", body))["usage"]
        self.count(name, usage["prompt_tokens"], usage["completion_tokens"])

    def messages(self, name, tokens):
        told = json.loads(self.answer(f"/{name}/v1/messages", self.body(tokens)))["usage"]
        prompt = told["input_tokens"] + told.get("cache_read_input_tokens", 0)
        self.count(name, prompt, told["output_tokens"])

    def embedding_refused(self, name, _):
        """llama-server says no: that is a request, without tokens."""
        self.answer(f"/{name}/v1/embeddings", {"input": "x"}, 501)
        self.count(name, 0, 0)

    def leaver(self, name, _):
        """Leaves in the middle of a stream. Its tokens are estimated, the prompt's by its size."""
        body = self.body(3000, stream=True)
        connection, response = self.ask(f"/{name}/v1/chat/completions", body)
        response.read1(100)
        response.close()
        connection.close()
        self.count(name, len(json.dumps(body)) // BYTES_PER_TOKEN, 0)
        self.counted[name, "left"] += 1

    def nobody(self, _, tokens):
        """Refused before it reaches a model: no request of any."""
        self.answer("/none/v1/chat/completions", self.body(tokens), 404)

    def invalid(self, name, _):
        self.answer(f"/{name}/v1/chat/completions", b"{no", 400)


@pytest.mark.long
def test_every_count_is_what_the_callers_counted(start, api, cache):
    """1,000 requests of ten kinds by 16 callers. Result: the scalars, /metrics and /api/status say
    what the callers counted, by model and in total."""
    app = online(start, api, *two_models(cache)).ready()
    share = REQUESTS // CALLERS + 1
    callers = [Caller(app.url, number, share) for number in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [caller.wrong for caller in callers if caller.wrong] == []
    counted = sum((caller.counted for caller in callers), Counter())
    until(lambda: not any(m["in_flight"] for m in get(app, "/api/status")[1]["models"]))
    metrics = read_metrics(app)
    shown = {m["name"]: m["requests"] for m in get(app, "/api/status")[1]["models"]}
    assert app.end() == 143
    scalars = {series: values[-1] for series, values in api.scalars().items()}
    for name in ("alpha", "team/beta-2.x"):
        requests = counted[name, "requests"]
        assert requests > 300
        assert scalars["Total Number of Requests", name] == requests == shown[name]
        assert sum(v for (n, model, *_), v in metrics.items() if model == name and n == "r") == (
            requests
        )
        assert scalars["Prompt Tokens", name] == metrics["prompt", name] == counted[name, "prompt"]
        generated = metrics["generated", name]
        assert scalars["Generated Tokens", name] == generated
        estimated, left = generated - counted[name, "generated"], counted[name, "left"]
        assert left <= estimated <= 1500 * left  # of 3,000 that each could have had
    for title, short in (("Total Number of Requests", "requests"), ("Prompt Tokens", "prompt")):
        both = counted["alpha", short] + counted["team/beta-2.x", short]
        assert scalars[title, "total"] == both


def read_metrics(app):
    connection = HTTPConnection(urlsplit(app.url).netloc)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    names = {"requests": "r", "generated_tokens": "generated", "prompt_tokens": "prompt"}
    found = {}
    for family in text_string_to_metric_families(text):
        short = names.get(family.name.removeprefix("llamacpp_"))
        for sample in family.samples if short else ():
            labels = [sample.labels[key] for key in ("model", "status") if key in sample.labels]
            found[(short, *labels)] = sample.value
    return found


def test_the_page_of_examples_is_a_debug_sample_and_the_properties_say_the_rest(start, api, cache):
    app = online(start, api, *two_models(cache)).ready()
    until(lambda: any(path.endswith(".html") for path in api.files))
    targets = [
        Target(name, f"{app.url}/{name}/v1", False, "") for name in ("alpha", "team/beta-2.x")
    ]
    (page,) = [text for path, text in api.files.items() if path.endswith(".html")]
    assert page.decode() == examples.page(targets)
    assert app.end() == 143
    (sample,) = events_of(api, "training_debug_image")
    assert sample["metric"] == "Command-Line Example" and sample["url"].endswith(".html")
    (task,) = api.state.tasks.values()
    parameters = parameters_of(task)
    assert parameters["properties/status"] == "stopped"
    assert parameters["properties/curl"] == examples.curl(targets[0])
    tables = [e for e in events_of(api, "plot") if e["metric"] == "Deployed Models"]
    assert {table["iter"] for table in tables} == {0}  # in place of the one before
    assert f"{app.url}/alpha/v1" in tables[-1]["plot_str"]


def test_without_a_file_server_there_is_a_line_and_everything_else(start, api, cache):
    host = f"127.0.0.1:{free_port()}"
    given = {"CLEARML_FILES_HOST": f"http://someone:secret-word@{host}"}
    app = online(start, api, "--model", tiny_path(cache), **given).ready()
    app.line(f"no page of examples: the file server {host} does not answer")
    assert app.end() == 143
    assert ("Total Number of Requests", "total") in api.scalars()
    assert "Traceback" not in app.output and app.output.count("no page of examples") == 1
    assert "secret-word" not in app.output


def test_the_task_shows_how_far_the_set_up_is(start, api, cache, tmp_path):
    program, gate = held_back(tmp_path)
    given = ["--set", "Idle/last_action_interval=1", "--set", "Model/endpoint_name=tiny"]
    app = online(start, api, *given, "--model", tiny_path(cache), LLAMA_SERVER=program)
    app.line("listening")
    (task,) = api.state.tasks.values()
    until(lambda: parameters_of(task).get("properties/progress") == "tiny: loading 0%")
    assert parameters_of(task)["properties/status"] == "setting up"
    gate.touch()
    app.ready()
    until(lambda: parameters_of(task)["properties/progress"] == "")
    assert parameters_of(task)["properties/status"] in SERVING


SHORT_RETRIES = "api { http { retries { total: 240, backoff_factor: 0.2, backoff_max: 1.0 } } }\n"


@pytest.mark.long
def test_what_happened_during_an_outage_is_told_afterwards(start, api, cache, tmp_path):
    """The server is away for longer than a report's interval. Result: every window's points are
    there in the end, in their order, and requests were served all along."""
    short = tmp_path / "short.conf"
    short.write_text(SHORT_RETRIES)
    given = ["--model", tiny_path(cache), "--set", "Model/endpoint_name=tiny"]
    app = online(start, api, *given, CLEARML_CONFIG_FILE=str(short)).ready()
    asked = client(app)
    chat(asked, 3)
    until(lambda: ("Total Number of Requests", "tiny") in api.scalars())
    with api.away():
        ends = time.monotonic() + 17
        while time.monotonic() < ends:
            chat(asked, 5)
            time.sleep(0.5)
    before = len(api.scalars()["Total Number of Requests", "tiny"])
    until(lambda: len(api.scalars()["Total Number of Requests", "tiny"]) > before)
    chat(asked, 7)
    requests = get(app, "/api/status")[1]["models"][0]["requests"]
    assert app.end() == 143
    found = [
        (event["iter"], event["value"])
        for event in events_of(api, "training_stats_scalar")
        if (event["metric"], event["variant"]) == ("Total Number of Requests", "tiny")
    ]
    seconds, totals = zip(*found, strict=True)
    assert totals[-1] == requests and list(totals) == sorted(totals)
    steps = [after - before for before, after in zip(seconds, seconds[1:], strict=False)]
    assert all(0 < step < 25 for step in steps), seconds  # no window is missing
