"""Models come up: a real pool, a store and llama-servers that do as the test says."""

import asyncio
import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest

from app.engine.capabilities import Capabilities
from app.engine.resolved import Resolved, Wanted
from app.errors import LoadError, TransferError
from app.form.settings import GeneralSettings, ModelSettings
from app.instance import bring_up
from app.instance.bring_up import LlamaServers
from app.machine import clock
from app.memory.ledger import Model, ModelState
from app.memory.pool import Pool
from app.models import hub
from app.models.files import ModelFiles, Preview, Registered
from app.models.header import Header
from app.models.reference import ClearMLModel, HubFile, LocalFile
from app.planning.budget import on_devices
from app.planning.candidate import Candidate, Files
from app.planning.footprint import Footprint
from app.planning.learned import Learned
from app.planning.plan import Plan
from app.planning.site import Machine, Site
from app.telemetry.overview import Details, Overview
from app.telemetry.readings import Reading, Readings
from app.telemetry.samples import Sample, Tokens
from tests.fakes import until
from tests.instance.test_places import Kept

GIB = 1 << 30
METADATA = {"general.architecture": "llama", "llama.context_length": 512}
HEADER = Header({**METADATA, "llama.block_count": 2}, (), 0)
KNOWN = ("--cache-ram", "--spec-type", "--spec-draft-model", "--slot-save-path")
FLAGS = {flag: (flag,) for flag in KNOWN}


class Store:
    """Has files on the disk, and fetches others: `remote` are files or errors by model."""

    def __init__(self, folder):
        self.cache = self.hub_folder = folder
        self.remote, self.go_on = {}, asyncio.Event()
        self.go_on.set()

    async def fetch(self, located, name, progress):
        if isinstance(located, ModelFiles):
            return located
        progress(0.5)
        await self.go_on.wait()
        if isinstance(self.remote[name], Exception):
            raise self.remote[name]
        return self.remote[name]


class Server:
    """A llama-server that is no process; `faults` are what a load raises, by model."""

    pid = 0

    def __init__(self, name, program, client, faults):
        self.name, self.program, self.client, self.faults = name, program, client, faults
        self.process, self.progress = self, None
        self.running, self.killed, self.meta, self.template = False, False, {}, None
        self.argv = program.argv

    async def start(self):
        if self.name in self.faults:
            raise self.faults[self.name]
        self.running = True

    def expect(self):
        pass

    async def stop(self):
        self.running = False

    async def exited(self):
        await asyncio.Event().wait()

    def kill(self):
        self.killed = True


class Instance:
    """What is around the models of a plan."""

    def __init__(self, folder, *, gpus=0, unix=True):
        (folder / "llama-server").touch()
        self.folder, self.store, self.models = folder, Store(folder), []
        devices = {f"CUDA{number}": 20 * GIB for number in range(gpus)}
        self.site = Site(
            Capabilities(FLAGS, folder / "llama-server", devices, devices, unix),
            Machine(20 * GIB, 4, 2, {}, devices),
        )
        self.budget = {**devices, "host": 20 * GIB}
        self.servers, self.faults, self.lines, self.pool = [], {}, [], None

    def local(self, name, **fields):
        """A model whose files are here."""
        files = self.file(name)
        candidate = Candidate(
            ModelSettings(endpoint_name=name, **fields),
            LocalFile(f"{name}.gguf"),
            Files(files),
            Wanted(),
        )
        self._add(candidate.allotted(files, Resolved(512, None, 1, 1, 1, 0), Footprint({}, GIB)))

    def remote(self, name, answer):
        """A model of the hub."""
        located = hub.OnHub("org/repo", "main", "0" * 40, (hub.Part(f"{name}.gguf", 5),))
        candidate = Candidate(
            ModelSettings(endpoint_name=name), HubFile("org/repo", "m"), Files(located), Wanted()
        )
        preview = Preview(self.folder / "none", HEADER, 5)
        self.store.remote[name] = answer
        self._add(candidate.allotted(preview, Resolved(512, None, 1, 1, 1, 0), Footprint({}, GIB)))

    def registered(self, name, files):
        """A model of ClearML's registry."""
        self.store.remote[name] = files
        located = Files(Registered("0" * 32, name))
        meant = ClearMLModel("0" * 32)
        self._add(Candidate(ModelSettings(endpoint_name=name), meant, located, Wanted()))

    def _add(self, model):
        self.models.append(model)

    def file(self, name, size=5):
        path = self.folder / f"{name}.gguf"
        with path.open("wb") as file:
            file.truncate(size)
        return ModelFiles((path,), HEADER)

    async def bring_up(self, *, sharing=False, **general):
        plan = Plan(tuple(self.models), self.site, self.store, self.budget, sharing)
        self.pool = Pool([Model(name) for name in plan.names], self.budget, clock.now)
        self.overview = Overview(
            "1",
            {name: Details() for name in plan.names},
            idle_limit=None,
            active_for=1.0,
            devices=list,
            view=self.pool.view,
            host=lambda: (0, 0),
            readings=Readings(lambda pids: Reading([], (0, 0), {})),
        )
        self.all = LlamaServers(
            plan,
            GeneralSettings(**general),
            self.pool,
            self.overview,
            [Kept(self.folder)],
            self.folder / "kv",
            {},
            lambda *line: self.lines.append(line),
            self._make,
        )
        await self.all.bring_up()

    def _make(self, name, program, client):
        self.servers.append(Server(name, program, client, self.faults))
        return self.servers[-1]

    @property
    def states(self):
        return {view.name: view.state for view in self.pool.view()} if self.pool else {}

    def reason(self, name):
        return next(view.reason for view in self.pool.view() if view.name == name)

    def argv(self, name):
        return next(server for server in self.servers if server.name == name).program.argv


