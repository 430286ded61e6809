"""The real llama-server on the tiny model, through the real openai client."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import httpx
import openai
import psutil
import pytest

from app.engine.capabilities import find
from app.form.fields import MODEL_FIELDS
from app.models import tiny_writer
from tests.end_to_end.conftest import PATIENCE, ROOT, environment_of, free_port
from tests.pipes import pipe

pytestmark = pytest.mark.quick

# Two threads that share a busy core wait for each other.
ONE = "--set", "Model/threads=1"
HELLO = [{"role": "user", "content": "Hello"}]


def client(app, name="tiny", **options):
    options = {"api_key": "none", "max_retries": 0, "timeout": PATIENCE, **options}
    path = f"/{name}" if name else ""
    app.clients.append(openai.OpenAI(base_url=f"{app.url}{path}/v1", **options))
    return app.clients[-1]


def get(app, path):
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(app.url + path, timeout=PATIENCE) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def status(app):
    return get(app, "/api/status")[1]["models"][0]


def until(condition, timeout=PATIENCE):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.02)


def chat(openai_client, tokens=8, **options):
    return openai_client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=tokens, **options
    )


def test_chat_and_the_tasks_own_record(start, tmp_path):
    """1. Chats with and without stream. 2. The app ends. Result: the record says what we saw."""
    app = start(recorded=True).ready()
    api = client(app)
    prompt = generated = 0
    latencies = []
    for tokens in (3, 8):
        begun = time.monotonic()
        answer = chat(api, tokens)
        latencies.append((time.monotonic() - begun) * 1000)
        assert answer.model == "tiny" and answer.choices[0].message.content
        prompt += answer.usage.prompt_tokens
        generated += answer.usage.completion_tokens
    for options in ({"stream_options": {"include_usage": True}}, {}):
        begun = time.monotonic()
        *_, last = chunks = list(chat(api, 5, stream=True, **options))
        latencies.append((time.monotonic() - begun) * 1000)
        words = [c for c in chunks if c.choices and c.choices[0].delta.content]
        assert len(words) == 5
        prompt += last.usage.prompt_tokens if options else answer.usage.prompt_tokens
        generated += 5
    assert status(app)["requests"] == 4
    until(lambda: "numpy" in mapped(app))  # by the SDK

    # What is no chat is refused, and counted nowhere.
    command = ["curl", "-s", "-w", "%{http_code}", f"{app.url}/v1/chat/completions", "-d"]
    assert subprocess.check_output([*command, "{no"]).endswith(b"400")
    (tmp_path / "large").write_bytes(b" " * (2 << 20))
    answer = subprocess.check_output([*command, f"@{tmp_path / 'large'}"])
    assert answer.endswith(b"413") and b"1048576 bytes" in answer
    assert app.end() == 143

    folder, packed = sorted((app.clearml / "offline").iterdir())
    assert packed.name == f"{folder.name}.zip" and packed.stat().st_size
    assert [path.stat().st_mode & 0o077 for path in (folder, packed)] == [0, 0]
    parameters, scalars = app.record()
    assert parameters["Model/continuous_batching"] == "true"
    assert parameters["Model/context_size"] == ""  # a clone shows every field
    by_title = {}
    for event in scalars:
        by_title.setdefault((event["metric"], event["variant"]), []).append(event["value"])
    for series in ("tiny", "total"):
        assert by_title["Total Number of Requests", series][-1] == 4
        assert by_title["Generated Tokens", series][-1] == generated
        assert by_title["Prompt Tokens", series][-1] == prompt
        assert any(value > 0 for value in by_title["Tokens per Second", series])
        assert all(0 < value <= max(latencies) for value in by_title["Latency", series])


def test_every_way_to_the_model(start):
    app = start("--set", "Model/endpoint_name=a/b").ready()
    body = json.dumps({"model": "a/b", "messages": HELLO, "max_tokens": 1})
    for path in ("/a/b/v1", "/v1", "/service/0123abcd/v1", "/service/0123abcd/a/b/v1"):
        answer = subprocess.run(
            ["curl", "-sS", f"{app.url}{path}/chat/completions", "-d", body],
            capture_output=True,
            check=True,
        )
        assert json.loads(answer.stdout)["usage"]["completion_tokens"] == 1
    assert [m.id for m in client(app, "a/b").models.list()] == ["a/b"]
    with pytest.raises(openai.NotFoundError, match="a/b"):
        chat(client(app, name=None))
    assert get(app, "/health") == (200, {"status": "ok"})
    assert get(app, "/ready") == (200, {"status": "ready"})
    line = app.line("^curl .*")[0]  # works as it is printed
    answer = subprocess.run(["sh", "-c", line + " -sS"], capture_output=True, check=True)
    assert json.loads(answer.stdout)["choices"][0]["message"]["content"]
    assert re.search(r"^a/b +ready +4096 +4 +\d+ MB +http://", app.output, re.M)


def test_every_field_is_taken_by_the_real_llama_server(start):
    """Each field of the model's with a value, on the binary at hand. Result: it serves, and the
    defaults of the sampling are what the form says."""
    fields = {
        "verbose": "true",
        "no_mmap": "true",
        "continuous_batching": "false",
        "gpu_layers": "0",
        "repeat_penalty": "1.1",
        "temperature": "0.7",
        "top_k": "20",
        "top_p": "0.9",
        "min_p": "0.1",
        "xtc_probability": "0.2",
        "xtc_threshold": "0.3",
        "typical_p": "0.95",
        "repeat_last_n": "32",
        "context_size": "2048",
        "rope_freq_base": "10000",
        "rope_scaling": "yarn",
        "rope_freq_scale": "0.5",
        "yarn_ext_factor": "-1",
        "yarn_attn_factor": "1",
        "yarn_beta_fast": "32",
        "yarn_beta_slow": "1",
        "threads": "1",
        "threads_batch": "2",
        "tensor_split": "3,2",
        "parallel": "2",
        "numa": "distributed",
        "split_mode": "layer",
        "flash_attention": "on",
        "kv_cache_type": "q8_0",
        "speculative": "auto",
        "main_gpu": "0",
        "extra_args": "--no-warmup",
        "max_concurrent_requests": "3",
        "endpoint_name": "tiny",
    }
    unset = {field.name for field in MODEL_FIELDS} - fields.keys()
    assert unset == {
        "aliases",
        "cli",
        "embedding",
        "mmproj",
        "model",
        "pin",
        "preload",
        "priority",
        "ttl",
    }  # these have tests of their own
    app = start(*(text for n, v in fields.items() for text in ("--set", f"Model/{n}={v}"))).ready()
    assert app.line(r"^tiny +ready +2048 +2 ")
    assert chat(client(app)).usage.completion_tokens == 8
    (pid,) = app.children
    argv = psutil.Process(pid).cmdline()
    for flag, value in (
        ("--temperature", "0.7"),
        ("--numa", "distribute"),
        ("--yarn-ext-factor", "0"),
        ("--load-mode", "none"),
        ("--verbosity", "4"),
    ):
        assert argv[argv.index(flag) + 1] == value


def test_slots_with_a_context_of_their_own(start):
    """By `--no-kv-unified` in Extra Arguments, as docs/memory.md says. Result: a prompt that is
    longer than a slot's part of the context is refused, a shorter one is served."""
    slots = ["--set", "Model/context_size=4096", "--set", "Model/parallel=4"]
    app = start(*slots, "--set", "Model/extra_args=--no-kv-unified").ready()
    (pid,) = app.children
    assert not {"--kv-unified", "-kvu"} & set(psutil.Process(pid).cmdline())
    assert chat(client(app)).usage.completion_tokens == 8
    with pytest.raises(openai.BadRequestError) as raised:
        client(app).completions.create(model="tiny", prompt="a b " * 700, max_tokens=8)
    assert "context" in str(raised.value)


