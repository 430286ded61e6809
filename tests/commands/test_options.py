import argparse
import json

import pytest

from app.commands.options import CHECKOUT, add_fields, fields_help, invocation, public, text_of
from app.errors import ConfigError
from app.form.fields import FIELDS


def given(*argv):
    parser = argparse.ArgumentParser()
    add_fields(parser)
    return invocation(parser.parse_args(argv))


def test_model_host_and_port_are_fields():
    found = given("--model", "m", "--host", "::1", "--port", "0", "--set", "Model/threads=2")
    assert found.overrides == {
        "Model/model": "m",
        "General/host": "::1",
        "General/port": "0",
        "Model/threads": "2",
    }
    assert not found.offline and found.cache_dir is None and found.config == {}


def test_an_option_comes_over_a_set_of_the_same_field():
    assert given("--set", "General/port=1", "--port", "2").overrides == {"General/port": "2"}


def test_a_configuration_file(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"Model": {"model": "x"}}))
    found = given("--config", str(path), "--offline", "--cache-dir", "d")
    assert found.config == {"Model/model": "x"} and found.overrides == {}
    assert found.offline and found.cache_dir == "d"


@pytest.mark.parametrize("content", [None, b"\xff"], ids=["missing", "no text"])
def test_a_configuration_file_that_cannot_be_read(tmp_path, content):
    if content is not None:
        (tmp_path / "c").write_bytes(content)
    with pytest.raises(ConfigError, match="--config .*/c: (cannot be read|is not UTF-8)"):
        given("--config", str(tmp_path / "c"))


def test_a_configuration_file_of_windows(tmp_path):
    file = tmp_path / "c.json"
    file.write_bytes(b'\xef\xbb\xbf{"Model":\r\n{"threads": 2}}')
    assert text_of(str(file)) == '{"Model":\r\n{"threads": 2}}'
    file.write_bytes('{"Model": {}}'.encode("utf-16"))
    with pytest.raises(ConfigError, match="is not UTF-8: save it as UTF-8"):
        text_of(str(file))


def test_a_configuration_file_without_end():
    with pytest.raises(ConfigError, match="--config /dev/zero: has more than 1048576 bytes"):
        given("--config", "/dev/zero")


@pytest.mark.parametrize(
    "argv, problem",
    [
        (["--set", "Foo/bar=1"], "--set Foo/bar: no such field"),
        (["--set", "General/hf_token=hf_x"], "General/hf_token: other users can read"),
        (["--set", "Args/hf_token=hf_x"], "General/hf_token: other users can read"),
        (["--set", "threads=1"], "write it as Section/name=value"),
    ],
)
def test_what_cannot_be_set_is_refused(argv, problem):
    with pytest.raises(ConfigError, match=problem) as raised:
        given(*argv)
    assert "hf_x" not in str(raised.value)


def test_help_names_every_field():
    assert all(field.key in fields_help() for field in FIELDS)


def test_a_password_in_an_address_is_left_out_with_a_word(caplog):
    assert public("https://me:ghp_secret@host/x.git") == "https://host/x.git"
    assert "ghp_secret" not in caplog.text and "--repo" in caplog.text
    caplog.clear()
    assert public("https://host/x.git") == "https://host/x.git" and public("") == ""
    assert caplog.text == ""


def test_the_checkout_is_the_one_that_we_run_from():
    assert (CHECKOUT / "requirements.txt").is_file() and (CHECKOUT / "app" / "main.py").is_file()
