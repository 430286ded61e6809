import asyncio
import hashlib
import os

import pytest

from app.errors import ConfigError
from app.gateway.keys_file import VARIABLE, entry
from app.instance import keys
from app.instance.keys import KeysFile, keys_file_of
from tests.fakes import until

MODELS = {"chat": "chat", "gpt-4o": "chat"}


def lines(*names):
    return "\n".join(entry(name, hashlib.sha256(name.encode()).digest()) for name in names)


class Watched:
    """A keys file that is watched."""

    def __init__(self, path):
        self.path, self.told, self.due = path, [], asyncio.Event()
        self.file = KeysFile(path)

    async def __aenter__(self):
        await self.file.read()
        self.file.start(self.due, MODELS, self.told.append)
        return self

    async def __aexit__(self, *_):
        self.file.stop()

    @property
    def names(self):
        return self.file.roster.names


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "keys.toml"
    path.write_text(lines("alice"))
    return path


def test_without_the_variable_there_is_no_file(run):
    async def scenario():
        assert await keys_file_of({}) is None
        assert await keys_file_of({VARIABLE: " "}) is None

    run(scenario)


@pytest.mark.parametrize(
    "content, problem",
    [
        (None, "cannot be read: No such file"),
        (b"[alice]", "alice: sha256: is missing: put the SHA-256"),
        (b"\xff", "is not UTF-8"),
        (b" " * ((1 << 20) + 1), "is larger than 1048576 bytes"),
    ],
)
def test_a_broken_file_is_an_error_at_the_start(run, tmp_path, content, problem):
    async def scenario():
        path = tmp_path / "keys.toml"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError, match=f"^{VARIABLE}: {path}: {problem}"):
            await keys_file_of({VARIABLE: str(path)})

    run(scenario)


def test_a_pipe_is_no_file_and_nobody_waits_for_its_writer(run, tmp_path):
    async def scenario():
        path = tmp_path / "keys.toml"
        os.mkfifo(path)
        with pytest.raises(ConfigError, match="is no file"):
            await keys_file_of({VARIABLE: str(path)})

    run(scenario)


def test_a_changed_file_is_read(run, file, monkeypatch):
    async def scenario():
        monkeypatch.setattr(keys, "LOOK", 0.001)
        async with Watched(file) as watched:
            assert watched.names == ["alice"] and watched.told == [["alice"]]
            file.write_text(lines("alice", "bob"))
            await until(lambda: watched.names == ["alice", "bob"])
            assert watched.told == [["alice"], ["alice", "bob"]]

    run(scenario)


def test_a_broken_file_is_refused_once_and_the_callers_of_before_stay(run, file, caplog):
    """1. The file is broken. 2. It is removed. 3. It is whole again. Result: each of it is said
    once, and the callers stay until the last."""

    async def scenario():
        async with Watched(file) as watched:

            async def looks():
                for _ in range(4):
                    await watched.file.look(asked=False)

            file.write_text("[alice]\nweight = 1")
            await looks()
            assert watched.names == ["alice"]
            file.unlink()
            await looks()
            assert watched.names == ["alice"] and watched.told == [["alice"]]
            file.write_text(lines("bob"))
            await looks()
            assert watched.names == ["bob"]
        said = [message for message in caplog.messages if "stay" in message]
        assert len(said) == 2 and f"{file}: alice: sha256: is missing" in said[0]
        assert "cannot be read: No such file" in said[1]

    run(scenario)


def test_a_file_in_the_middle_of_being_written_is_not_heeded(run, file):
    async def scenario():
        async with Watched(file) as watched:
            for content in ("", lines("alice")[:20], lines("bob")):
                file.write_text(content)
                await watched.file.look(asked=False)
                assert watched.names == ["alice"]
            await watched.file.look(asked=False)
            assert watched.names == ["bob"]

    run(scenario)


def test_when_it_is_asked_for_the_file_is_read_at_once(run, file, monkeypatch):
    async def scenario():
        monkeypatch.setattr(keys, "LOOK", 3600)
        async with Watched(file) as watched:
            for names in (["bob"], ["bob"], ["carol"]):
                told = len(watched.told)
                file.write_text(lines(*names))
                watched.due.set()
                await until(lambda told=told: len(watched.told) > told)
                assert watched.names == names

    run(scenario)


def test_a_caller_that_may_use_none_of_the_models_here_is_named(run, file, caplog):
    async def scenario():
        more = "\nmodels = ['elsewhere']"
        file.write_text(lines("alice") + "\nmodels = ['gpt-4o']\n" + lines("bob") + more)
        async with Watched(file):
            pass
        (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert warning.getMessage() == f"{VARIABLE}: bob may use none of the models here"

    run(scenario)
