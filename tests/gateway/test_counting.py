import json

import pytest

from app.engine.http import Address, Client
from app.gateway.counting import SHORT, count
from app.gateway.demand import COMPLETION, EMBEDDING, kind_of
from tests.fakes import Child, body_of, reply

CHAT = kind_of("/v1/chat/completions")


class Counter(Child):
    def __init__(self, path, answer, status=200):
        super().__init__(path, self._respond)
        self.given, self.status, self.bodies = answer, status, []

    async def _respond(self, reader, writer, head):
        self.bodies.append(await body_of(reader, head))
        writer.write(reply(self.given, self.status))


async def counted(socket, kind, pieces, answer, status=200, prompts=9):
    async with Counter(socket, answer, status) as child:
        client = Client(Address(str(socket)), "key")
        try:
            return await count(client, kind, pieces, prompts), child.bodies[:1]
        finally:
            client.close()


def test_a_body_in_pieces_is_counted_as_it_is(run, socket):
    async def scenario():
        pieces = [b'{"messages":', b"[]}"]
        assert await counted(socket, CHAT, pieces, b'{"input_tokens":7}') == (7, [b"".join(pieces)])

    run(scenario)


@pytest.mark.parametrize("size", [1, SHORT])
def test_texts_are_counted_together(run, socket, size):
    async def scenario():
        said = {"input": ["a" * size, [1, 2]], "content": "b", "model": "m", "prompt": "not read"}
        body = json.dumps(said).encode()
        tokens, (sent,) = await counted(socket, EMBEDDING, [body], b'{"tokens":[1,2,3]}')
        found = json.loads(sent)["content"]
        assert tokens == 3 and sorted(map(str, found)) == sorted(["a" * size, "1", "2", "b"])

    run(scenario)


def test_of_many_prompts_those_that_are_worked_at_together_count(run, socket):
    async def scenario():
        body = json.dumps({"prompt": ["a", "bbb", [1, 2], "cccc"]}).encode()
        _, (sent,) = await counted(socket, COMPLETION, [body], b'{"tokens":[1]}', prompts=3)
        assert json.loads(sent)["content"] == ["cccc", "bbb", 1, 2]

    run(scenario)


@pytest.mark.parametrize("prompt", [{"odd": 1}, ["a", {"odd": 1}], [], [["a", None]]])
def test_of_an_odd_prompt_nobody_knows_the_tokens(run, socket, prompt):
    async def scenario():
        body = json.dumps({"prompt": prompt}).encode()
        assert await counted(socket, COMPLETION, [body], b"{}") == (None, [])

    run(scenario)


@pytest.mark.parametrize(
    "answer, status", [(b"{}", 200), (b"[1]", 200), (b"no", 200), (b'{"input_tokens":1}', 404)]
)
def test_who_does_not_say_counts_nothing(run, socket, answer, status):
    async def scenario():
        assert (await counted(socket, CHAT, [b"{}"], answer, status))[0] is None

    run(scenario)
