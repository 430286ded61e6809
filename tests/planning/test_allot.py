"""Where models go on a machine with two GPUs, by what a planning tool says of them."""

import asyncio
from dataclasses import replace

import pytest

from app.engine.capabilities import Capabilities
from app.engine.resolved import Resolved, Wanted
from app.errors import FormError
from app.form.settings import ModelSettings
from app.models.files import ModelFiles
from app.models.header import Header, Tensor
from app.models.reference import Tiny
from app.planning.allot import Vacancy, allot, run_at_once, vacancy, with_threads
from app.planning.amounts import together
from app.planning.budget import headroom, need
from app.planning.candidate import Candidate, Files
from app.planning.footprint import Footprint
from app.planning.site import Machine, Site

GIB = 1 << 30
F16 = 1  # the type of a tensor
HEADER = Header({"general.architecture": "llama", "llama.context_length": 8192}, (), 0)
FILES = ModelFiles((), HEADER)
NOWHERE = Files(FILES)
# A model of {size} MiB; what does not fit anywhere, it cuts to {cut}.
TOOL = """#!/usr/bin/env python3
import sys
words = sys.argv[1:]
given = dict(zip(words, words[1:]))
with open(sys.argv[0] + ".asked", "a") as asked:
    print(*words, file=asked)
if "--fit-print" not in words:
    print({cut!r}.format(layers=20 if int(given["-fitt"].split(",")[0]) < 16900 else 19))
    sys.exit()
print("Host 1 1 1")
split = given.get("--tensor-split") or given.get("-ts")
size = {size} if given["-ngl"] == "9999" else 400 * int(given["-ngl"])
if split is None:
    print(given.get("--device", "CUDA0"), size, 0, 0)
else:
    shares = [int(share) for share in split.split(",")]
    for number, share in enumerate(shares):
        print(f"CUDA{{number}}", size * share // sum(shares), 0, 0)
"""


@pytest.fixture
def allotted(tmp_path):
    """`allotted(room, size in MiB)`: what was resolved, GiB by device, and what was asked."""

    def allotted(
        room, size, cut="-c 8192 -ngl -1", gpus=2, projector=0, memory=0, draft=None, header=HEADER
    ):
        tool = tmp_path / "llama-fit-params"
        tool.write_text(TOOL.format(size=size, cut=cut))
        tool.chmod(0o755)
        sizes = {f"CUDA{number}": 24 * GIB for number in range(gpus)}
        flags = {"--cache-ram": ("--cache-ram",)}
        capabilities = Capabilities(flags, tmp_path / "llama-server", sizes, sizes)
        files = ModelFiles((tmp_path / "m.gguf",), header)
        mmproj = None
        if projector:
            mmproj = ModelFiles((tmp_path / "p.gguf",), HEADER)
            with mmproj.first.open("wb") as file:
                file.truncate(projector << 20)  # a sparse one
        drafting = None
        if draft is not None:
            drafting = ModelFiles((tmp_path / "d.gguf",), Header(draft, (), 0))
        machine = Machine(memory, 4, 1, {}, headroom(sizes, room.budget))
        site = Site(capabilities, machine)
        settings = ModelSettings(speculative="" if draft else "auto")
        chosen = replace(candidate(Files(files, mmproj)), drafting=drafting, settings=settings)
        model = asyncio.run(allot(chosen, files, site, room))
        devices = {name: size >> 30 for name, size in model.footprint.devices.items()}
        return model, devices, (tmp_path / "llama-fit-params.asked").read_text()

    return allotted


def candidate(files, wanted=None):
    return Candidate(ModelSettings(), Tiny(), files, wanted or Wanted())


def room(**assigned):
    sizes = {name: size * GIB for name, size in assigned.items()}
    return Vacancy({"CUDA0": 24 * GIB, "CUDA1": 24 * GIB, "host": 99 * GIB}, sizes)


def test_the_single_gpu_with_most_room(allotted):
    model, devices, asked = allotted(room(CUDA0=1), 10 << 10)
    assert model.resolved.placement == ("--device", "CUDA1") and devices == {"CUDA1": 10}
    assert need(model.footprint)["CUDA1"] > 10 * GIB
    assert all("--fit-print" in line for line in asked.splitlines())  # nobody looks at what is free


