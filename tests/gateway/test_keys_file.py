import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError
from app.gateway.keys_file import MOST, UNNAMED, Holder, entry, parse

ONE = hashlib.sha256(b"one").hexdigest()
TWO = hashlib.sha256(b"two").hexdigest()


def test_each_table_is_a_caller():
    found = parse(
        f"""
        [alice]
        sha256 = "{ONE}"
        models = ["chat", "gpt-4o"]
        max_concurrent_requests = 4
        tokens_per_minute = 20_000
        class = "batch"
        weight = 2

        ["bob@example.com"]
        sha256 = "{TWO.upper()}"
        """
    )
    assert found == (
        Holder(
            "alice",
            bytes.fromhex(ONE),
            frozenset({"chat", "gpt-4o"}),
            max_concurrent_requests=4,
            tokens_per_minute=20_000,
            batch=True,
            weight=2.0,
        ),
        Holder("bob@example.com", bytes.fromhex(TWO)),
    )
    assert parse("") == ()


@pytest.mark.parametrize(
    "text, problem",
    [
        ("[alice", "^not TOML: .*end of document"),
        ("a =\nb", "^not TOML: .*line 1"),
        ("[a]\n[a]", "^not TOML: "),
        ("alice = 3", r"^entry 1: must be a table"),
        ("[[alice]]", r"^entry 1: must be a table"),
        ("[alice]", "^alice: sha256: is missing: put the SHA-256 .* key new"),
        ("[alice]\nsha256 = 3", "^alice: sha256: not a hash: put the SHA-256"),
        (f'[alice]\nsha256 = "{ONE[1:]}"', "^alice: sha256: not a hash"),
        ("[alice]\nkey = 'sk-secret'", "^alice: key: no such field; there are: sha256, models"),
        ("[other]", "^other: all other requests are counted by this name"),
        ("['a b']", "^'a b': not a name: take up to 64 letters"),
        ("['']", "^'': not a name"),
        (f"[{'a' * 65}]", "not a name"),
        (f'[a.b]\nsha256 = "{ONE}"', "^a: b: no such field"),
        (f'[a]\nsha256 = "{ONE}"\n[b]\nsha256 = "{ONE}"', "^b: sha256: that is a's key: make"),
        ("\n".join(f"[a{n}]" for n in range(MOST + 1)), "^1001 callers, and no more than 1000"),
    ],
)
def test_a_broken_file_is_refused_with_the_entry_and_the_field(text, problem):
    with pytest.raises(ConfigError, match=problem) as refused:
        parse(text)
    assert "sk-secret" not in str(refused.value) and ONE[1:] not in str(refused.value)


@pytest.mark.parametrize(
    "field, value, problem",
    [
        ("models", '"chat"', "must be a list of names"),
        ("models", "[]", "must be a list of names"),
        ("models", "[1]", "must be a list of names"),
        ("max_concurrent_requests", "0", "at least 1"),
        ("max_concurrent_requests", "true", "at least 1"),
        ("max_concurrent_requests", "1" + "0" * 400, "at least 1"),
        ("max_concurrent_requests", "1.5", "at least 1"),
        ("tokens_per_minute", "-1", "at least 1"),
        ("tokens_per_minute", '"9"', "at least 1"),
        ("class", '"slow"', "one of: interactive, batch"),
        ("class", "[]", "one of: interactive, batch"),
        ("weight", "0", "above 0"),
        ("weight", "-inf", "above 0"),
        ("weight", "nan", "above 0"),
        ("weight", "inf", "at most 1000"),
        ("weight", "true", "above 0"),
        ("weight", "2000-01-01", "above 0"),
    ],
)
def test_a_value_that_a_field_does_not_take_is_refused(field, value, problem):
    with pytest.raises(ConfigError, match=f"^alice: {field}: .*{problem}"):
        parse(f'[alice]\nsha256 = "{ONE}"\n{field} = {value}')


def test_what_shows_a_caller_does_not_show_the_hash_of_its_key():
    assert ONE not in repr(parse(entry("a", bytes.fromhex(ONE)))) and UNNAMED.name == ""


@given(
    st.text(string.ascii_letters + string.digits, min_size=1, max_size=1),
    st.text(string.ascii_letters + string.digits + "._@-", max_size=63),
)
def test_a_made_entry_is_read_as_it_was_made(first, rest):
    name = first + rest
    if name != "other":
        digest = bytes.fromhex(ONE)
        assert parse(entry(name, digest)) == (Holder(name, digest),)


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        parse(text)
    except ConfigError:
        pass


def test_no_entry_is_made_for_a_name_that_the_file_cannot_have():
    with pytest.raises(ConfigError, match="not a name"):
        entry("a\nb", b"")
