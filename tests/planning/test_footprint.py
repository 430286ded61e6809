import asyncio
import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from app.engine.capabilities import Capabilities
from app.engine.resolved import Resolved, Wanted
from app.errors import ConfigError
from app.models.files import ModelFiles
from app.models.header import Header
from app.planning.footprint import Footprint, cut, predict, whole
from app.planning.learned import PREDICTED, Learned
from app.planning.site import Machine, Site

MACHINE = Machine(memory=10 << 30, threads=8, models=2, environment={})
HEADER = Header({"general.architecture": "llama", "llama.context_length": 8192}, (), 0)


def resolved(wanted, capabilities, header=HEADER):
    files = ModelFiles((Path("m.gguf"),), header)
    return asyncio.run(cut(wanted, files, Site(capabilities, MACHINE)))


def with_tool(tmp_path, body, flags=()):
    tool = tmp_path / "llama-fit-params"
    tool.write_text(f"#!/bin/sh\n{body}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return Capabilities(dict(flags), tmp_path / "llama-server", {"CUDA0": 80 << 30})


def test_without_gpu_the_training_context_and_no_layers(tmp_path):
    known = Capabilities({}, tmp_path / "llama-server")
    assert resolved(Wanted(), known) == Resolved(8192, None, 4, 4, 4, 512)
    assert whole(Wanted(), HEADER, Site(known, MACHINE)) == resolved(Wanted(), known)


def test_the_form_comes_first(tmp_path):
    wanted = Wanted(1024, 5, 2, 3, 4, 0)
    found = resolved(wanted, Capabilities({}, tmp_path / "llama-server"))
    assert found == Resolved(1024, 5, 2, 3, 4, 0)


def test_a_file_that_names_no_context(tmp_path):
    header = Header({"general.architecture": "llama"}, (), 0)
    assert resolved(Wanted(), Capabilities({}, tmp_path / "x"), header).context == 4096


def test_on_a_gpu_all_layers_and_the_whole_context(tmp_path):
    found = whole(Wanted(), HEADER, Site(with_tool(tmp_path, "exit 1"), MACHINE))
    assert (found.context, found.gpu_layers, found.whole) == (8192, 9999, True)


@pytest.mark.parametrize(
    "printed, left",
    [
        ("-c 8192 -ngl -1", True),
        ("-c 8192 -ngl 17", False),
        ("-c 4096 -ngl -1", False),
        ("-c 8192 -ngl -1 -ot x=CPU", False),
    ],
)
def test_what_was_cut(tmp_path, printed, left):
    assert resolved(Wanted(), with_tool(tmp_path, f"echo '{printed}'")).whole is left


def test_how_to_cut_is_asked_of_the_planning_tool(tmp_path):
    known = with_tool(tmp_path, 'echo "$@" > "$0.asked"; echo "-c 2048 -ngl 7 -ts 1,1"')
    found = resolved(Wanted(gpu_layers=7, placement=("-ctk", "q8_0")), known)
    assert (found.context, found.gpu_layers, found.placement) == (2048, 7, ("-ts", "1,1"))
    asked = (tmp_path / "llama-fit-params.asked").read_text()
    assert asked.strip() == "-m m.gguf -np 4 -ngl 7 -ctk q8_0"


UNIFIED = {"--kv-unified": ("-kvu", "--kv-unified")}


@pytest.mark.parametrize(
    "flags, unified, slots", [({}, True, 4), (UNIFIED, True, 1), (UNIFIED, False, 4)]
)
def test_slots_that_share_the_context_get_one_context(tmp_path, flags, unified, slots):
    """The tool would find room for one for each of them."""
    known = with_tool(tmp_path, 'echo "$@" > "$0.asked"; echo "-c 2048 -ngl -1"', flags)
    assert resolved(Wanted(unified=unified), known).parallel == 4
    asked = (tmp_path / "llama-fit-params.asked").read_text()
    assert asked.strip() == f"-m m.gguf -np {slots}"


@pytest.mark.parametrize(
    "placement, margins",
    [((), "2,3"), (("--device", "CUDA1"), "3"), (("-dev", "CUDA1,CUDA0"), "3,2")],
)
def test_the_planning_tool_leaves_what_is_not_for_models(tmp_path, placement, margins):
    known = with_tool(tmp_path, 'echo "$@" > "$0.asked"; echo "-c 2048 -ngl -1"')
    known = replace(known, device_memory={"CUDA0": 80 << 30, "CUDA1": 80 << 30})
    known = replace(known, device_free={"CUDA0": 12 << 20, "CUDA1": 13 << 20})
    machine = replace(MACHINE, headroom={"CUDA0": 10 << 20, "CUDA1": 10 << 20})
    files = ModelFiles((Path("m.gguf"),), HEADER)
    asyncio.run(cut(Wanted(placement=placement), files, Site(known, machine)))
    asked = (tmp_path / "llama-fit-params.asked").read_text().split()
    assert asked[asked.index("-fitt") + 1] == margins


def test_what_does_not_fit_is_refused_with_the_tools_words(tmp_path):
    known = with_tool(tmp_path, "echo 'needs 90 GiB' >&2; exit 1")
    with pytest.raises(ConfigError, match="needs 90 GiB"):
        resolved(Wanted(), known)


KV = Header(
    {
        "general.architecture": "llama",
        "llama.block_count": 24,
        "llama.attention.head_count": 16,
        "llama.attention.head_count_kv": 8,
        "llama.embedding_length": 1024,
        "llama.vocab_size": 1 << 17,
    },
    (),
    0,
)


def predicted(tmp_path, known, *placement, context=4096, layers=9999):
    first = tmp_path / "m.gguf"
    first.write_bytes(b"x" * 1000)
    files = ModelFiles((first,), KV)
    argv = ["-c", str(context), "-ngl", str(layers), *placement]
    return asyncio.run(predict(argv, files, Site(known, MACHINE)))


def test_the_prediction_is_the_planning_tools(tmp_path):
    body = 'echo "$@" > "$0.asked"; echo "CUDA0 100 20 3"; echo "Host 1 2 3"; echo noise'
    known = with_tool(tmp_path, body)
    assert predicted(tmp_path, known) == Footprint({"CUDA0": 123 << 20}, 6 << 20)
    asked = (tmp_path / "llama-fit-params.asked").read_text()
    assert asked == f"-m {tmp_path}/m.gguf -c 4096 -ngl 9999 --fit off --fit-print on\n"


def test_a_prediction_is_remembered_for_the_same_file_arguments_tool_and_gpus(tmp_path):
    body = 'echo "$@" >> "$0.asked"; echo "CUDA0 0 0 0"; echo "CUDA1 5 2 3"; echo "Host 1 2 3"'
    gpus = {"CUDA0": 80 << 30, "CUDA1": 80 << 30}
    known = replace(with_tool(tmp_path, body), device_memory=gpus)
    first, cache = tmp_path / "m.gguf", tmp_path / "cache"
    first.write_bytes(b"x")

    def asked(known=known, *argv):
        files = ModelFiles((first,), KV)
        site = Site(known, MACHINE, Learned(cache, PREDICTED))
        found = asyncio.run(predict(["-c", "4096", *argv], files, site))
        assert found == Footprint({"CUDA0": 0, "CUDA1": 10 << 20}, 6 << 20)
        assert [*found.devices] == ["CUDA0", "CUDA1"]  # a projector goes to the first
        return len((tmp_path / "llama-fit-params.asked").read_text().splitlines())

    assert [asked(), asked(), asked()] == [1, 1, 1]
    assert asked(known, "-ngl", "3") == 2
    assert asked(replace(known, device_memory={**gpus, "CUDA0": 40 << 30})) == 3
    first.write_bytes(b"y")  # the same size, another time
    assert asked() == 4
    with_tool(tmp_path, body + "\n: # a newer one")
    assert asked() == 5
    assert asked() == 5


@pytest.mark.parametrize(
    "remembered",
    [
        {"CUDA0": 5},
        {"host": 5, "CUDA7": 5},
        {"host": 0, "CUDA0": 0},
    ],
)
def test_what_the_tool_cannot_have_said_is_asked_again_once(tmp_path, remembered):
    known = with_tool(tmp_path, 'echo >> "$0.asked"; echo "CUDA0 1 2 3"; echo "Host 1 2 3"')
    first, kept = tmp_path / "m.gguf", tmp_path / "cache" / PREDICTED
    first.write_bytes(b"x" * 1000)

    def asked():
        site = Site(known, MACHINE, Learned(tmp_path / "cache", PREDICTED))
        found = asyncio.run(predict(["-c", "4096"], ModelFiles((first,), KV), site))
        assert found == Footprint({"CUDA0": 6 << 20}, 6 << 20)
        return len((tmp_path / "llama-fit-params.asked").read_text())

    assert asked() == 1
    (key,) = json.loads(kept.read_text())
    kept.write_text(json.dumps({key: remembered}))
    assert [asked(), asked()] == [2, 2]


def test_without_a_gpu_a_model_takes_as_much_as_its_files_at_least(tmp_path, monkeypatch):
    known = replace(with_tool(tmp_path, 'echo "Host 1 2 3"'), device_memory={})
    first = tmp_path / "m.gguf"
    first.write_bytes(b"x" * 1000)
    monkeypatch.setattr(Learned, "get", lambda *_: {"host": 999})
    site = Site(known, MACHINE, Learned(tmp_path / "cache", PREDICTED))
    found = asyncio.run(predict(["-c", "4096"], ModelFiles((first,), KV), site))
    assert found.host == 6 << 20


def test_what_the_tool_cannot_say_is_asked_again(tmp_path):
    known = with_tool(tmp_path, 'echo >> "$0.asked"; exit 1')
    first = tmp_path / "m.gguf"
    first.write_bytes(b"x" * 1000)
    for times in (1, 2):
        site = Site(known, MACHINE, Learned(tmp_path / "cache", PREDICTED))
        files = ModelFiles((first,), KV)
        assert asyncio.run(predict(["-c", "4096", "-ngl", "9"], files, site)).total
        assert len((tmp_path / "llama-fit-params.asked").read_text()) == times


def test_a_shared_context_takes_the_most_of_either_answer(tmp_path):
    """One slot's buffers, and what each of all slots has of its own."""
    body = """
    case "$*" in *"-np 1") echo "CUDA0 100 20 9"; echo "Host 1 2 3" ;;
    *) echo "CUDA0 100 24 3"; echo "Host 1 1 4" ;; esac"""
    first = tmp_path / "m.gguf"
    first.write_bytes(b"x")
    files, known = ModelFiles((first,), KV), with_tool(tmp_path, body)
    argv = ["-c", "4096", "-np", "4"]
    found = asyncio.run(predict(argv, files, Site(known, MACHINE), divided=False))
    assert found == Footprint({"CUDA0": (100 + 24 + 9) << 20}, (1 + 2 + 4) << 20)
    found = asyncio.run(predict(argv, files, Site(known, MACHINE)))
    assert found == Footprint({"CUDA0": (100 + 24 + 3) << 20}, (1 + 1 + 4) << 20)


def test_mapped_weights_count_where_they_lie_in_host_memory(tmp_path):
    """A tool that counts nothing for them, as it does for mapped files."""
    known = with_tool(tmp_path, 'echo "Host 0 2 3"')
    known = Capabilities({}, known.path)
    assert predicted(tmp_path, known) == Footprint({}, 1000 + (5 << 20))


@pytest.mark.parametrize("body", ["exit 1", "echo CUDA0 1 2 3", "echo"])
def test_without_its_numbers_the_header_is_computed(tmp_path, body):
    """24 layers of 8 heads of 64 numbers, keys and values, of 2 bytes: 96 KiB a token."""
    found = predicted(tmp_path, with_tool(tmp_path, body))
    assert found.host == 0 and found.total == 1000 + 4096 * 24 * 8 * 64 * 2 * 2 + 4 * 512 * (
        1 << 17
    )


def test_a_model_that_the_tool_cannot_load_has_a_fault(tmp_path):
    """Its way to cut a model to what there is says so, too."""
    known = with_tool(tmp_path, "echo 'error loading model: odd\nfailed to load model' >&2; exit 1")
    assert predicted(tmp_path, known).fault == "llama.cpp cannot load it: odd"
    assert predicted(tmp_path, known).plus(5).fault
    assert resolved(Wanted(), known).context == HEADER.training_context


def test_without_the_tool_a_model_goes_where_its_arguments_say(tmp_path):
    """One that is split over two GPUs, one that names its GPU, one with layers in host memory."""
    sizes = {"CUDA0": 80 << 30, "CUDA1": 80 << 30}
    known = Capabilities({}, tmp_path / "llama-server", sizes)
    (all_of_it,) = predicted(tmp_path, known, "--device", "CUDA1").devices.items()
    assert all_of_it[0] == "CUDA1"
    split = predicted(tmp_path, known, "--tensor-split", "3,1").devices
    assert split["CUDA0"] == 3 * split["CUDA1"] and sum(split.values()) == all_of_it[1]
    some = predicted(tmp_path, known, "--device", "CUDA0", layers=5)
    assert 0 < some.devices["CUDA0"] < all_of_it[1] and some.host > 0


def test_without_the_tool_a_model_is_cut_by_its_header(tmp_path):
    """A context of 256 KiB a token, first; then layers."""
    weights = tmp_path / "big.gguf"
    with weights.open("wb") as file:
        file.truncate(10 << 30)
    header = Header({**KV.metadata, "llama.context_length": 1 << 17}, (), 0)
    files = ModelFiles((weights,), header)
    known = Capabilities({}, tmp_path / "llama-server", {"CUDA0": 80 << 30})

    def fitted(room, **form):
        wanted = Wanted(**form)
        machine = replace(MACHINE, headroom={"CUDA0": room << 30})
        found = asyncio.run(cut(wanted, files, Site(known, machine)))
        argv = ["-c", str(found.context), "-np", "4", "-ngl", str(found.gpu_layers)]
        needs = asyncio.run(predict(argv, files, Site(known, machine)))
        assert not found.whole and (needs.devices["CUDA0"] <= room << 30 or found.gpu_layers == 0)
        return found.context, found.gpu_layers

    context, layers = fitted(16)
    assert 4096 < context < 1 << 17 and layers == 9999
    assert fitted(8)[0] == 4096 and 0 < fitted(8)[1] < 24
    assert fitted(16, context=1 << 17)[0] == 1 << 17
    assert fitted(12, gpu_layers=9999)[1] == 9999


def test_without_gpu_all_is_in_host_memory(tmp_path):
    found = predicted(tmp_path, Capabilities({}, tmp_path / "llama-server"))
    assert found.devices == {} and found.host > 1000


def test_layers_that_differ_in_their_heads():
    metadata = {**KV.metadata, "llama.attention.head_count_kv": [8, 0, 4]}
    assert Header(metadata, (), 0).kv_bytes == 12 * 64 * 2 * 2


@pytest.mark.parametrize(
    "devices, host, expected",
    [({}, 5, False), ({"CUDA0": 100}, 10, True), ({"CUDA0": 50, "CUDA1": 50}, 30, False)],
)
def test_whether_a_model_is_on_gpus(devices, host, expected):
    assert Footprint(devices, host).on_gpus is expected
