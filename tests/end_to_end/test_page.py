"""Our page in a real browser, before the real app and llama-server."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import openai
import pytest
from axe_playwright_python.sync_playwright import Axe

from app.engine.capabilities import find
from app.models import tiny
from app.page import examples
from app.page.examples import Target
from tests.end_to_end.browser import PROGRAM, Gateway, another_site, chromium
from tests.end_to_end.conftest import PATIENCE, free_port, starting
from tests.end_to_end.test_gateway import nginx
from tests.end_to_end.test_serving import chat, client, get, until

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="there is no chromium")

HOSTILE = (
    'it\'s $(touch /tmp/owned) `id` "quoted" \\n \\ !! %s ${HOME}',
    "' ; rm -rf / ; '",
    "two\nlines\tand a tab, é 漢 🦙",
    "</script><img src=x onerror=alert(1)>",
    "'''",
    "-d @/etc/passwd",
)
# Loads nothing before there is a file `gate`, so that there is something to be seen of it.
HELD_BACK = """#!/bin/sh
case "$*" in *--alias*) while [ ! -e {gate} ]; do sleep 0.1; done ;; esac
exec {program} "$@"
"""


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def two(tmp_path_factory, cache):
    """The app with two models that say little, for tests that leave it as it was."""
    with starting(tmp_path_factory.mktemp("two"), cache) as start:
        # Pages at other ports of this machine may call: those that a proxy shows.
        allowed = "--set", "General/allowed_hosts=127.0.0.1"
        yield start(*two_models(cache, **SHORT), *allowed).ready()


@pytest.fixture
def open_page(browser):
    """Open a page; at the end nothing was wrong in it."""
    contexts, wrong = [], []

    def opener(url, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console", lambda said: wrong.append(said.text) if "Security Policy" in said.text else 0
        )
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.goto(url)
        return page

    yield opener
    for context in contexts:
        context.close()
    assert wrong == []


def wait_for(page, script, timeout=PATIENCE):
    """Playwright's own way uses eval(), which the page's policy forbids."""
    deadline = time.monotonic() + timeout
    while not page.evaluate(script):
        assert time.monotonic() < deadline, f"{script}\n{page.locator('body').inner_text()}"
        page.wait_for_timeout(50)


# The instance's status as the page shows it, in order: some last for seconds only, and a busy
# machine may not let a test look in time.
RECORD = """() => {
    const status = document.getElementById("status");
    window.seen = [status.textContent];
    new MutationObserver((changes) => {
        const texts = changes.flatMap((change) => [...change.addedNodes]).map((node) => node.data);
        window.seen.push(...texts);
    }).observe(status, { childList: true });
}"""
# The page is told of an instance that serves, for however long nobody has used it.
SERVES = "['active', 'idle'].includes(document.getElementById('status').textContent)"

# A tiny model never says that it is done.
SHORT = {"cli": "-n 6"}


def two_models(cache, **more):
    path = str(tiny.ensure(cache))
    models = [
        {"model": path, "endpoint_name": "alpha", "aliases": "gpt-4o,org/chat", **more},
        {"model": path, "endpoint_name": "team/beta-2.x", **more},
    ]
    return ["--set", f"General/models={json.dumps(models)}"]


def held_back(folder):
    """A llama-server, and the file that it waits for."""
    program, gate = folder / "llama-server", folder / "gate"
    program.write_text(HELD_BACK.format(program=find("", os.environ), gate=gate))
    program.chmod(0o755)
    return str(program), gate


def overview(app):
    return get(app, "/api/status")[1]


def texts(page, selector):
    return page.locator(selector).all_inner_texts()


def test_from_setting_up_to_the_idle_end(start, cache, tmp_path, open_page):
    """The page is open all along. Result: it shows every step, wakes nothing, and does not keep
    the instance from its idle end."""
    program, gate = held_back(tmp_path)
    given = ["--set", "Idle/idle_time_limit=0.005", "--set", "Idle/last_action_interval=5"]
    app = start(*given, *two_models(cache), LLAMA_SERVER=program)
    page = open_page(app.url)
    wait_for(page, "document.getElementById('status').textContent === 'setting up'")
    page.evaluate(RECORD)
    pills = "[...document.querySelectorAll('#rows .pill')].map((pill) => pill.innerText)"
    loading = "pills.filter((text) => text.startsWith('loading')).length === 2"
    wait_for(page, f"((pills) => {loading})({pills})")  # they begin one after the other
    page.locator("#rows [role=progressbar]").first.wait_for()  # drawn with the next event
    gate.touch()
    app.ready()
    wait_for(
        page,
        "[...document.querySelectorAll('#rows .pill')].every((p) => p.textContent === 'ready')",
    )
    chat(client(app, "alpha"), 5)
    wait_for(page, "document.querySelector('#rows [data-label=Requests]').textContent === '1'")
    assert page.locator("#limit").inner_text() == "18 s"
    assert app.wait() == 0
    wait_for(page, "document.getElementById('status').textContent === 'not connected'")
    seen = ",".join(page.evaluate("window.seen"))
    assert re.fullmatch("setting up(,active,idle)+(,stopping)?,not connected", seen)
    assert "The page tries again" in page.locator("#trouble").inner_text()


def test_the_commands_work_in_a_real_shell_for_every_prompt(two, open_page, tmp_path):
    """Through a gateway with a path of its own, opened without its last slash. Result: what the
    model is asked is the prompt as it was typed."""
    with Gateway(two.url, "/service/abc") as gateway:
        page = open_page(gateway.url)
        wait_for(page, "document.querySelectorAll('#model option').length === 2")
        for number, prompt in enumerate(HOSTILE):
            name = ("alpha", "team/beta-2.x")[number % 2]
            page.locator("#model").select_option(name)
            page.locator("#prompt").fill(prompt)
            page.locator("#tab-curl").click()
            line = page.locator("#command").inner_text()
            assert line == examples.curl(
                Target(name, f"{gateway.url}/{name}/v1", False, ""), prompt
            )
            answer = subprocess.run(["sh", "-c", f"{line} -sS"], capture_output=True, cwd=tmp_path)
            assert "choices" in json.loads(answer.stdout), answer
            path, body = gateway.posted[-1]
            assert path == f"/{name}/v1/chat/completions"
            assert json.loads(body)["messages"] == [{"role": "user", "content": prompt}]
    assert not os.path.exists("/tmp/owned") and not list(tmp_path.glob("app*"))


@pytest.mark.parametrize("number", [0, 2])
def test_the_python_and_javascript_commands_work(two, open_page, number):
    with Gateway(two.url) as gateway:
        page = open_page(gateway.url)
        wait_for(page, "document.querySelectorAll('#model option').length === 2")
        page.locator("#prompt").fill(HOSTILE[number])
        programs = {"python": [sys.executable, "-c"]}
        if shutil.which("node"):
            programs["javascript"] = ["node", "--input-type=module", "-e"]
        for language, program in programs.items():
            page.locator(f"#tab-{language}").click()
            command = page.locator("#command").inner_text()
            done = subprocess.run([*program, command], capture_output=True, timeout=PATIENCE)
            assert done.returncode == 0 and len(done.stdout) > 20, done
            _, body = gateway.posted[-1]
            assert json.loads(body)["messages"][0]["content"] == HOSTILE[number]


def test_an_embedding_models_commands(start, open_page):
    app = start("--set", "Model/embedding=true").ready()
    page = open_page(app.url)
    wait_for(page, "document.getElementById('command').textContent.includes('embeddings')")
    line = page.locator("#command").inner_text()
    assert b'"embedding"' in subprocess.check_output(["sh", "-c", f"{line} -sS"])


def test_a_chat(start, cache, open_page):
    app = start(*two_models(cache, **SHORT), "--set", "General/debug=true").ready()
    page = open_page(app.url)
    wait_for(page, "document.querySelectorAll('#model option').length === 2")
    page.locator("#tab-chat").click()
    page.locator("#prompt").fill(HOSTILE[3])
    page.locator("#prompt").press("Enter")
    wait_for(page, "/^6 tokens/.test(document.getElementById('chat-state').textContent)")
    said = page.locator("#talk li")
    assert HOSTILE[3] in said.nth(0).inner_text()
    assert len(said.nth(1).inner_text()) > len("assistant") + 5
    assert page.locator("#talk img").count() == 0  # it is text, not markup
    page.locator("#send").click()
    wait_for(page, "document.querySelectorAll('#talk li').length === 4")
    wait_for(page, "!document.getElementById('send').disabled")
    page.locator("#forget").click()
    assert said.count() == 0
    # The models' own log lines, for one of them only.
    page.locator("#log-of").select_option("alpha")
    wait_for(page, "document.querySelectorAll('#log div').length > 3")
    assert {*texts(page, "#log .who")} == {"alpha"}


def test_a_chat_can_be_stopped(start, endless, open_page):
    app = start("--model", str(endless), "--set", "Model/endpoint_name=endless").ready()
    page = open_page(app.url)
    wait_for(page, "document.querySelectorAll('#model option').length === 1")
    page.locator("#tab-chat").click()
    height = "document.getElementById('halt').getBoundingClientRect().y"
    begun = page.evaluate(f"() => {{ document.getElementById('send').click(); return {height}; }}")
    wait_for(page, "document.querySelectorAll('#talk li').length === 2")
    wait_for(page, "document.querySelector('#talk li.assistant').textContent.length > 500")
    assert page.evaluate(height) == begun  # or who clicks it while the answer grows misses it
    page.locator("#halt").click()
    wait_for(page, "document.getElementById('chat-state').textContent === 'Stopped.'")
    until(lambda: overview(app)["models"][0]["in_flight"] == 0)


def test_a_new_conversation_drops_the_answer_under_way(start, endless, open_page):
    app = start("--model", str(endless), "--set", "Model/endpoint_name=endless").ready()
    page = open_page(app.url)
    posted = []
    page.on("request", lambda sent: posted.append(sent.post_data) if sent.post_data else 0)
    wait_for(page, "document.querySelectorAll('#model option').length === 1")
    page.locator("#tab-chat").click()
    for prompt in ("first", "second"):
        page.locator("#prompt").fill(prompt)
        page.locator("#send").click()
        wait_for(page, "document.querySelector('#talk li.assistant')?.textContent.length > 50")
        page.locator("#forget").click()
        wait_for(page, "!document.getElementById('send').disabled")
        assert page.locator("#talk li").count() == 0
        assert page.locator("#chat-state").inner_text() == ""
        until(lambda: overview(app)["models"][0]["in_flight"] == 0)
    said = [json.loads(body)["messages"] for body in posted]
    assert said == [[{"role": "user", "content": prompt}] for prompt in ("first", "second")]


def test_models_are_unloaded_loaded_and_pinned_by_hand(start, cache, open_page):
    app = start(*two_models(cache), "--set", "General/disk_swapping=true").ready()
    page = open_page(app.address)
    states = "[...document.querySelectorAll('#rows .pill')].map((p) => p.textContent).join()"
    wait_for(page, f"{states} === 'ready,ready'")
    assert texts(page, "#rows .aliases") == ["gpt-4o, org/chat", ""]
    page.get_by_role("button", name="Unload alpha").click()
    wait_for(page, f"{states} === 'cold,ready'")
    time.sleep(1.0)  # what an open page asks for wakes nothing
    models = overview(app)["models"]
    assert [model["state"] for model in models] == ["cold", "ready"]
    # Without the prompt cache, which is a thousand times the model.
    needs = round((models[0]["need"]["host"] - models[0]["prompt_cache"]) / 1e6)
    assert texts(page, "#rows td.memory")[0] == f"needs {needs} MB" and 0 < needs < 500
    page.get_by_role("button", name="Park team/beta-2.x").click()
    wait_for(page, f"{states}.startsWith('cold,') && !{states}.includes('ready')")
    page.get_by_role("button", name="Load alpha", exact=True).click()
    wait_for(page, f"{states}.startsWith('ready,')")
    pin = page.get_by_role("button", name="Pin alpha")
    pin.click()
    wait_for(page, "document.querySelector('[aria-label=\"Pin alpha\"]').ariaPressed === 'true'")
    assert overview(app)["models"][0]["pinned"]
    pin.click()
    until(lambda: not overview(app)["models"][0]["pinned"])


def asked_to_unload(url, **headers):
    """The answer's status."""
    request = urllib.request.Request(f"{url}/api/models/alpha/unload", b"", headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def press_pin(page, pinned):
    """Once the page may; its result."""
    button = "document.querySelector('[aria-label=\"Pin alpha\"]')"
    wait_for(page, f"{button} && !{button}.disabled")
    page.get_by_role("button", name="Pin alpha").click()
    wait_for(page, f"{button}.ariaPressed === '{pinned}'")


def test_without_a_key_only_who_has_the_token_changes_models(two, open_page, tmp_path):
    """Through a plain `proxy_pass`, which adds no header. Result: a caller there is no admin, nor
    is a program here; the address that the console prints makes a page one, and no log has it."""
    behind, port = two.url.rpartition(":")[2], free_port()
    (token_file,) = two.folders[0].glob("token-*")
    assert token_file.read_text() == two.token and token_file.stat().st_mode & 0o777 == 0o600
    with nginx(tmp_path, port, behind):
        assert asked_to_unload(two.url) == asked_to_unload(f"http://127.0.0.1:{port}") == 403
        page = open_page(f"http://127.0.0.1:{port}/")
        wait_for(page, "document.querySelectorAll('#rows tr').length === 2")
        pin = page.get_by_role("button", name="Pin alpha")
        assert pin.is_disabled() and page.locator("#admin-hint").is_visible()
        # The same tab, where the page already is, opens the address as the proxy has it.
        page.goto(f"http://127.0.0.1:{port}/#token={two.token}")
        press_pin(page, "true")
        assert page.url == f"http://127.0.0.1:{port}/"
    page = open_page(two.address)
    for pinned in ("false", "true", "false"):
        press_pin(page, pinned)
        assert page.url == f"{two.url}/" and page.locator("#admin-hint").is_hidden()
        page.reload()  # this tab keeps the token
    wait_for(page, "/needs the token in/.test(document.getElementById('log').textContent)")
    assert two.token not in page.content()
    log = (tmp_path / "access.log").read_text()
    assert "POST /api/models/alpha/unload" in log and "POST /api/models/alpha/pin" in log
    assert two.token not in log
    assert [line for line in two.lines if two.token in line] == [two.line("#token=").string]


POST_BLINDLY = """(url) => fetch(url, {
    method: "POST", mode: "no-cors", headers: {"content-type": "text/plain"},
    body: JSON.stringify({prompt: "x", max_tokens: 1}),
}).then(() => null)"""


def test_another_sites_page_reaches_nothing_but_by_a_link(start, open_page):
    """Without a key. Result: neither a blind POST from its own origin nor its own name for this
    machine (DNS rebinding) reaches a model or a page of ours; a link opens our page."""
    app = start().ready()
    port = app.url.rpartition(":")[2]
    with another_site(f'<a href="{app.url}/">models</a>') as url:
        page = open_page(url)
        page.evaluate(POST_BLINDLY, f"{app.url}/v1/completions")
        rebound = open_page(f"http://evil.example:{port}/")
        assert "LLAMACPP_API_KEY" in rebound.locator("body").inner_text()
        rebound.evaluate(POST_BLINDLY, "/v1/completions")
        told = rebound.evaluate("fetch('/api/status').then((answer) => answer.status)")
        assert told == 403 and overview(app)["models"][0]["requests"] == 0
        page.get_by_role("link").click()
        wait_for(page, "document.querySelectorAll('#rows tr').length === 1")
        page.evaluate(POST_BLINDLY, f"{app.url}/v1/completions")
        assert overview(app)["models"][0]["requests"] == 1


def test_a_key_is_asked_for_and_kept_in_this_tab(start, open_page):
    app = start(LLAMACPP_API_KEY="the-key").ready()
    assert get(app, "/api/events")[0] == get(app, "/metrics")[0] == 401
    page = open_page(app.url)
    page.locator("#key-cancel").click()
    time.sleep(1.5)
    assert not page.locator("#key").is_visible()  # nobody is asked over and over
    page.locator("#ask-key").click()
    for key, ends in (("wrong", "key needed"), ("the-key", "serves")):
        page.locator("#key").wait_for(state="visible")
        page.locator("#key").fill(key)
        page.locator("#key").press("Enter")
        if ends == "serves":
            wait_for(page, SERVES)
    assert "the-key" not in page.content()
    assert "YOUR_API_KEY" in page.locator("#command").inner_text()
    page.reload()
    wait_for(page, SERVES)
    page.locator("#ask-key").click()  # another one is tried at once
    page.locator("#key").fill("old")
    page.locator("#key").press("Enter")
    wait_for(page, "document.getElementById('status').textContent === 'key needed'")
    page.locator("#key").wait_for(state="visible")
    page.locator("#key").fill("the-key")
    page.locator("#key").press("Enter")
    wait_for(page, SERVES)
    page.get_by_role("button", name="Unload tiny").click()
    wait_for(page, "document.querySelector('#rows .pill').textContent !== 'ready'")


def test_the_callers_of_a_keys_file_have_a_table(start, open_page, tmp_path):
    """1. The page is opened with the token, which is the instance's own key here. 2. A caller and a
    person on the page send a request each. Result: the table says so."""
    keys = tmp_path / "keys.toml"
    digest = hashlib.sha256(b"alice-key").hexdigest()
    keys.write_text(f'[alice]\nsha256 = "{digest}"')
    kept = "--set", "General/keep_prompts=true"
    app = start(*kept, LLAMACPP_API_KEYS_FILE=str(keys)).ready()
    page = open_page(app.address)
    wait_for(page, SERVES)
    assert chat(client(app, api_key="alice-key")).usage.completion_tokens == 8
    page.locator("#tab-chat").click()
    page.locator("#send").click()
    rows = "[...document.querySelectorAll('#caller-rows tr')]"
    wait_for(page, f"{rows}.map((row) => row.cells[1].textContent).join() === '1,1'")
    assert page.locator("#caller-rows th").all_inner_texts() == ["alice", "other"]
    assert page.locator("#caller-rows tr").first.locator("td").last.inner_text() == "8"
    wait_for(page, "document.querySelectorAll('#request-rows tr').length === 2")
    assert {row.split("\t")[2] for row in texts(page, "#request-rows tr")} == {"alice", "–"}
    asked = urllib.request.Request(f"{app.url}/api/history", headers={"X-Api-Key": "alice-key"})
    with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
        own = json.loads(answer.read())
    assert [row["caller"] for row in own["requests"]] == ["alice"]
    assert json.loads(own["requests"][0]["prompt"])["messages"]
    page.locator("#request-rows summary").last.click()
    assert json.loads(page.locator("#request-rows pre").last.inner_text())["messages"]
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="light"),
        pytest.param({"color_scheme": "dark"}, id="dark"),
        pytest.param({"viewport": {"width": 360, "height": 740}}, id="phone"),
    ],
)
def test_axe_finds_nothing(two, open_page, options):
    page = open_page(two.url, **options)
    wait_for(page, "document.querySelectorAll('#rows tr').length === 2")
    wait_for(page, "document.querySelectorAll('.plot').length >= 8")

    def check():
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()

    check()
    page.locator("#tab-chat").click()
    page.locator("#send").click()
    wait_for(page, "document.querySelectorAll('#talk li').length === 2")
    wait_for(page, "!document.getElementById('send').disabled")
    check()
    page.locator("#ask-key").click()
    check()
    width = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert width[0] <= width[1]  # nothing sticks out


