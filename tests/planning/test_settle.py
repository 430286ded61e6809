import pytest

from app.errors import FormError
from app.form.merge import merge, parse
from app.form.settings import ModelSettings
from app.planning.settle import check_form, check_names, settle


def test_two_models_of_one_name_are_refused():
    check_names(["a", "b"])
    with pytest.raises(FormError, match="'b' is the name of two models"):
        check_names(["a", "b", "b"])


def test_a_command_line_fills_model_and_name():
    model = settle(ModelSettings(cli="-m /m.gguf -a name -c 1"))
    assert (model.model, model.endpoint_name) == ("/m.gguf", "name")


def test_the_forms_name_comes_before_the_command_lines():
    assert settle(ModelSettings(cli="-a cli", endpoint_name="form")).endpoint_name == "form"


def test_two_different_models_are_refused():
    assert settle(ModelSettings(cli="-m /a.gguf", model="/a.gguf")).model == "/a.gguf"
    with pytest.raises(FormError, match="-m '/b.gguf'"):
        settle(ModelSettings(cli="-m /b.gguf", model="/a.gguf"))


def test_a_command_lines_name_is_checked():
    with pytest.raises(FormError, match="not a URL path"):
        settle(ModelSettings(cli="-m /a.gguf -a 'a,b'"))


def test_two_files_of_one_name_are_refused():
    """A file on this machine is called by its own name, not by its whole path."""
    models = '[{"model": "/a/m.gguf"}, {"model": "/b/m.gguf"}]'
    with pytest.raises(FormError, match="'m' is the name of two models") as raised:
        check_form(parse(merge({"General/models": models})))
    assert raised.value.field == "General/models[2].endpoint_name"
