"""Models from a hub: the real huggingface_hub, in the app's own process, against a local one."""

import hashlib
import json
import os
import signal
import struct
from base64 import b64encode
from collections import Counter
from http.server import BaseHTTPRequestHandler
from zlib import compress, crc32

import pytest
from huggingface_hub import try_to_load_from_cache

from app.models import part_file, tiny_writer
from tests import projector
from tests.clearml_api import ApiServer
from tests.end_to_end.conftest import checked, environment_of, finished, refused
from tests.end_to_end.test_serving import chat, client, get, until
from tests.hub import Hub, Storage
from tests.threaded import ThreadedServer

REFERENCE = "org/repo/dir/m.gguf"
HEADER = 5 << 20  # bytes that are read of the large file before it is fetched, at most


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    tiny_writer.write(folder / "m.gguf")
    tiny_writer.write(folder / "old.gguf", seed=7)
    tiny_writer.write(folder / "s.gguf", shard_tensors=8)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(weights):
    files = {f"dir/{name}": data for name, data in weights.items() if name != "old.gguf"}
    files["README.md"] = b"#"
    repositories = {"org/repo": files, "org/repo@v1": {"old.gguf": weights["old.gguf"]}}
    repositories["org/secret"] = files
    with Hub(repositories, {"org/secret": "hf_right"}) as server:
        yield server


@pytest.fixture
def serve(start, hub, tmp_path):
    """Start with a reference and an empty cache of the test's own."""

    def run(reference, **environment):
        cache = ["--cache-dir", str(tmp_path / "cache"), "--set", "Model/endpoint_name=tiny"]
        return start(*cache, "--model", reference, HF_ENDPOINT=hub.url, **environment)

    return run


def asked(hub):
    """The files of which bytes were asked, each as often as it was. All of these are so small that
    they come in one request: one for each model whose header is read, and one to fetch it."""
    return [
        path.rpartition("/")[2]
        for method, path, _ in hub.requests
        if method == "GET" and "resolve" in path
    ]


REFERENCES = [  # three files: m.gguf, s.gguf in its three parts, and old.gguf
    REFERENCE,
    "org/repo/d*/m.gguf",
    "org/repo@main/dir/m.gguf",
    "org/repo/dir/s-*.gguf",
    "org/repo/dir/s-00001-of-00003.gguf",
    "org/repo@v1/old.gguf",
    "org/repo/v1/old.gguf",
    "org/repo/v1/o*.gguf",
]


def test_files_are_fetched_once_whatever_names_them(start, hub, tmp_path):
    """1. Each kind of reference: a file, a set of parts by its first one, globs, revisions. Result:
    each is served, and every file of a revision was fetched once. 2. The same again. Result: all
    are found in the cache. 3. And where the hub must not be asked."""
    models = [{"model": ref, "endpoint_name": f"m{n}"} for n, ref in enumerate(REFERENCES)]
    given = [
        "--cache-dir",
        str(tmp_path / "cache"),
        "--set",
        f"General/models={json.dumps(models)}",
    ]
    app = start(*given, HF_ENDPOINT=hub.url).ready()
    for n in range(len(REFERENCES)):
        assert chat(client(app, f"m{n}")).usage.completion_tokens == 8
    told = [model["reference"] for model in get(app, "/api/status")[1]["models"]]
    assert told == REFERENCES and "m0 downloaded 1.0 MB in" in app.output
    app.end()
    fetched = Counter(asked(hub))
    parts = {f"s-0000{n}-of-00003.gguf": 2 + 1 for n in (1, 2, 3)}
    assert fetched == {"m.gguf": 3 + 1, "old.gguf": 3 + 1, **parts}
    for more in ({}, {"HF_HUB_OFFLINE": "1"}):
        again = start(*given, HF_ENDPOINT=hub.url, **more).ready()
        assert "found in the cache (1.0 MB)" in again.output and " MB in" not in again.output
        again.end()
    assert Counter(asked(hub)) == fetched


@pytest.mark.parametrize(
    ("header", "value"),
    [("ETag", '"../../../../../outside"'), ("ETag", '"/tmp/outside"'), ("X-Repo-Commit", "../..")],
)
def test_a_hostile_hub_names_no_file_outside_of_the_cache(hub, tmp_path, header, value):
    hub.told[header] = value
    given = "--model", REFERENCE, "--cache-dir", str(tmp_path / "cache")
    done = checked(tmp_path, *given, HF_ENDPOINT=hub.url)
    refused(done, "Model/model: ", "is no ETag" if header == "ETag" else "ValueError")