def test_the_keyboard_alone(two, open_page):
    page = open_page(two.url)
    wait_for(page, "document.querySelectorAll('#rows tr').length === 2")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "models"
    page.locator("#tab-curl").focus()
    page.keyboard.press("ArrowRight")
    assert "from openai import" in page.locator("#command").inner_text()
    page.keyboard.press("End")
    assert page.locator("#chat-panel").is_visible() and not page.locator("#command").is_visible()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-curl"
    theme = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.locator("#theme").focus()
    page.keyboard.press("Space")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != theme


def test_the_plots_grow_and_come_back_whole(start, cache, open_page):
    app = start(*two_models(cache)).ready()
    first = open_page(app.url)
    wait_for(first, "document.querySelectorAll('.plot canvas').length >= 8")
    chat(client(app, "alpha"), 5)
    latest = "document.querySelector('.plot .canvas')?.ariaLabel"
    wait_for(first, f"/total 1, alpha 1, team.beta-2.x 0/.test({latest})")
    second = open_page(app.url)
    wait_for(second, f"/total 1, alpha 1/.test({latest})")
    rows = second.evaluate("document.querySelector('.plot .canvas').chart.data[0].length")
    assert rows >= 1


@pytest.mark.parametrize("allowed", [True, False])
def test_copying_in_a_frame_without_an_origin(two, open_page, allowed):
    """As ClearML shows a debug sample. Result: the command is in the clipboard, whether the frame
    may use its interface or not."""
    target = Target("a", "http://h/a/v1", False, "YOUR_GENERATED_TOKEN")
    page = open_page(two.url, permissions=["clipboard-read", "clipboard-write"])
    html = examples.page([target, Target("e", "http://h/e/v1", True, "")])
    page.goto(f"{two.url}/health")
    page.evaluate(
        """([html, allow]) => {
            const frame = document.createElement("iframe");
            frame.sandbox = "allow-scripts";
            if (allow) frame.allow = "clipboard-write";
            frame.srcdoc = html;
            frame.style = "width: 800px; height: 600px";
            document.body.replaceChildren(frame);
        }""",
        [html, allowed],
    )
    frame = page.frame_locator("iframe")
    frame.locator("#prompt").fill(HOSTILE[0])
    frame.get_by_role("button", name="Copy").click()
    frame.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == examples.curl(target, HOSTILE[0])
    frame.locator("#model").select_option("e")
    assert "/embeddings" in frame.locator("#command").inner_text()
    frame.locator("#tab-python").click()
    assert re.search(r"embeddings\.create", frame.locator("#command").inner_text())


