"""`python -m app check`: what would be served, without downloading or starting anything."""

import json
import socket

import pytest

from app.models import tiny_writer
from app.models.beginning import STEP
from tests.end_to_end.conftest import checked, refused
from tests.hub import Hub

pytestmark = pytest.mark.quick


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    tiny_writer.write(folder / "m.gguf")
    tiny_writer.write(folder / "s.gguf", shard_tensors=8)
    large = (folder / "m.gguf").read_bytes()
    # What the header does not speak of: a file of which a header is a small part.
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return {**files, "large.gguf": large + bytes(8 << 20)}


@pytest.fixture
def hub(weights):
    with Hub({"org/repo": weights}) as server:
        yield server


@pytest.fixture
def check(hub, tmp_path):
    def run(*arguments):
        cache = "--cache-dir", str(tmp_path / "cache")
        return checked(tmp_path, *cache, *arguments, HF_ENDPOINT=hub.url)

    return run


def config(tmp_path, *models, **general):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"General": {"models": list(models), **general}}))
    return ["--config", str(path)]


def test_models_on_the_hub_are_known_by_their_headers(check, hub, weights, tmp_path):
    """A large file, and a set of parts. Result: a table, and only headers were fetched."""
    models = [
        {"model": "org/repo/large.gguf", "context_size": 1024, "endpoint_name": "a"},
        {"model": "org/repo/s*.gguf", "parallel": 2},
    ]
    found = check(*config(tmp_path, *models))
    assert found.returncode == 0, found.stderr
    a, b = (line.split() for line in found.stdout.splitlines()[1:3])
    assert a[:8] == ["a", "llama", "F16", "9.4", "MB", "4096", "1024", "4"] and a[-1] == "ok"
    assert b[:8] == ["org/repo/s.gguf", "llama", "F16", "1.0", "MB", "4096", "4096", "2"]
    assert "a: context 1024, parallel 4, threads 1" in found.stdout
    asked = [path for method, path, _ in hub.requests if method == "GET" and "resolve" in path]
    parts = [name for name in weights if name.startswith("s-")]
    assert sorted(path.rsplit("/", 1)[1] for path in asked) == ["large.gguf", *sorted(parts)]
    assert hub.sent <= len(parts) * len(weights[parts[0]]) + STEP < len(weights["large.gguf"])
    assert not list(tmp_path.glob("lmd-*"))


def test_as_json_for_programs(check, weights, tmp_path):
    found = check("--json", *config(tmp_path, {"model": "org/repo/large.gguf"}))
    told = json.loads(found.stdout)
    (model,) = told["models"]
    assert told["verdict"] == "ok" and told["disks"][0]["needed"] == len(weights["large.gguf"])
    assert model["architecture"] == "llama" and model["training_context"] == 4096
    assert model["resolved"]["context"] == 4096 and model["memory"]["host"] > 0
    assert model["to_download"] == model["size"] == len(weights["large.gguf"])


@pytest.mark.parametrize(
    "model, general, problem",
    [
        ({"model": "org/repo/none.gguf"}, {}, "General/models[1].model: looked for 'none.gguf'"),
        ({"model": "org/repo/m.gguf", "top_p": 5}, {}, "General/models[1].top_p: 5 is more than 1"),
        (
            {"model": "org/repo/m.gguf", "mmproj": "org/repo/none.gguf"},
            {},
            "General/models[1].mmproj: looked for 'none.gguf'",
        ),
        (
            {"model": "org/repo/m.gguf", "mmproj": "org/repo/m.gguf"},
            {},
            "General/models[1].mmproj: org/repo/m.gguf is no projector, but a llama model",
        ),
        (
            {"model": "org/repo/m.gguf"},
            {"cpu_offloading": True, "disk_swapping": True},
            "General/disk_swapping: cannot be on together",
        ),
        (
            {"model": "org/repo/m.gguf", "context_size": 1 << 29},
            {},
            "org/repo/m.gguf does not fit. host memory:",
        ),
    ],
)
def test_a_bad_file_is_refused_with_its_field(check, hub, tmp_path, model, general, problem):
    found = check(*config(tmp_path, model, **general))
    refused(found, problem)
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("blobs"))


@pytest.mark.parametrize("here", [True, False])
def test_a_model_that_llama_cpp_cannot_load_is_told(check, weights, tmp_path, here):
    """Its architecture is one that nobody knows; it is here, or its header alone was read. Result:
    the reason and exit status 4, as where it is served, and the others' verdict is theirs."""
    odd = weights["m.gguf"].replace(b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0xlama", 1)
    (tmp_path / "odd.gguf").write_bytes(odd)
    with Hub({"org/repo": {"m.gguf": weights["m.gguf"], "odd.gguf": odd + bytes(8 << 20)}}) as hub:
        model = str(tmp_path / "odd.gguf") if here else "org/repo/odd.gguf"
        models = {"model": "org/repo/m.gguf"}, {"model": model, "endpoint_name": "odd"}
        cache = "--cache-dir", str(tmp_path / "cache")
        found = checked(tmp_path, *cache, *config(tmp_path, *models), HF_ENDPOINT=hub.url)
    good, bad = found.stdout.splitlines()[1:3]
    assert good.endswith("ok") and bad.endswith("cannot be loaded") and found.returncode == 4
    assert "odd: llama.cpp cannot load it" in found.stderr and "Traceback" not in found.stderr


def test_no_room_on_the_disk_is_said_with_the_numbers(check, hub, weights, tmp_path):
    """A file that is said to be larger than any disk."""
    hub.claimed["m.gguf"] = 1 << 60
    found = check("--model", "org/repo/m.gguf")
    refused(found, "GB are to be downloaded, but only")


def test_without_clearml_nothing_of_it_is_asked(tmp_path):
    """Its server would be waited for: nobody answers there."""
    nobody = "http://127.0.0.1:9"
    done = checked(tmp_path, "--no-clearml", offline=False, CLEARML_API_HOST=nobody)
    assert done.returncode == 0 and "tiny" in done.stdout, done.stderr


def test_what_is_wrong_is_told_before_every_hub_has_answered(tmp_path):
    models = json.dumps([{"model": "org/repo/m.gguf"}, {"model": "/none.gguf"}])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = checked(tmp_path, "--set", f"General/models={models}", HF_ENDPOINT=hub)
    refused(done, "General/models[2].model: /none.gguf: no such file")
