"""What the tests of the HTTP side send, and the handler that answers it."""

from tests.fakes import RawClient

GET = b"GET %b HTTP/1.1\r\nhost: h\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%b"


async def echo(request):
    body = await request.body(1 << 20)
    request.reply(200, request.method.encode() + b" " + request.target.encode() + b" " + body)


async def ask(port, data):
    client = await RawClient.to(port)
    await client.send(data)
    try:
        return await client.response()
    finally:
        await client.close()