def test_what_was_asked_and_which_model_was_in_memory(start, cache, open_page):
    """1. A request streams, another one fails, a model is unloaded and asked for again. Result: the
    page that was open all along and one that is opened later show all of it; no text of a prompt
    is on them."""
    app = start(*two_models(cache)).ready()
    first = open_page(app.address)
    wait_for(first, SERVES)
    secret = [{"role": "user", "content": "a secret prompt"}]
    asked = {"model": "alpha", "messages": secret, "max_tokens": 5, "stream": True}
    assert list(client(app, "alpha").chat.completions.create(**asked))
    with pytest.raises(openai.APIStatusError):
        client(app, "alpha").embeddings.create(model="alpha", input="x")
    first.get_by_role("button", name="Unload alpha").click()
    wait_for(first, "document.querySelectorAll('#timeline .eviction').length === 1")
    chat(client(app, "alpha"), 7)
    late = open_page(app.url)
    for page in (first, late):
        wait_for(page, "document.querySelectorAll('#request-rows tr').length === 3")
        newest, failed, oldest = texts(page, "#request-rows tr")
        assert newest.split("\t")[-1] == "7" and oldest.split("\t")[-1] == "5"
        assert "501" in failed and "embeddings" in failed
        parts = page.locator("#request-rows .parts")
        assert "wake" in parts.first.get_attribute("aria-label")
        said = parts.last.get_attribute("aria-label")
        assert "wake" not in said and "prefill" in said and "generate" in said
        page.locator("#requests-failed").check()
        assert page.locator("#request-rows tr").count() == 1
        assert page.locator("#requests-count").inner_text() == "1 of the last 3"
        page.locator("#requests-failed").uncheck()
        page.locator("#requests-of").select_option("team/beta-2.x")
        assert page.locator("#request-rows tr").count() == 0
        lanes = texts(page, "#timeline .of")
        assert lanes == ["alpha", "team/beta-2.x"]
        alpha = page.locator("#timeline .strip").first
        assert "left 1 times" in alpha.get_attribute("aria-label")
        why = alpha.locator(".eviction").get_attribute("title")
        assert "stopping" in why and "a person asked for it" in why
        assert "secret" not in page.content()


