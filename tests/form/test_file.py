import json

import pytest

from app.errors import ConfigError
from app.form.fields import FIELDS, MODEL_FIELDS
from app.form.file import assignment, read


def test_scalars_become_the_text_of_a_hyperparameter():
    text = '{"Model": {"model": "m.gguf", "threads": 2, "embedding": true, "parallel": null}}'
    assert read("f", text) == {
        "Model/model": "m.gguf",
        "Model/threads": "2",
        "Model/embedding": "true",
        "Model/parallel": "",
    }


def test_a_list_of_models_may_stand_there_as_it_is():
    text = '{"General": {"models": [{"model": "m.gguf", "threads": 2}]}}'
    assert read("f", text) == {"General/models": '[{"model": "m.gguf", "threads": 2}]'}


@pytest.mark.parametrize(
    "text", ["{", "[]", "[" * 100_000, '{"Model": 1}', '{"Model": {"threads": [1]}}']
)
def test_what_is_no_configuration_is_refused(text):
    with pytest.raises(ConfigError, match="--config f"):
        read("f", text)


@pytest.mark.parametrize(
    "text",
    [
        '{"Model": {"threads": 1}, "Model": {}}',
        '{"Model": {"threads": 1, "threads": 2}}',
        '{"General": {"models": [{"threads": 1, "threads": 1}]}}',
    ],
)
def test_what_is_there_twice_is_refused(text):
    with pytest.raises(ConfigError, match=r"^--config f: (Model|threads) is there twice: keep one"):
        read("f", text)


UNKNOWN = [
    ("Model/thread", "did you mean Model/threads?"),
    ("Model_2/thread", "did you mean Model_2/threads?"),
    ("Args/thread", "did you mean Args/threads?"),
    ("General/threads", "did you mean Model/threads?"),
    ("Foo/threads", "did you mean Model/threads?"),
    ("model/cli", "did you mean Model/cli?"),
    ("Foo/bar", "--help lists the fields"),
    ("properties/status", "--help lists the fields"),
    ("Model_0/threads", "did you mean Model/threads?"),
]


@pytest.mark.parametrize("key, hint", UNKNOWN)
def test_a_field_that_there_is_not_is_refused_with_the_nearest(key, hint):
    section, name = key.split("/")
    with pytest.raises(ConfigError) as raised:
        read("f", json.dumps({"Model": {"threads": 1}, section: {name: None}}))
    assert str(raised.value) == f"--config f: {key}: no such field; {hint}"
    with pytest.raises(ConfigError) as raised:
        assignment(f"{key}=1")
    assert str(raised.value) == f"--set {key}: no such field; {hint}"


def test_every_name_of_a_field_is_taken():
    keys = [field.key for field in FIELDS] + [f"Args/{field.name}" for field in FIELDS]
    keys += [f"Model_2/{field.name}" for field in MODEL_FIELDS]
    assert [assignment(f"{key}=1") for key in keys] == [(key, "1") for key in keys]


def test_assignment():
    assert assignment("Model/model=a=b") == ("Model/model", "a=b")
    assert assignment("Model/model=") == ("Model/model", "")


@pytest.mark.parametrize("text", ["Model/model", "model=1", "=1"])
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(ConfigError, match="Section/name=value"):
        assignment(text)
