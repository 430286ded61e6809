"""Speculative decoding by a file's own heads for multi-token prediction, with the real
llama-server."""

import re

import httpx
import psutil
import pytest

from app.models import gguf
from app.planning.draft import heads_context
from tests import architectures
from tests.end_to_end.conftest import PATIENCE
from tests.end_to_end.test_serving import ONE, status, until

pytestmark = pytest.mark.quick

MIB = 1 << 20
CONTEXT = 4096
GIVEN = *ONE, "--set", "Model/endpoint_name=tiny", "--set", f"Model/context_size={CONTEXT}"
AUTO = "--set", "Model/speculative=auto"
BUFFER = re.compile(r"(KV|compute|output) buffer size = +([\d.]+) MiB")


def ask(app, words):
    body = {"messages": [{"role": "user", "content": words}], "max_tokens": 100, "temperature": 0}
    answer = httpx.post(f"{app.url}/v1/chat/completions", json=body, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    return answer.json()


def text_of(answer):
    return answer["choices"][0]["message"]["content"]


def kinds_of_guesses(app):
    (child,) = app.children
    argv = psutil.Process(child).cmdline()
    return [argv[n + 1] for n, text in enumerate(argv) if text == "--spec-type"]


def counters(app):
    rows = httpx.get(app.url + "/metrics", timeout=PATIENCE).text.splitlines()
    found = dict(row.rsplit(" ", 1) for row in rows if row.startswith("llamacpp_draft_tokens"))
    return {name.partition("{")[0]: float(value) for name, value in found.items()}


def test_heads_of_the_file_guess(start, tmp_path):
    """A file with a head for multi-token prediction is asked without guesses and with. Result: the
    answers are the same; some guesses are right, and are counted; of its memory as much is planned
    as the head's context takes."""
    path = tmp_path / "heads.gguf"
    architectures.write(path, "hy_v3")
    given = "--set", f"Model/model={path}", *GIVEN
    prompts = ["hello world", "the model in memory", "time", "one large request"]
    app = start(*given).ready()
    assert kinds_of_guesses(app) == []
    right = [text_of(ask(app, words)) for words in prompts]
    app.end()
    app = start(*given, *AUTO, "--set", "Model/verbose=true").ready()
    assert kinds_of_guesses(app) == ["draft-mtp"]
    answers = [ask(app, words) for words in prompts]
    assert [text_of(answer) for answer in answers] == right
    drafted = sum(answer["timings"]["draft_n"] for answer in answers)
    accepted = sum(answer["timings"]["draft_n_accepted"] for answer in answers)
    assert 0 < accepted < drafted
    assert counters(app) == {
        "llamacpp_draft_tokens_total": drafted,
        "llamacpp_draft_tokens_accepted_total": accepted,
    }
    assert status(app)["speculation"]["acceptance"] == round(100 * accepted / drafted, 1)
    app.end()
    taken = dict(BUFFER.findall(app.output.partition("MTP draft context")[2]))
    planned = heads_context(gguf.verify([path]), CONTEXT)
    assert 1 < sum(map(float, taken.values())) <= planned / MIB


def test_heads_in_a_file_of_their_own_guess(start, tmp_path):
    """A model without its head, whose head is named as its draft model. Result: it guesses as the
    whole file does."""
    for name, without in (("whole", None), ("trunk", "blk.1."), ("head", "blk.0.")):
        architectures.write(tmp_path / f"{name}.gguf", "hy_v3", without=without)
    found = []
    for name, guesses in (("whole", "auto"), ("trunk", tmp_path / "head.gguf")):
        model = "--set", f"Model/model={tmp_path / name}.gguf"
        app = start(*model, *GIVEN, "--set", f"Model/speculative={guesses}").ready()
        assert kinds_of_guesses(app) == ["draft-mtp"]
        answer = ask(app, "hello world")
        numbers = [answer["timings"][key] for key in ("draft_n", "draft_n_accepted")]
        found.append((text_of(answer), numbers))
        app.end()
    assert found[0] == found[1] and found[0][1][1]


def test_heads_that_this_llama_server_cannot_run(start, tmp_path):
    """A file with a head of an architecture whose heads llama.cpp keeps without use. Result: the
    model comes, guesses by the text, and the console says so once; it comes again in the same
    way."""
    path = tmp_path / "heads.gguf"
    architectures.write(path, "exaone4")
    app = start("--set", f"Model/model={path}", *GIVEN, *AUTO).ready()
    assert kinds_of_guesses(app) == ["ngram-mod"]
    assert text_of(ask(app, "hello"))
    (child,) = app.children
    psutil.Process(child).kill()
    until(lambda: app.children not in ([], [child]) and status(app)["state"] == "ready")
    assert kinds_of_guesses(app) == ["ngram-mod"]
    assert app.output.count("cannot run the heads") == 1
