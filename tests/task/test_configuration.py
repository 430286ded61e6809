"""The SDK's own parser, with and without its lines of comments."""

import sys
from pathlib import Path

import clearml
import pytest
from clearml.utilities.pyhocon import ConfigFactory
from clearml.utilities.pyhocon.config_parser import ConfigParser
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.task import configuration

AS_IT_WAS = ConfigParser.parse
DEFAULTS = sorted(Path(clearml.__file__).parent.glob("config/default/*.conf"))
LINES = [
    "# a comment",
    "  // another one {",
    '\t# with "quotes" and a: 1',
    '// with """three"""',
    "#",
    "a: 1",
    "b = two words # and a comment",
    'c: "# no comment"',
    "d: http://host/path",
    'e: "http://host//path" // behind',
    "f { g: 1, # one",
    "h: [1, // two",
    "3",
    "]",
    "}",
    "}}",
    "i: ${a}",
    "j:",
    "k: \\",
    'l: """',
    'n: """\n# text\n"""',
    "m: ${?NO_SUCH_VARIABLE}",
    "'# neither'",
    "",
]


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(ConfigParser, "parse", AS_IT_WAS)
    configuration.skip_comments()
    return ConfigParser.parse


def outcome(parse, text):
    """What the text says, or where it says nothing."""
    try:
        return parse(text).as_plain_ordered_dict()
    except Exception as error:  # noqa: BLE001 of the parser, which raises what it likes
        return type(error), getattr(error, "lineno", None)


@example(["k: one \\", "# c", "b: 2"], "\n")
@example(["a: \\", "# c", "b: 2"], "\n")
@example(["k: \\", "# c", "3", "b: 2"], "\n")
@example(["k: \\", "# a comment", "b = two words # and a comment"], "\n")
@example(["a: 1", "# c\rb: 2", "d: 3"], "\n")
@settings(max_examples=150)
@given(st.lists(st.sampled_from(LINES), max_size=12), st.sampled_from(["\n", "\r\n", "\r"]))
def test_a_text_says_the_same_without_its_comments(lines, end):
    text = end.join(lines)
    plain = outcome(AS_IT_WAS, text)
    ConfigParser.parse = AS_IT_WAS
    configuration.skip_comments()
    try:
        assert outcome(ConfigParser.parse, text) == plain
    finally:
        ConfigParser.parse = AS_IT_WAS


@pytest.mark.parametrize("path", DEFAULTS, ids=lambda path: path.name)
def test_the_sdks_own_defaults_say_the_same(quick, path):
    text = path.read_text()
    assert outcome(quick, text) == outcome(AS_IT_WAS, text)


def test_the_parser_sees_no_lines_of_comments(monkeypatch):
    """What is left of the SDK's defaults is the smaller part of them."""
    seen = []
    monkeypatch.setattr(ConfigParser, "parse", lambda text, *_, **__: seen.append(text))
    configuration.skip_comments()
    configuration.skip_comments()
    for path in DEFAULTS:
        ConfigFactory.parse_file(str(path))
        assert seen[-1].count("\n") == path.read_text().count("\n")
        assert {s for line in seen[-1].splitlines() if (s := line.strip()).startswith("#")} == {"#"}
    ConfigFactory.parse_string('a: """\n# text\n"""')
    assert "# text" in seen[-1]


def test_an_sdk_that_reads_by_other_means_is_left(monkeypatch):
    monkeypatch.delattr(ConfigParser, "parse")
    configuration.skip_comments()
    assert not hasattr(ConfigParser, "parse")
    monkeypatch.setitem(sys.modules, "clearml.utilities.pyhocon.config_parser", None)
    configuration.skip_comments()
