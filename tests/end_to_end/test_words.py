"""Nobody reads another's words: what llama-server answers under load, with all of its caches, is
what it answers alone without them. One tiny model for each way to keep what was read.

`WORDS=full` runs it in the size of a busy instance. What was seen is logged:
`-o log_cli=true --log-cli-level=INFO`.
"""

import contextlib
import itertools
import json
import logging
import math
import os
import random
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from app.engine.capabilities import find
from app.models.tiny_writer import WORDS
from tests import architectures
from tests.end_to_end.conftest import PATIENCE, free_port
from tests.end_to_end.test_serving import get, until

pytestmark = pytest.mark.quick

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Size:
    conversations: int
    turns: int
    callers: int


FULL = os.environ.get("WORDS") == "full"
SIZE = Size(16, 6, 8) if FULL else Size(6, 2, 4)
GROUP = 4  # conversations begin in the same way
CONTEXT, SLOTS = 2048, 4
LIMIT = 0.2  # of log probability, between an answer under load and the same alone
NEAR = 0.01  # between two embeddings, whose length is 1
FAR = 5  # times: so much more do answers to other prompts differ
MODELS = "ab"  # that take turns: there is room for one
ROOM = "0.06"  # GiB
GENERATING = ["llama", "gemma3", "lfm2"]
RESTORED = ["llama", "lfm2"]  # a KV cache that comes back from disk is of use


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The file of each model, by its architecture and name."""
    folder, files = tmp_path_factory.mktemp("words"), {}
    for architecture in architectures.LAYERS:
        for seed, name in enumerate(MODELS):
            files[architecture, name] = folder / f"{architecture}-{name}.gguf"
            architectures.write(files[architecture, name], architecture, seed)
    return files


@pytest.fixture
def share(start, weights):
    """The app with two models of an architecture, which take turns."""

    def run(architecture, **more):
        models = [
            {
                "model": str(weights[architecture, name]),
                "endpoint_name": name,
                "context_size": CONTEXT,
                "parallel": SLOTS,
                "threads": 1,
                **more,
            }
            for name in MODELS
        ]
        fields = {"models": json.dumps(models), "max_cuda_memory": ROOM, "disk_swapping": "true"}
        sets = [
            text for key, value in fields.items() for text in ("--set", f"General/{key}={value}")
        ]
        return start(*sets).ready()

    return run


@contextlib.contextmanager
def alone(path, folder, *arguments):
    """A llama-server of our own, with one slot; the URL."""
    port, log = free_port(), folder / "alone.log"
    argv = [find("", os.environ), "--model", path, "--host", "127.0.0.1", "--port", str(port)]
    argv += ["-np", "1", "--threads", "1", "--ctx-size", str(CONTEXT), "--cache-ram", "0"]
    with log.open("ab") as output:
        server = subprocess.Popen([*argv, *arguments], stdout=output, stderr=output)
    url = f"http://127.0.0.1:{port}"

    def ready():
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/health").status_code == 200

    try:
        until(ready)
        yield url
    finally:
        server.kill()
        server.wait()


def text(dice, words):
    return " ".join(dice.choices(WORDS, k=words))


def questions(number):
    """The turns of a conversation, of which GROUP begin in the same way."""
    dice, shared = random.Random(number), text(random.Random(-1 - number // GROUP), 100)
    return [f"{shared} {text(dice, 10)}", *(text(dice, 20) for _ in range(SIZE.turns - 1))]


@dataclass(frozen=True)
class Answer:
    """`first` has the most likely first tokens, with the logarithms of their probabilities."""

    text: str
    first: dict[int, float]
    read: int  # tokens of the prompt that were processed
    cached: int  # tokens of the prompt that were not


def ask(url, model, messages, **more):
    body = {"model": model, "messages": messages, "max_tokens": 8, "temperature": 0}
    body |= {"logprobs": True, "top_logprobs": 20, **more}
    answer = httpx.post(f"{url}/v1/chat/completions", json=body, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    (choice,), times = answer.json()["choices"], answer.json()["timings"]
    tokens = choice["logprobs"]["content"][0]["top_logprobs"]
    first = {token["id"]: token["logprob"] for token in tokens}
    return Answer(choice["message"]["content"], first, times["prompt_n"], times["cache_n"])


def difference(one, other, most_likely=5):
    """The largest one between two answers, of the tokens that are most likely in the first."""
    top = sorted(one.first, key=one.first.get)[-most_likely:]
    return max(abs(one.first[token] - other.first.get(token, -math.inf)) for token in top)


def prompt(number, said):
    """The messages of a conversation after these answers."""
    messages = []
    for question, answer in itertools.zip_longest(questions(number)[: len(said) + 1], said):
        messages.append({"role": "user", "content": question})
        if answer is not None:
            messages.append({"role": "assistant", "content": answer.text})
    return messages


def turns(asked, number, history=None):
    """Ask a conversation's questions one after the other; the answers. `history` has answers that
    were given before: they are what the next prompt quotes."""
    answers = []
    for turn in range(SIZE.turns):
        answers.append(asked(prompt(number, (history or answers)[:turn])))
    return answers


def model_of(number):
    return MODELS[number % len(MODELS)]


def of_models(weights, architecture, folder, jobs, work, *arguments):
    """`work(url, job)` of each job, where its model is alone."""
    done = {}
    for name in MODELS:
        with alone(weights[architecture, name], folder, *arguments) as url:
            done |= {job: work(url, job) for job in jobs if model_of(job) == name}
    return [done[job] for job in jobs]


def at_once(work, jobs):
    with ThreadPoolExecutor(SIZE.callers) as callers:
        return list(callers.map(work, jobs))


def switches(app):
    return sum(model["switches"] for model in get(app, "/api/status")[1]["models"])


@pytest.mark.long
@pytest.mark.parametrize("architecture", GENERATING)
def test_answers_under_load_are_those_alone(share, weights, tmp_path, architecture):
    """1. Conversations, of which several begin in the same way, alone. 2. The same by callers at
    the same time, as their models take turns in memory. Result: the first token of each answer has
    the same distribution; that of another conversation differs."""
    jobs = range(SIZE.conversations)

    def quietly(url, number):
        return turns(lambda messages: ask(url, "", messages, cache_prompt=False), number)

    right = of_models(weights, architecture, tmp_path, jobs, quietly)
    assert not any(answer.cached for answers in right for answer in answers)
    app = share(architecture)

    def loudly(number):
        return turns(lambda m: ask(app.url, model_of(number), m), number, right[number])

    found = at_once(loudly, jobs)
    pairs = [pair for job in jobs for pair in zip(right[job], found[job], strict=True)]
    largest = max(difference(*pair) for pair in pairs)
    others = [(a, b) for a, b in zip(right, right[len(MODELS) :], strict=False)]
    least = min(difference(*pair) for one, other in others for pair in zip(one, other, strict=True))
    cached = sum(answer.cached for answers in found for answer in answers)
    logger.info(
        "%s: %d requests, %d switches, %d tokens cached; largest difference %.4f; "
        "least difference between conversations %.2f",
        *(architecture, len(pairs), switches(app), cached, largest, least),
    )
    assert largest <= LIMIT and FAR * largest < least
    assert switches(app)
    if architecture in RESTORED:
        assert cached


def is_written(app):
    """Whether the KV cache of a model that has left for disk is there."""
    (child,) = app.children
    argv = psutil.Process(child).cmdline()
    folder = Path(argv[argv.index("--slot-save-path") + 1]).parent
    return any(folder.glob("*/*"))  # a folder for each model


def second_turns(app, conversations, *, away):
    """The share of their tokens that is read of the second prompts of conversations with `a`, which
    has been `away` on disk before them."""
    said = {n: [ask(app.url, "a", prompt(n, []))] for n in conversations}
    if away:
        ask(app.url, "b", prompt(0, []))
    answers = [ask(app.url, "a", prompt(n, said[n])) for n in conversations]
    read = sum(answer.read for answer in answers)
    return read / (read + sum(answer.cached for answer in answers))


APART = range(0, GROUP * SLOTS, GROUP)  # each begins in its own way, and has its slot


# Twice as many conversations as slots, and some that begin in the same way.
MEASURED = (APART, range(0, 2 * GROUP * SLOTS, GROUP), range(GROUP)) if FULL else ()


@pytest.mark.parametrize("architecture", GENERATING)
def test_what_survives_a_trip_to_disk(share, architecture):
    """Conversations go on after their model has been on disk. Result: only what is new is read.
    Where a restored cache would not be used, none is written, and the console says so once."""
    app = share(architecture)
    kept = architecture in RESTORED
    read = second_turns(app, APART, away=True)
    assert read < 0.5 if kept else read == 1
    assert is_written(app) is kept
    assert app.output.count("a if it leaves for disk") == (0 if kept else 1)
    for conversations in MEASURED:
        shares = [second_turns(share(architecture), conversations, away=a) for a in (False, True)]
        logger.info("%s, %s: stays %.3f, away %.3f", architecture, conversations, *shares)


def embedding(url, model, words):
    body = {"model": model, "input": words}
    answer = httpx.post(f"{url}/v1/embeddings", json=body, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return [row["embedding"] for row in answer.json()["data"]]


def distance(one, other):
    return math.dist(one, other) if len(one) == len(other) else math.inf


def test_embeddings_under_load_are_those_alone(share, weights, tmp_path):
    """The same for texts that callers send in pairs to models which take turns."""
    jobs = range(SIZE.conversations * SIZE.turns)

    def texts(number):
        return questions(number)[0], text(random.Random(number), 5)

    def quietly(url, number):
        return [embedding(url, "", words)[0] for words in texts(number)]

    right = of_models(weights, "nomic-bert", tmp_path, jobs, quietly, "--embedding")
    app = share("nomic-bert", embedding="true")
    found = at_once(lambda n: embedding(app.url, model_of(n), list(texts(n))), jobs)
    pairs = [pair for job in jobs for pair in zip(right[job], found[job], strict=True)]
    largest = max(distance(*pair) for pair in pairs)
    least = min(distance(a[0], b[0]) for a, b in zip(right, right[len(MODELS) :], strict=False))
    logger.info(
        "nomic-bert: %d texts, %d switches; largest distance %.6f; least between texts %.2f",
        *(len(pairs), switches(app), largest, least),
    )
    assert largest <= NEAR and FAR * largest < least
    assert switches(app)
    assert "KV cache" not in app.output  # there is nothing to restore
