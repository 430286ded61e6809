"""What llama-fit-params prints, and a tool that does not end."""

import asyncio

import pytest

from app.errors import ConfigError
from app.machine.children import Done
from app.planning import fit_params
from app.planning.fit_params import (
    MIB,
    Fitted,
    Prediction,
    ask,
    complaint,
    load_error,
    read_fitted,
    read_prediction,
)


@pytest.mark.parametrize(
    "printed, expected",
    [
        ("-c 4096 -ngl -1\n", Fitted(4096)),
        (
            '-c 4096 -ngl 20 -ts 3,1 -ot "blk\\.1=CPU"',
            Fitted(4096, 20, ("-ts", "3,1", "-ot", "blk\\.1=CPU")),
        ),
        ("", Fitted()),
    ],
)
def test_what_the_planning_tool_prints(printed, expected):
    assert read_fitted(printed) == expected


@pytest.mark.parametrize(
    "printed, expected",
    [
        ("Host 1 2 3", Prediction({}, MIB, 5 * MIB)),
        ("noise\nCUDA0 100 20 3\nHost 1 2 3", Prediction({"CUDA0": 123 * MIB}, MIB, 5 * MIB)),
        (
            "CUDA0 9 1 5\nHost 4 1 1\nCUDA0 9 2 1\nHost 1 1 1",
            Prediction({"CUDA0": 16 * MIB}, 4 * MIB, 2 * MIB),
        ),
        ("CUDA0 100 20 3", None),
        ("Host 1 2", None),
        ("", None),
    ],
    ids=["host", "gpu", "two answers", "no host", "a short row", "nothing"],
)
def test_the_most_of_each_buffer_counts(printed, expected):
    assert read_prediction(printed) == expected


def tool(tmp_path, body):
    path = tmp_path / "llama-fit-params"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_its_last_complaint_is_told(tmp_path):
    done = asyncio.run(ask(tool(tmp_path, "echo one >&2; echo two >&2; exit 3"), ["-c", "1"], {}))
    assert (done.status, complaint(done)) == (3, "two")
    assert complaint(asyncio.run(ask(tool(tmp_path, "exit 1"), [], {}))) == ""


@pytest.mark.parametrize(
    "body, expected",
    [
        ("exit 1", ""),
        ("echo no memory >&2; exit 1", ""),
        ("echo what: failed to load model >&2; exit 1", "llama.cpp cannot load it"),
        (
            "echo E error loading model: unknown architecture >&2; echo failed to load model >&2",
            "llama.cpp cannot load it: unknown architecture",
        ),
    ],
)
def test_that_a_model_cannot_be_loaded_is_told_with_the_reason(tmp_path, body, expected):
    done = asyncio.run(ask(tool(tmp_path, body), [], {}))
    assert load_error([Done(0, "", ""), done]) == expected


def test_one_that_does_not_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(fit_params, "TIMEOUT", 0.1)
    with pytest.raises(ConfigError, match="did not answer in 0 s"):
        asyncio.run(ask(tool(tmp_path, "exec sleep 60"), [], {}))
