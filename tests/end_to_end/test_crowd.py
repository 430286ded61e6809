"""Many callers of one model, on a real llama-server whose slots share one KV cache: nobody's
request fails for another one's."""

import asyncio
import collections
import json
import random

import httpx
import pytest

from app.models import tiny_writer
from tests.end_to_end.conftest import PATIENCE
from tests.end_to_end.test_page import overview
from tests.fakes import until

pytestmark = pytest.mark.quick

CONTEXT, SLOTS = 4096, 4
CHAT = "/v1/chat/completions"
# llama-server's threads wait for each other in a loop: with more of them than cores, as when other
# tests run, nothing moves.
NAMED = "--set", "Model/endpoint_name=tiny", "--set", "Model/threads=1"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Its answers end at their limits; every letter is a token."""
    path = tmp_path_factory.mktemp("callers") / "callers.gguf"
    tiny_writer.write(path, context=CONTEXT)
    return path


@pytest.fixture
def app(start, model):
    app = start("--model", str(model), *NAMED).ready()
    assert overview(app)["models"][0]["slots"] == SLOTS
    return app


def client():
    return httpx.AsyncClient(timeout=PATIENCE, limits=httpx.Limits(max_connections=None))


def said(size, **more):
    return {"messages": [{"role": "user", "content": "a" * size}], **more}


def overflows(app):
    rows = httpx.get(app.url + "/metrics").text.splitlines()
    return sum(float(r.split()[1]) for r in rows if r.startswith("llamacpp_kv_overflows_total"))


def test_a_long_prompt_ends_nobody_elses_answer(app):
    """Three generate 700 tokens each; a fourth sends a prompt of 3,000. All are served."""

    async def scenario():
        async with client() as http:
            asks = [http.post(app.url + CHAT, json=said(20, max_tokens=700)) for _ in range(3)]
            asks.append(http.post(app.url + CHAT, json=said(3000, max_tokens=700)))
            return [answer.json() for answer in await asyncio.gather(*asks)]

    answers = asyncio.run(scenario())
    assert [a["usage"]["completion_tokens"] for a in answers] == [700] * 4, answers
    assert overflows(app) == 0


@pytest.mark.parametrize("number", [2 - 2**32, 2**32 + 1])
def test_a_number_of_answers_that_llama_server_reads_otherwise(app, number):
    """It keeps 32 bits of it. Result: refused, and nobody else's tokens are taken or counted."""
    body = {"prompt": "hi", "max_tokens": 1000, "ignore_eos": True}
    for more in ({"n": number}, {"n_cmpl": number}, {"n": 1, "n_cmpl": number, "stream": True}):
        answer = httpx.post(app.url + "/v1/completions", json=body | more, timeout=PATIENCE)
        assert answer.status_code == 400 and "must be a whole number" in answer.text
    answer = httpx.post(
        app.url + "/v1/completions", json=body | {"max_tokens": 5}, timeout=PATIENCE
    )
    assert answer.status_code == 200
    rows = httpx.get(app.url + "/metrics").text.splitlines()
    told = [row for row in rows if row.startswith("llamacpp_generated_tokens_total")]
    assert sum(float(row.split()[1]) for row in told) == 5


def drawn(dice):
    """A request of any kind and length: its path, body, and the bytes of its longest prompt."""
    size = dice.choice([5, 60, 300, 1200, 2500, 4300])
    limit = dice.choice([None, 0, 1, 1, 30, 30, 30, 100])
    text, several = "a" * size, dice.choice([2, 3])
    path, key, body = dice.choice(
        [
            (CHAT, "max_tokens", said(size)),
            (CHAT, "max_completion_tokens", said(min(size, 300), n=several)),
            ("/v1/completions", "max_tokens", {"prompt": text}),
            ("/v1/completions", "max_tokens", {"prompt": ["a" * 200, "b" * 700] * several}),
            ("/v1/messages", "max_tokens", said(size)),
            ("/v1/responses", "max_output_tokens", {"input": text}),
            ("/infill", "n_predict", {"input_prefix": text, "input_suffix": "b"}),
        ]
    )
    named = {} if limit is None else {key: limit}
    stream = "n" not in body and not isinstance(body.get("prompt"), list) and dice.random() < 0.5
    return path, {**body, **named, "stream": stream}, size


async def ask(http, url, drawn, leaves):
    """How it ended: "served", "too long" where that is right, "left", or what went wrong."""
    path, body, size = drawn
    try:
        async with asyncio.timeout(leaves):
            answer = await http.post(url + path, json=body)
    except TimeoutError:
        return "left"
    text = answer.text
    if "context_length_exceeded" in text and size >= CONTEXT - 300:
        return "too long"
    wrong = '"error"' in text or answer.status_code != 200
    return f"{path} {size} {answer.status_code} {text[-300:]}" if wrong else "served"


@pytest.mark.parametrize("leaving", [0.0, 0.3])
def test_requests_of_every_length_are_served_or_rightly_refused(app, leaving):
    """Mixed requests by 16 callers, of whom some leave at any time."""
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    jobs = iter([drawn(dice) for _ in range(36)])
    outcomes = collections.Counter()

    async def caller(http):
        for job in jobs:
            leaves = dice.random() if dice.random() < leaving else None
            outcomes[await ask(http, app.url, job, leaves)] += 1

    async def scenario():
        async with client() as http:
            await asyncio.gather(*(caller(http) for _ in range(16)))

    asyncio.run(scenario())
    wrong = outcomes.keys() - {"served", "too long", "left"}
    assert not wrong, f"seed {seed}: {outcomes}\n{app.output[-5000:]}"
    assert outcomes["served"] and overflows(app) == 0
    assert httpx.get(app.url + "/ready").status_code == 200


