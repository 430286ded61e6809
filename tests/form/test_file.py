import pytest

from app.errors import ConfigError
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


@pytest.mark.parametrize("text", ["{", "[]", '{"Model": 1}', '{"Model": {"threads": [1]}}'])
def test_what_is_no_configuration_is_refused(text):
    with pytest.raises(ConfigError, match="--config f"):
        read("f", text)


def test_assignment():
    assert assignment("Model/model=a=b") == ("Model/model", "a=b")
    assert assignment("Model/model=") == ("Model/model", "")


@pytest.mark.parametrize("text", ["Model/model", "model=1", "=1"])
def test_what_is_no_assignment_is_refused(text):
    with pytest.raises(ConfigError, match="Section/name=value"):
        assignment(text)
