import asyncio
import hashlib
from argparse import Namespace
from dataclasses import replace

import pytest

from app.commands import key
from app.commands.key import tell
from app.errors import ConfigError
from app.gateway import keys_file
from app.task.served import Served

SERVES = Served("t", "n", "in_progress", state="active", endpoint="http://h:1", key="k")


def test_the_endpoint_and_the_key_are_printed(capsys, caplog):
    tell(SERVES)
    assert capsys.readouterr().out == "endpoint http://h:1\nkey k\n" and caplog.text == ""


def test_nobody_who_can_edit_a_task_draws_on_the_terminal(capsys):
    tell(replace(SERVES, endpoint="http://h\x1b[2J"))
    assert capsys.readouterr().out == "endpoint http://h\\x1b[2J\nkey k\n"


def test_while_it_is_set_up_that_is_said_too(capsys, caplog):
    tell(replace(SERVES, state="setting up", progress="m: loading 5%"))
    assert capsys.readouterr().out.endswith("key k\n")
    assert caplog.messages == ["it does not serve yet: setting up: m: loading 5%"]


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"status": "queued"}, "task t does not serve yet: queued"),
        ({"status": "failed", "reason": "no room"}, "task t does not serve: failed: no room"),
        ({"endpoint": "", "state": ""}, "does not serve yet: an agent prepares it"),
        ({"endpoint": "", "routed": True}, "yet: waits for an address of the App Gateway"),
    ],
)
def test_what_does_not_serve_has_nothing_to_print(capsys, change, problem):
    with pytest.raises(ConfigError, match=problem):
        tell(replace(SERVES, **change))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"key": ""}, "its key is not in the task: it was given as LLAMACPP_API_KEY"),
        ({"key": "", "by_hand": True}, "no agent runs it"),
        ({"routed": True}, "a token of ClearML's App Gateway, not a key"),
    ],
)
def test_without_a_key_in_the_task_it_is_said_where_it_is(capsys, change, problem):
    with pytest.raises(ConfigError, match=problem):
        tell(replace(SERVES, **change))
    assert capsys.readouterr().out == "endpoint http://h:1\n"


def test_a_new_keys_lines_are_for_the_file_and_the_key_is_not_among_them(capsys):
    asyncio.run(key.run(Namespace(task="new", name="alice"), {}))
    asyncio.run(key.run(Namespace(task="new", name="b.c"), {}))
    said = capsys.readouterr()
    alice, other = keys_file.parse(said.out)
    made = [line.rpartition(" ")[2] for line in said.err.splitlines()]
    assert [alice.name, other.name] == ["alice", "b.c"] and len(made[0]) >= 43
    assert [hashlib.sha256(each.encode()).digest() for each in made] == [alice.digest, other.digest]


@pytest.mark.parametrize(
    "task, name, problem",
    [
        ("new", None, "name the caller that the key is for"),
        ("new", "other", "other: all other requests are counted by this name"),
        ("new", "a b", "not a name"),
        ("0123", "alice", "to make a key: key new NAME"),
    ],
)
def test_a_key_is_made_for_a_name_that_the_file_may_have(capsys, task, name, problem):
    with pytest.raises(ConfigError, match=problem):
        asyncio.run(key.run(Namespace(task=task, name=name), {}))
    assert capsys.readouterr() == ("", "")  # no key, either
