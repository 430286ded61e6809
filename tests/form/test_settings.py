from dataclasses import fields

import pytest

from app.errors import FormError
from app.form.checks import check_endpoint_name, default_endpoint_name
from app.form.fields import FIELDS, GENERAL, IDLE, MODEL, Kind
from app.form.merge import merge, parse
from app.form.settings import GeneralSettings, IdleSettings, ModelSettings

TYPES = {
    Kind.STRING: "str",
    Kind.TEXT: "str",
    Kind.DROPDOWN: "str",
    Kind.INTEGER: "int",
    Kind.FLOAT: "float",
    Kind.CHECKBOX: "bool",
}


@pytest.mark.parametrize(
    "section, settings",
    [(MODEL, ModelSettings), (GENERAL, GeneralSettings), (IDLE, IdleSettings)],
)
def test_settings_have_exactly_the_forms_fields(section, settings):
    listed = {field.name: TYPES[field.kind] for field in FIELDS if field.section == section}
    assert {f.name: f.type.removesuffix(" | None") for f in fields(settings)} == listed


def test_names_are_unique_over_all_sections():
    assert len({field.name for field in FIELDS}) == len(FIELDS)


def test_an_empty_form_is_the_default():
    settings = parse(merge())
    assert settings.models == (ModelSettings(),)
    assert settings.general == GeneralSettings()
    assert settings.idle == IdleSettings()


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


def test_args_and_section_that_differ_are_refused_naming_both():
    with pytest.raises(FormError, match=r"Model/threads.*'5'.*Args/threads.*'4'"):
        merge({"Args/threads": "4", "Model/threads": "5"})


def test_what_args_gave_is_not_written_a_second_time():
    written = merge({"Args/threads": "4", "Model/parallel": "2"}).to_write()
    assert "Model/threads" not in written
    assert written["Model/parallel"] == "2"
    assert written["Model/context_size"] == ""  # a clone shows every field


def test_a_form_that_we_wrote_reads_the_same_again():
    first = merge({"Args/threads": "4", "Args/continuous_batching": "false"})
    again = merge({"Args/threads": "4", "Args/continuous_batching": "false", **first.to_write()})
    assert parse(again) == parse(first)


@pytest.mark.parametrize(
    "key, text, problem",
    [
        ("Model/threads", "many", "not a whole number"),
        ("Model/threads", "1.5", "not a whole number"),
        ("Model/threads", "0", "less than 1"),
        ("Model/threads", "nan", "not a whole number"),
        ("Model/threads", "1e999", "not a whole number"),
        ("Model/parallel", "257", "more than 256"),
        ("Model/temperature", "-0.1", "less than 0"),
        ("Model/temperature", "warm", "not a number"),
        ("Model/embedding", "maybe", "neither true nor false"),
        ("General/port", "65536", "more than 65535"),
        ("General/port", "-1", "less than 0"),
        ("Model/model", "a\x00b", "NUL"),
        ("Model/endpoint_name", "a b", "no URL path"),
        ("Model/endpoint_name", "total", "plots"),
        ("Idle/idle_time_limit", "-1", "less than 0"),
        ("Model/top_p", "5", "more than 1"),
        ("Model/repeat_last_n", "-1", "less than 0"),
        ("Model/repeat_penalty", "0", "less than 0.01"),
        ("Model/yarn_ext_factor", "-2", "less than -1"),
        ("Model/numa", "spread", "none of distributed, isolate, numactl"),
        ("Model/split_mode", "tensor", "none of none, layer, row"),
        ("Model/rope_scaling", "dynamic", "neither a factor nor none, linear, yarn"),
        ("Model/rope_scaling", "0", "neither a factor"),
        ("Model/tensor_split", "3;1", "no list of shares"),
        ("Model/tensor_split", "0,0", "no list of shares"),
        ("Model/tensor_split", ",".join("1" * 17), "no list of shares"),
    ],
)
def test_a_rejection_names_its_field(key, text, problem):
    with pytest.raises(FormError, match=problem) as raised:
        parse(merge({key: text}))
    assert raised.value.field == key