def test_what_fits_on_none_as_a_whole_is_spread_over_both(allotted):
    model, devices, _ = allotted(room(), 30 << 10)
    assert model.resolved.placement == ("--tensor-split", "24576,24576")
    assert devices == {"CUDA0": 15, "CUDA1": 15}
    assert (model.resolved.gpu_layers, model.resolved.context) == (9999, 8192)
    assert model.resolved.whole


def test_it_is_spread_by_what_others_leave_where_it_fits_so(allotted):
    model, devices, _ = allotted(room(CUDA0=8), 30 << 10)
    assert model.resolved.placement == ("--tensor-split", "16384,24576")
    assert devices == {"CUDA0": 12, "CUDA1": 18}


def test_small_ones_are_spread_where_no_single_gpu_has_room_beside_others(allotted):
    model, devices, _ = allotted(room(CUDA0=20, CUDA1=20), 5 << 10)
    assert model.resolved.placement[0] == "--tensor-split" and devices == {"CUDA0": 2, "CUDA1": 2}


def test_where_nothing_fits_beside_others_a_turn_takes_one_gpu(allotted):
    model, devices, _ = allotted(room(CUDA0=20, CUDA1=21), 10 << 10)
    assert model.resolved.placement == ("--device", "CUDA0") and devices == {"CUDA0": 10}


def test_or_all_by_all_that_they_have(allotted):
    model, devices, _ = allotted(room(CUDA0=22), 40 << 10)
    assert model.resolved.placement == ("--tensor-split", "24576,24576")
    assert devices == {"CUDA0": 20, "CUDA1": 20}


def test_a_projector_has_to_find_room_as_well(allotted):
    model, devices, _ = allotted(room(), 21 << 10, projector=1 << 10)
    assert model.resolved.placement == ("--device", "CUDA0") and devices == {"CUDA0": 22}
    model, devices, _ = allotted(room(), 21 << 10, projector=3 << 10)
    assert model.resolved.placement[0] == "--tensor-split" and devices == {"CUDA0": 13, "CUDA1": 10}


def test_a_draft_model_has_to_find_room_as_well(allotted):
    """It is as large as the model, for this tool."""
    model, devices, asked = allotted(room(), 10 << 10, draft=HEADER.metadata)
    assert model.resolved.placement == ("--device", "CUDA0") and devices == {"CUDA0": 20}
    model, devices, _ = allotted(room(), 13 << 10, draft=HEADER.metadata)
    assert model.resolved.placement[0] == "--tensor-split" and devices == {"CUDA0": 13, "CUDA1": 13}
    assert "d.gguf" in asked


def test_heads_have_to_find_room_where_the_last_layers_are(allotted):
    """Of 3 GiB, beside 64 MiB for their context: the tool does not count them. Result: room for
    them, on the last of several GPUs."""
    told = {"llama.block_count": 4, "llama.nextn_predict_layers": 1}
    shape = (1 << 10, 3 << 20 >> 1)
    names = ("blk.2.ffn_up.weight", "blk.3.nextn.eh_proj.weight")
    tensors = tuple(Tensor(name, shape, F16, 0) for name in names)
    header = Header({**HEADER.metadata, **told}, tensors, 0)
    model, devices, _ = allotted(room(), 19 << 10, header=header)
    assert model.resolved.placement == ("--device", "CUDA0") and devices == {"CUDA0": 22}
    model, devices, _ = allotted(room(), 21 << 10, header=header)
    assert model.resolved.placement[0] == "--tensor-split" and devices == {"CUDA0": 10, "CUDA1": 13}


def test_states_to_go_back_to_have_to_find_room(allotted):
    """Of a model with a state of 512 MiB for each of four slots, and heads: three more of each."""
    told = {"block_count": 2, "nextn_predict_layers": 1, "context_length": 1}
    told |= {"ssm.inner_size": 1 << 13, "ssm.state_size": 1 << 14}
    names = "blk.0.ssm_out.weight", "blk.1.nextn.eh_proj.weight"
    metadata = {"general.architecture": "qwen35"} | {f"qwen35.{k}": v for k, v in told.items()}
    header = Header(metadata, tuple(Tensor(name, (1, 1), F16, 0) for name in names), 0)
    model, devices, _ = allotted(room(), 10 << 10, header=header)
    assert model.resolved.parallel == 4 and devices == {"CUDA0": 16}
    model, devices, _ = allotted(room(), 20 << 10, header=header)
    assert devices == {"CUDA0": 13, "CUDA1": 13}