@pytest.fixture
def instance(tmp_path):
    return Instance(tmp_path)


def test_models_are_loaded_at_once(run, instance):
    async def scenario():
        instance.local("a")
        instance.remote("b", instance.file("b"))
        await instance.bring_up()
        assert instance.states == dict.fromkeys("ab", ModelState.READY)
        details = instance.overview.models["a"]
        assert (details.context, details.slots, details.placed) == (512, 1, "")
        assert details.meta()["n_ctx"] == 512 and "n_vocab" not in details.meta()
        instance.servers[0].meta = {"n_vocab": 3, "n_ctx": 256}  # once it was ready
        assert (details.meta()["n_vocab"], details.meta()["n_ctx"]) == (3, 256)

    run(scenario)


def test_of_several_one_that_fails_stays_failed_with_its_cause(run, instance, caplog):
    async def scenario():
        instance.local("a")
        instance.local("b")
        instance.faults["a"] = LoadError("cannot be loaded: no")
        await instance.bring_up()
        assert instance.states == {"a": ModelState.FAILED, "b": ModelState.READY}
        assert instance.reason("a") == "cannot be loaded: no"
        assert [r.message for r in caplog.records if r.name == "app.instance.bring_up"] == [
            "cannot be loaded: no"
        ]

    run(scenario)


@pytest.mark.parametrize("names", ["a", "ab"])
def test_where_none_is_left_the_first_error_is_raised(run, instance, names):
    async def scenario():
        for name in names:
            instance.local(name)
            instance.faults[name] = LoadError(f"{name} cannot be loaded")
        with pytest.raises(LoadError, match="a cannot be loaded"):
            await instance.bring_up()
        assert instance.states == dict.fromkeys(names, ModelState.FAILED)

    run(scenario)


def test_a_fetch_that_fails_starts_no_llama_server(run, instance):
    async def scenario():
        instance.local("a")
        instance.remote("b", TransferError("org/repo/b.gguf: gone"))
        await instance.bring_up()
        assert instance.states["b"] is ModelState.FAILED
        assert instance.reason("b") == "org/repo/b.gguf: gone"
        assert [server.name for server in instance.servers] == ["a"]

    run(scenario)


def test_a_fault_of_ours_is_raised_though_other_models_run(run, instance):
    async def scenario():
        instance.local("a")
        instance.remote("b", ZeroDivisionError("ours"))
        with pytest.raises(ZeroDivisionError):
            await instance.bring_up()

    run(scenario)


def test_a_download_is_told_while_it_lasts(run, instance):
    async def scenario():
        instance.remote("a", instance.file("a"))
        instance.store.go_on.clear()
        bringing = asyncio.create_task(instance.bring_up())
        await until(lambda: instance.states == {"a": ModelState.DOWNLOADING})
        await until(lambda: instance.pool.view()[0].progress == 0.5)
        instance.store.go_on.set()
        await bringing

    run(scenario)