def picture(side=32):
    """A PNG as a data URL."""
    rows = b"".join(b"\0" + bytes(range(0, 255, 8))[:side] * 3 for _ in range(side))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", compress(rows))
    return "data:image/png;base64," + b64encode(png + chunk(b"IEND", b"")).decode()


def test_models_that_see(start, hub, tmp_path):
    """Model and projector from the hub, by the form's fields, and by a pasted command line with
    the address of the projector's page. Result: a picture is read."""
    projector.write(tmp_path / "mmproj.gguf")
    hub.repositories["org/repo"]["mmproj.gguf"] = (tmp_path / "mmproj.gguf").read_bytes()
    url = "https://huggingface.co/org/repo/resolve/main/mmproj.gguf"
    models = [
        {"model": REFERENCE, "mmproj": "org/repo/mmproj.gguf", "endpoint_name": "field"},
        {"cli": f"llama-server -m {REFERENCE} --mmproj-url {url} -c 2048", "endpoint_name": "cli"},
    ]
    given = [
        "--cache-dir",
        str(tmp_path / "cache"),
        "--set",
        f"General/models={json.dumps(models)}",
    ]
    app = start(*given, HF_ENDPOINT=hub.url).ready()
    content = [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": picture()}},
    ]
    messages = [{"role": "user", "content": content}]
    for name in ("field", "cli"):
        answer = client(app, name).chat.completions.create(
            model=name, messages=messages, max_tokens=4
        )
        assert answer.usage.completion_tokens == 4


@pytest.fixture
def check(hub, tmp_path):
    def run(reference, **environment):
        cache = "--cache-dir", str(tmp_path / "cache")
        environment = {"HF_ENDPOINT": hub.url, **environment}
        return checked(tmp_path, *cache, "--model", reference, **environment)

    return run


def test_a_wrong_reference_fails_at_once(serve, hub):
    app = serve("org/repo/dir/n.gguf")
    assert app.wait() == 2
    assert "no such file; it has 'dir/m.gguf'" in app.output and "Traceback" not in app.output
    assert "\nready" not in app.output and asked(hub) == []


@pytest.mark.parametrize(
    "reference, problem",
    [
        ("org/repo/dir/s-00001-of-00009.gguf", "looked for 'dir/s-00001-of-00009.gguf'"),
        ("tests/conftest.py", "(for what is here write './tests/conftest.py')"),
        ("org/none/m.gguf", "no such repository (set HF_TOKEN if it is private"),
        ("org/repo/dir/*.gguf", "matches dir/m.gguf, dir/s-00001-of-00003.gguf"),
        ("org/repo/dir/z*.gguf", "'dir/z*.gguf' matches no file"),
        ("org/repo@v2/dir/m.gguf", "no such revision"),
        ("org/repo@v1/dir/m.gguf", "(revision v1) at http"),
        ("org/repo/dir/s-00002-of-00003.gguf", "name dir/s-00001-of-00003.gguf"),
    ],
)
def test_what_was_looked_for_is_said(check, hub, reference, problem):
    refused(check(reference), problem)
    assert asked(hub) == []


def test_a_private_repository_takes_the_environments_token_and_nothing_shows_it(serve, hub):
    app = serve("org/secret/dir/m.gguf", HF_TOKEN="hf_wrong")
    assert app.wait() == 2
    assert "gated" in app.output
    app = serve("org/secret/dir/m.gguf", HF_TOKEN="hf_right", recorded=True).ready()
    (child,) = app.children
    for name in ("cmdline", "environ"):
        with open(f"/proc/{child}/{name}", "rb") as file:
            assert b"hf_right" not in file.read()
    app.end()
    assert "hf_right" not in app.output and "hf_wrong" not in app.output
    assert "hf_right" not in str(app.record())


def test_a_hub_that_may_not_be_asked(check):
    done = check(REFERENCE, HF_HUB_OFFLINE="1")
    refused(done, "not in the cache, and HF_HUB_OFFLINE forbids to ask")


@pytest.mark.parametrize("path", ["m.gguf", "L*.gguf"])
def test_a_hub_that_cannot_be_asked_at_all(check, hub, path):
    refused(check(f"org/repo/{path}", HF_ENDPOINT="http://a..b"), f"looked for {path!r}")