@pytest.mark.parametrize(
    "text, expected",
    [("Distributed", "distributed"), ("distribute", "distributed"), ("NUMACTL", "numactl")],
)
def test_choices_in_any_case_and_in_llama_cpps_own_words(text, expected):
    assert parse(merge({"Model/numa": text})).models[0].numa == expected


def test_a_factor_and_a_frequency_scale_exclude_each_other():
    parse(merge({"Model/rope_scaling": "yarn", "Model/rope_freq_scale": "0.5"}))
    with pytest.raises(FormError, match="rope_freq_scale"):
        parse(merge({"Model/rope_scaling": "2", "Model/rope_freq_scale": "0.5"}))


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "ON"])
def test_a_ticked_checkbox(text):
    assert parse(merge({"Model/embedding": text})).models[0].embedding is True


def test_port_0_is_a_port_and_none_is_not():
    assert parse(merge({"General/port": "0"})).general.port == 0
    assert parse(merge({"Args/port": "0"})).general.port == 0
    assert parse(merge()).general.port is None


@pytest.mark.parametrize(
    "key, hint",
    [
        ("Model/contextsize", "Model/context_size"),
        ("Args/thread", "Args/threads"),
        ("General/zzz", None),
    ],
)
def test_an_unknown_field_is_a_warning_with_the_nearest(key, hint):
    (warning,) = merge({key: "1"}).warnings
    assert warning.startswith(f"{key}: no such field")
    assert (hint is None) == ("did you mean" not in warning)
    assert hint is None or hint in warning


def test_other_sections_are_none_of_our_business():
    assert merge({"properties/status": "x", "Environment/A": "b"}).warnings == ()


@pytest.mark.parametrize(
    "name",
    ["", "/a", "a/", "a//b", "a/v1/b", "..", "a/../b", "health", "a%20b", "ä", "a\n", "service/x"],
)
def test_an_illegal_endpoint_name(name):
    with pytest.raises(FormError):
        check_endpoint_name(name)


@pytest.mark.parametrize(
    "reference, expected",
    [
        ("org/repo/dir/m.Q4_0.gguf", "org/repo/dir/m.Q4_0.gguf"),
        ("/models/my model.gguf", "models/my-model.gguf"),
        ("org/v1/L*.gguf", "org/_v1/L.gguf"),
        ("../x.gguf", "x.gguf"),
        ("***", "model"),
        ("total", "_total"),
    ],
)
def test_a_default_endpoint_name_is_made_from_the_reference_and_legal(reference, expected):
    assert default_endpoint_name(reference) == expected
    check_endpoint_name(expected)


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
        ("[1]", "General/models[1]", "is not an object"),
        ('[{"model": "a"}, {"modell": "b"}]', "General/models[2].modell", "did you mean model"),
        ('[{"threads": "x"}]', "General/models[1].threads", "not a whole number"),
        ('[{"threads": [1]}]', "General/models[1].threads", "must be one value"),
        ('[{}, {"rope_scaling": "x"}]', "General/models[2].rope_scaling", "neither a factor"),
        ('[{"endpoint_name": "a b"}]', "General/models[1].endpoint_name", "no URL path"),
    ],
)
def test_a_rejection_names_the_item(text, key, problem):
    with pytest.raises(FormError, match=problem) as raised:
        parse(merge({"General/models": text}))
    assert raised.value.field == key


def test_an_override_of_an_item_that_is_not_there():
    with pytest.raises(FormError, match="Model_3: the list has 2 models"):
        listed(Model_3__threads="1")


def test_a_misspelt_override_is_a_warning():
    (warning,) = merge({"General/models": LIST, "Model_2/thread": "1"}).warnings
    assert warning.startswith("Model_2/thread: no such field")


def test_a_secret_that_is_set_twice_is_refused_without_being_told():
    with pytest.raises(FormError) as raised:
        merge({"Args/hf_token": "hf_one", "General/hf_token": "hf_two"})
    assert "hf_one" not in str(raised.value) and "hf_two" not in str(raised.value)


def test_a_secret_is_taken_out_of_what_is_written():
    form = merge({"General/hf_token": "hf_one"}).without("General/hf_token")
    assert "hf_one" not in str(form.to_write()) + str(parse(form))