def test_one_without_preload_waits_for_its_first_request(run, instance):
    async def scenario():
        instance.local("a", preload=False)
        await instance.bring_up()
        assert instance.states == {"a": ModelState.COLD} and not instance.servers[0].running

    run(scenario)


def test_a_preload_without_room_fails_with_the_numbers(run, instance):
    """A model of the registry: that it is too large is known only once it is here."""

    async def scenario():
        instance.registered("a", instance.file("a", 30 * GIB))
        with pytest.raises(LoadError, match="a needs 30.* GiB on host, which has 20.00"):
            await instance.bring_up()
        assert instance.states == {"a": ModelState.FAILED}

    run(scenario)


def test_a_model_of_the_registry_is_allotted_when_it_is_here(run, instance, caplog):
    caplog.set_level(logging.INFO, "app.instance")

    async def scenario():
        instance.registered("a", instance.file("a"))
        await instance.bring_up()
        (told,) = [record for record in caplog.records if record.name == "app.instance.bring_up"]
        assert told.message.startswith("resolved: context 512, parallel 4")
        assert told.subject == "a" and instance.overview.models["a"].slots == 4

    run(scenario)


def test_models_of_the_registry_are_allotted_beside_each_other(run, tmp_path):
    """Two GPUs of 20 GiB, two models of 12. Result: one on each."""

    async def scenario():
        instance = Instance(tmp_path, gpus=2)
        for name in "ab":
            instance.registered(name, instance.file(name, 12 * GIB))
        await instance.bring_up()
        argvs = [instance.argv(name) for name in "ab"]
        assert {argv[argv.index("--device") + 1] for argv in argvs} == {"CUDA0", "CUDA1"}

    run(scenario)


@pytest.mark.parametrize(
    "gpus, general, stays",
    [(0, {"cpu_offloading": True}, True), (0, {"disk_swapping": True}, False), (0, {}, False)]
    + [(1, {"cpu_offloading": True}, False)],
    ids=["offloading", "swapping", "neither", "a GPU"],
)
def test_without_a_gpu_models_may_stay_in_cpu_ram_while_they_are_away(
    run, tmp_path, monkeypatch, gpus, general, stays
):
    """With as much as their process has for itself."""

    async def none(plan, environment):
        return None

    async def scenario():
        instance = Instance(tmp_path, gpus=gpus)
        instance.local("a")
        await instance.bring_up(sharing=True, **general)
        assert (instance.pool._ledger["a"].server.parked_size() > 0) is stays

    monkeypatch.setattr(bring_up, "find_checkpoints", none)
    monkeypatch.setattr(Server, "pid", os.getpid())
    run(scenario)


@pytest.mark.parametrize(
    "sharing, names, fields, kept",
    [
        (True, "ab", {}, True),
        (True, "a", {}, False),
        (True, "a", {"ttl": 1.0}, True),
        (False, "ab", {"ttl": 1.0}, False),
        (True, "ab", {"embedding": True}, False),
    ],
    ids=[
        "they take turns",
        "nobody to make room for",
        "it leaves unused",
        "no tier keeps them",
        "they would not be used",
    ],
)
def test_kv_caches_are_kept_where_models_leave(run, instance, sharing, names, fields, kept):
    """Each llama-server has a folder for them, or it would not clear them either."""

    async def scenario():
        for name in names:
            instance.local(name, **fields)
        await instance.bring_up(sharing=sharing)
        argvs = [instance.argv(name) for name in names]
        folders = [argv[argv.index("--slot-save-path") + 1] for argv in argvs]
        each = [str(instance.folder / "kv" / name) for name in "01"[: len(names)]]
        assert folders == each and all(Path(folder).is_dir() for folder in folders)
        assert list(instance.all._slots) == (list(names) if kept else [])

    run(scenario)


def test_kv_caches_are_those_of_all_files_that_decide_what_is_computed(run, instance):
    async def scenario():
        (instance.folder / "lora").touch()
        for name in "ab":
            instance.local(name, extra_args=f"--lora {instance.folder / 'lora'}")
        await instance.bring_up(sharing=True)
        files = instance.all._slots["a"].weights
        assert {file.name for file in files if file.is_file()} == {"a.gguf", "lora"}

    run(scenario)


def test_its_folders_are_there_before_each_start_and_before_each_save(run, instance):
    async def scenario():
        for name in "ab":
            instance.local(name)
        await instance.bring_up(sharing=True)
        kv = instance.folder / "kv" / "0"
        for restores in (
            instance.servers[0].program.before,
            instance.all._slots["a"].restore_folder,
        ):
            kv.rmdir()
            restores()
            assert kv.is_dir()

    run(scenario)


