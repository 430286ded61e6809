import asyncio
import stat

import pytest

from app.engine import capabilities
from app.engine.capabilities import check_gpus, find, parse_devices, parse_help, probe
from app.errors import ConfigError

HELP = """\
----- common params -----

-h,    --help, --usage                  print usage and exit
-m,    --model FNAME                    model path to load
-c,    --ctx-size N                     size of the prompt context
                                        --not-a-flag in the text
-cb,   --cont-batching, -nocb, --no-cont-batching
                                        whether to enable continuous batching
-fa,   --flash-attn [on|off|auto]       set Flash Attention use
--draft, --draft-n, --draft-max N       the argument has been removed. use --spec-draft-n-max or
                                        --spec-ngram-mod-n-max
                                        (env: LLAMA_ARG_DRAFT_MAX)
--host HOST                             or UNIX socket paths ending in .sock
"""


def program(path, text, status=0):
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexit {status}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_parse_help():
    flags, removed = parse_help(HELP)
    assert flags["--ctx-size"] == flags["-c"] == ("-c", "--ctx-size")
    assert flags["-nocb"][1] == "--cont-batching"
    assert "--host" in flags and "-fa" in flags
    assert "--not-a-flag" not in flags and "-----" not in flags
    advice = "the argument has been removed. use --spec-draft-n-max or --spec-ngram-mod-n-max"
    assert removed == dict.fromkeys(["--draft", "--draft-n", "--draft-max"], advice)
    assert "--draft-max" not in flags


def test_parse_devices():
    assert parse_devices("Available devices:\n  (none)\n") == {}
    listed = """noise
Available devices:
  CUDA0: NVIDIA H200 (143771 MiB, 140 MiB free)
  Vulkan0: AMD Radeon RX 7900 XTX (RADV NAVI31) (24560 MiB, 0 MiB free)
  ROCm0: B (gfx1100) (5 MiB)
  CUDA1: C
"""
    assert parse_devices(listed) == {
        "CUDA0": (143771 << 20, 140 << 20),
        "Vulkan0": (24560 << 20, 0),
        "ROCm0": (5 << 20, None),
        "CUDA1": (0, None),
    }


def test_probe_asks_the_binary(tmp_path):
    known = asyncio.run(probe(program(tmp_path / "llama-server", HELP), {}))
    assert known.knows("--model") and not known.knows("--log-jsonl")
    assert known.unix_sockets
    assert known.fit_params is None


@pytest.mark.parametrize(
    "text, status, problem",
    [
        ("usage: something else", 0, "is no llama-server"),
        (HELP, 3, "ended with 3: "),
        ("", 3, "ended with 3$"),
        ("", "$(kill -11 $$)", "ended with signal 11$"),
    ],
)
def test_probe_refuses_another_program(tmp_path, text, status, problem):
    with pytest.raises(ConfigError, match=problem):
        asyncio.run(probe(program(tmp_path / "llama-server", text, status), {}))


def test_who_watches_the_console_knows_for_what_it_waits(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(capabilities, "TOLD", 0.05)
    path = program(tmp_path / "llama-server", HELP, "$(sleep 0.5; echo 0)")
    with caplog.at_level("INFO", "app"):
        asyncio.run(probe(path, {}))
    assert caplog.text.count(f"{path} has not answered --help yet") == 1


@pytest.mark.parametrize(
    "environment, advice",
    [
        ({}, "`make install` builds one"),
        ({"CLEARML_DOCKER_IMAGE": "nvidia/cuda:1"}, "docker build -f templates/Dockerfile"),
    ],
)
def test_without_a_llama_server_it_says_how_to_get_one(tmp_path, monkeypatch, environment, advice):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(capabilities, "CONTAINER", tmp_path / "none")
    monkeypatch.setattr(capabilities.sysconfig, "get_path", lambda _: str(tmp_path))
    with pytest.raises(ConfigError) as raised:
        find("", environment)
    assert advice in str(raised.value)
    assert all(image in str(raised.value) for image in environment.values())


def test_the_form_comes_before_the_environment_before_the_path(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("form", "variable", "path")]
    for folder in folders:
        folder.mkdir()
        program(folder / "llama-server", HELP)
    form, variable, path = (folder / "llama-server" for folder in folders)
    monkeypatch.setenv("PATH", str(path.parent))
    assert find(str(form), {"LLAMA_SERVER": str(variable)}) == form
    assert find("", {"LLAMA_SERVER": str(variable)}) == variable
    assert find("", {}) == path


def test_a_named_one_that_is_missing_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="General/llama_server"):
        find(str(tmp_path / "none"), {})
    with pytest.raises(ConfigError, match="LLAMA_SERVER"):
        find("", {"LLAMA_SERVER": str(tmp_path)})


@pytest.mark.parametrize(
    "visible, used, layers, refused",
    [
        (["H200"], [], None, True),
        (["H200"], [], 9999, True),
        (["H200"], [], 0, False),
        (["H200"], ["CUDA0"], None, False),
        ([], [], None, False),
    ],
)
def test_a_cpu_engine_on_a_gpu_machine_is_refused(visible, used, layers, refused):
    try:
        check_gpus(visible, used, layers)
    except ConfigError as error:
        assert refused and "H200" in str(error)
    else:
        assert not refused
