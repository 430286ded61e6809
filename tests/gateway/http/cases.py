"""Raw messages, and what the front answers to each.

Each row has the bytes of one connection, the status of every answer to them, whether the front then
closes, and why. `probe` is the rule of Http11Probe (github.com/MDA2AV/Http11Probe) that the row
holds; the bytes are ours. `h11` says why h11 decides otherwise, where it does.

No body or rest may become a request of its own: those that would be have the target /smuggled.
"""

from typing import NamedTuple


class Case(NamedTuple):
    name: str
    data: bytes
    statuses: tuple[int, ...]
    closed: bool
    why: str
    probe: str = ""
    h11: str = ""


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nhost: h\r\n\r\n"
LAX_VALUE = "h11 takes these bytes in a value"
LAX_TARGET = "h11 takes any visible byte in a target"
LAX_HOST = "h11 leaves the Host's value alone"
LAX_CHUNK = "h11 takes blanks after a chunk's size, and bare line feeds in trailers"
LAX_EXTENSION = "h11 takes any chunk extension"


def get(*lines, target=b"/", version=b"HTTP/1.1"):
    return b"\r\n".join([b"GET " + target + b" " + version, b"host: h", *lines, b"", b""])


def line(request_line):
    return request_line + b"\r\nhost: h\r\n\r\n"


def host(value, version=b"HTTP/1.1"):
    return b"GET / " + version + b"\r\nhost:" + value + b"\r\n\r\n"


def post(*lines, body=b"", version=b"HTTP/1.1"):
    return b"\r\n".join([b"POST /p " + version, b"host: h", *lines, b"", body])


def chunked(body, *lines):
    return post(b"transfer-encoding: chunked", *lines, body=body)


def length(value, body=b"hello"):
    return post(b"content-length:" + value, body=body)


def coding(value, *lines, body=b"0\r\n\r\n"):
    return post(b"transfer-encoding:" + value, *lines, body=body)


def taken(name, data, why, probe="", h11="", statuses=(200,), closed=False):
    return Case(name, data, statuses, closed, why, probe, h11)


def refused(name, data, why, probe="", h11="", status=400):
    return Case(name, data, (status,), True, why, probe, h11)


def waits(name, data, why, probe=""):
    return Case(name, data, (), False, why, probe)


