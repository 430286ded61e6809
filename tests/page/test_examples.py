import html
import json
import re
import shlex

import pytest

from app.page.assemble import assemble
from app.page.examples import KEY, Target, curl, curl_line, page

CHAT = Target("a/b", "http://h:1/a/b/v1", False, "YOUR_API_KEY")
EMBEDDING = Target("e", "http://h:1/e/v1", True, "")
HOSTILE = [
    "it's",
    '$(touch x) `id` !! \\ "q"',
    "line\nbreak\ttab",
    "' '' '\\''",
    "\x00\x7f é 🦙",
    "",
]


@pytest.mark.parametrize("prompt", HOSTILE)
@pytest.mark.parametrize("spelled", [curl, curl_line])
def test_a_shell_takes_every_prompt_as_it_is(prompt, spelled):
    words = shlex.split(spelled(CHAT, prompt).replace(" \\\n", " "))
    body = json.loads(words[words.index("-d") + 1])
    assert body.pop("max_tokens", None) == (64 if spelled is curl_line else None)
    assert body == {"model": "a/b", "messages": [{"role": "user", "content": prompt}]}
    assert words[1] == "http://h:1/a/b/v1/chat/completions"
    assert "Authorization: Bearer YOUR_API_KEY" in words


def test_an_embedding_model_without_a_key():
    words = shlex.split(curl_line(EMBEDDING, "x"))
    assert words[1].endswith("/e/v1/embeddings")
    assert json.loads(words[-1]) == {"model": "e", "input": "x"}
    assert not any("Authorization" in word for word in words)


def test_the_page_holds_what_it_shows_without_scripts():
    target = Target("</script><b>", "http://h/x/v1?a=$command&b=$targets", False, "")
    text = page([target, EMBEDDING])
    data = re.search(r'<script id="targets" type="application/json">(.*?)</script>', text, re.S)
    assert [found["model"] for found in json.loads(data[1])] == ["</script><b>", "e"]
    shown = re.search(r'<pre [^>]*id="command">(.*?)</pre>', text, re.S)[1]
    assert html.unescape(shown) == curl(target)
    assert "@@" not in text and "src=" not in text


@pytest.mark.parametrize("name", ["index.html", "example.html"])
def test_whoever_needs_a_key_is_told_how_to_get_it(name):
    assembled = assemble(name).decode()
    assert f'"{KEY}" ?' in assembled and "python -m app key TASK prints the key" in assembled


def test_the_login_says_it_too():
    assert b"<code>python -m app key TASK</code> prints the key" in assemble("index.html")