def test_a_busy_instances_table_is_made_as_it_is_read(two, open_page):
    """Rows come as a person scrolls, and names are text, whatever they are."""
    page = open_page(two.url)
    wait_for(page, SERVES)
    name = "<img src=x onerror=alert(1)>"
    made = """(name) => {
        const request = { time: 1, model: name, caller: name, operation: "chat", status: 200,
            latency: 2, wait: 0.5, woke: 0.25, prefill: 0.5, prompt_tokens: 1, cached_tokens: 0,
            generated_tokens: 1 };
        const parts = { box: "requests", body: "request-rows", of: "requests-of",
            failed: "requests-failed", counted: "requests-count" };
        for (const key in parts) parts[key] = document.getElementById(parts[key]);
        const table = new Requests(parts);
        table.add(Array.from({ length: 700 }, (_, index) => ({ ...request, time: index })));
        const move = { time: Date.now() / 1000, model: name, state: "failed", tier: "disk" };
        const get = (id) => document.getElementById(id);
        new Timeline(get("timeline"), get("timeline-begin")).add([{ ...move, reason: name }]);
    }"""
    page.evaluate(made, name)
    assert page.locator("#request-rows tr").count() == 40
    assert page.locator("#requests-count").inner_text() == "500 of the last 500"
    for _ in range(30):
        page.evaluate("const box = document.getElementById('requests'); box.scrollTop = 1e9")
        page.wait_for_timeout(30)
    assert page.locator("#request-rows tr").count() == 500
    said = page.locator("#request-rows .parts").first.get_attribute("aria-label")
    assert said == "queue 250 ms, wake 250 ms, prefill 500 ms, generate 1.00 s"
    assert name in texts(page, "#request-rows tr")[0]
    assert name in texts(page, "#timeline .of")
    assert page.locator("main img").count() == 0
