import socket

import pytest

from app.doctor import gpus, machine
from app.doctor.finding import Verdict
from app.errors import ConfigError
from app.machine import gpu, limits


def test_a_cache_that_is_not_there_yet(run, tmp_path):
    async def scenario():
        found = await machine.cache(tmp_path / "a" / "b")
        assert found.verdict in (Verdict.OK, Verdict.WARNING) and "GiB free" in found.seen
        assert not (tmp_path / "a").exists()

    run(scenario)


def test_a_cache_that_cannot_be(run, tmp_path):
    (tmp_path / "file").touch()

    async def scenario():
        for folder in (tmp_path / "file", tmp_path / "file" / "x", "/proc/none"):
            found = await machine.cache(type(tmp_path)(folder))
            assert found.verdict is Verdict.PROBLEM and "LLAMACPP_CACHE_DIR" in found.advice

    run(scenario)


def test_little_room(run, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "LITTLE", 1 << 60)

    async def scenario():
        found = await machine.cache(tmp_path)
        assert found.verdict is Verdict.WARNING and "python -m app cache" in found.advice

    run(scenario)


def test_a_port(run):
    async def scenario():
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            port = other.getsockname()[1]
            found = await machine.port("127.0.0.1", port)
            assert found.verdict is Verdict.PROBLEM and f":{port} is taken" in found.seen
        assert (await machine.port("127.0.0.1", port)).verdict is Verdict.OK
        assert (await machine.port("127.0.0.1", 0)).verdict is Verdict.OK
        assert (await machine.port("127.0.0.1", None)).verdict is Verdict.OK
        with pytest.raises(ConfigError, match="General/host"):
            await machine.port("192.0.2.1", 0)

    run(scenario)


def test_limits(run, monkeypatch):
    async def scenario():
        monkeypatch.setattr(limits, "open_files", lambda: 1024)
        monkeypatch.setattr(limits, "processes", lambda: 100)
        found = await machine.granted()
        assert found.verdict is Verdict.WARNING
        assert "open files to" in found.advice and "processes to" in found.advice
        monkeypatch.setattr(limits, "open_files", lambda: None)
        monkeypatch.setattr(limits, "processes", lambda: None)
        found = await machine.granted()
        assert found.verdict is Verdict.OK and found.seen.startswith("unlimited open files")

    run(scenario)


def test_what_the_kernel_grants(tmp_path):
    assert limits.ptrace_scope(tmp_path / "none") is None
    (tmp_path / "scope").write_text("2\n")
    assert limits.ptrace_scope(tmp_path / "scope") == 2
    before = limits.processes(tmp_path)
    (tmp_path / "pids.max").write_text("77\n")
    assert limits.processes(tmp_path) == 77
    (tmp_path / "pids.max").write_text("max\n")
    assert limits.processes(tmp_path) == before


def test_memory_files_and_folders_of_this_machine(run):
    async def scenario():
        for check in (machine.memory, machine.temporary, machine.shared_memory):
            found = await check()
            assert found.verdict is Verdict.OK and found.seen, found

    run(scenario)


def test_gpus_on_the_bus(tmp_path):
    for name, vendor, kind in (("a", "0x10de", "0x030200"), ("b", "0x10de", "0x040300")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(f"{vendor}\n")
        (tmp_path / name / "class").write_text(f"{kind}\n")
    (tmp_path / "c").mkdir()
    assert gpu.built_in(tmp_path) == 1  # the other one is its sound


def test_a_gpu_that_the_driver_does_not_show(run, monkeypatch):
    monkeypatch.setattr(gpu, "devices", list)
    monkeypatch.setattr(gpu, "count", int)
    monkeypatch.setattr(gpu, "built_in", lambda: 2)
    monkeypatch.setattr(gpu, "trouble", lambda: "Driver/library version mismatch")

    async def scenario():
        found = await gpus.present()
        assert found.verdict is Verdict.PROBLEM and "mismatch" in found.seen
        assert "restart" in found.advice

    run(scenario)


@pytest.mark.parametrize(
    "version, number", [("570.86.10", 570), ("580", 580), ("", 0), ("R5", 0), ("535.1", 535)]
)
def test_the_first_number_of_a_drivers_version(version, number):
    assert gpus.number(version) == number
