import base64
import gzip
import hashlib
import re

from app.gateway.pages.document import Document, policy
from app.page.assemble import assemble
from tests.fakes import RawClient, serving

PAGE = assemble("index.html")
ELEMENT = re.compile(rb"<(?P<kind>script|style)>(?P<text>.*?)</(?P=kind)>", re.S)


def test_only_what_stands_in_the_page_may_run():
    told = policy(PAGE)
    for element in ELEMENT.finditer(PAGE):
        digest = base64.b64encode(hashlib.sha256(element["text"]).digest()).decode()
        assert f"{element['kind'].decode()}-src " in told and f"'sha256-{digest}'" in told
    assert told.count("'sha256-") == len(ELEMENT.findall(PAGE)) > 1
    assert "unsafe" not in told and "default-src 'none'" in told
    assert not re.search(r'\son\w+="|\sstyle="', PAGE.decode())  # the policy would refuse them


def test_what_stands_inside_an_element_is_none():
    page = b'<script>var a = "<style></style>";</script><style>b {}</style>'
    told = policy(page)
    for text in (b'var a = "<style></style>";', b"b {}"):
        assert base64.b64encode(hashlib.sha256(text).digest()).decode() in told
    assert told.count("'sha256-") == 2


def test_how_it_is_sent(run):
    document = Document(PAGE)

    async def handler(request):
        document.show(request)

    async def scenario():
        async with serving(handler) as port:
            client = await RawClient.to(port)
            ask = b"GET / HTTP/1.1\r\nHost: h\r\n%b\r\n"
            await client.send(ask % b"")
            status, headers, body = await client.response()
            assert (status, body) == (200, PAGE)
            assert headers["x-content-type-options"] == "nosniff"
            await client.send(ask % b"Accept-Encoding: gzip, br\r\n")
            _, packed, body = await client.response()
            assert packed["content-encoding"] == "gzip" and gzip.decompress(body) == PAGE
            known = f"If-None-Match: {headers['etag']}\r\n".encode()
            await client.send(ask % known)
            status, _, body = await client.response()
            assert (status, body) == (304, b"")

    run(scenario)
