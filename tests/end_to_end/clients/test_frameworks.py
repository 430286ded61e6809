"""Libraries above the openai library, or beside it: LangChain, Pydantic AI, Hugging Face's.

They are imported where they are used: one process runs these tests, several collect them.
"""

import asyncio
from contextlib import asynccontextmanager
from typing import Literal

import pytest
from openai import APIStatusError, AsyncOpenAI, AuthenticationError, NotFoundError
from pydantic import BaseModel

from tests.end_to_end.clients.conftest import KEY, LARGE, TOOL
from tests.end_to_end.conftest import PATIENCE

HELLO = [{"role": "user", "content": "Hello"}]


class Place(BaseModel):
    city: Literal["Oslo"]


def langchain(app, model="tiny", key=KEY, **options):
    from langchain_openai import ChatOpenAI

    given = {"max_tokens": 5, "max_retries": 0, "timeout": PATIENCE, **options}
    return ChatOpenAI(base_url=f"{app.url}/v1", api_key=key, model=model, **given)


def test_langchain_chats(app):
    answer = langchain(app).invoke("Hello")
    assert answer.content and answer.usage_metadata["output_tokens"] == 5


def test_langchain_streams(app):
    chunks = list(langchain(app, stream_usage=True).stream("Hello"))
    assert sum(bool(chunk.content) for chunk in chunks) == 5


def test_langchain_calls_a_tool(app):
    model = langchain(app, "caller", max_tokens=70).bind_tools([TOOL], tool_choice="any")
    (call,) = model.invoke("Hello").tool_calls
    assert (call["name"], call["args"]) == ("weather", {"city": "Oslo"})


def test_langchain_through_responses(app):
    answer = langchain(app, use_responses_api=True).invoke("Hello")
    assert answer.text and answer.usage_metadata["output_tokens"] == 5


def test_langchain_embeds(app):
    """It sends tokens instead of text, unless it is told not to."""
    from langchain_openai import OpenAIEmbeddings

    given = {"base_url": f"{app.url}/v1", "api_key": KEY, "check_embedding_ctx_length": False}
    vectors = OpenAIEmbeddings(model="vectors", **given).embed_documents(["one", "two"])
    assert [len(vector) for vector in vectors] == [128, 128]


@pytest.mark.parametrize(
    "given, error", [({"key": "wrong"}, AuthenticationError), ({"model": "other"}, NotFoundError)]
)
def test_langchain_is_refused(app, given, error):
    with pytest.raises(error):
        langchain(app, **given).invoke("Hello")


def test_langchain_with_a_message_that_is_too_large(app):
    with pytest.raises(APIStatusError) as refused:
        langchain(app).invoke(LARGE)
    assert refused.value.status_code == 413


@asynccontextmanager
async def agent(app, name="tiny", kind="OpenAIChatModel", key=KEY, tokens=5, **options):
    from pydantic_ai import Agent
    from pydantic_ai.models import openai as models
    from pydantic_ai.providers import openai as providers

    api = AsyncOpenAI(base_url=f"{app.url}/v1", api_key=key, max_retries=0, timeout=PATIENCE)
    async with api:
        model = getattr(models, kind)(name, provider=providers.OpenAIProvider(openai_client=api))
        yield Agent(model, model_settings={"max_tokens": tokens}, **options)


async def ask(app, text="Hello", **options):
    async with agent(app, **options) as asked:
        return await asked.run(text)


async def words(app, **options):
    async with agent(app, **options) as asked, asked.run_stream("Hello") as stream:
        return [word async for word in stream.stream_text(delta=True, debounce_by=None)]


@pytest.mark.parametrize("kind", ["OpenAIChatModel", "OpenAIResponsesModel"])
def test_pydantic_ai_asks(app, kind):
    answer = asyncio.run(ask(app, kind=kind))
    assert answer.output and answer.usage.output_tokens == 5


@pytest.mark.parametrize("kind", ["OpenAIChatModel", "OpenAIResponsesModel"])
def test_pydantic_ai_streams(app, kind):
    assert len(asyncio.run(words(app, kind=kind))) == 5


def test_pydantic_ai_gets_a_format(app):
    from pydantic_ai.output import NativeOutput

    answer = asyncio.run(ask(app, tokens=100, output_type=NativeOutput(Place)))
    assert answer.output.city == "Oslo"


@pytest.mark.parametrize(
    "given, status",
    [({"key": "wrong"}, 401), ({"name": "other"}, 404), ({"text": LARGE}, 413)],
    ids=["key", "model", "size"],
)
def test_pydantic_ai_is_refused(app, given, status):
    from pydantic_ai.exceptions import ModelHTTPError

    with pytest.raises(ModelHTTPError) as refused:
        asyncio.run(ask(app, **given))
    assert refused.value.status_code == status


def hugging_face(app, key=KEY):
    from huggingface_hub import InferenceClient

    return InferenceClient(base_url=f"{app.url}/v1", api_key=key, timeout=PATIENCE)


def test_hugging_face_chats_and_streams(app):
    given = {"messages": HELLO, "model": "tiny", "max_tokens": 5}
    api = hugging_face(app)
    assert api.chat_completion(**given).usage.completion_tokens == 5
    chunks = list(api.chat_completion(**given, stream=True))
    assert sum(bool(c.choices and c.choices[0].delta.content) for c in chunks) == 5


def test_hugging_face_is_refused(app):
    from huggingface_hub.errors import HfHubHTTPError

    with pytest.raises(HfHubHTTPError) as refused:
        hugging_face(app, "wrong").chat_completion(HELLO, model="tiny")
    assert refused.value.response.status_code == 401
