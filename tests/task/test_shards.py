import re

import pytest

from app.errors import FormError
from app.models.files import Shard
from app.task.shards import files_of, link, part_of, query, whole

FIRST = {"id": "a", "name": "big", "uri": "s3://b/x/m-00001-of-00003.gguf", "project": "p"}
FILES = ["m-00001-of-00003.gguf", "m-00002-of-00003.gguf", "m-00003-of-00003.gguf"]


@pytest.mark.parametrize(
    "model, part",
    [
        (FIRST, FILES[0]),
        ({"uri": "https://h/my%20m-00001-of-00002.gguf?sig=1"}, "my m-00001-of-00002.gguf"),
        ({"name": "m-00001-of-00003"}, FILES[0]),
        ({"name": "team/m-00001-of-00003.gguf", "uri": None}, FILES[0]),
        ({"name": "big", "uri": "s3://b/m.gguf"}, ""),
        ({"name": "m-00001-of-00003", "system_tags": ["package"], "uri": "s3://b/p.zip"}, ""),
        ({}, ""),
    ],
)
def test_a_part_is_known_by_its_address_or_its_name(model, part):
    assert part_of(model) == part


def test_a_set_is_named_by_its_first_part():
    assert files_of(FIRST) == FILES and files_of({"name": "m"}) == []
    with pytest.raises(FormError, match="not the first part of its set; name m-00001-of-00003"):
        files_of({"name": "m-00002-of-00003"})


@pytest.mark.parametrize("file", ["my m-00001-of-00002.gguf", "m+(1)-00001-of-00002.gguf"])
def test_the_others_are_asked_for_by_name_and_address_in_the_project(file):
    asked = query({"project": "p"}, [file])
    assert asked["project"] == ["p"] and "project" not in query({}, [file])
    other = file.replace("00001", "00002")
    for text in (other, other.replace(" ", "%20"), f"s3://b/{other}", other.removesuffix(".gguf")):
        assert re.search(asked["_any_"]["pattern"], text)
    assert not re.search(asked["_any_"]["pattern"], file.replace("of-00002", "of-00003"))


def others(*given):
    return [{"id": name, "name": "x", "uri": f"{place}/{file}"} for name, place, file in given]


def test_parts_are_the_newest_and_rather_those_beside_the_first():
    found = others(
        ("e", "s3://other", FILES[1]),
        ("d", "s3://b/x", FILES[2]),
        ("c", "s3://b/x", FILES[1]),
        ("b", "s3://b/x", FILES[1]),
    )
    expected = tuple(map(Shard, FILES, "acd"))
    assert whole(FIRST, FILES, found) == expected
    assert whole(FIRST, FILES, found[:2])[1] == Shard(FILES[1], "e")


def test_a_missing_part_is_named():
    with pytest.raises(FormError, match=f"big \\(a\\) is one of 3 parts.* no model '{FILES[1]}'"):
        whole(FIRST, FILES, others(("d", "s3://b/x", FILES[2])))


def test_files_lie_beside_each_other_under_their_names(tmp_path):
    for _ in range(2):
        paths = {name: tmp_path / f"cached.{name}" for name in FILES}
        for path in paths.values():
            path.write_text(path.name)
        folder = link(tmp_path / "a" / "b", paths)
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        name: f"cached.{name}" for name in FILES
    }
