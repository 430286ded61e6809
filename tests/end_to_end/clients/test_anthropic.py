"""The anthropic library: messages, streams of them, tools, counting of tokens."""

import asyncio
import importlib

import pytest

from tests.end_to_end.clients.conftest import FUNCTION, KEY, LARGE, SCHEMA, busy
from tests.end_to_end.conftest import PATIENCE

HELLO = [{"role": "user", "content": "Hello"}]
SHORT = {"model": "tiny", "messages": HELLO, "max_tokens": 5}
TOOL = {**{k: FUNCTION[k] for k in ("name", "description")}, "input_schema": SCHEMA}
CALLS = {"model": "caller", "messages": HELLO, "max_tokens": 70, "tools": [TOOL]}
CITY = {"city": "Oslo"}


def options(app, path="", key=KEY, retries=0):
    address = app.url + path
    return {"base_url": address, "api_key": key, "max_retries": retries, "timeout": PATIENCE}


@pytest.fixture(scope="session")
def anthropic():
    """Imported in the one process that runs these tests, not in each that collects them."""
    return importlib.import_module("anthropic")


@pytest.fixture
def api(app, anthropic):
    with anthropic.Anthropic(**options(app)) as client:
        yield client


def message(api):
    answer = api.messages.create(**SHORT)
    assert answer.content[0].text and answer.stop_reason == "max_tokens"
    assert answer.model == "tiny" and answer.usage.output_tokens == 5


def message_as_events(api):
    events = list(api.messages.create(**SHORT, stream=True))
    assert sum(event.type == "content_block_delta" for event in events) == 5
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")


def message_stream(api):
    with api.messages.stream(**SHORT) as stream:
        words = list(stream.text_stream)
    assert len(words) == 5 and stream.get_final_text() == "".join(words)


def message_with_a_tool(api):
    answer = api.messages.create(**CALLS, tool_choice={"type": "any"})
    (call,) = [block for block in answer.content if block.type == "tool_use"]
    assert (call.name, call.input) == ("weather", CITY)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    said = {"role": "assistant", "content": answer.content}
    messages = [*HELLO, said, {"role": "user", "content": [result]}]
    assert api.messages.create(**{**SHORT, "messages": messages}).usage.output_tokens == 5


def message_stream_with_a_tool(api):
    with api.messages.stream(**CALLS) as stream:
        content = stream.get_final_message().content
    assert [block.input for block in content if block.type == "tool_use"] == [CITY]


def count_of_tokens(api):
    few = api.messages.count_tokens(model="tiny", messages=HELLO).input_tokens
    assert 0 < few < api.messages.count_tokens(**{k: CALLS[k] for k in COUNTED}).input_tokens


def models(api):
    assert [model.id for model in api.models.list()] == ["tiny", "caller", "vectors", "narrow"]
    assert api.models.retrieve("tiny").id == "tiny"


COUNTED = "model", "messages", "tools"
CASES = [
    message,
    message_as_events,
    message_stream,
    message_with_a_tool,
    message_stream_with_a_tool,
    count_of_tokens,
    models,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_anthropic(api, case):
    case(api)


def test_anthropic_with_the_name_in_the_path(app, anthropic):
    with anthropic.Anthropic(**options(app, "/tiny")) as api:
        message(api)


def test_async_anthropic(app, anthropic):
    async def calls():
        async with anthropic.AsyncAnthropic(**options(app)) as api:
            answers = await asyncio.gather(*(api.messages.create(**SHORT) for _ in range(4)))
            async with api.messages.stream(**SHORT) as stream:
                return answers, [word async for word in stream.text_stream]

    answers, words = asyncio.run(calls())
    assert [answer.usage.output_tokens for answer in answers] == [5] * 4 and len(words) == 5


@pytest.mark.parametrize("kind", ["api_key", "auth_token"])
def test_anthropic_without_the_right_key(app, anthropic, kind):
    """It is sent as `X-Api-Key` or as `Authorization`."""
    given = {**options(app), "api_key": None, kind: "wrong"}
    with anthropic.Anthropic(**given) as api:
        with pytest.raises(anthropic.AuthenticationError, match="no valid API key"):
            message(api)


@pytest.mark.parametrize("path, model", [("", "other"), ("/other", "tiny")])
def test_anthropic_with_an_unknown_model(app, anthropic, path, model):
    with anthropic.Anthropic(**options(app, path)) as api:
        with pytest.raises(anthropic.NotFoundError, match="there is no model 'other'"):
            api.messages.create(**{**SHORT, "model": model})


def test_anthropic_with_a_message_that_is_too_large(api, anthropic):
    with pytest.raises(anthropic.ContentTooLargeError):
        api.messages.create(**{**SHORT, "messages": [{"role": "user", "content": LARGE}]})


def test_anthropic_tries_again_where_a_model_is_busy(app, anthropic):
    with anthropic.Anthropic(**options(app, retries=3)) as api, busy(app):
        answer = api.messages.with_raw_response.create(**{**SHORT, "model": "narrow"})
    assert answer.retries_taken >= 1 and answer.parse().usage.output_tokens == 5