@pytest.mark.parametrize("unix", [True, False])
def test_no_two_llama_servers_share_an_address_or_a_key(run, tmp_path, unix):
    async def scenario():
        instance = Instance(tmp_path, unix=unix)
        for name in "abcd":
            instance.remote(name, instance.file(name))
        await instance.bring_up()
        clients = [server.client for server in instance.servers]
        keys = {server.program.environment["LLAMA_API_KEY"] for server in instance.servers}
        assert len(keys) == len({client.address for client in clients}) == 4
        assert all(bool(client.address.path) is unix for client in clients)

    run(scenario)


def test_a_projector_is_fetched_too(run, instance):
    async def scenario():
        instance.local("a")
        (model,) = instance.models
        files = Files(model.files.model, instance.file("mmproj"))
        candidate = Candidate(model.settings, model.reference, files, model.wanted)
        instance.models = [candidate.allotted(model.contents, model.resolved, model.footprint)]
        await instance.bring_up()
        argv = instance.argv("a")
        assert argv[argv.index("--mmproj") + 1] == str(instance.folder / "mmproj.gguf")

    run(scenario)


def test_a_draft_model_is_fetched_too_and_what_it_is_worth_is_told_once(run, instance, caplog):
    """Result: its kind is in argv; that it makes the model slower is logged, once."""

    async def scenario():
        instance.local("a", speculative="d.gguf")
        (model,) = instance.models
        files = Files(model.files.model, draft=instance.file("d"))
        instance.models = [replace(model, files=files)]
        await instance.bring_up()
        argv = instance.argv("a")
        assert argv[argv.index("--spec-type") + 1] == "draft-simple"
        assert argv[argv.index("--spec-draft-model") + 1] == str(instance.folder / "d.gguf")
        tokens = Tokens(generated=500, drafted=300, accepted=100)  # the draft is as large as all
        sample = Sample(model="a", status=200, latency=1, first_token=1, tokens=tokens)
        for _ in range(2):
            instance.all.seen(sample)

    run(scenario)
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert told == [
        "Speculative Decoding makes it slower: 33 % of the guesses are right, and a guess costs "
        "100 % of a token or more"
    ]


def test_its_lines_are_heard_and_its_last_words_are_learned(run, instance):
    async def scenario():
        instance.local("a")
        await instance.bring_up()
        instance.servers[0].program.on_line("warn", "text")
        assert instance.lines == [("a", "warn", "text")]
        instance.servers[0].program.on_buffers({"CUDA0": 5})
        (seen,) = Learned(instance.folder)._usage.values()
        assert seen["CUDA0"] == on_devices({"CUDA0": 5})["CUDA0"]

    run(scenario)


@pytest.mark.parametrize(
    "general, verbose, shown",
    [
        ({}, False, ("error",)),
        ({}, True, ("info", "warn", "error", "trace", "debug")),
        ({"debug": True}, False, ("info", "warn", "error", "trace", "debug")),
        ({"disable_logs": True}, True, ()),
    ],
)
def test_what_the_console_shows_of_it(run, instance, general, verbose, shown):
    async def scenario():
        instance.local("a", verbose=verbose)
        await instance.bring_up(**general)
        assert tuple(instance.servers[0].program.show) == shown

    run(scenario)


def test_at_the_end_every_child_is_killed(run, instance):
    async def scenario():
        instance.local("a")
        instance.local("b")
        await instance.bring_up()
        instance.all.kill()
        assert [server.killed for server in instance.servers] == [True, True]

    run(scenario)


def test_a_request_tells_whether_the_kept_cache_was_of_use(run, instance):
    async def scenario():
        instance.local("a")
        instance.local("b")
        await instance.bring_up(sharing=True)
        seen = []
        instance.all._slots["a"].seen = lambda *tokens: seen.append(tokens)
        told = {"status": 200, "latency": 1.0, "first_token": None}
        instance.all.seen(Sample(model="a", tokens=Tokens(prompt=7, cached=3), **told))
        guessed = Tokens(prompt=9, estimated=True)
        instance.all.seen(Sample(model="a", tokens=guessed, **{**told, "status": 499}))
        assert seen == [(7, 3)]

    run(scenario)
