import pytest

from app.engine.http import Address, Client
from app.engine.server import meta_of
from tests.fakes import Child, body_of, reply


@pytest.mark.parametrize(
    "answer, expected",
    [
        (b'{"data":[{"meta":{"n_vocab":3}}]}', {"n_vocab": 3}),
        (b'{"data":[{"meta":null}]}', {}),
        (b'{"data":[]}', {}),
        (b'{"data":{}}', {}),
        (b"[]", {}),
        (b"<html>", {}),
        (b"\xff", {}),
    ],
)
def test_what_a_llama_server_says_of_its_model(run, tmp_path, answer, expected):
    async def answering(reader, writer, head):
        await body_of(reader, head)
        writer.write(reply(answer))

    async def scenario():
        async with Child(tmp_path / "x.sock", answering) as child:
            client = Client(Address(str(tmp_path / "x.sock")), "k")
            assert await meta_of(client) == expected
            assert child.heads[0].startswith("GET /v1/models ")
            client.close()
            assert await meta_of(Client(Address(str(tmp_path / "none")), "k")) == {}

    run(scenario)
