import pytest

from app.errors import ConfigError
from app.form.tables import load


def test_the_mark_that_editors_put_before_a_text_is_no_part_of_it():
    assert load("\ufeff[a]\nb = 1\n") == {"a": {"b": 1}}


@pytest.mark.parametrize("text", ["[a", "a = \ufeff1", "a = 1\na = 2", "a = " + "[" * 5000])
def test_what_is_no_toml_is_told(text):
    with pytest.raises(ConfigError, match="not TOML"):
        load(text)