LINES = [
    taken("plain", get(), "RFC 9112, 3", "COMP-BASELINE"),
    taken("no-space-after-colon", host(b"h"), "RFC 9112, 5"),
    taken(
        "blank-line-before",
        b"\r\n" + get(),
        "RFC 9112, 2.2",
        "COMP-LEADING-CRLF",
        "h11 takes no blank line there",
    ),
    refused(
        "bare-lf-line",
        b"GET / HTTP/1.1\nhost: h\r\n\r\n",
        "RFC 9112, 2.2: may refuse",
        "RFC9112-2.2-BARE-LF-REQUEST-LINE",
        "h11 takes bare line feeds",
    ),
    refused(
        "bare-lf-header",
        b"GET / HTTP/1.1\r\nhost: h\nx: y\r\n\r\n",
        "RFC 9112, 2.2",
        "RFC9112-2.2-BARE-LF-HEADER",
        "h11 takes bare line feeds",
    ),
    refused(
        "bare-lf-end",
        b"GET / HTTP/1.1\r\nhost: h\r\n\n",
        "RFC 9112, 2.2",
        "",
        "h11 takes bare line feeds",
    ),
    refused(
        "bare-cr-line",
        b"GET / HTTP/1.1\rhost: h\r\n\r\n",
        "RFC 9112, 2.2",
        "RFC9112-3-CR-ONLY-LINE-ENDING",
    ),
    refused(
        "obs-fold",
        get(b"x: a", b" b"),
        "RFC 9112, 5.2",
        "RFC9112-5.1-OBS-FOLD",
        "h11 joins folded lines",
    ),
    refused("space-before-colon", get(b"x : y"), "RFC 9112, 5.1", "RFC9110-5.6.2-SP-BEFORE-COLON"),
    refused(
        "space-before-headers",
        b"GET / HTTP/1.1\r\n \r\nhost: h\r\n\r\n",
        "RFC 9112, 2.2",
        "COMP-WHITESPACE-BEFORE-HEADERS",
    ),
    refused("no-target", line(b"GET HTTP/1.1"), "RFC 9112, 3", "RFC9112-3-MISSING-TARGET"),
    refused(
        "space-in-target", line(b"GET /pa th HTTP/1.1"), "RFC 9112, 3.2", "COMP-SPACE-IN-TARGET"
    ),
    refused("tab-in-line", line(b"GET\t/ HTTP/1.1"), "RFC 9112, 3", "COMP-REQUEST-LINE-TAB"),
    refused(
        "version-9.9",
        get(version=b"HTTP/9.9"),
        "RFC 9112, 2.3",
        "RFC9112-2.3-INVALID-VERSION",
        "h11 leaves the version to its user",
    ),
    refused(
        "version-2.0",
        get(version=b"HTTP/2.0"),
        "RFC 9110, 15.6.6",
        status=505,
        h11="h11 leaves the version to its user",
    ),
    refused(
        "version-1.2",
        get(version=b"HTTP/1.2"),
        "llhttp knows no 1.2",
        "COMP-HTTP12-VERSION",
        "h11 leaves the version to its user",
    ),
    refused(
        "version-no-minor", get(version=b"HTTP/1"), "RFC 9112, 2.3", "COMP-VERSION-MISSING-MINOR"
    ),
    refused(
        "version-zeros", get(version=b"HTTP/01.01"), "RFC 9112, 2.3", "COMP-VERSION-LEADING-ZEROS"
    ),
    refused("version-blank", get(version=b"HTTP/ 1.1"), "RFC 9112, 2.3", "COMP-VERSION-WHITESPACE"),
    refused("version-lower-case", get(version=b"http/1.1"), "RFC 9112, 2.3", "COMP-VERSION-CASE"),
    waits("http-0.9", b"GET /\r\n", "headers may follow", "RFC9112-2.3-HTTP09-REQUEST"),
    refused("http-0.9-whole", b"GET /\r\n\r\n", "RFC 9112, 2.3", status=505),
    refused("rtsp-1.0", get(version=b"RTSP/1.0"), "llhttp takes it for HTTP"),
    refused("rtsp-1.1", get(version=b"RTSP/1.1"), "llhttp takes it for HTTP"),
    refused("rtsp-options", b"OPTIONS /x RTSP/1.0\r\nhost: h\r\n\r\n", "llhttp takes it for HTTP"),
    refused(
        "rtsp-upgrade",
        get(b"connection: upgrade", b"upgrade: h2c", version=b"RTSP/1.0"),
        "llhttp takes it for HTTP",
    ),
    refused("rtsp-pipelined", NEXT + get(version=b"RTSP/1.0"), "llhttp takes it for HTTP")._replace(
        statuses=(200, 400)
    ),
    refused(
        "rtsp-after-a-body", length(b" 5") + get(version=b"RTSP/1.0"), "llhttp takes it for HTTP"
    )._replace(statuses=(200, 400)),
    taken("rtsp-in-the-target", get(target=b"/RTSP/1.0 ".strip()), "only the version counts"),
    taken("rtsp-in-a-body", length(b" 15", b"GET / RTSP/1.0 "), "only the request line counts"),
    taken("rtsp-in-a-header", get(b"user-agent: VLC RTSP/1.0"), "only the request line counts"),
    refused("ice-1.0", b"SOURCE / ICE/1.0\r\nhost: h\r\n\r\n", "no HTTP", status=405),
    refused(
        "lower-case-method",
        line(b"get / HTTP/1.1"),
        "RFC 9110, 9.1",
        "COMP-METHOD-CASE",
        "h11 leaves the method to its user",
    ),
    refused(
        "unknown-method",
        line(b"FOOBAR / HTTP/1.1"),
        "llhttp knows no such method",
        "COMP-UNKNOWN-METHOD",
        "h11 leaves the method to its user",
    ),
    refused(
        "long-method",
        line(b"A" * 5000 + b" / HTTP/1.1"),
        "no method",
        "MAL-LONG-METHOD",
        "h11 leaves the method to its user",
    ),
    refused(
        "connect",
        line(b"CONNECT h:443 HTTP/1.1"),
        "RFC 9110, 9.3.6",
        "COMP-METHOD-CONNECT",
        "h11 leaves the method to its user",
        405,
    ),
    refused("binary", bytes(range(128, 256)) + b"\r\n\r\n", "no HTTP", "MAL-BINARY-GARBAGE"),
    refused("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x7f" * 40, "no HTTP"),
    refused(
        "http-2",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "RFC 9113, 3.4",
        "MAL-H2-PREFACE",
        "h11 leaves version and method to its user",
    ),
    refused("blank-line-only", b" \r\n\r\n", "no request line", "MAL-WHITESPACE-ONLY-LINE"),
    waits("nothing", b"", "no head", "MAL-EMPTY-REQUEST"),
    waits(
        "part-of-a-head",
        b"GET / HTTP/1.1\r\nhost: h\r\nx: y",
        "no end of the head",
        "MAL-INCOMPLETE-REQUEST",
    ),
]