def test_a_draft_model_that_cannot_guess_is_refused(allotted):
    with pytest.raises(FormError, match="another vocabulary") as raised:
        allotted(room(), 10, draft={**HEADER.metadata, "tokenizer.ggml.model": "gpt2"})
    assert raised.value.field == "Model/speculative"


def test_one_that_is_too_large_for_both_is_cut(allotted):
    model, devices, asked = allotted(room(), 50 << 10, cut="-c 8192 -ngl 20 -ts 1,1")
    assert not model.resolved.whole and model.resolved.gpu_layers == 20
    assert model.resolved.placement == ("-ts", "1,1") and devices == {"CUDA0": 3, "CUDA1": 3}
    assert f"-fitt {1024},{1024}" in asked


def test_where_the_cut_is_a_little_too_large_it_is_asked_for_less(allotted):
    """20 layers of 400 MiB are more than 8 GiB less CUDA's own; 19 are not."""
    small = Vacancy({"CUDA0": 8 * GIB, "host": 99 * GIB}, {})
    model, devices, asked = allotted(small, 9 << 10, cut="-c 8192 -ngl {layers}", gpus=1)
    assert model.resolved.gpu_layers == 19 and devices == {"CUDA0": 7}
    margins = [line.split("-fitt ")[1] for line in asked.splitlines() if "-fitt" in line]
    assert margins == ["16784", "16992"]


def test_one_gpu_and_a_budget_below_it(allotted):
    small = Vacancy({"CUDA0": 8 * GIB, "host": 99 * GIB}, {})
    model, devices, asked = allotted(small, 7 << 10, gpus=1)
    assert model.resolved.whole and model.resolved.placement == () and devices == {"CUDA0": 7}
    model, _, asked = allotted(small, 8 << 10, cut="-c 8192 -ngl 15", gpus=1)
    assert not model.resolved.whole and f"-fitt {(24 - 8) * 1024 + 400}" in asked


def test_the_cache_of_prompts_is_host_memory_that_is_taken(allotted):
    model, _, _ = allotted(room(), 1 << 10, memory=40 * GIB)
    assert model.resolved.cache_ram == 4 << 10
    assert 4 * GIB < need(model.footprint)["host"] < 5 * GIB


@pytest.mark.parametrize("assigned, cache", [(0, 4.0), (97, 1.9), (99, 4.0)])
def test_of_its_own_accord_the_cache_takes_what_the_models_leave(allotted, assigned, cache):
    """Of 99 GiB; where the models before leave nothing they take turns, each with all of it."""
    model, _, _ = allotted(room(host=assigned), 1 << 10, memory=40 * GIB)
    assert model.resolved.cache_ram / 1024 == pytest.approx(cache, abs=0.1)


@pytest.mark.parametrize(
    "wanted, at_once, expected",
    [
        (Wanted(), 0, (2, 2)),
        (Wanted(), 1, (8, 8)),
        (Wanted(), 3, (2, 2)),
        (Wanted(threads=5), 1, (5, 5)),
        (Wanted(threads_batch=5), 1, (8, 5)),
    ],
)
def test_threads_are_divided_among_who_runs_at_the_same_time(wanted, at_once, expected):
    machine = Machine(0, 8, 4, {}, at_once=at_once)
    resolved = Resolved(512, None, 1, 1, 1, 0)
    model = candidate(NOWHERE, wanted).allotted(FILES, resolved, Footprint({}, 0))
    found = with_threads(model, machine).resolved
    assert (found.threads, found.threads_batch) == expected


def test_one_whose_memory_is_not_known_has_no_threads_yet():
    model = candidate(NOWHERE)
    assert with_threads(model, Machine(0, 8, 4, {}, at_once=2)) is model


def test_who_is_not_known_yet_takes_nothing_and_runs_beside_the_others():
    resolved = Resolved(512, None, 1, 1, 1, 0)
    large = candidate(NOWHERE).allotted(FILES, resolved, Footprint({}, 6 * GIB))
    budget = {"host": 10 * GIB}
    assert run_at_once([large, large, candidate(NOWHERE)], budget) == 2
    left = vacancy([large, candidate(NOWHERE)], budget)
    assert left.assigned == together([need(large.footprint)])
    assert not left.takes(large) and vacancy([], budget).takes(large)
