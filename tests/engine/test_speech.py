from app.engine.output import LogLine
from app.engine.speech import KEPT_LINES, LAST_WORDS, Speech

STATE = "cmd_child_to_router:state:"
LOADING = STATE + '{"state":"loading","payload":{"stages":["a"],"current":"a","value":0.5}}'
READY = STATE + '{"state":"ready","payload":{"meta":{"n_ctx":77}}}'


def speech():
    lines, buffers = [], []
    return Speech(lines.append, buffers.append), lines, buffers


def test_the_protocol_tells_progress_and_ready():
    said, lines, _ = speech()
    assert not said.speaks_protocol and not said.ready.is_set()
    said.hear([LOADING])
    assert said.speaks_protocol and said.progress == 0.5 and not said.ready.is_set()
    said.hear([READY])
    assert said.ready.is_set() and said.context == 77 and lines == []


def test_lines_and_buffers_are_passed_on():
    said, lines, buffers = speech()
    rows = '[{"kind": "device", "name": "CUDA0", "self": 2}]'
    said.hear(["plain", f'{{"type": "fit_memory_breakdown", "data": {{"rows": {rows}}}}}'])
    assert lines == [LogLine("info", "plain")] and buffers == [{"CUDA0": 2 << 20}]


def test_a_failed_load_is_explained_by_its_first_complaints_a_crash_by_its_last():
    said, _, _ = speech()
    said.hear(["all is well", "error: 1", "error: 2", "error: 3"])
    assert said.complaints(loading=True) == "error: 1; error: 2"
    assert said.complaints(loading=False) == "error: 2; error: 3"


def test_what_it_complained_of_long_before_does_not_explain_a_crash(monkeypatch):
    said, _, _ = speech()
    said.hear(["error parsing grammar: words of a caller"])
    later = said.last + LAST_WORDS + 1
    monkeypatch.setattr("app.engine.speech.clock.now", lambda: later)
    assert said.complaints(loading=False) == ""
    said.hear(["CUDA error: out of memory"])
    assert said.complaints(loading=False) == "CUDA error: out of memory"


def test_without_complaints_there_are_no_words_and_many_are_not_kept():
    said, _, _ = speech()
    assert said.complaints(loading=True) == ""
    said.hear([f"error: {n}" for n in range(KEPT_LINES + 5)])
    assert said.complaints(loading=True) == "error: 5; error: 6"


def test_every_line_is_a_sign_of_life(monkeypatch):
    said, _, _ = speech()
    monkeypatch.setattr("app.engine.speech.clock.now", lambda: said.last + 9)
    before = said.last
    said.hear([])
    assert said.last == before + 9
