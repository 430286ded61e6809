"""The openai library: chat, completions, responses, embeddings, models; sync and async."""

import asyncio
import json

import openai
import pytest

from tests.end_to_end.clients.conftest import FUNCTION, KEY, LARGE, SCHEMA, TOOL, busy
from tests.end_to_end.conftest import PATIENCE

HELLO = [{"role": "user", "content": "Hello"}]
SHORT = {"model": "tiny", "messages": HELLO, "max_tokens": 5}
CALLS = {"model": "caller", "messages": HELLO, "max_tokens": 70, "tools": [TOOL]}
ASKS = {"model": "tiny", "input": "Hello", "max_output_tokens": 5}
ASKS_A_CALLER = {
    "model": "caller",
    "input": "Hello",
    "max_output_tokens": 70,
    "tools": [{"type": "function", **FUNCTION}],
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
IN_A_FORMAT = {**SHORT, "max_tokens": 100, "response_format": FORMAT}
CITY = {"city": "Oslo"}


def options(app, path="", key=KEY, retries=0):
    address = f"{app.url}{path}/v1"
    return {"base_url": address, "api_key": key, "max_retries": retries, "timeout": PATIENCE}


@pytest.fixture
def api(app):
    with openai.OpenAI(**options(app)) as client:
        yield client


def chat(api):
    answer = api.chat.completions.create(**SHORT)
    assert answer.model == "tiny" and answer.choices[0].finish_reason == "length"
    assert answer.choices[0].message.content and answer.usage.completion_tokens == 5


def chat_as_chunks(api):
    chunks = list(
        api.chat.completions.create(**SHORT, stream=True, stream_options={"include_usage": True})
    )
    assert sum(bool(c.choices and c.choices[0].delta.content) for c in chunks) == 5
    assert chunks[-1].usage.completion_tokens == 5


def chat_stream(api):
    """It wants an answer that has come to its end."""
    with api.chat.completions.stream(**IN_A_FORMAT) as stream:
        words = [event.delta for event in stream if event.type == "content.delta"]
    assert json.loads("".join(words)) == CITY
    assert stream.get_final_completion().choices[0].message.content == "".join(words)


def chat_with_a_tool(api):
    (call,) = api.chat.completions.create(**CALLS).choices[0].message.tool_calls
    assert call.function.name == "weather" and json.loads(call.function.arguments) == CITY
    said = {"role": "assistant", "content": None, "tool_calls": [call.to_dict()]}
    result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    answer = api.chat.completions.create(
        model="tiny", messages=[*HELLO, said, result], max_tokens=5, tools=[TOOL]
    )
    assert answer.usage.completion_tokens == 5


def chat_stream_with_a_tool(api):
    with api.chat.completions.stream(**CALLS) as stream:
        done = [e for e in stream if e.type == "tool_calls.function.arguments.done"]
    assert [(e.name, json.loads(e.arguments)) for e in done] == [("weather", CITY)]


def chat_in_a_format(api):
    answer = api.chat.completions.create(**IN_A_FORMAT)
    assert json.loads(answer.choices[0].message.content) == CITY


def completion(api):
    answer = api.completions.create(model="tiny", prompt="Hello", max_tokens=5, logprobs=1)
    assert answer.choices[0].text


def response(api):
    answer = api.responses.create(**ASKS)
    assert answer.status == "incomplete" and answer.output_text and answer.model == "tiny"
    assert answer.incomplete_details.reason == "max_output_tokens"


def response_as_events(api):
    events = list(api.responses.create(**ASKS, stream=True))
    words = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(words) == 5 and events[-1].response.output_text == "".join(words)


def response_stream(api):
    with api.responses.stream(**ASKS) as stream:
        events = list(stream)
    words = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert events[-1].type == "response.incomplete"  # the library's final response is a whole one
    assert events[-1].response.output_text == "".join(words)


def response_with_a_tool(api):
    output = api.responses.create(**ASKS_A_CALLER).output
    (call,) = [item for item in output if item.type == "function_call"]
    assert call.name == "weather" and json.loads(call.arguments) == CITY


def response_stream_with_a_tool(api):
    with api.responses.stream(**ASKS_A_CALLER) as stream:
        *_, last = stream
    output = last.response.output
    assert [json.loads(i.arguments) for i in output if i.type == "function_call"] == [CITY]


def embeddings(api):
    """The library asks for base64, and decodes it."""
    answer = api.embeddings.create(model="vectors", input=["one", "two"])
    assert [item.index for item in answer.data] == [0, 1]
    assert [len(item.embedding) for item in answer.data] == [128, 128]


def models(api):
    ids = [model.id for model in api.models.list()]
    assert ids == ["tiny", "caller", "vectors", "narrow"]
    assert api.models.retrieve("tiny").id == "tiny"


CASES = [
    chat,
    chat_as_chunks,
    chat_stream,
    chat_with_a_tool,
    chat_stream_with_a_tool,
    chat_in_a_format,
    completion,
    response,
    response_as_events,
    response_stream,
    response_stream_with_a_tool,
    response_with_a_tool,
    embeddings,
    models,
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_openai(api, case):
    case(api)


def test_openai_with_the_name_in_the_path(app):
    """As the README shows it."""
    with openai.OpenAI(**options(app, "/tiny")) as api:
        chat(api)
        assert [model.id for model in api.models.list()] == ["tiny"]
        assert api.models.retrieve("tiny").id == "tiny"


def test_async_openai(app):
    async def calls():
        async with openai.AsyncOpenAI(**options(app)) as api:
            answers = await asyncio.gather(
                *(api.chat.completions.create(**SHORT) for _ in range(4)),
                *(api.responses.create(**ASKS) for _ in range(4)),
            )
            stream = await api.chat.completions.create(**SHORT, stream=True)
            return answers, [chunk async for chunk in stream]

    answers, chunks = asyncio.run(calls())
    assert {answer.model for answer in answers} == {"tiny"}
    assert sum(bool(c.choices and c.choices[0].delta.content) for c in chunks) == 5


def test_openai_leaves_a_stream(api):
    """Its connection is of no more use, but the next call is answered."""
    with api.chat.completions.create(**{**SHORT, "max_tokens": -1}, stream=True) as stream:
        next(iter(stream))
    chat(api)


def test_openai_without_the_right_key(app):
    with openai.OpenAI(**options(app, key="wrong")) as api:
        with pytest.raises(openai.AuthenticationError, match="no valid API key"):
            chat(api)


@pytest.mark.parametrize("path, model", [("", "other"), ("/other", "tiny")])
def test_openai_with_an_unknown_model(app, path, model):
    with openai.OpenAI(**options(app, path)) as api:
        with pytest.raises(openai.NotFoundError, match="there is no model 'other'"):
            api.chat.completions.create(**{**SHORT, "model": model})


def test_openai_with_a_message_that_is_too_large(api):
    with pytest.raises(openai.APIStatusError) as refused:
        api.chat.completions.create(model="tiny", messages=[{"role": "user", "content": LARGE}])
    assert refused.value.status_code == 413


def test_openai_with_an_error_of_llama_server(api):
    with pytest.raises(openai.BadRequestError):
        api.chat.completions.create(model="tiny", messages=[{"role": "user", "content": 1}])


def test_openai_tries_again_where_a_model_is_busy(app):
    with openai.OpenAI(**options(app, retries=3)) as api, busy(app):
        answer = api.chat.completions.with_raw_response.create(**{**SHORT, "model": "narrow"})
    assert answer.retries_taken >= 1 and answer.parse().usage.completion_tokens == 5
