import os

import pytest

from app.errors import FormError
from app.form.settings import ModelSettings
from app.planning.named_files import check


def test_files_between_commas_and_with_a_scale_are_there(tmp_path):
    for name in ("a.gguf", "b.gguf", "with,comma.gguf"):
        (tmp_path / name).touch()
    a, b = tmp_path / "a.gguf", tmp_path / "b.gguf"
    check(ModelSettings(extra_args=f"--lora {a},{b} --lora-scaled {a}:0.5,{b}:1"))
    check(ModelSettings(cli=f"--grammar-file '{tmp_path}/with,comma.gguf' -t 2"))
    check(ModelSettings(extra_args=f"--log-verbosity 4 --threads none.gguf --lora-scaled {a} 0.5"))


def test_a_list_is_read_as_llama_server_does(tmp_path, monkeypatch):
    """It may be longer than a name of a file can be, and have quotes."""
    monkeypatch.chdir(tmp_path)
    for name in ("with,comma.gguf", f"{'a' * 200}.gguf", f"{'b' * 200}.gguf"):
        (tmp_path / name).touch()
    check(ModelSettings(extra_args=f"--lora {'a' * 200}.gguf,{'b' * 200}.gguf:0.5"))
    check(ModelSettings(extra_args=f"""--lora '"with,comma.gguf",{"a" * 200}.gguf'"""))


@pytest.mark.parametrize(
    "arguments",
    [
        "--lora {0}/none.gguf",
        "--lora {0}/a.gguf,{0}/none.gguf",
        "--lora-scaled {0}/none.gguf:0.5",
        "--lora {0}",
        "--chat_template_file {0}/none.jinja",
        "-jf {0}/none.json",
        "--grammar-file {0}/pipe",
        "--lora {0}/" + 300 * "a",
        "--lora-scaled {0}/none.gguf 0.5",
        "--lora ''",
        "--lora {0}/a.gguf,",
        "--grammar-file {0}/a.gguf:0.5",
        "--lora '{0}/no\nne'",
        "--lora '{0}/no\rne'",
    ],
)
@pytest.mark.parametrize("field", ["cli", "extra_args"])
def test_one_that_is_not_there_is_refused_with_its_option(tmp_path, arguments, field):
    (tmp_path / "a.gguf").touch()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormError, match="is no file of this machine") as raised:
        check(ModelSettings(**{field: arguments.format(tmp_path)}))
    assert raised.value.field == f"Model/{field}"
    assert arguments.split()[0].replace("_", "-") in str(raised.value)


def test_what_a_command_line_replaces_is_not_looked_for():
    check(ModelSettings(cli="-t 2", extra_args="--lora /none.gguf"))