@pytest.mark.parametrize("stream", [True, False])
def test_several_answers_are_whole_where_slots_are_full_of_others_prompts(app, stream):
    """1. Each slot has read a long prompt. 2. Somebody wants four answers to one prompt. Result: no
    decode fails, and the answers are those of a fresh llama-server."""

    async def scenario():
        async with client() as http:
            asked = said(800, n=SLOTS, max_tokens=8, temperature=0, stream=stream)
            fresh = (await http.post(app.url + CHAT, json=asked)).text
            for letter in "bcde":
                long = {"prompt": letter * 4000, "max_tokens": 2}
                await http.post(app.url + "/v1/completions", json=long)
            return fresh, (await http.post(app.url + CHAT, json=asked)).text

    fresh, answer = (answers_of(text) for text in asyncio.run(scenario()))
    assert answer == fresh and len(answer) == SLOTS and all(answer.values())
    assert overflows(app) == 0 and "Invalid input batch" not in app.output


def answers_of(text):
    """By number; of a stream, too."""
    lines = [line[6:] for line in text.split("\n") if line.startswith("data: {")] or [text]
    found = collections.defaultdict(str)
    for choice in (choice for line in lines for choice in json.loads(line)["choices"]):
        told = choice.get("delta") or choice.get("message") or {}
        found[choice["index"]] += told.get("content") or ""
    return dict(found)


INFILL = {"input_prefix": "a" * 2500, "input_suffix": "b", "n_predict": 300}  # reads 1,540
COMPLETION = {"prompt": "b" * 1600, "max_tokens": 300}


@pytest.mark.parametrize(
    "path, body, batching",
    [("/infill", INFILL, "true"), ("/v1/completions", COMPLETION, "false")],
)
def test_who_does_not_begin_beside_another_one_does_not_end_it(start, model, path, body, batching):
    """llama-server computes no infill and chat in one step, and without continuous batching no two
    requests that came one after the other. 1. A long conversation is in its cache. 2. A request
    streams. 3. Somebody goes on with the beginning of that conversation: it waits in a slot, which
    is given all of it. Result: there is room for both, and both are served."""
    app = start("--model", str(model), *NAMED, "--set", f"Model/continuous_batching={batching}")
    app.ready()

    async def scenario():
        async with client() as http:
            completion = app.url + "/v1/completions"
            await http.post(completion, json={"prompt": "a" * 2300, "max_tokens": 1})
            async with http.stream("POST", app.url + path, json=body | {"stream": True}) as stream:
                lines = stream.aiter_lines()
                begun = await anext(lines)
                beside = {"prompt": "a" * 600, "max_tokens": 1}
                asked = asyncio.create_task(http.post(completion, json=beside))
                text = begun + "".join([line async for line in lines])
            return text, (await asked).text

    for text in asyncio.run(scenario()):
        assert "error" not in text
    assert overflows(app) == 0


def test_a_batch_does_not_hold_up_another_caller(app):
    """One caller has 60 requests in the line; another one's request is served before nearly all."""
    ended = []

    async def ask(http, who):
        answer = await http.post(app.url + CHAT, json=said(20, max_tokens=200))
        ended.append((who, answer.status_code))

    async def scenario():
        other = httpx.AsyncHTTPTransport(local_address="127.0.0.2")  # another caller
        async with client() as http, httpx.AsyncClient(transport=other, timeout=PATIENCE) as own:
            batch = [asyncio.create_task(ask(http, "batch")) for _ in range(60)]
            await until(lambda: overview(app)["models"][0]["queued"] >= 40)
            await ask(own, "person")
            await asyncio.gather(*batch)
            return [who for who, _ in ended].index("person")

    # However many have ended before it comes, those in the slots and one round more end before it
    # does; in the order of coming all 60 would, but for those in the slots beside it.
    assert asyncio.run(scenario()) < 60 - 2 * SLOTS
    assert {status for _, status in ended} == {200}


def test_what_waits_is_seen_and_leaves_at_once(start, endless):
    """1. A stream takes the whole context. 2. Another request waits, and leaves. 3. The stream
    leaves. Result: what it had is free, and the next one is served."""
    app = start("--model", str(endless), *NAMED).ready()

    def queued():
        return overview(app)["models"][0]["queued"]

    async def scenario():
        async with client() as http:
            body = said(20, max_tokens=1 << 17, stream=True)
            async with http.stream("POST", app.url + CHAT, json=body) as stream:
                lines = stream.aiter_lines()  # kept: one that is collected closes the stream
                await anext(lines)
                waits = asyncio.create_task(http.post(app.url + CHAT, json=body))
                await until(lambda: queued() == 1)
                waits.cancel()
                await until(lambda: queued() == 0)
            async with http.stream("POST", app.url + CHAT, json=body) as stream:
                lines = stream.aiter_lines()
                while not (line := await anext(lines)).startswith("data: "):
                    assert line in ("", ": ping")  # of a busy machine
                return line

    assert asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_a_response_that_ends_at_its_limit_is_incomplete(app):
    async def scenario():
        async with client() as http:
            body = {"input": "a", "max_output_tokens": 5}
            whole = (await http.post(app.url + "/v1/responses", json=body)).json()
            body["stream"] = True
            streamed = (await http.post(app.url + "/v1/responses", json=body)).text
            return whole, json.loads(streamed.rpartition("data: ")[2])["response"], streamed

    whole, last, streamed = asyncio.run(scenario())
    for response in (whole, last):
        assert response["status"] == "incomplete", response
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
    assert "event: response.incomplete\n" in streamed