class NoHub(ThreadedServer):
    """Another web server: it answers everything alike."""

    def __init__(self, status, body=b"", **headers):
        self.answer = status, body, headers

    def handler(self):
        status, body, headers = self.answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815
            log_message = lambda *_: None  # noqa: E731

        return Handler


@pytest.mark.parametrize(
    "path, status, told",
    [
        ("m.gguf", 404, "what answers there is no hub"),
        ("L*.gguf", 404, "what answers there is no hub"),
        ("m.gguf", 200, "what answers there is no hub"),
        ("m.gguf", 400, "it answers with status 400"),
    ],
)
def test_what_answers_and_is_no_hub(check, path, status, told):
    with NoHub(status) as other:
        refused(check(f"org/repo/{path}", HF_ENDPOINT=other.url), f"not in the cache, and {told}")


def test_a_hub_that_asks_for_a_day_is_not_waited_for(check):
    with NoHub(429, Retry_After="100000") as other:
        done = check("org/repo/m.gguf", HF_ENDPOINT=other.url)
    told = "not in the cache, and it answers with status 429, and asks to wait for 100000 s"
    refused(done, told)


@pytest.mark.parametrize("path", ["dir/m.gguf", "dir/m*.gguf"])
def test_a_hub_in_maintenance_need_not_be_waited_for_where_the_cache_has_the_file(
    check, hub, tmp_path, path
):
    assert fetched(tmp_path, REFERENCE, HF_ENDPOINT=hub.url)[0] == 0
    with NoHub(503, Retry_After="100000") as other:
        done = check(f"org/repo/{path}", HF_ENDPOINT=other.url)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", ["/m.gguf", "/L*.gguf", ""])
def test_a_server_that_answers_everything_with_a_list(check, path):
    with NoHub(200, b"[]") as other:
        refused(check(f"org/repo{path}", HF_ENDPOINT=other.url), "what answers there is no hub")


def test_a_corrupt_file_is_refused(serve, hub, weights):
    whole = weights["m.gguf"]
    hub.repositories["org/repo"]["dir/m.gguf"] = whole[:-1000]
    app = serve(REFERENCE)
    assert app.wait() == 3
    assert "corrupt or incomplete: cut off" in app.output
    assert asked(hub) == ["m.gguf"]  # its header said so


def test_our_pages_answer_while_it_downloads_and_a_signal_ends_it(serve, hub, tmp_path):
    hub.pause = 0.3
    app = serve(REFERENCE)
    app.line("listening on")
    until(lambda: list(tmp_path.rglob("*.part")))
    assert get(app, "/health") == (503, {"status": "loading"})
    status = get(app, "/api/status")[1]
    assert status["status"] == "setting up"
    assert status["models"][0]["state"] == "downloading"
    assert app.end(signal.SIGTERM) == 143
    assert app.folders == []


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A file for several connections."""
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    tiny_writer.write(path, vocabulary=1 << 17)
    assert path.stat().st_size > 20_000_000
    return path.read_bytes()


@pytest.fixture
def storage(hub, large):
    """The hub's, and the large file in a repository."""
    with Storage({}) as server:
        hub.storage = server
        hub.repositories["org/repo"]["large.gguf"] = large
        yield server


def test_a_killed_download_goes_on(serve, storage, large, tmp_path):
    """SIGKILL at 40 %. Result: the next instance fetches what is missing, and serves it; the hub's
    library finds it in its cache; neither the token nor the storage's signature is told."""
    storage.pause = 0.05
    app = serve("org/repo/large.gguf", HF_TOKEN="hf_right")
    until(lambda: storage.sent > 0.4 * len(large))
    app.end(signal.SIGKILL)
    (part,) = tmp_path.rglob("*.part")
    here = part_file.bytes_here(part)
    assert 0.1 * len(large) < here < len(large)
    storage.pause, storage.sent = 0.0, 0
    again = serve("org/repo/large.gguf", HF_TOKEN="hf_right").ready()
    assert chat(client(again)).usage.completion_tokens == 8
    late = 2 * 8 * 65536  # what the server was sending to the killed one
    assert 0 <= storage.sent - (len(large) - here) <= HEADER + late
    cached = try_to_load_from_cache("org/repo", "large.gguf", cache_dir=tmp_path / "cache" / "hub")
    assert os.path.realpath(cached) != cached and not list(tmp_path.rglob("*.part"))
    assert not any(token for *_, token in storage.asked)
    assert "s3cr3t" not in app.output + again.output
    assert "hf_right" not in app.output + again.output


