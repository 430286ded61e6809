import logging
from pathlib import Path

import pytest

from app import console
from app.instance.announce import announce, endpoint, targets, tell_token
from app.memory.ledger import ModelState, Tier, View
from app.telemetry.overview import Details, Overview
from app.telemetry.readings import MemoryUse, Reading, Readings


def overview(*views, **details):
    return Overview(
        "1",
        details,
        idle_limit=None,
        active_for=1.0,
        devices=list,
        view=lambda: views,
        host=lambda: (0, 0),
        readings=Readings(lambda pids: Reading([], (0, 0), {})),
    )


def view(name, state):
    return View(name, state, Tier.RAM)


def test_what_is_said_once_models_serve(caplog):
    caplog.set_level(logging.INFO, "app")
    url = "http://127.0.0.1:8080"
    here = Details(
        context=4096,
        slots=4,
        endpoint=endpoint(url, "a"),
        memory=lambda: MemoryUse({"CUDA0": 3_000_000}, 1_000_000),
    )
    failed = Details(endpoint=endpoint(url, "b"))
    announce(
        overview(view("a", ModelState.READY), view("b", ModelState.FAILED), a=here, b=failed), ""
    )
    ready, heading, first, second, curl = caplog.messages
    assert ready == "ready"
    assert heading.split() == ["model", "state", "context", "slots", "memory", "endpoint"]
    assert first.split() == ["a", "ready", "4096", "4", "4", "MB", f"{url}/a/v1"]
    assert second.split() == ["b", "failed", "0", "MB", f"{url}/b/v1"]
    assert curl.startswith(f"curl '{url}/a/v1/chat/completions'")


@pytest.mark.parametrize("under_agent", [False, True])
def test_the_token_is_told_to_the_terminal_alone_and_its_file_to_all(
    caplog, monkeypatch, under_agent
):
    caplog.set_level(logging.INFO, "app")
    told = []
    monkeypatch.setattr(console, "confide", told.append)
    tell_token("secret", Path("/run/x/token"), "http://h:1", under_agent=under_agent)
    assert "/run/x/token" in caplog.text and "secret" not in caplog.text
    assert [line.split()[-1] for line in told] == ["http://h:1/#token=secret"] * (not under_agent)


def test_callers_get_a_place_for_their_key_and_the_kind_of_model():
    (target,) = targets(overview(a=Details(endpoint="http://x/a/v1", embedding=True)), "YOUR_KEY")
    assert (target.model, target.url) == ("a", "http://x/a/v1")
    assert target.embedding and target.key == "YOUR_KEY"


def test_a_name_is_quoted_in_its_url():
    assert endpoint("http://x", "a b+c") == "http://x/a%20b%2Bc/v1"
