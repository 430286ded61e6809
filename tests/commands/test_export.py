import json

import pytest

from app.commands.export import export
from app.errors import FormError


def test_a_form_is_printed_as_config_reads_it(capsys):
    export({"Model/model": "m.gguf", "Model/threads": "2", "Args/parallel": "3"})
    told = json.loads(capsys.readouterr().out)
    assert told["Model"]["threads"] == 2 and told["Model"]["parallel"] == 3
    assert told["Model"]["model"] == "m.gguf"


def test_a_token_is_not_printed(capsys):
    export({"General/hf_token": "hf_secret"})
    assert "hf_secret" not in capsys.readouterr().out


def test_a_field_that_there_is_not_is_warned_of_and_left_out(capsys, caplog):
    """The task may be of another version."""
    export({"Model/thread": "2", "properties/status": "idle"})
    assert "thread" not in capsys.readouterr().out
    assert [record.getMessage() for record in caplog.records] == [
        "Model/thread: no such field, ignored; did you mean Model/threads?"
    ]


def test_a_form_that_cannot_be_read_is_refused():
    with pytest.raises(FormError, match="Model/threads"):
        export({"Model/threads": "many"})