TARGETS = [
    taken("absolute", get(target=b"http://h/a?b=c"), "RFC 9112, 3.2.2", "COMP-ABSOLUTE-FORM"),
    taken(
        "absolute-https-port",
        line(b"GET https://H:80/ HTTP/1.1").replace(b": h", b": h:80"),
        "RFC 9112, 3.2.2",
    ),
    refused(
        "absolute-of-another",
        get(target=b"http://other/"),
        "one request, two hosts",
        "SMUG-ABSOLUTE-URI-HOST-MISMATCH",
        "h11 leaves the target to its user",
    ),
    refused(
        "absolute-no-host",
        get(target=b"http:///a"),
        "RFC 9110, 4.2.1",
        h11="h11 leaves the target to its user",
    ),
    refused(
        "absolute-user",
        get(target=b"http://h@other/"),
        "RFC 9110, 4.2.4",
        h11="h11 leaves the target to its user",
    ),
    refused(
        "other-scheme",
        get(target=b"file:///etc/passwd"),
        "no path",
        h11="h11 leaves the target to its user",
    ),
    refused(
        "no-slash",
        get(target=b"v1/models"),
        "RFC 9112, 3.2",
        h11="h11 leaves the target to its user",
    ),
    refused(
        "asterisk-get",
        get(target=b"*"),
        "RFC 9112, 3.2.4",
        "COMP-ASTERISK-WITH-GET",
        "h11 leaves the target to its user",
    ),
    taken(
        "asterisk-options",
        b"OPTIONS * HTTP/1.1\r\nhost: h\r\n\r\n",
        "RFC 9112, 3.2.4",
        "COMP-OPTIONS-STAR",
    ),
    refused(
        "fragment",
        get(target=b"/a#b"),
        "RFC 9112, 3.2",
        "RFC9112-3.2-FRAGMENT-IN-TARGET",
        LAX_TARGET,
    ),
    refused("backslash", get(target=b"/a\\b"), "RFC 3986, 2", "MAL-URL-BACKSLASH", LAX_TARGET),
    refused("utf-8", get(target="/café".encode()), "RFC 3986, 2", "MAL-NON-ASCII-URL"),
    refused("overlong", get(target=b"/\xc0\xaf"), "RFC 3986, 2", "MAL-URL-OVERLONG-UTF8"),
    refused("nul", get(target=b"/\x00a"), "RFC 3986, 2", "MAL-NUL-IN-URL"),
    refused("delete", get(target=b"/\x7fa"), "RFC 3986, 2"),
    taken(
        "percent-nul", get(target=b"/a%00b"), "the route has no such path", "MAL-URL-PERCENT-NULL"
    ),
    taken(
        "percent-crlf",
        get(target=b"/a%0d%0ax:%20y"),
        "the route has no such path",
        "MAL-URL-PERCENT-CRLF",
    ),
    taken("braces", get(target=b"/{a}?b=|"), "browsers send them as they are"),
    taken("8000-bytes", get(target=b"/" + b"a" * 8000), "RFC 9112, 3", "COMP-LONG-URL-OK"),
    refused(
        "20000-bytes",
        get(target=b"/" + b"a" * 20_000),
        "Limits.target",
        "MAL-LONG-URL",
        "h11 has its own bound",
        414,
    ),
]

HOSTS = [
    refused("none", b"GET / HTTP/1.1\r\n\r\n", "RFC 9112, 3.2", "RFC9112-7.1-MISSING-HOST"),
    taken("none-in-1.0", b"GET / HTTP/1.0\r\n\r\n", "RFC 9112, 3.2", "COMP-HTTP10-NO-HOST",
          closed=True),
    refused("two", get(b"host: i"), "RFC 9112, 3.2", "RFC9110-5.4-DUPLICATE-HOST"),
    refused("twice", get(b"host: h"), "RFC 9112, 3.2", "COMP-DUPLICATE-HOST-SAME"),
    refused("two-in-1.0", get(b"host: i", version=b"HTTP/1.0"), "RFC 9112, 3.2"),
    *(
        refused(name, host(value), "RFC 9110, 7.2", probe, LAX_HOST)
        for name, value, probe in [
            ("empty", b" ", "COMP-HOST-EMPTY-VALUE"),
            ("blank-within", b" a b", ""),
            ("path", b" a/b", "COMP-HOST-WITH-PATH"),
            ("user", b" u@h", "COMP-HOST-WITH-USERINFO"),
            ("comma", b" h, other", "SMUG-MULTIPLE-HOST-COMMA"),
            ("comma-alone", b" h,other", "SMUG-MULTIPLE-HOST-COMMA"),
            ("open-bracket", b" [::1", ""),
            ("bracket-after", b" ::1]", ""),
            ("no-bracket", b" ::1", ""),
            ("port-of-letters", b" h:http", ""),
            ("two-ports", b" h:1:2", ""),
            ("port-alone", b" :80", ""),
            ("query", b" h?x", ""),
            ("fragment", b" h#x", ""),
            ("backslash", b" h\\x", ""),
            ("scheme", b" http://h", ""),
            ("percent", b" h%zz", ""),
            ("umlaut", b" h\xc3\xa4", ""),
        ]
    ),
    refused("blank-within-in-1.0", host(b" a b", b"HTTP/1.0"), "RFC 9110, 7.2", h11=LAX_HOST),
    *(
        taken(f"taken-{value.decode()}", host(b" " + value), "RFC 9110, 7.2")
        for value in [b"h:80", b"h:", b"[::1]:8080", b"[::ffff:1.2.3.4]", b"127.0.0.1:8080",
                      b"my_model.svc", b"EXAMPLE.com.", b"xn--hxajbheg2az3al.xn--jxalpdlp"]
    ),
]  # fmt: skip

