"""A machine with GPUs, as NVML and llama-server's list have it (tests/gpus.py); the real pynvml,
the real SDK's monitor, a real browser, and llama-servers that compute on the CPU."""

import json
import subprocess
import sys
import time
import urllib.request

import openai
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.engine.capabilities import find
from app.memory.room import LOOK
from app.models import tiny, tiny_writer
from tests.clearml_api import ApiServer
from tests.end_to_end.browser import PROGRAM, chromium
from tests.end_to_end.conftest import PATIENCE, ROOT, environment_of
from tests.end_to_end.test_page import overview, texts, wait_for
from tests.end_to_end.test_serving import chat, client, get, until
from tests.end_to_end.test_task import online
from tests.gpus import Gpus

HELD, PREDICTED = 900, 1000  # MiB of each model
COUNTED = PREDICTED + 100 + 400  # with its buffers and CUDA's own


@pytest.fixture
def gpus(tmp_path):
    return Gpus(tmp_path, 16384, 8192)


@pytest.fixture
def gpu(tmp_path):
    """One that holds two models, and little more."""
    return Gpus(tmp_path, 4096)


def sharing(cache, **general):
    """Two models."""
    path = str(tiny.ensure(cache))
    models = [{"model": path, "endpoint_name": name, "cli": "-n 6"} for name in "ab"]
    fields = {"models": json.dumps(models), **general}
    return [text for name, value in fields.items() for text in ("--set", f"General/{name}={value}")]


def states(app):
    return {m["name"]: (m["state"], m["tier"]) for m in overview(app)["models"]}


def served(app, name):
    return chat(client(app, name), 2).choices[0].message.content


@pytest.mark.long
@pytest.mark.skipif(PROGRAM is None, reason="there is no chromium")
def test_gpus_are_seen_everywhere(start, cache, gpus):
    """In the task's scalars, in the Model Endpoints table, on /metrics, and on the page."""
    gpus.set(0, others=500)
    environment = gpus.llama_server(find("", {}), HELD, PREDICTED)
    with ApiServer() as api, chromium() as browser:
        app = online(start, api, *sharing(cache), **environment).ready()
        assert states(app) == {"a": ("ready", "gpu"), "b": ("ready", "gpu")}
        devices = {d["id"]: (d["used"] >> 20, d["total"] >> 20) for d in overview(app)["devices"]}
        assert devices == {"0": (500 + 2 * HELD, 16384), "1": (0, 8192)}
        for model in overview(app)["models"]:
            assert model["memory"]["gpu"] == {"0": HELD << 20}
        page = browser.new_page()
        page.goto(app.url)
        wait_for(page, "document.querySelectorAll('.plot h3').length >= 11")
        titles = "GPU Utilization (%)", "GPU Memory (GB)", "GPU Temperature (°C)"
        assert [t for t in texts(page, ".plot h3") if t.startswith("GPU")] == list(titles)
        assert texts(page, "#rows .placed") == ["planned: CUDA0 1.15 GB, host 3.1 MB"] * 2
        usage = page.locator(".plot", has_text=titles[0]).locator(".legend li")
        wait_for(page, "document.body.innerText.includes('GPU 0: NVIDIA-Sham: 2.41 GB of 17.2 GB')")
        until(lambda: usage.all_inner_texts() == ["0 37", "1 37"])
        assert (
            page.locator(".plot", has_text=titles[2]).locator("b").all_inner_texts() == ["61"] * 2
        )
        # The SDK sends one report in several requests: the first has the memory alone at times.
        until(lambda: {"gpu_0_utilization", "gpu_0_temperature"} <= monitored(api).keys())
        found = monitored(api)
        assert found["gpu_0_utilization"] == 37 and found["gpu_0_temperature"] == 61, found
        # A mean over the seconds before, in which the models came.
        assert 1 < found["gpu_0_mem_used_gb"] <= (500 + 2 * HELD) / 1024 + 0.01, found
        used = next(f for f in metrics(app) if f.name.endswith("gpu_memory_used_bytes")).samples
        assert {s.labels["gpu"]: int(s.value) >> 20 for s in used} == {"0": 500 + 2 * HELD, "1": 0}
        until(lambda: machine_stats(api))
        assert machine_stats(api)["gpu_usage"] == [37, 37]


def monitored(api):
    """What the SDK's monitor reported of the GPUs last."""
    return {k[1]: v[-1] for k, v in api.scalars().items() if k[0] == ":monitor:gpu"}


def machine_stats(api):
    found = [row.get("machine_stats") for row in api.state.containers.values()]
    return next((stats for stats in found if stats), None)


def metrics(app):
    with urllib.request.urlopen(app.url + "/metrics", timeout=PATIENCE) as answer:
        return list(text_string_to_metric_families(answer.read().decode()))


def test_room_is_made_for_other_programs_and_taken_back(start, cache, gpu):
    """1. Two models are there. 2. Another program takes what one of them had: they take turns.
    3. It takes all: callers are told so. 4. It goes: both are there again."""
    environment = gpu.llama_server(find("", {}), HELD, PREDICTED)
    app = start(*sharing(cache, disk_swapping=True), **environment)
    app.ready()
    assert states(app) == {"a": ("ready", "gpu"), "b": ("ready", "gpu")}
    post(app, "b", "unload")
    until(lambda: states(app)["b"][0] == "cold")
    others(gpu, 2000)
    served(app, "b")
    assert states(app) == {"a": ("cold", "disk"), "b": ("ready", "gpu")}
    post(app, "b", "unload")
    until(lambda: states(app)["b"][0] == "cold")
    others(gpu, 3500)
    with pytest.raises(openai.APIStatusError) as refused:
        served(app, "a")
    assert refused.value.status_code == 503 and refused.value.response.headers["retry-after"]
    assert f"needs {COUNTED / 1024:.2f} GiB on CUDA0" in refused.value.message
    assert "other programs hold" in refused.value.message
    others(gpu, 0)
    assert served(app, "a") and served(app, "b")
    assert states(app) == {"a": ("ready", "gpu"), "b": ("ready", "gpu")}
    assert app.end() == 143


