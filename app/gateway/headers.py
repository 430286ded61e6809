"""Which headers pass between the client and llama-server. Pure."""

from __future__ import annotations

from app.gateway.http.heads import Headers

# What llama-server gets of a request: it reads nothing else that is not ours to say. Range would
# cut its answer, Content-Encoding have it decode, X-Conversation-Id have it go on generating for a
# client that has left, and many or long headers are answered with an empty 400.
CONTENT_TYPE, ACCEPT = b"content-type", b"accept"
HOP_BY_HOP = {
    b"connection",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
}
RESPONSE_ONLY_OURS = HOP_BY_HOP | {b"content-length", b"date", b"server", b"x-request-id"}
LONGEST = 4096  # bytes of a value; llama-server's HTTP library takes lines of 8 KiB


def request_headers(headers: Headers) -> Headers:
    """What the child gets of a client's headers: at most two."""
    kinds = [value for name, value in headers if name == CONTENT_TYPE]
    accepted = b", ".join(value for name, value in headers if name == ACCEPT)
    kept = [(CONTENT_TYPE, b"".join(kinds[:1])), (ACCEPT, accepted)]
    return [header for header in kept if 0 < len(header[1]) <= LONGEST]


def response_headers(headers: Headers) -> Headers:
    """Those of a child's headers that the client gets."""
    dropped = RESPONSE_ONLY_OURS | connection_options(headers)
    return [
        header
        for header in headers
        if header[0] not in dropped and not header[0].startswith(b"access-control-")
    ]


def connection_options(headers: Headers) -> set[bytes]:
    """The headers that `Connection` names: none of them is passed on (RFC 9110, 7.6.1)."""
    named = [value for name, value in headers if name == b"connection"]
    options = b",".join(named).split(b",") if named else ()
    return {option.strip().lower() for option in options if option.strip()}