HEADERS = [
    refused("no-name", get(b": y"), "RFC 9112, 5", "RFC9112-5-EMPTY-HEADER-NAME"),
    refused("brackets", get(b"Bad[Name: y"), "RFC 9112, 5", "RFC9112-5-INVALID-HEADER-NAME"),
    refused("no-colon", get(b"NoColonHere"), "RFC 9112, 5", "RFC9112-5-HEADER-NO-COLON"),
    refused("non-ascii-name", get("x-ë: y".encode()), "RFC 9112, 5", "MAL-NON-ASCII-HEADER-NAME"),
    refused("nul", get(b"x: a\x00b"), "RFC 9110, 5.5", "MAL-NUL-IN-HEADER-VALUE"),
    refused("controls", get(b"x: a\x01\x02b"), "RFC 9110, 5.5", "MAL-CONTROL-CHARS-HEADER",
            LAX_VALUE),
    refused("bare-cr", get(b"x: a\rb"), "RFC 9110, 5.5", "SMUG-BARE-CR-HEADER-VALUE"),
    refused("tab-in-name", length(b" 5\r\ncontent\tlength: 9"), "RFC 9112, 5", "NORM-TAB-IN-NAME"),
    taken("underscore", length(b" 5\r\ncontent_length: 9"), "another name", "NORM-UNDERSCORE-CL"),
    taken("underscore-coding", length(b" 5\r\ntransfer_encoding: chunked"), "another name",
          "NORM-UNDERSCORE-TE"),
    taken("non-ascii-value", get("x: ë".encode()), "RFC 9110, 5.5: obs-text"),
    taken("empty-value", get(b"x:"), "RFC 9112, 5", "COOK-EMPTY"),
    taken("two-types", length(b" 5\r\ncontent-type: a/b\r\ncontent-type: c/d"), "not ours to judge",
          "COMP-DUPLICATE-CT"),
    taken("128", get(*[b"x: y"] * 127), "Limits.headers"),
    refused("129", get(*[b"x: y"] * 128), "Limits.headers", status=431,
            h11="h11 has its own bound"),
    refused("10000", get(*[b"x: y"] * 10_000), "Limits.headers", "MAL-MANY-HEADERS",
            "h11 has its own bound", 431),
    taken("8-KiB", get(b"x: " + b"y" * 8000), "llama-server gets few headers, and no long one"),
    taken("60-KiB", get(b"x: " + b"y" * 60_000), "the same"),
    refused("64-KiB", get(b"x: " + b"y" * 70_000), "Limits.head", "MAL-LONG-HEADER-VALUE",
            "h11 has its own bound", 431),
    refused("64-KiB-endless", b"GET / HTTP/1.1\r\nhost: h\r\nx: " + b"y" * 70_000, "Limits.head",
            "COOK-OVERSIZED", status=431),
    refused("long-name", get(b"x" * 70_000 + b": y"), "Limits.head", "MAL-LONG-HEADER-NAME",
            "h11 has its own bound", 431),
    taken("cookies", get(b"cookie: a=1", b"cookie: ===;;;"), "ours to drop", "COOK-MALFORMED"),
]  # fmt: skip

LENGTHS = [
    taken("body", length(b" 5") + NEXT, "RFC 9112, 6.2", "COMP-POST-CL-BODY", statuses=(200, 200)),
    taken("zero", length(b" 0", b"") + NEXT, "RFC 9112, 6.2", "COMP-POST-CL-ZERO",
          statuses=(200, 200)),
    taken("none", post() + NEXT, "RFC 9112, 6.3", "COMP-POST-NO-CL-NO-TE", statuses=(200, 200)),
    taken("get-with-body", get(b"content-length: 5") + b"hello" + NEXT, "RFC 9110, 9.3.1",
          "SMUG-GET-CL-BODY-DESYNC", statuses=(200, 200)),
    taken("get-with-request", get(b"content-length: %d" % len(SMUGGLED)) + SMUGGLED + NEXT,
          "a body is no request", "SMUG-GET-CL-PREFIX-DESYNC", statuses=(200, 200)),
    taken("head-with-body",
          b"HEAD / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello" + NEXT,
          "a body is no request", "SMUG-HEAD-CL-BODY", statuses=(200, 200)),
    taken("options-with-body",
          b"OPTIONS / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello" + NEXT,
          "a body is no request", "SMUG-OPTIONS-CL-BODY-DESYNC", statuses=(200, 200)),
    taken("leading-zeros", length(b" 005"), "RFC 9110, 8.6: digits", "SMUG-CL-LEADING-ZEROS"),
    taken("5000-zeros", length(b" " + b"0" * 5000 + b"5"), "RFC 9110, 8.6: digits",
          h11="h11 has its own bound of digits"),
    taken("blanks", length(b"  5 \t"), "RFC 9110, 5.5", "SMUG-CL-TRAILING-SPACE"),
    taken("zero-and-blank", length(b" 0 \t", b""), "RFC 9110, 5.5"),
    taken("tab", length(b"\t5"), "RFC 9110, 5.5", "MAL-CL-TAB-BEFORE-VALUE"),
    taken("zero-and-rest", length(b" 0", b"X"), "the rest begins a request", "SMUG-CL0-BODY-POISON",
          "h11 waits for the whole line", (200, 400), True),
    *(
        refused(name, length(value, SMUGGLED), "RFC 9110, 8.6", probe, h11)
        for name, value, probe, h11 in [
            ("letters", b" abc", "RFC9112-6.1-CL-NON-NUMERIC", ""),
            ("plus", b" +5", "RFC9112-6.1-CL-PLUS-SIGN", ""),
            ("minus", b" -1", "SMUG-CL-NEGATIVE", ""),
            ("minus-zero", b" -0", "SMUG-CL-NEGATIVE-ZERO", ""),
            ("octal", b" 0o5", "SMUG-CL-OCTAL", ""),
            ("hex", b" 0x5", "SMUG-CL-HEX-PREFIX", ""),
            ("underscore", b" 1_0", "SMUG-CL-UNDERSCORE", ""),
            ("space", b" 1 0", "SMUG-CL-INTERNAL-SPACE", ""),
            ("comma", b" 5, 10", "SMUG-CL-COMMA-DIFFERENT", ""),
            ("comma-same", b" 5, 5", "SMUG-CL-COMMA-SAME", "h11 merges equal lengths"),
            ("empty", b" ", "MAL-CL-EMPTY", ""),
            ("overflow", b" 99999999999999999999", "MAL-CL-OVERFLOW", "h11 waits for the body"),
            ("letter-after", b" 5x", "SMUG-CLTE-SMUGGLED-GET-CL-NON-NUMERIC", ""),
            ("space-before-colon", b" 34\r\ncontent-length : 5", "NORM-SP-BEFORE-COLON-CL", ""),
            ("two", b" 5\r\ncontent-length: 10", "SMUG-DUPLICATE-CL", ""),
            ("twice", b" 5\r\ncontent-length: 5", "", "h11 merges equal lengths"),
        ]
    ),
    waits("too-short", length(b" 10", b""), "the body has not come", "COMP-POST-CL-UNDERSEND"),
    refused("huge", length(b" 999999999", b""), "the handler's limit", "MAL-POST-CL-HUGE-NO-BODY",
            "h11 waits for the body", 413),
]  # fmt: skip

