import pytest

from app.errors import ConfigError, FormError
from app.form.settings import ModelSettings
from app.gateway.admission import listening_host
from app.planning.settle import check_names, settle


@pytest.mark.parametrize(
    "given, agent, key, expected",
    [
        ("", False, False, "127.0.0.1"),
        ("", True, True, "0.0.0.0"),
        ("", False, True, "0.0.0.0"),
        ("10.0.0.1", False, True, "10.0.0.1"),
        ("127.0.0.2", False, False, "127.0.0.2"),
        ("localhost", False, False, "localhost"),
        ("::1", False, False, "::1"),
        ("127.0.0.1", True, True, "127.0.0.1"),
    ],
)
def test_where_to_listen(given, agent, key, expected):
    assert listening_host(given, under_agent=agent, has_key=key) == expected


def test_two_models_of_one_name_are_refused():
    check_names(["a", "b"])
    with pytest.raises(FormError, match="'b' is the name of two models"):
        check_names(["a", "b", "b"])


@pytest.mark.parametrize("given", ["0.0.0.0", "10.0.0.1", "::", "host.example"])
def test_on_a_persons_machine_the_network_needs_a_key(given):
    with pytest.raises(ConfigError, match="LLAMACPP_API_KEY"):
        listening_host(given, under_agent=False, has_key=False)


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
    with pytest.raises(FormError, match="no URL path"):
        settle(ModelSettings(cli="-m /a.gguf -a 'a,b'"))