def test_two_instances_want_one_file(serve, storage, large):
    """Result: it is fetched once, and both serve it."""
    storage.pause = 0.01
    both = [serve("org/repo/large.gguf") for _ in range(2)]
    for app in both:
        assert chat(client(app.ready())).usage.completion_tokens == 8
    assert len(large) <= storage.sent <= len(large) + 2 * HEADER


def test_nothing_half_written_is_used(serve, hub, tmp_path):
    hub.pause = 0.3
    app = serve(REFERENCE)
    until(lambda: list(tmp_path.rglob("*.part")))
    app.end(signal.SIGKILL)
    assert list(tmp_path.rglob("*.part"))
    hub.pause = 0.0
    app = serve(REFERENCE).ready()
    assert chat(client(app)).usage.completion_tokens == 8
    assert os.listdir(tmp_path / "cache" / "hub") and not list(tmp_path.rglob("*.part"))


def test_a_token_in_the_form_is_taken_and_stands_nowhere(start, hub, tmp_path):
    """1. A task's form holds a token, and an agent runs it. 2. The task runs a second time, the
    token gone. Result: it serves both times, and nothing that is kept or shown holds the token."""
    with ApiServer() as api:
        secret, form = "hf_right", {"model": "org/secret/dir/m.gguf", "endpoint_name": "tiny"}
        sections = {
            "Model": {n: {"section": "Model", "name": n, "value": v} for n, v in form.items()},
            "Args": {"hf_token": {"section": "Args", "name": "hf_token", "value": secret}},
        }
        task = api.state.new_task(hyperparams=sections)
        cache = ["--cache-dir", str(tmp_path / "cache")]
        environment = {**api.environment, "HF_ENDPOINT": hub.url, "CLEARML_TASK_ID": task["id"]}
        first = start(*cache, offline=False, alone=True, **environment).ready()
        assert "downloaded 1.0 MB" in first.output
        (child,) = first.children
        for pid, name in ((child, "cmdline"), (child, "environ"), (first.process.pid, "cmdline")):
            with open(f"/proc/{pid}/{name}", "rb") as file:
                assert secret.encode() not in file.read()
        first.end()
        second = start(*cache, offline=False, **environment).ready()
        assert "found in the cache" in second.output
        second.end()
        assert "Args/hf_token was taken, and removed from the task" in first.output
        assert task["hyperparams"]["Args"]["hf_token"]["value"] == ""
        kept = first.output + second.output + str(api.state.tasks) + str(api.state.events)
        assert secret not in kept


@pytest.fixture
def site(large, weights):
    """A web server that is no hub: a large file, a set of three parts, and no others."""
    parts = {f"/set/{name}": data for name, data in weights.items() if name.startswith("s-")}
    parts |= {path.replace("/s-", "/My (v2), s-"): data for path, data in parts.items()}
    with Storage({"/dir/large.gguf": large, "/get": weights["m.gguf"], **parts}) as server:
        yield server


@pytest.fixture
def from_web(start, tmp_path):
    def run(reference, *more, private=True, **environment):
        sets = ["--set", "Model/endpoint_name=tiny", *more]
        sets += ["--set", f"General/allow_private_urls={str(private).lower()}"]
        cache = ["--cache-dir", str(tmp_path / "cache")]
        return start(*cache, "--model", reference, *sets, **environment)

    return run


def test_files_of_the_web(from_web, site, large):
    """1. A file by its address, with a secret in its query and with its hash. Result: it is served,
    and the secret is told to nobody. 2. Again. Result: it is in the cache, and the server is asked
    only whether it has changed. 3. It has. Result: the new one is fetched. 4. The server is away.
    Result: what came last is served."""
    reference = f"{site.url}/dir/large.gguf?signature=s3cr3t"
    first = from_web(reference).ready()
    assert chat(client(first)).usage.completion_tokens == 8
    told = get(first, "/api/status")[1]["models"][0]["reference"]
    assert told == f"{site.url}/dir/large.gguf"
    assert "s3cr3t" not in first.output + str(get(first, "/api/status"))
    first.end()
    assert len(large) <= site.sent <= len(large) + HEADER
    again = from_web(reference).ready()
    assert "found in the cache" in again.output and site.sent <= len(large) + HEADER + 1
    again.end()
    site.etag = '"2"'
    newer = from_web(reference).ready()
    assert " MB in" in newer.output and site.sent >= 2 * len(large)
    newer.end()
    with site.away():
        kept = from_web(reference).ready()
        assert "found in the cache" in kept.output
        kept.end()


