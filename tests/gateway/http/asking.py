"""What the tests of the HTTP side send, and the handler that answers it."""

from app.errors import RequestError
from tests.fakes import RawClient

LIMIT = 1 << 20  # bytes of a body that the handlers of the tests take

GET = b"GET %b HTTP/1.1\r\nhost: h\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n%b"


async def whole(request):
    """The request's body. Raises RequestError 413, as a handler does that has a limit."""
    body = b""
    if (request.length or 0) > LIMIT:
        raise RequestError(413, "the body is too large")
    async for chunk in request.chunks():
        body += chunk
        if len(body) > LIMIT:
            raise RequestError(413, "the body is too large")
    return body


async def echo(request):
    body = await whole(request)
    request.reply(200, request.method.encode() + b" " + request.target.encode() + b" " + body)


async def ask(port, data):
    client = await RawClient.to(port)
    await client.send(data)
    try:
        return await client.response()
    finally:
        await client.close()
