import pytest

from app.errors import ConfigError
from app.fleet.config import parse

TASK = "0123456789abcdef0123456789abcdef"


def test_routes():
    text = f"""
    [chat]
    template = "{TASK}"
    queue = "gpu"
    min = 1
    max = 4
    quiet_minutes = 0.5
    queue_wait = 3
    project = "Models"

    [embed]
    form.General.queue = "cpu"
    form.Model.model = "provider/repo/file.gguf"
    form.Model.embedding = true
    """
    chat, embed = parse(text)
    assert (chat.template, chat.queue, chat.min, chat.max) == (TASK, "gpu", 1, 4)
    assert (chat.quiet, chat.queue_wait, chat.project) == (30, 3, "Models")
    assert embed.form["Model/model"] == "provider/repo/file.gguf"
    assert (embed.min, embed.max, embed.quiet) == (0, 1, 900)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "there is none"),
        ("[chat", "not TOML"),
        ("chat = 1", "chat: must be a table"),
        (f'["a/b"]\ntemplate = "{TASK}"', "no name of a route"),
        (f'[v1]\ntemplate = "{TASK}"', "no name of a route"),
        ("[chat]\nqueue = 'gpu'", "give it a template or a form"),
        (f"[chat]\ntemplate = '{TASK}'\nform.Model.model = 'm'", "give it a template or a form"),
        ("[chat]\ntemplate = 'abc'", "template: must be the ID of a task"),
        ("[chat]\nform.Model.model = 'm'", "queue: is missing"),
        ("[chat]\nform.Model.modle = 'm'", "form: Model/modle: no such field"),
        ("[chat]\nform.Model.model = 2026-01-02", "form: 2026-01-02 is a date or a time"),
        (f"[chat]\ntemplate = '{TASK}'\nmin = 3\nmax = 2", "min is 3, and max 2"),
        (f"[chat]\ntemplate = '{TASK}'\nmin = -1", "min: must be a whole number"),
        (f"[chat]\ntemplate = '{TASK}'\nmax = true", "max: must be a whole number"),
        (f"[chat]\ntemplate = '{TASK}'\nquiet_minutes = 0", "quiet_minutes: must be a number"),
        (f"[chat]\ntemplate = '{TASK}'\nmaximum = 2", "maximum: no such field; there are: "),
        ("\n".join(f"[r{n}]\ntemplate = '{TASK}'" for n in range(101)), "no more than 100"),
        ("a" * 100_000, "not TOML"),
        ("a = " + "[" * 100_000, "not TOML"),
    ],
)
def test_what_is_wrong_is_named(text, problem):
    with pytest.raises(ConfigError, match="^routes: ") as raised:
        parse(text)
    assert problem in str(raised.value)