CODINGS = [
    taken("chunked", chunked(b"5\r\nhello\r\n0\r\n\r\n") + NEXT, "RFC 9112, 7.1",
          "COMP-CHUNKED-BODY", statuses=(200, 200)),
    taken("two-chunks", chunked(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n") + NEXT, "RFC 9112, 7.1",
          "COMP-CHUNKED-MULTI", statuses=(200, 200)),
    taken("no-chunk", chunked(b"0\r\n\r\n") + NEXT, "RFC 9112, 7.1", "COMP-CHUNKED-EMPTY",
          statuses=(200, 200)),
    taken("upper-case-hex", chunked(b"A\r\nhelloworld\r\n0\r\n\r\n"), "RFC 9112, 7.1",
          "COMP-CHUNKED-HEX-UPPERCASE"),
    taken("upper-case", coding(b" Chunked"), "RFC 9112, 7"),
    taken("tab-before", coding(b" \tchunked "), "RFC 9110, 5.5"),
    refused("tab-after", coding(b" chunked\t"), "llhttp takes no tab there", h11="h11 takes it"),
    waits("no-last-chunk", chunked(b"5\r\nhello\r\n"), "the body has not ended",
          "COMP-CHUNKED-NO-FINAL"),
    *(
        refused(name, coding(value, *more), "RFC 9112, 6.1", probe, h11)
        for name, value, more, probe, h11 in [
            ("gzip", b" gzip", (), "COMP-UNKNOWN-TE-501", ""),
            ("gzip-chunked", b" gzip, chunked", (), "", ""),
            ("chunked-gzip", b" chunked, gzip", (), "SMUG-TE-NOT-FINAL-CHUNKED", ""),
            ("chunked-twice", b" chunked, chunked", (), "SMUG-TE-DOUBLE-CHUNKED", ""),
            ("identity", b" identity", (), "SMUG-TE-IDENTITY", ""),
            ("xchunked", b" xchunked", (), "SMUG-TE-XCHUNKED", ""),
            ("parameter", b" chunked;a=b", (), "SMUG-CHUNKED-WITH-PARAMS", ""),
            ("empty", b" ", (), "SMUG-TE-EMPTY-VALUE", ""),
            ("comma-after", b" chunked,", (), "SMUG-TE-TRAILING-COMMA", ""),
            ("comma-before", b" , chunked", (), "SMUG-TE-LEADING-COMMA", ""),
            ("vertical-tab", b" \x0bchunked", (), "SMUG-TE-VTAB", ""),
            ("form-feed", b" \x0cchunked", (), "SMUG-TE-FORMFEED", ""),
            ("nul", b" chunked\x00", (), "SMUG-TE-NULL", ""),
            ("fold", b"\r\n chunked", (), "SMUG-TE-OBS-FOLD", "h11 joins folded lines"),
            ("two", b" chunked", (b"transfer-encoding: identity",),
             "SMUG-TE-DUPLICATE-HEADERS", ""),
            ("space-before-colon", b" chunked", (b"transfer-encoding : identity",),
             "SMUG-TE-SP-BEFORE-COLON", ""),
        ]
    ),
    *(
        refused(f"{name}-and-length", coding(value, b"content-length: 5", body=b"0\r\n\r\n" + rest),
                "RFC 9112, 6.1", probe, h11)
        for name, value, rest, probe, h11 in [
            ("chunked", b" chunked", SMUGGLED, "SMUG-CLTE-SMUGGLED-GET",
             "h11 drops the length, as RFC 9112 lets it"),
            ("tab", b"\tchunked", SMUGGLED, "SMUG-TE-TAB-BEFORE-VALUE",
             "h11 drops the length, as RFC 9112 lets it"),
            ("case", b" cHuNkEd", b"X", "SMUG-TE-CASE-MISMATCH",
             "h11 drops the length, as RFC 9112 lets it"),
            ("trailing-space", b" chunked ", SMUGGLED, "SMUG-TE-TRAILING-SPACE",
             "h11 drops the length, as RFC 9112 lets it"),
            ("identity", b" identity", SMUGGLED, "SMUG-TE-IDENTITY", ""),
        ]
    ),
    refused("length-and-chunked", length(b" 6\r\ntransfer-encoding: chunked", b"0\r\n\r\nX"),
            "RFC 9112, 6.1", "SMUG-CLTE-DESYNC", "h11 drops the length, as RFC 9112 lets it"),
    refused("chunked-in-1.0",
            post(b"transfer-encoding: chunked", body=b"0\r\n\r\n", version=b"HTTP/1.0"),
            "RFC 9112, 6.1", "SMUG-TE-HTTP10", "h11 takes chunks from 1.0"),
]  # fmt: skip

DESYNCS = [
    *(
        refused(name, post(*lines, body=body + SMUGGLED), "RFC 9112, 6.1 and 6.3", probe, h11)
        for name, lines, body, probe, h11 in [
            ("length-then-chunked", (b"content-length: 5", b"transfer-encoding: chunked"),
             b"0\r\n\r\n", "SMUG-CLTE-CONN-CLOSE", "h11 drops the length, as RFC 9112 lets it"),
            ("chunked-then-length", (b"transfer-encoding: chunked", b"content-length: 5"),
             b"0\r\n\r\n", "SMUG-TECL-CONN-CLOSE", "h11 drops the length, as RFC 9112 lets it"),
            ("plus", (b"content-length: +40", b"transfer-encoding: chunked"), b"0\r\n\r\n",
             "SMUG-CLTE-SMUGGLED-GET-CL-PLUS", ""),
            ("case", (b"content-length: 40", b"transfer-encoding: Chunked"), b"0\r\n\r\n",
             "SMUG-CLTE-SMUGGLED-GET-TE-CASE-MISMATCH",
             "h11 drops the length, as RFC 9112 lets it"),
            ("trailing-space", (b"content-length: 40", b"transfer-encoding: chunked "),
             b"0\r\n\r\n", "SMUG-CLTE-SMUGGLED-GET-TE-TRAILING-SPACE",
             "h11 drops the length, as RFC 9112 lets it"),
            ("leading-comma", (b"content-length: 40", b"transfer-encoding: , chunked"),
             b"0\r\n\r\n", "SMUG-CLTE-SMUGGLED-GET-TE-LEADING-COMMA", ""),
            ("fold", (b"transfer-encoding:\r\n chunked", b"content-length: 40"), b"0\r\n\r\n",
             "SMUG-CLTE-SMUGGLED-GET-TE-OBS-FOLD", "h11 joins folded lines"),
            ("two-lengths", (b"content-length: 4", b"content-length: 40"), b"PING",
             "SMUG-DUPLICATE-CL-SMUGGLED-GET", ""),
            ("two-codings",
             (b"transfer-encoding: chunked", b"transfer-encoding: identity", b"content-length: 40"),
             b"0\r\n\r\n", "SMUG-TE-DUPLICATE-HEADERS-SMUGGLED-GET", ""),
            ("prefix", (b"transfer-encoding: chunked", b"content-length: 4"),
             b"23\r\n" + SMUGGLED + b"\r\n0\r\n\r\n", "SMUG-TECL-SMUGGLED-GET",
             "h11 drops the length, as RFC 9112 lets it"),
            ("too-long", (b"transfer-encoding: chunked", b"content-length: 30"), b"0\r\n\r\nX",
             "SMUG-TECL-DESYNC", "h11 drops the length, as RFC 9112 lets it"),
        ]
    ),
    refused("head", coding(b" chunked", b"content-length: 40",
                           body=b"0\r\n\r\n" + SMUGGLED.replace(b"GET", b"HEAD")),
            "RFC 9112, 6.1", "SMUG-CLTE-SMUGGLED-HEAD",
            "h11 drops the length, as RFC 9112 lets it"),
    refused("options-fold",
            b"OPTIONS / HTTP/1.1\r\nhost: h\r\ntransfer-encoding:\r\n chunked\r\n"
            b"content-length: 5\r\n\r\nhello",
            "RFC 9112, 5.2", "SMUG-OPTIONS-TE-OBS-FOLD", "h11 joins folded lines"),
    refused("comma-thrice", length(b" 5, 5, 5"), "RFC 9110, 8.6", "SMUG-CL-COMMA-TRIPLE",
            "h11 merges equal lengths"),
    taken("underscore", length(b" 5\r\nTransfer_Encoding: chunked") + NEXT, "another name",
          "SMUG-TRANSFER_ENCODING", statuses=(200, 200)),
    taken("expect", length(b" 5\r\nexpect: 100-continue"), "RFC 9110, 10.1.1",
          "SMUG-EXPECT-100-CL"),
    taken("options", b"OPTIONS / HTTP/1.1\r\nhost: h\r\ncontent-length: 5\r\n\r\nhello",
          "a body is no request", "SMUG-OPTIONS-CL-BODY"),
    taken("websocket-version", get(b"connection: upgrade", b"upgrade: websocket",
                                   b"sec-websocket-version: 99") + NEXT,
          "RFC 9110, 7.8: ignored", "COMP-UPGRADE-INVALID-VER", statuses=(200, 200)),
]  # fmt: skip

CHUNKS = [
    *(
        refused(name, chunked(body), "RFC 9112, 7.1", probe, h11)
        for name, body, probe, h11 in [
            ("size-underscore", b"1_0\r\nhello world!!!!!\r\n0\r\n\r\n", "SMUG-CHUNK-UNDERSCORE",
             ""),
            ("size-0x", b"0x5\r\nhello\r\n0\r\n\r\n", "SMUG-CHUNK-HEX-PREFIX", ""),
            ("size-plus", b"+5\r\nhello\r\n0\r\n\r\n", "SMUG-CHUNK-SIZE-PLUS", ""),
            ("size-plus-zero", b"+0\r\n\r\nX", "SMUG-CHUNK-INVALID-SIZE-DESYNC", ""),
            ("size-minus", b"-1\r\nhello\r\n0\r\n\r\n", "SMUG-CHUNK-NEGATIVE", ""),
            ("size-blank-before", b" 5\r\nhello\r\n0\r\n\r\n", "SMUG-CHUNK-LEADING-SP", ""),
            ("size-blank-after", b"5 \r\nhello\r\n0\r\n\r\n", "SMUG-CHUNK-SIZE-TRAILING-OWS",
             LAX_CHUNK),
            ("size-overflow", b"FFFFFFFFFFFFFFFF0\r\nhello\r\n0\r\n\r\n", "MAL-CHUNK-SIZE-OVERFLOW",
             "h11 waits for the chunk"),
            ("size-empty", b"\r\nhello\r\n0\r\n\r\n", "", ""),
            ("spill", b"5\r\nhello!!\r\n0\r\n\r\n", "SMUG-CHUNK-SPILL", ""),
            ("no-line-end", b"5\r\nhello0\r\n\r\n", "SMUG-CHUNK-MISSING-TRAILING-CRLF", ""),
            ("bare-lf-after-size", b"5\nhello\r\n0\r\n\r\n", "SMUG-CHUNK-LF-TERM", ""),
            ("bare-lf-after-data", b"5\r\nhello\n0\r\n\r\n", "SMUG-CHUNK-LF-TERM", ""),
            ("bare-cr-after-size", b"5\rhello\r\n0\r\n\r\n", "SMUG-CHUNK-BARE-CR-TERM", ""),
            ("bare-lf-extension", b"5;a\nhello\r\n0\r\n\r\n", "SMUG-CHUNK-EXT-LF", ""),
            ("bare-lf-trailer", b"0\r\nx: y\n\r\n", "SMUG-CHUNK-LF-TRAILER", LAX_CHUNK),
            ("extension-empty", b"5;\r\nhello\r\n0\r\n\r\n", "SMUG-CHUNK-BARE-SEMICOLON",
             LAX_EXTENSION),
            ("extension-bracket", b"5;bad[=x\r\nhello\r\n0\r\n\r\n", "SMUG-CHUNK-EXT-INVALID-TOKEN",
             LAX_EXTENSION),
            ("extension-nul", b"5;a=\x00\r\nhello\r\n0\r\n\r\n", "SMUG-CHUNK-EXT-CTRL",
             LAX_EXTENSION),
            ("extension-cr", b"5;a\rb\r\nhello\r\n0\r\n\r\n", "SMUG-CHUNK-EXT-CR", LAX_EXTENSION),
        ]
    ),
    taken("extension", chunked(b"5;ext=value\r\nhello\r\n0\r\n\r\n"), "RFC 9112, 7.1.1",
          "COMP-CHUNKED-EXTENSION"),
    taken("extension-quoted", chunked(b'5;a="b c"\r\nhello\r\n0\r\n\r\n'), "RFC 9112, 7.1.1"),
    taken("one-byte-each", chunked(b"1\r\nx\r\n" * 3000 + b"0\r\n\r\n"), "many, and all small"),
    taken("trailer", chunked(b"5\r\nhello\r\n0\r\nx-checksum: abc\r\n\r\n") + NEXT,
          "RFC 9112, 7.1.2", "COMP-CHUNKED-TRAILER-VALID", statuses=(200, 200)),
    *(
        taken(f"trailer-{trailer.partition(b':')[0].decode()}",
              chunked(b"0\r\n" + trailer + b"\r\n\r\n") + NEXT, "RFC 9110, 6.5.1: dropped", probe,
              statuses=(200, 200))
        for trailer, probe in [
            (b"authorization: Bearer k", "SMUG-TRAILER-AUTH"),
            (b"host: other", "SMUG-TRAILER-HOST"),
            (b"content-type: a/b", "SMUG-TRAILER-CONTENT-TYPE"),
            (b"content-encoding: gzip", ""),
            (b"x-forwarded-for: 127.0.0.1", ""),
            (b"x-wait-timeout: 1", ""),
        ]
    ),
    taken("300-trailers", chunked(b"0\r\n" + b"x: y\r\n" * 300 + b"\r\n") + NEXT,
          "dropped, and one answer each", statuses=(200, 200)),
    refused("trailers-of-54-KB", chunked(b"5\r\nhello\r\n0\r\n" + b"x: yz\r\n" * 9000 + b"\r\n"),
            "Limits.chunk_extra, also where they come at once", "", "h11 has its own bound", 431),
    refused("trailer-length", chunked(b"0\r\ncontent-length: 5\r\n\r\n"), "llhttp refuses it",
            "SMUG-TRAILER-CL", "h11 takes it as a trailer"),
    refused("trailer-coding", chunked(b"0\r\ntransfer-encoding: chunked\r\n\r\n"),
            "llhttp refuses it", "SMUG-TRAILER-TE", "h11 takes it as a trailer"),
]  # fmt: skip

CONNECTIONS = [
    taken("close", get(b"connection: close"), "RFC 9112, 9.6", "COMP-CONNECTION-CLOSE",
          closed=True),
    taken("1.0", get(version=b"HTTP/1.0"), "RFC 9112, 9.3", "COMP-HTTP10-DEFAULT-CLOSE",
          closed=True),
    taken("1.0-keep-alive", get(b"connection: keep-alive", version=b"HTTP/1.0"), "RFC 9112, C.2.2"),
    taken("after-close", get(b"connection: close") + SMUGGLED, "RFC 9112, 9.6", closed=True,
          h11="h11 reads no further either, and says nothing"),
    taken("pipelined", NEXT * 3, "RFC 9112, 9.3.2", "SMUG-PIPELINE-SAFE",
          statuses=(200, 200, 200)),
    taken("upgrade-post", post(b"connection: upgrade", b"upgrade: websocket") + NEXT,
          "RFC 9110, 7.8", "COMP-UPGRADE-POST", statuses=(200, 200)),
    taken("upgrade-unknown", get(b"connection: upgrade", b"upgrade: made-up/1.0") + NEXT,
          "RFC 9110, 7.8", "COMP-UPGRADE-UNKNOWN", statuses=(200, 200)),
    taken("upgrade-1.0", get(b"connection: upgrade", b"upgrade: h2c", version=b"HTTP/1.0"),
          "RFC 9110, 7.8", "COMP-UPGRADE-HTTP10", closed=True),
    taken("upgrade-unnamed", get(b"upgrade: websocket") + NEXT, "RFC 9110, 7.8",
          "COMP-UPGRADE-MISSING-CONN", statuses=(200, 200)),
    refused("expect-unknown", get(b"expect: 200-ok"), "RFC 9110, 10.1.1", "COMP-EXPECT-UNKNOWN",
            "h11 leaves this to its user", 417),
    taken("expect-unknown-1.0", get(b"expect: 200-ok", version=b"HTTP/1.0"), "RFC 9110, 10.1.1",
          closed=True),
    taken("expect-with-body", length(b" 5\r\nexpect: 100-Continue") + NEXT, "RFC 9110, 10.1.1",
          "SMUG-EXPECT-100-CL-DESYNC", statuses=(200, 200)),
    taken("expect-1.0",
          post(b"expect: 100-continue", b"content-length: 5", body=b"hello", version=b"HTTP/1.0"),
          "RFC 9110, 15.2: no 1xx to 1.0", "COMP-NO-1XX-HTTP10", closed=True),
    waits("expect-1.0-no-body",
          post(b"expect: 100-continue", b"content-length: 5", version=b"HTTP/1.0"),
          "RFC 9110, 15.2: no 1xx to 1.0", "COMP-NO-1XX-HTTP10"),
    taken("head", b"HEAD / HTTP/1.1\r\nhost: h\r\n\r\n" + NEXT, "RFC 9110, 9.3.2",
          "COMP-HEAD-NO-BODY", statuses=(200, 200)),
    taken("range", length(b" 5\r\nrange: bytes=0-10"), "RFC 9110, 14.2", "COMP-RANGE-POST"),
]  # fmt: skip

GROUPS = {
    "lines": LINES,
    "targets": TARGETS,
    "hosts": HOSTS,
    "headers": HEADERS,
    "lengths": LENGTHS,
    "codings": CODINGS,
    "desyncs": DESYNCS,
    "chunks": CHUNKS,
    "connections": CONNECTIONS,
}
CASES = [
    case._replace(name=f"{group}-{case.name}") for group, cases in GROUPS.items() for case in cases
]