def test_an_older_llama_server(start, tmp_path):
    """One that knows no Unix sockets, no JSON log, no fitting and no child protocol. Result: it is
    reached over TCP on this machine, with its key, and started, killed and stopped all the same."""
    real = find("", os.environ)
    old = tmp_path / "llama-server"
    old.write_text(
        f"""#!/bin/sh
        if [ "$1" = --help ]; then
            {real} --help | grep -v -e --log-jsonl -e --fit -e --kv-unified -e --load-mode |
                sed 's/UNIX socket/other/'
            exit
        fi
        unset LLAMA_SERVER_ROUTER_PORT
        exec {real} "$@"
        """
    )
    old.chmod(0o755)
    app = start(LLAMA_SERVER=str(old)).ready()
    (pid,) = app.children
    argv = psutil.Process(pid).cmdline()
    assert argv[argv.index("--host") + 1] == "127.0.0.1"
    assert not {"--fit", "--log-jsonl", "--kv-unified"} & set(argv)
    url = f"http://127.0.0.1:{argv[argv.index('--port') + 1]}/v1/models"
    answer = subprocess.run(["curl", "-s", "-w", "%{http_code}", url], capture_output=True)
    assert answer.stdout.endswith(b"401")  # only we have the key
    assert chat(client(app)).usage.completion_tokens == 8
    psutil.Process(pid).kill()
    app.line("killed by signal 9")
    assert chat(client(app)).usage.completion_tokens == 8
    assert app.end() == 143


