import asyncio
import json
import os

import pytest

from app.commands import cache as command
from app.commands.options import parser
from app.errors import ConfigError
from app.models import kept


@pytest.fixture
def run(tmp_path, capsys):
    """`run(*arguments)`: what the command prints, of a cache that keeps three files."""
    for number, name in enumerate(("org/r/a.gguf", "org/r/b.gguf", "https://x.example/c.gguf")):
        path = tmp_path / "web" / str(number) / "v" / "m.gguf"
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(1_000_000 * (number + 1)))
        kept.note(tmp_path, path, name)
        for record in (tmp_path / "kept").glob("*.json"):
            if f"/{number}/" in record.read_text():
                os.utime(record, (number, number))

    def run(*arguments):
        options = parser("cache", command, {"cache": "about"})
        given = options.parse_args(["--cache-dir", str(tmp_path), *arguments])
        assert asyncio.run(command.run(given, {})) == 0
        return capsys.readouterr().out

    return run


def listed(run):
    return [each["source"] for each in json.loads(run("--json"))]


def test_it_lists_what_is_kept(run):
    lines = run().splitlines()
    assert lines[0].split() == ["source", "size", "last", "use"]
    assert lines[1].startswith("https://x.example/c.gguf  3.0 MB")
    assert lines[-1] == "0.01 GB in all"


def test_it_removes_what_is_named(run):
    run("--remove", "org/r/*")
    assert listed(run) == ["https://x.example/c.gguf"]


def test_it_keeps_what_was_used_last(run):
    run("--keep", "5MB")
    assert listed(run) == ["org/r/b.gguf", "https://x.example/c.gguf"]
    run("--keep", "0")
    assert run() == "nothing is kept\n"


@pytest.mark.parametrize("arguments", [("--keep", "0"), ("--remove", "org/r/b.gguf")])
def test_what_cannot_be_removed_is_told(run, tmp_path, arguments):
    path = tmp_path / "web" / "1" / "v" / "m.gguf"
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError, match=f"{path} cannot be removed: Is a directory"):
        run(*arguments)
    assert "org/r/b.gguf" in listed(run)


def test_what_is_in_use_stays(run, tmp_path):
    held = kept.use(tmp_path, [tmp_path / "web" / "0" / "v" / "m.gguf"])
    with pytest.raises(ConfigError, match=r"org/r/a\.gguf is in use"):
        run("--remove", "org/r/a.gguf")
    run("--keep", "0")
    assert listed(run) == ["org/r/a.gguf"] and "in use" in run()
    assert held


def test_a_source_that_is_not_there(run):
    with pytest.raises(ConfigError, match="nothing that is kept has this source"):
        run("--remove", "org/other")
