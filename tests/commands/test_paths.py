import json

import pytest

from app.commands.paths import whole
from app.instance.invocation import Invocation


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    "text, path",
    [
        ("tiny.gguf", "{here}/tiny.gguf"),
        ("./a/../tiny.gguf", "{here}/tiny.gguf"),
        ("~/tiny.gguf", "/home/me/tiny.gguf"),
        ("/models/tiny.gguf", "/models/tiny.gguf"),
        ("a/b/c.gguf", "a/b/c.gguf"),
        ("https://huggingface.co/a/b/resolve/main/c.gguf",) * 2,
        ("0" * 32, "0" * 32),
        ("", ""),
    ],
)
def test_a_path_is_whole(tmp_path, text, path):
    told = path.format(here=tmp_path)
    for key in ("Model/model", "Model/mmproj", "Model_2/model", "Model/speculative"):
        wanted = whole(Invocation({key: text}, {key: text, "Model/endpoint_name": "a.gguf"}))
        assert wanted.config == {key: told}
        assert wanted.overrides == {key: told, "Model/endpoint_name": "a.gguf"}


def test_paths_in_a_list_are_whole(tmp_path):
    items = [{"model": "a.gguf", "threads": 1}, {"model": "a/b/c.gguf", "mmproj": "p.gguf"}]
    wanted = whole(Invocation({"General/models": json.dumps(items)}))
    assert json.loads(wanted.config["General/models"]) == [
        {"model": f"{tmp_path}/a.gguf", "threads": 1},
        {"model": "a/b/c.gguf", "mmproj": f"{tmp_path}/p.gguf"},
    ]


@pytest.mark.parametrize("text", ["", "[", "{}", "[1]", '{"model": "a.gguf"}'])
def test_what_is_no_list_stays(text):
    assert whole(Invocation({"General/models": text})).config == {"General/models": text}