def mapped(app):
    """The files that are in its memory."""
    with open(f"/proc/{app.process.pid}/maps") as maps:
        return maps.read()


def test_without_clearml_nothing_of_it_is_loaded_or_written(start):
    nobody = "http://127.0.0.1:9"
    app = start("--no-clearml", offline=False, alone=True, CLEARML_API_HOST=nobody).ready()
    assert chat(client(app)).usage.completion_tokens == 8
    assert "numpy" not in mapped(app)
    assert app.end() == 143
    assert "ClearML" not in app.output and not app.clearml.exists()


def test_embeddings(start):
    app = start("--set", "Model/embedding=true", recorded=True).ready()
    api = client(app)
    long = "hello world " * 300  # more tokens than llama-server's default batch takes
    answer = api.embeddings.create(model="tiny", input=["hello", long], encoding_format="float")
    assert [len(item.embedding) for item in answer.data] == [128, 128]
    assert answer.usage.prompt_tokens > 512
    line = app.line("^curl .*")[0]
    assert b"embedding" in subprocess.check_output(["sh", "-c", line + " -sS"])
    app.end()
    _, scalars = app.record()
    prompts = [e["value"] for e in scalars if e["metric"] == "Prompt Tokens"]
    assert prompts[-1] >= answer.usage.prompt_tokens


def test_a_key_is_asked_for(start):
    app = start(LLAMACPP_API_KEY="key-for-one,key-for-two").ready()
    with pytest.raises(openai.AuthenticationError):
        chat(client(app))
    assert chat(client(app, api_key="key-for-two")).usage.completion_tokens == 8
    assert "key-for" not in app.output
    for pid in app.children:
        process = psutil.Process(pid)
        assert "key-for" not in str(process.cmdline()) + str(process.environ())


def test_what_exceeds_the_limit_is_denied_and_a_client_that_leaves_frees_its_slot(start, endless):
    """1. One stream takes the only slot and the only place. 2. The next is denied. 3. The first
    leaves. Result: the next is served, minutes before the first would have ended."""
    limits = ["--set", "Model/max_concurrent_requests=1", "--set", "Model/parallel=1"]
    app = start("--model", str(endless), *ONE, "--set", "Model/endpoint_name=tiny", *limits).ready()
    api = client(app)
    stream = chat(api, -1, stream=True)
    assert next(iter(stream)) and status(app)["in_flight"] == 1
    with pytest.raises(openai.RateLimitError) as denied:
        chat(api)
    assert denied.value.response.headers["retry-after"] == "1"
    stream.close()
    until(lambda: status(app)["in_flight"] == 0)
    assert chat(api).usage.completion_tokens == 8
    assert status(app)["denied"] == 1