def test_a_server_that_is_busy_at_first_and_a_file_that_was_damaged(from_web, site, tmp_path):
    """1. 429, then 503. Result: it is asked again. 2. The file in the cache is cut. Result: it is
    fetched again."""
    site.troubles = [("status", 429, {"Retry-After": "0"}), ("status", 503, {})]
    from_web(site.url + "/get").ready().end()
    (file,) = (tmp_path / "cache" / "web").glob("*/*/get")
    os.truncate(file, 1000)
    app = from_web(site.url + "/get").ready()
    assert chat(client(app)).usage.completion_tokens == 8


def test_a_set_of_the_web_and_a_file_without_a_name(from_web, site):
    odd = "/set/My%20(v2),%20s-00001-of-00003.gguf"
    for reference in ("/set/s-00001-of-00003.gguf", odd, "/get"):
        app = from_web(site.url + reference).ready()
        assert chat(client(app)).usage.completion_tokens == 8
        app.end()


def test_a_hash_is_checked(from_web, site, large):
    right = hashlib.sha256(large).hexdigest()
    assert from_web(f"{site.url}/dir/large.gguf#sha256={'0' * 64}").wait() == 3
    app = from_web(f"{site.url}/dir/large.gguf#sha256={right}").ready()
    assert chat(client(app)).usage.completion_tokens == 8
    app.end()
    with site.away():  # what is known by its hash need not be asked for; another one is not it
        from_web(f"{site.url}/dir/large.gguf#sha256={right}").ready().end()
        other = from_web(f"{site.url}/dir/large.gguf#sha256={'1' * 64}")
        assert other.wait() == 2 and "the cache has none with this hash" in other.output
    a_set = from_web(f"{site.url}/set/s-00001-of-00003.gguf#sha256={right}")
    assert a_set.wait() == 2 and "a set of files has no one hash" in a_set.output


@pytest.mark.parametrize(
    "path, private, problem",
    [
        ("/none.gguf", True, "answers 404 Not Found: there is no such file"),
        ("/dir/large.gguf", False, "127.0.0.1 is no public address (General/allow_private_urls"),
    ],
)
def test_addresses_that_are_refused(from_web, site, path, private, problem):
    app = from_web(f"{site.url}{path}?signature=s3cr3t", private=private)
    assert app.wait() == 2
    assert problem in app.output and "s3cr3t" not in app.output and "Traceback" not in app.output
    assert site.sent == 0


def test_repositories_and_directories(serve, hub, weights, tmp_path):
    """A repository with one model and one with several; a quantization; a directory."""
    files = {f"m-{kind}.gguf": weights["m.gguf"] for kind in ("Q4_K_M", "Q8_0")}
    hub.repositories["org/several"], hub.repositories["org/one"] = (
        files,
        {"m.gguf": files["m-Q8_0.gguf"]},
    )
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "m.gguf").write_bytes(weights["m.gguf"])
    for reference in ("org/several:q8_0", "hf://org/one", str(folder)):
        app = serve(reference).ready()
        assert chat(client(app)).usage.completion_tokens == 8
        app.end()
    app = serve("org/several")
    assert app.wait() == 2
    assert "org/several has several models: name one of" in app.output
    assert "org/several:Q4_K_M" in app.output


def test_a_bucket(from_web, weights, tmp_path):
    """A file in S3, by the SDK's own configuration; and one that is not there."""
    with Storage({"/bucket/dir/m.gguf": weights["m.gguf"]}) as storage:
        host = storage.url.partition("://")[2]
        access = f'host: "{host}", key: "k", secret: "s3cr3t", multipart: false, secure: false'
        conf = tmp_path / "clearml.conf"
        conf.write_text(f"sdk {{ aws {{ s3 {{ credentials: [ {{ {access} }} ] }} }} }}")
        app = from_web(f"s3://{host}/bucket/dir/m.gguf", CLEARML_CONFIG_FILE=str(conf)).ready()
        assert chat(client(app)).usage.completion_tokens == 8
        app.end()
        away = from_web(f"s3://{host}/bucket/none.gguf", CLEARML_CONFIG_FILE=str(conf))
        assert away.wait() == 3
        assert "none.gguf: ClearML could not bring its files: the lines above say" in away.output
        assert "s3cr3t" not in app.output + away.output


