import pytest

from app.engine.resolved import memory_wanted
from app.errors import FormError
from app.form.checks import check_endpoint_name, check_model, default_endpoint_name
from app.form.merge import merge, parse
from app.form.settings import ModelSettings


@pytest.mark.parametrize(
    "key, text, problem",
    [
        ("Model/endpoint_name", "a b", "not a URL path"),
        ("Model/endpoint_name", "total", "plots"),
        ("Model/aliases", "gpt-4o,a b", "'a b' is not a URL path"),
        ("Model/aliases", "v1", "reserved"),
        ("Model/aliases", "total", "plots"),
        ("General/allowed_hosts", "models.example,*", "no name such as models.example"),
        ("General/allowed_hosts", "http://*.example", "no name such as models.example"),
        ("General/allowed_hosts", "a b", "no name such as models.example"),
        ("General/allowed_hosts", "models.example/path", "no name such as models.example"),
        ("Model/tensor_split", "3;1", "not a list of shares"),
        ("Model/tensor_split", "0,0", "not a list of shares"),
        ("Model/tensor_split", ",".join("1" * 17), "not a list of shares"),
    ],
)
def test_a_rejection_names_its_field(key, text, problem):
    with pytest.raises(FormError, match=problem) as raised:
        parse(merge({key: text}))
    assert raised.value.field == key


def test_names_by_which_callers_may_call():
    names = "models.example, a_b:8080,,127.0.0.1,[::1]:80,null,app://obsidian.md,vscode-webview://1"
    assert parse(merge({"General/allowed_hosts": names})).general.allowed_hosts == names


def test_a_pinned_model_has_no_time_after_which_it_leaves():
    parse(merge({"Model/pin": "false", "Model/ttl": "30"}))
    with pytest.raises(FormError, match="Model/pin") as raised:
        parse(merge({"Model/pin": "true", "Model/ttl": "30"}))
    assert raised.value.field == "Model/ttl"


def test_a_factor_and_a_frequency_scale_exclude_each_other():
    parse(merge({"Model/rope_scaling": "yarn", "Model/rope_freq_scale": "0.5"}))
    with pytest.raises(FormError, match="rope_freq_scale"):
        parse(merge({"Model/rope_scaling": "2", "Model/rope_freq_scale": "0.5"}))


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


def test_a_small_kv_cache_needs_flash_attention():
    with pytest.raises(FormError, match="^Model/kv_cache_type: q8_0 needs Model/flash_attention"):
        check_model(ModelSettings(kv_cache_type="q8_0", flash_attention="off"))
    for fine in ({"kv_cache_type": "f16", "flash_attention": "off"}, {"kv_cache_type": "q4_0"}):
        check_model(ModelSettings(**fine))


def test_split_mode_tensor_needs_flash_attention():
    with pytest.raises(FormError, match="^Model/split_mode: tensor needs Model/flash_attention"):
        check_model(ModelSettings(split_mode="tensor", flash_attention="off"))


@pytest.mark.parametrize("tokens", [1, 255])
def test_a_context_in_which_nothing_fits_is_refused(tokens):
    with pytest.raises(FormError, match=f"^Model/context_size: {tokens} is less than 256"):
        check_model(ModelSettings(context_size=tokens))
    with pytest.raises(FormError, match=f"^Model/cli: {tokens} is less than 256"):
        memory_wanted(ModelSettings(cli=f"-c {tokens}"))


@pytest.mark.parametrize("tokens", [0, 256, None])
def test_the_least_context_is_not(tokens):
    check_model(ModelSettings(context_size=tokens))