def test_nothing_is_worked_out_to_its_end_for_nobody(start, endless):
    """A request that is not streamed, and whose client leaves at once: the next one has the only
    slot long before its 100,000 tokens are made."""
    limits = ["--set", "Model/parallel=1", "--set", "General/debug=true"]
    app = start("--model", str(endless), *ONE, "--set", "Model/endpoint_name=tiny", *limits).ready()
    api = client(app)
    with pytest.raises(openai.APITimeoutError):
        chat(api.with_options(timeout=0.5, max_retries=0), 100_000)
    assert chat(api).usage.completion_tokens == 8
    assert int(app.line(r"stop processing: n_tokens = (\d+)")[1]) < 100_000


def test_every_kill_of_llama_server_is_noticed(start, endless):
    """1. A stream runs, and llama-server is killed. Result: the stream ends with an error, the next
    request is served by a new process, and the app says what happened. 2. It is killed twice more.
    Result: the only model comes back by itself, and is watched again."""
    app = start("--model", str(endless), *ONE, "--set", "Model/endpoint_name=tiny").ready()
    api = client(app)
    (first,) = app.children
    stream = chat(api, -1, stream=True)
    next(iter(stream))
    psutil.Process(first).kill()
    with pytest.raises(openai.APIError):
        for _ in stream:
            pass
    assert chat(api).usage.completion_tokens == 8
    (second,) = app.children
    assert second != first
    app.line("killed by signal 9")
    for _ in range(2):
        (child,) = app.children
        psutil.Process(child).kill()
        until(lambda gone=child: app.children and gone not in app.children)
        until(lambda: get(app, "/ready")[0] == 200)
        assert chat(api).usage.completion_tokens == 8
    assert app.output.count("killed by signal 9") == 3
    assert app.end() == 143


def test_a_stream_ends_within_the_drain(start):
    """SIGTERM during a stream that ends in time. Result: all of it arrives, new ones do not."""
    app = start("--set", "General/drain_timeout=120", *ONE).ready()
    api = client(app)
    stream = chat(api, 2000, stream=True)
    next(iter(stream))
    app.process.send_signal(signal.SIGTERM)
    app.line("stopping: stopped by SIGTERM")
    words = sum(bool(c.choices and c.choices[0].delta.content) for c in stream)
    assert words >= 1990
    assert app.wait() == 143
    assert app.folders == []


def test_a_stream_over_the_drain_is_told(start, endless):
    slow = ["--set", "General/drain_timeout=2", "--set", "Model/endpoint_name=tiny"]
    app = start("--model", str(endless), *ONE, *slow).ready()
    stream = chat(client(app), -1, stream=True)
    next(iter(stream))
    children = app.children
    app.process.send_signal(signal.SIGINT)
    app.line("stopping")
    until(lambda: get(app, "/health") == (503, {"status": "draining"}))
    with pytest.raises(openai.APIError):
        chat(client(app))
    with pytest.raises(openai.APIError, match="the instance is stopping"):
        for _ in stream:
            pass
    assert app.wait() == 130
    assert not any(psutil.pid_exists(pid) for pid in children) and app.folders == []


def test_a_second_signal_ends_at_once(start, endless):
    """Though there is an hour to drain."""
    given = ["--set", "Model/endpoint_name=tiny", "--set", "General/drain_timeout=3600"]
    app = start("--model", str(endless), *ONE, *given).ready()
    stream = chat(client(app), -1, stream=True)
    next(iter(stream))
    children = app.children
    app.process.send_signal(signal.SIGTERM)
    app.line("stopping")
    assert app.end(signal.SIGTERM) == 143
    until(lambda: not any(psutil.pid_exists(pid) for pid in children))
    assert app.folders == []
    stream.close()


def test_sigkill_leaves_no_llama_server_and_the_next_start_sweeps(start):
    app = start().ready()
    children, (folder,) = app.children, app.folders
    assert len(children) == 1
    app.end(signal.SIGKILL)
    until(lambda: not any(psutil.pid_exists(pid) for pid in children))
    assert folder.exists()
    other = start(XDG_RUNTIME_DIR=str(app.runtime)).ready()
    assert not folder.exists()
    assert other.end() == 143


