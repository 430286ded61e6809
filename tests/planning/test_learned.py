import json
import os

import pytest

from app.planning.learned import FILE, LARGEST, MOST, Learned, Record, key


def test_the_most_that_was_seen_is_kept_over_runs(tmp_path):
    first = Learned(tmp_path)
    first.put("m", {"host": 5})
    first.put("m", {"host": 3, "CUDA0": 7})
    assert Learned(tmp_path).get("m") == {"host": 5, "CUDA0": 7}
    assert Learned(tmp_path).get("other") == {}
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_two_instances_do_not_lose_each_others(tmp_path):
    one, two = Learned(tmp_path), Learned(tmp_path)
    one.put("a", {"host": 1})
    two.put("b", {"host": 2})
    assert Learned(tmp_path).get("a") and Learned(tmp_path).get("b")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"m": 3}',
        '{"m": {"host": "x"}}',
        '{"m": {"host": -1}}',
        '{"m": {"host": true}}',
        '{"m": {"host": 1e9}}',
        pytest.param(json.dumps({"m": {"host": 10**400}}), id="endless"),
        pytest.param(json.dumps({"m": {"host": 10**30}}), id="absurd"),
        pytest.param("[" * 100_000 + "]" * 100_000, id="deep"),
        pytest.param('{"m": {"host": 1}}' + " " * LARGEST, id="large"),
        pytest.param(b"\xff\xfe\x00".decode("latin-1"), id="no-text"),
    ],
)
def test_a_file_that_is_broken_is_as_none(tmp_path, text):
    (tmp_path / FILE).write_text(text)
    found = Learned(tmp_path)
    assert found.get("m") == {}
    found.put("m", {"host": 1})
    assert json.loads((tmp_path / FILE).read_text()) == {"m": {"host": 1}}


def test_nothing_waits_for_a_pipe_in_place_of_the_file(tmp_path):
    os.mkfifo(tmp_path / FILE)
    found = Learned(tmp_path)
    assert found.get("m") == {}
    found.put("m", {"host": 1})
    assert Learned(tmp_path).get("m") == {"host": 1}


def test_a_folder_that_cannot_be_written_is_no_failure(tmp_path):
    (tmp_path / "file").touch()
    Learned(tmp_path / "file").put("m", {"host": 1})


def test_the_oldest_are_forgotten(tmp_path):
    found = Learned(tmp_path)
    found._usage = {str(n): {"host": 1} for n in range(MOST)}
    found._write()
    found.put("new", {"host": 1})
    assert len(Learned(tmp_path)._usage) == MOST and not Learned(tmp_path).get("0")


def test_the_key_is_of_files_arguments_and_machine(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(b"x")
    same = key([path], ["-c", "1"], ["CUDA0"])
    assert same == key([path], ["-c", "1"], ["CUDA0"])
    assert same != key([path], ["-c", "2"], ["CUDA0"])
    assert same != key([path], ["-c", "1"], ["CUDA1"])
    path.write_bytes(b"xx")
    assert same != key([path], ["-c", "1"], ["CUDA0"])


def test_a_record_raises_a_prediction_and_never_lowers_it(tmp_path):
    record = Record(Learned(tmp_path), "m")
    assert record.seen() == {} and record.at_least({"host": 5}) == {"host": 5}
    record.put({"host": 3, "CUDA0": 9})
    assert record.at_least({"host": 5, "CUDA0": 7}) == {"host": 5, "CUDA0": 9}
    assert record.at_least({"host": 2}) == {"host": 3}
    assert Record(Learned(tmp_path), "other").seen() == {}
