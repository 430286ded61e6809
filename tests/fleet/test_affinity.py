import json

import pytest

from app.fleet.affinity import LOOKED_AT, conversation


def key(body):
    return conversation([json.dumps(body).encode()])


SYSTEM = {"role": "system", "content": "You are terse. " * 200}
FIRST = {"role": "user", "content": "What is a ring?"}
MORE = [{"role": "assistant", "content": "A group."}, {"role": "user", "content": "And a field?"}]


def test_the_turns_of_a_conversation_have_the_same():
    first = {"messages": [SYSTEM, FIRST], "model": "m"}
    later = {"model": "m", "temperature": 0.5, "messages": [SYSTEM, FIRST, *MORE], "stream": True}
    assert key(first) == key(later)


def test_conversations_with_one_system_prompt_differ():
    other = {"role": "user", "content": "What is a group?"}
    assert key({"messages": [SYSTEM, FIRST]}) != key({"messages": [SYSTEM, other]})


@pytest.mark.parametrize("name", ["prompt", "input"])
def test_a_prompt_is_known_by_how_it_begins(name):
    long = "Once upon a time there was a ring. " * 60
    assert key({name: long}) == key({"max_tokens": 3, name: long + "It was lost."})
    assert key({name: long}) != key({name: "In another time. " + long})


def test_parts_of_a_body_count_as_the_whole():
    whole = json.dumps({"messages": [SYSTEM, FIRST, *MORE]}).encode()
    parts = [whole[at : at + 100] for at in range(0, len(whole), 100)]
    assert conversation(parts) == conversation([whole])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"messages":',
        b'{"messages":[',
        b'{"messages":[{"role":"user","content":"',
        b'{"messages":[1,2,3,4,5,6]}',
        b'{"messages":' + b"[" * 100_000,
        b'{"input":["a","b"]}',
        b'{"messages":[{"role":"user","content":"' + b"a" * LOOKED_AT + b'"}]}',
    ],
)
def test_whatever_comes_has_a_number(body):
    assert conversation([body]) == conversation([body]) >= 0
