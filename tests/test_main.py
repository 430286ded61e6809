import json

import pytest

from app.commands.options import DESCRIPTIONS, fields_help, parser, request
from app.errors import ConfigError
from app.form.fields import FIELDS
from app.main import COMMANDS


def parsed(*argv):
    return request(parser().parse_args(argv))


def test_model_host_and_port_are_fields():
    found = parsed("--model", "m", "--host", "::1", "--port", "1", "--set", "Model/threads=2")
    assert found.overrides == {
        "Model/model": "m",
        "General/host": "::1",
        "General/port": "1",
        "Model/threads": "2",
    }
    assert not found.offline and found.cache_dir is None


def test_the_usage_names_every_command():
    assert all(command in parser().format_usage() for command in COMMANDS)
    assert {*DESCRIPTIONS} == {*COMMANDS}


def test_a_configuration_file(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"Model": {"model": "x"}}))
    assert parsed("--config", str(path), "--offline").config == {"Model/model": "x"}


def test_a_configuration_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        parsed("--config", str(tmp_path / "none"))


def test_help_names_every_field():
    assert all(field.key in fields_help() for field in FIELDS)
    assert "Model/context_size" in parser().format_help()
