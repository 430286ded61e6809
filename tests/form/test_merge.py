import pytest

from app.errors import FormError
from app.form.merge import merge, parse
from app.form.settings import ModelSettings


@pytest.mark.parametrize(
    "layers, expected",
    [
        pytest.param([{"Model/threads": "2"}, {"Model/threads": "3"}], 3, id="later-wins"),
        pytest.param([{"Model/threads": "2"}, {"Model/threads": ""}], 2, id="empty-is-not-given"),
        pytest.param([{"Model/threads": "2"}, {"Model/threads": " "}], 2, id="so-are-blanks"),
        pytest.param([{"Args/threads": "4"}], 4, id="args-mean-the-same-field"),
        pytest.param([{"Args/threads": "4"}, {"Model/threads": "5"}], 5, id="later-over-args"),
        pytest.param([{"Args/threads": "4", "Model/threads": "4"}], 4, id="args-agree"),
        pytest.param([{"Model/threads": "2.0"}], 2, id="a-float-without-fraction"),
    ],
)
def test_merge(layers, expected):
    assert parse(merge(*layers)).models[0].threads == expected


def test_where_args_and_section_differ_args_wins_with_a_line():
    """Args is emptied at each start: what stands there is newer."""
    form = merge({"Args/threads": "4", "Model/threads": "5"})
    assert parse(form).models[0].threads == 4
    assert form.warnings == (
        "Model/threads: Args/threads, which is set too, replaces it, '5' with '4'",
    )


@pytest.mark.parametrize("section", ["", "4", "true"])
def test_nothing_is_said_where_args_replaces_nothing_that_somebody_chose(section):
    name = "continuous_batching" if section == "true" else "threads"
    form = merge({f"Args/{name}": "4", f"Model/{name}": section})
    assert form.warnings == () and form.values[f"Model/{name}"] == "4"


def test_what_args_gave_is_written_to_its_section():
    form = merge({"Args/threads": "4", "Model/parallel": "2"})
    written = form.to_write()
    assert form.arguments == {"Args/threads"}
    assert written["Model/threads"] == "4" and written["Model/parallel"] == "2"
    assert written["Model/context_size"] == ""  # a clone shows every field


def test_a_form_that_we_wrote_reads_the_same_again():
    first = merge({"Args/threads": "4", "Args/continuous_batching": "false"})
    again = merge({"Args/threads": "", "Args/continuous_batching": "", **first.to_write()})
    assert parse(again) == parse(first) and again.warnings == ()


def test_the_overrides_of_a_list_are_written_and_read_the_same_again():
    """They may come from Args, which is emptied, or from a command line, which a clone has not."""
    given = {"Model/threads": "3", "Model_2/top_k": "5"}
    first = merge({"General/models": LIST}, {"Args/priority": "7"}, given)
    written = first.to_write()
    models = {key: text for key, text in written.items() if key.startswith("Model")}
    assert models == {**given, "Model/priority": "7"}
    assert parse(merge(written)) == parse(first)


@pytest.mark.parametrize(
    "key, hint",
    [
        ("Model/contextsize", "Model/context_size"),
        ("Args/thread", "Args/threads"),
        ("Model/context", "Model/context_size"),
        ("General/zzz", None),
        ("General/epochs", None),  # of another program; sections are no reason to resemble
    ],
)
def test_an_unknown_field_is_a_warning_with_the_nearest(key, hint):
    (warning,) = merge({key: "1"}).warnings
    assert warning.startswith(f"{key}: no such field")
    assert (hint is None) == ("did you mean" not in warning)
    assert hint is None or hint in warning


def test_other_sections_are_none_of_our_business():
    assert merge({"properties/status": "x", "Environment/A": "b"}).warnings == ()


LIST = '[{"model": "a.gguf", "threads": 2, "embedding": true}, {"model": "b.gguf", "top_k": null}]'


def listed(**overrides):
    texts = {key.replace("__", "/"): text for key, text in overrides.items()}
    return parse(merge({"General/models": LIST, **texts})).models


def test_a_list_of_models():
    assert listed() == (
        ModelSettings(model="a.gguf", threads=2, embedding=True),
        ModelSettings(model="b.gguf"),
    )


def test_a_quick_edit_overrides_an_item():
    first, second = listed(Model__threads="3", Model_2__top_k="5", Model__parallel="")
    assert (first.threads, first.embedding, first.parallel) == (3, True, None)
    assert (second.threads, second.top_k) == (None, 5)


def test_an_override_is_said_to_be_one():
    form = merge({"General/models": LIST, "Model/threads": "3", "Model_2/top_k": "5"})
    assert form.overrides == {0: {"threads": "3"}, 1: {"top_k": "5"}}
    assert form.warnings == ()


def test_of_a_list_nothing_is_written_under_model():
    written = merge({"General/models": LIST}).to_write()
    assert written["General/models"] == LIST
    assert not any(key.startswith("Model") for key in written)
    again = merge({"General/models": LIST, **written})
    assert again.overrides.get(0, {}) == {} and parse(again).models == listed()


@pytest.mark.parametrize(
    "text, key, problem",
    [
        ("{", "General/models", "is not JSON"),
        ("[]", "General/models", "is not a list of models"),
        ("{}", "General/models", "is not a list of models"),
        ('[{"threads": 1, "threads": 2}]', "General/models", "threads is there twice: keep one"),
        ("[1]", "General/models[1]", "is not an object"),
        ('[{"model": "a"}, {"modell": "b"}]', "General/models[2].modell", "did you mean model"),
        ('[{"threads": "x"}]', "General/models[1].threads", "not a whole number"),
        ('[{"threads": [1]}]', "General/models[1].threads", "must be a single value"),
        ('[{}, {"rope_scaling": "x"}]', "General/models[2].rope_scaling", "neither a number"),
        ('[{"endpoint_name": "a b"}]', "General/models[1].endpoint_name", "not a URL path"),
    ],
)
def test_a_rejection_names_the_item(text, key, problem):
    with pytest.raises(FormError, match=problem) as raised:
        parse(merge({"General/models": text}))
    assert raised.value.field == key


def test_an_override_of_an_item_that_is_not_there():
    with pytest.raises(
        FormError, match="Model_3: General/models lists 2 models: empty the fields of Model_3, or"
    ):
        listed(Model_3__threads="1")


def test_a_misspelt_override_is_a_warning():
    (warning,) = merge({"General/models": LIST, "Model_2/thread": "1"}).warnings
    assert warning.startswith("Model_2/thread: no such field")


def test_a_secret_that_is_set_twice_is_not_told():
    form = merge({"Args/hf_token": "hf_one", "General/hf_token": "hf_two"})
    (warning,) = form.warnings
    assert "hf_one" not in warning and "hf_two" not in warning
    assert form.values["General/hf_token"] == "hf_one"


def test_a_secret_is_taken_out_of_what_is_written():
    form = merge({"General/hf_token": "hf_one"}).without("General/hf_token")
    assert "hf_one" not in str(form.to_write()) + str(parse(form))


@pytest.mark.parametrize("number", [1, 2])
def test_an_override_without_a_list_is_refused(number):
    with pytest.raises(FormError, match=rf"Model_{number}: there is no list of models"):
        parse(merge({"Model/model": "a.gguf", f"Model_{number}/threads": "1"}))