def test_in_a_container_a_model_is_known_by_what_went(start, tmp_path, gpus):
    """The driver shows no process of ours there. Result: what a load took is learned, and counts
    where it is more than was predicted; the next run knows it from the start."""
    gpus.hide()
    held = COUNTED + 300
    environment = gpus.llama_server(find("", {}), held, PREDICTED)
    given = ["--set", "General/cpu_offloading=true", "--cache-dir", str(tmp_path / "learned")]
    for _ in range(2):
        app = start(*given, **environment).ready()
        (model,) = overview(app)["models"]
        assert model["need"]["CUDA0"] == held << 20
        assert model["memory"]["gpu"] == {"0": held << 20}
        assert app.end() == 143
    known = json.loads((tmp_path / "learned" / "footprints.json").read_text())
    assert [sizes["CUDA0"] >> 20 for sizes in known.values()] == [held]


def test_what_others_hold_at_the_start_is_not_planned_with(start, cache, gpu):
    """Two models would fit into the GPU, but not beside the others. Result: one is loaded."""
    gpu.set(0, others=2000)
    environment = gpu.llama_server(find("", {}), HELD, PREDICTED)
    app = start(*sharing(cache, disk_swapping=True), **environment)
    app.ready()
    assert states(app) == {"a": ("ready", "gpu"), "b": ("cold", "disk")}


def test_idle_models_are_parked_in_cpu_ram(start, cache, tmp_path):
    """Room for one of two. Result: each other's turn, the process that is away answers nothing and
    holds no GPU memory, and comes back with its KV cache; the end leaves nothing behind."""
    gpu = Gpus(tmp_path, 2048)
    gpu.driver()
    environment = gpu.llama_server(find("", {}), HELD, PREDICTED)
    app = start(*sharing(cache, cpu_offloading=True), **environment).ready()
    assert "idle models are moved to CPU RAM by CUDA checkpoints" in app.output
    ask = {name: client(app, name) for name in "ab"}
    told = {name: chat(ask[name], 2) for name in "ab"}
    assert states(app) == {"a": ("parked", "ram"), "b": ("ready", "gpu")}
    assert overview(app)["devices"][0]["used"] == HELD << 20
    pids = app.children
    assert len(pids) == 2
    stopped = [psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in pids]
    assert sorted(stopped) == [False, True]
    for _ in range(3):
        for name in "ab":
            again = chat(ask[name], 2)
            assert again.usage.prompt_tokens_details.cached_tokens > 0.9 * (
                told[name].usage.prompt_tokens - 2
            )
    assert app.children == pids and "anew" not in app.output
    assert app.end() == 143
    assert not any(psutil.pid_exists(pid) for pid in pids) and not app.folders


def test_without_the_planning_tool_the_header_says_what_fits(start, cache, gpu):
    """As in llama.cpp's own server image."""
    environment = gpu.llama_server(find("", {}), HELD, PREDICTED)
    (gpu.folder / "llama-fit-params").unlink()
    app = start(*sharing(cache, disk_swapping=True), **environment).ready()
    assert "no llama-fit-params beside it" in app.output
    assert served(app, "a") and served(app, "b")
    for model in overview(app)["models"]:
        assert 64 << 20 < model["need"]["CUDA0"] <= HELD + 100 << 20


def others(gpu, size):
    gpu.set(0, others=size)
    time.sleep(2 * LOOK)


def post(app, name, action):
    url, token = f"{app.url}/api/models/{name}/{action}", {"X-Api-Key": app.token}
    request = urllib.request.Request(url, b"", token)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return json.load(answer)


def test_a_gpu_that_only_the_driver_sees(start, gpus):
    """llama-server was built without CUDA. Result: refused, before anything is loaded."""
    app = start(**gpus.environment)
    assert app.wait() == 2
    assert "this machine has NVIDIA-Sham, NVIDIA-Sham, but llama-server was built" in app.output
    hidden = start(CUDA_VISIBLE_DEVICES="", **gpus.environment).ready()
    assert get(hidden, "/api/status")[1]["devices"] == []


@pytest.mark.long
@pytest.mark.parametrize("moves", [True, False], ids=["parked", "stopped"])
def test_the_check_for_machines_with_a_gpu(tmp_path, gpu, moves):
    """scripts/gpu_check runs, and finds what it looks for; on a driver that parks, and on one that
    fails to."""
    gpu.driver(parks=moves)
    for name in "ab":
        tiny_writer.write(tmp_path / f"{name}.gguf")
    models = [text for name in "ab" for text in ("--model", str(tmp_path / f"{name}.gguf"))]
    quick = [] if moves else ["--quick"]
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "gpu_check.py", *models, *quick, "--alternations", "4"],
        env={**environment_of(tmp_path), **gpu.llama_server(find("", {}), COUNTED, PREDICTED)},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all is well" in done.stdout and "BAD" not in done.stdout
    seen = ["plotted: gpu_temperature of GPU 0", "KV cache kept", "503 after"]
    seen += ["gpu_0_utilization", "the link's rate"] if moves else ["cold, disk"]
    assert all(text in done.stdout for text in seen), done.stdout