def test_idle_ends_with_0_and_says_so_but_not_during_a_stream(start, endless):
    """1. A stream lasts longer than the limit. 2. It ends. Result: the instance ends once it has
    been idle for that long, and not before."""
    limit = ["--set", "Idle/idle_time_limit=0.001", "--set", "Model/endpoint_name=tiny"]
    app = start("--model", str(endless), *ONE, *limit).ready()
    children = app.children
    stream = chat(client(app), -1, stream=True)
    iterator = iter(stream)
    begun = time.monotonic()
    while time.monotonic() - begun < 4.5:
        next(iterator)
        get(app, "/health")
    assert app.process.poll() is None
    stream.close()
    assert app.wait() == 0
    assert "idle for 3.6 seconds, the limit" in app.output
    assert not any(psutil.pid_exists(pid) for pid in children) and app.folders == []


def test_guesses_are_counted(start):
    """A text that repeats itself is guessed in advance. Result: /metrics says how often that was
    right."""
    app = start("--set", "Model/speculative=auto", "--set", "Model/endpoint_name=tiny").ready()
    said = "the cat sat on the mat and " * 12
    body = {"prompt": said, "max_tokens": 300, "temperature": 0}
    told = {}
    for _ in range(3):
        httpx.post(app.url + "/v1/completions", json=body, timeout=PATIENCE)
        rows = httpx.get(app.url + "/metrics").text.splitlines()
        told = dict(row.rsplit(" ", 1) for row in rows if row.startswith("llamacpp_draft_tokens"))
    drafted = float(told['llamacpp_draft_tokens_total{model="tiny"}'])
    accepted = float(told['llamacpp_draft_tokens_accepted_total{model="tiny"}'])
    assert 0 < accepted <= drafted
    share = status(app)["speculation"]["acceptance"]
    assert share == round(100 * accepted / drafted, 1)


def test_a_draft_model_guesses(start, tmp_path):
    """A model is its own draft model, and then another one is. Result: all guesses are right; or
    none is, which is said once."""
    for seed in (1, 2):
        tiny_writer.write(tmp_path / f"{seed}.gguf", seed=seed)
    body = {"prompt": "hello", "max_tokens": 200, "temperature": 0}
    given = ["--set", f"Model/model={tmp_path / '1.gguf'}", *ONE]
    for seed, good in ((1, True), (2, False)):
        app = start(*given, "--set", f"Model/speculative={tmp_path / f'{seed}.gguf'}").ready()
        for _ in range(3):
            httpx.post(app.url + "/v1/completions", json=body, timeout=PATIENCE)
        found = status(app)["speculation"]
        assert found["acceptance"] > 90 if good else found["acceptance"] < 10
        slower = [line for line in app.output.splitlines() if "makes it slower" in line]
        assert (len(slower), bool(found["slower"])) == ((0, False) if good else (1, True))
        app.end()


def test_a_draft_model_that_cannot_guess_is_refused_before_the_start(start, tmp_path):
    tiny_writer.write(tmp_path / "d.gguf", vocabulary=640)
    app = start("--set", f"Model/speculative={tmp_path / 'd.gguf'}")
    assert app.wait() == 2
    assert "Model/speculative: the draft model" in app.output and "640 tokens" in app.output


def test_nobody_has_to_read_what_the_app_writes(tmp_path):
    """Its standard output and errors are a full pipe."""
    reader, writer = pipe()
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "app", "--offline", "--port", str(port), *ONE]
    command += ["--cache-dir", str(tmp_path / "cache"), "--host", "127.0.0.1"]
    app = subprocess.Popen(
        command, cwd=ROOT, env=environment_of(tmp_path), stdout=writer, stderr=writer
    )
    try:
        until(lambda: answers(url + "/ready"))
        asked = {"prompt": "a", "max_tokens": 2}
        assert httpx.post(url + "/v1/completions", json=asked, timeout=PATIENCE).json()["choices"]
        app.terminate()
        assert app.wait(PATIENCE) == 143
    finally:
        app.kill()
        app.wait()
        os.close(reader)
        os.close(writer)


def answers(url):
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False
