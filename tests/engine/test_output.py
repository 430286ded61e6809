import pytest

from app.engine.output import MAX_LINE, Buffers, LineBuffer, Loading, LogLine, Ready, read


@pytest.mark.parametrize(
    "chunks, expected",
    [
        pytest.param([b"a\nb\n"], ["a", "b"], id="whole-lines"),
        pytest.param([b"a", b"b\nc"], ["ab", "c"], id="split-line-and-unfinished-end"),
        pytest.param([b"\xe2\x82", b"\xac\n"], ["\u20ac"], id="split-character"),
        pytest.param([b"\xff\n"], ["\ufffd"], id="undecodable"),
        pytest.param([b"a\r\n"], ["a"], id="crlf"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_line_buffer(chunks, expected):
    buffer = LineBuffer()
    lines = [line for chunk in chunks for line in buffer.feed(chunk)]
    assert lines + buffer.flush() == expected


def test_an_endless_line_does_not_grow_without_bound():
    buffer = LineBuffer()
    assert buffer.feed(b"x" * (MAX_LINE + 1)) == ["x" * (MAX_LINE + 1)]
    assert buffer.flush() == []


STATE = "cmd_child_to_router:state:"
READY = STATE + '{"state":"ready","payload":{"id":"tiny","meta":{"n_ctx":4096}}}'
HALF = STATE + (
    '{"state":"loading","payload":{"stages":["text_model"],"current":"text_model","value":0.5}}'
)
SECOND = STATE + (
    '{"state":"loading","payload":{"stages":["text_model","mmproj"],"current":"mmproj","value":0.5}}'
)
GPU = (
    '{"type":"fit_memory_breakdown","data":{"unit":"MiB","rows":['
    '{"kind":"device","name":"CUDA0 (H200)","total":9,"free":1,"self":300,"unaccounted":5},'
    '{"kind":"device","name":"CUDA1","self":7},{"kind":"host","name":"Host","self":10}]}}'
)
FIT = '{"type":"fit_memory_breakdown","data":{"unit":"MiB","rows":[{"kind":"host","self":10}]}}'


@pytest.mark.parametrize(
    "line, expected",
    [
        ("", None),
        (READY, Ready(4096)),
        (STATE + '{"state":"ready"}', Ready(0)),
        (HALF, Loading(0.5)),
        (SECOND, Loading(0.75)),
        (STATE + '{"state":"loading","payload":{"stages":[],"value":1}}', Loading(0.0)),
        (STATE + '{"state":"sleeping"}', None),
        (STATE + "{broken", None),
        ('{"type":"log","time":2,"level":"warn","msg":"srv x\\n"}', LogLine("warn", "srv x")),
        (FIT, Buffers({})),
        (GPU, Buffers({"CUDA0": 300 << 20, "CUDA1": 7 << 20})),
        ('{"type":"fit_memory_breakdown","data":[1]}', Buffers({})),
        ('{"type":"other"}', LogLine("trace", '{"type":"other"}')),
        ("{not json", LogLine("trace", "{not json")),
        ("0.00.005.653 I srv up", LogLine("info", "srv up")),
        ("0.00.005.653 E srv down", LogLine("error", "srv down")),
        (
            "error: invalid argument: --no-mmap",
            LogLine("error", "error: invalid argument: --no-mmap"),
        ),
        ("warning: no GPU", LogLine("info", "warning: no GPU")),
    ],
)
def test_read(line, expected):
    assert read(line) == expected