def cached(tmp_path, *arguments):
    cache = ["--cache-dir", str(tmp_path / "cache")]
    done = finished("cache", *cache, *arguments, environment=dict(os.environ))
    return done.returncode, done.stdout + done.stderr


def test_what_is_kept(serve, hub, weights, tmp_path):
    """1. A model is served. Result: it is listed as in use, and cannot be removed. 2. A limit that
    has no room for both, and another model. Result: the first one stays, as it is in use. 3. It is
    not any more. Result: it goes for the other one, also from the hub's own cache."""
    hub.repositories["org/repo"]["other.gguf"] = weights["old.gguf"]
    app = serve(REFERENCE).ready()
    assert "in use" in cached(tmp_path)[1]
    status, told = cached(tmp_path, "--remove", REFERENCE)
    assert status == 2 and f"{REFERENCE} is in use" in told
    limit = {"LLAMACPP_CACHE_LIMIT": "1.5MB"}
    serve("org/repo/other.gguf", **limit).ready().end()
    app.end()
    assert REFERENCE in cached(tmp_path)[1]
    assert cached(tmp_path, "--remove", "org/repo/other.gguf")[0] == 0
    serve("org/repo/other.gguf", **limit).ready().end()
    status, told = cached(tmp_path)
    assert "org/repo/other.gguf" in told and REFERENCE not in told
    assert not try_to_load_from_cache("org/repo", "dir/m.gguf", cache_dir=tmp_path / "cache/hub")
    assert "nothing is kept" in cached(tmp_path, "--keep", "0")[1]


def test_a_wrong_limit_is_told(serve):
    app = serve(REFERENCE, LLAMACPP_CACHE_LIMIT="much")
    assert app.wait() == 2 and "LLAMACPP_CACHE_LIMIT: 'much' is no size" in app.output


def fetched(tmp_path, *arguments, **environment):
    cache = ["--cache-dir", str(tmp_path / "cache")]
    environment = {**environment_of(tmp_path), **environment}
    done = finished("fetch", *cache, *arguments, environment=environment)
    return done.returncode, done.stdout.splitlines(), done.stderr


def test_a_cache_is_warmed_and_a_model_registered(serve, hub, tmp_path):
    """1. Two models are fetched. Result: their files are printed; an instance finds them. 2. One is
    registered, twice. Result: ClearML has it once, with its address, and its ID is printed."""
    told = fetched(tmp_path, "--offline", REFERENCE, "org/repo@v1/old.gguf", HF_ENDPOINT=hub.url)
    status, files, _ = told
    assert status == 0 and [os.path.isfile(path) for path in files] == [True, True], told
    app = serve(REFERENCE).ready()
    assert "found in the cache" in app.output
    app.end()
    with ApiServer() as api:
        online = {**api.environment, "HF_ENDPOINT": hub.url}
        for _ in range(2):
            status, lines, said = fetched(tmp_path, "--register", REFERENCE, **online)
            assert status == 0 and lines[0] == files[0], said
        (model,) = api.state.models.values()
        assert lines[1] == model["id"] and model["uri"].endswith("/dir/m.gguf")
        assert model["uri"].startswith("https://huggingface.co/org/repo/resolve/")
        first = "dir/s-00001-of-00003.gguf"
        status, lines, said = fetched(tmp_path, "--register", f"org/repo/{first}", **online)
        addresses = [api.state.models[model]["uri"] for model in lines[1:]]
        assert status == 0 and len(addresses) == 3, said
        assert all(f"/dir/s-0000{n}-of-" in uri for n, uri in enumerate(addresses, start=1))


@pytest.mark.parametrize(
    "arguments, problem",
    [
        (["org/repo/none.gguf"], "no such file; it has"),
        (["--register", REFERENCE], "this needs a ClearML server"),
        (["http://127.0.0.1:9/m.gguf"], "127.0.0.1"),
    ],
)
def test_what_cannot_be_fetched(tmp_path, hub, arguments, problem):
    status, files, said = fetched(tmp_path, "--offline", *arguments, HF_ENDPOINT=hub.url)
    assert status == 2 and files == [] and problem in said and "Traceback" not in said
