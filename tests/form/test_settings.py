from dataclasses import fields

import pytest

from app.errors import FormError
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


def test_an_empty_form_is_the_default():
    settings = parse(merge())
    assert settings.models == (ModelSettings(),)
    assert settings.general == GeneralSettings()
    assert settings.idle == IdleSettings()


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
        ("Idle/idle_time_limit", "-1", "less than 0"),
        ("Model/top_p", "5", "more than 1"),
        ("Model/repeat_last_n", "-1", "less than 0"),
        ("Model/repeat_penalty", "0", "less than 0.01"),
        ("Model/yarn_ext_factor", "-2", "less than -1"),
        ("Model/numa", "spread", "not one of distributed, isolate, numactl"),
        ("Model/split_mode", "rows", "not one of none, layer, row, tensor"),
        ("Model/rope_scaling", "dynamic", "neither a number nor one of none, linear, yarn"),
        ("Model/rope_scaling", "0", "neither a number"),
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


@pytest.mark.parametrize("text", ["true", "True", "1", "yes", "ON"])
def test_a_ticked_checkbox(text):
    assert parse(merge({"Model/embedding": text})).models[0].embedding is True


def test_port_0_is_a_port_and_none_is_not():
    assert parse(merge({"General/port": "0"})).general.port == 0
    assert parse(merge({"Args/port": "0"})).general.port == 0
    assert parse(merge()).general.port is None
