import pytest

from app.errors import FormError
from app.form.merge import merge, parse
from app.form.settings import ModelSettings, names_of
from app.planning.settle import check_form, check_names, settle


def called(name, aliases=""):
    return ModelSettings(endpoint_name=name, aliases=aliases)


@pytest.mark.parametrize(
    "models, field, problem",
    [
        ([called("a"), called("a")], "endpoint_name", "'a' is the name of two models"),
        ([called("a", "b"), called("b")], "endpoint_name", "'b' is the name of two models"),
        ([called("a"), called("b", "x, a")], "aliases", "'a' is the name of two models"),
        ([called("a", "x"), called("b", "x")], "aliases", "'x' is the name of two models"),
        ([called("a", "x,a")], "aliases", "'a' is a name of this model already"),
        ([called("a", "x, x")], "aliases", "'x' is a name of this model already"),
    ],
)
def test_a_name_is_there_once(models, field, problem):
    check_names([called("a", "b,c"), called("d", "e")])
    with pytest.raises(FormError, match=problem) as raised:
        check_names(models)
    assert raised.value.field == f"Model/{field}"


def test_an_alias_is_not_the_name_that_another_model_gets_from_its_file():
    models = '[{"model": "/a/m.gguf"}, {"model": "/b/n.gguf", "aliases": "x,m"}]'
    with pytest.raises(FormError, match="'m' is the name of two models") as raised:
        check_form(parse(merge({"General/models": models})))
    assert raised.value.field == "General/models[2].aliases"


def test_only_a_form_without_a_list_may_leave_the_model_out():
    check_form(parse(merge({})))
    with pytest.raises(FormError, match="is empty: name a GGUF file") as raised:
        check_form(parse(merge({"General/models": '[{"model": ""}]'})))
    assert raised.value.field == "General/models[1].model"


def test_a_command_line_fills_model_and_name():
    model = settle(ModelSettings(cli="-m /m.gguf -a name -c 1"))
    assert (model.model, model.endpoint_name) == ("/m.gguf", "name")


def test_the_forms_name_comes_before_the_command_lines():
    assert settle(ModelSettings(cli="-a cli", endpoint_name="form")).endpoint_name == "form"


def test_two_different_models_are_refused():
    assert settle(ModelSettings(cli="-m /a.gguf", model="/a.gguf")).model == "/a.gguf"
    with pytest.raises(FormError, match="names '/b.gguf'"):
        settle(ModelSettings(cli="-m /b.gguf", model="/a.gguf"))


def test_a_command_lines_further_names_are_aliases():
    found = settle(ModelSettings(cli="-m /a.gguf -a 'a, b,c'", aliases="d"))
    assert names_of(found) == ("a", "d", "b", "c")
    assert names_of(settle(ModelSettings(cli="-a cli,b", endpoint_name="form"))) == ("form", "b")


@pytest.mark.parametrize(
    "given, field", [("'a b'", "endpoint_name"), ("a,v1", "aliases"), ("'a,b c'", "aliases")]
)
def test_a_command_lines_names_are_checked(given, field):
    with pytest.raises(FormError) as raised:
        settle(ModelSettings(cli=f"-m /a.gguf -a {given}"))
    assert raised.value.field == f"Model/{field}"


def test_two_files_of_one_name_are_refused():
    """A file on this machine is called by its own name, not by its whole path."""
    models = '[{"model": "/a/m.gguf"}, {"model": "/b/m.gguf"}]'
    with pytest.raises(FormError, match="'m' is the name of two models") as raised:
        check_form(parse(merge({"General/models": models})))
    assert raised.value.field == "General/models[2].endpoint_name"
