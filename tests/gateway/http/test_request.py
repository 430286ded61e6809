import asyncio
from email.utils import parsedate_to_datetime

from app.errors import RequestError
from app.gateway.http.request import Request
from tests.fakes import RawClient, serving
from tests.gateway.http.asking import GET, POST, ask, echo


def test_http_1_0_is_answered_without_chunks_and_closed(run):
    async def stream(request):
        request.start(200, [])
        request.write(b"one")
        request.write(b"two")
        request.finish()

    async def scenario():
        async with serving(stream) as port:
            client = await RawClient.to(port)
            await client.send(b"GET / HTTP/1.0\r\n\r\n")
            text = await client.rest()
            assert text.endswith(b"\r\n\r\nonetwo")
            assert b"transfer-encoding" not in text and b"connection: close" in text

    run(scenario)


def test_a_head_request_gets_no_body(run):
    async def scenario():
        async with serving(echo) as port:
            client = await RawClient.to(port)
            await client.send(b"HEAD /x HTTP/1.1\r\nhost: h\r\n\r\n" + GET % b"/y")
            head = await client.reader.readuntil(b"\r\n\r\n")
            assert b"content-length: 8" in head
            assert (await client.response())[2] == b"GET /y "
            await client.close()

    run(scenario)


def test_a_handler_that_refuses_a_body_ends_the_connection(run):
    async def scenario():
        async with serving(echo) as port:
            for data in (
                POST % (2 << 20, b""),
                b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
                + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 20,
            ):
                status, headers, _ = await ask(port, data)
                assert (status, headers["connection"]) == (413, "close")

    run(scenario)


def test_a_body_that_breaks_off_is_its_requests_fault(run):
    async def scenario():
        async with serving(echo) as port:
            head = b"POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n"
            status, _, body = await ask(port, head + b"5\r\nhello\r\nzz\r\n")
            assert status == 400 and b"not valid HTTP" in body

    run(scenario)


def test_100_continue_is_sent_when_the_body_is_wanted(run):
    async def scenario():
        async with serving(echo) as port:
            client = await RawClient.to(port)
            head = (
                b"POST /p HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"
            )
            await client.send(head)
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(b"hi")
            assert (await client.response())[2] == b"POST /p hi"
            await client.close()

    run(scenario)


def test_an_upload_that_nobody_reads_is_held_back(run):
    async def scenario():
        go_on = asyncio.Event()
        seen = []

        async def late(request):
            seen.append(request)
            await go_on.wait()
            size = 0
            async for chunk in request.chunks():
                size += len(chunk)
            request.reply(200, b"%d" % size)

        async with serving(late) as port:
            client = await RawClient.to(port)
            total = 32 << 20
            sending = asyncio.create_task(client.send(POST % (total, b"x" * total)))
            await asyncio.sleep(0.3)
            assert not sending.done()
            assert seen[0].buffered < 2 << 20
            go_on.set()
            await sending
            assert (await client.response())[2] == b"%d" % total
            await client.close()

    run(scenario)


def test_a_client_that_does_not_read_holds_the_source_back(run):
    async def scenario():
        class Source:
            running = True

            def pause(self):
                self.running = False

            def resume(self):
                self.running = True

        source = Source()
        sent = 0

        async def endless(request):
            nonlocal sent
            request.flow_from(source)
            request.start(200, [])
            while sent < 32 << 20:
                if source.running:
                    request.write(b"x" * 65536)
                    sent += 65536
                await asyncio.sleep(0 if source.running else 0.001)
            request.finish()

        async with serving(endless) as port:
            client = await RawClient.to(port)
            await client.send(GET % b"/")
            await asyncio.sleep(0.5)
            assert not source.running and sent < 16 << 20
            _, _, body = await client.response()
            assert len(body) == 32 << 20
            await client.close()

    run(scenario)


def test_a_refusal_is_in_openais_shape_and_says_when_to_come_back(run):
    async def full(request):
        raise RequestError(429, "full", retry_after=0.2)

    async def scenario():
        async with serving(full) as port:
            status, headers, body = await ask(port, GET % b"/")
            assert (status, headers["retry-after"]) == (429, "1")
            assert body == (
                b'{"error": {"message": "full", "type": "rate_limit_error", '
                b'"param": null, "code": 429}}'
            )

    run(scenario)


class Wire:
    """A connection that keeps what is sent."""

    def __init__(self):
        self.sent = []

    def send(self, data):
        self.sent.append(data)


def test_a_small_response_is_sent_in_one_piece_and_without_a_body_too():
    for method, pieces in (("GET", [b"\r\n\r\nhello"]), ("HEAD", [b"\r\n\r\n"])):
        wire = Wire()
        Request(wire, method, "/", []).reply(200, b"hello")
        assert [data[-len(end) :] for data, end in zip(wire.sent, pieces, strict=True)] == pieces


def test_a_head_that_is_held_goes_out_once():
    wire = Wire()
    request = Request(wire, "GET", "/", [])
    request.start(200, [], hold=True)
    assert wire.sent == []
    request.flush()
    request.flush()
    request.write(b"x")
    request.finish()
    assert [data[:1] for data in wire.sent] == [b"H", b"1", b"0"]


def test_every_answer_has_its_date_and_204_no_length():
    """Http11Probe: COMP-DATE-HEADER, COMP-DATE-FORMAT, COMP-NO-CL-IN-204."""

    async def handler(request):
        request.reply(204 if request.target == "/none" else 200, b"")

    async def scenario():
        async with serving(handler) as port:
            for target, status in ((b"/", 200), (b"/none", 204), (b"no path", 400)):
                got, headers, _ = await ask(port, GET % target)
                assert got == status and parsedate_to_datetime(headers["date"])
                assert ("content-length" in headers) == (status != 204)

    asyncio.run(scenario())
