import asyncio
import json

import pytest

from app.gateway.admission import Keys
from app.gateway.keys_file import UNNAMED, Holder
from app.gateway.pages import events
from app.gateway.pages.status import Health, health, is_ready, pages, status
from app.gateway.routes import MODEL, MODELS
from app.machine import clock, host
from app.machine.gpu import Device
from app.memory.ledger import ModelState, Tier
from app.telemetry.overview import Details, MemoryUse, Overview, Phase
from app.telemetry.samples import Tokens
from app.telemetry.speculation import Speculation
from tests.telemetry.examples import view

S = ModelState
NONE, KEY = Keys([]), [(b"x-api-key", b"k")]


def overview(*states, phase=Phase.SERVING, leased=0, last_used=0.0, admitted=0):
    requests = {"requests": 3, "denied": 1, "admitted": admitted, "leased": leased}
    views = [
        view(f"m{n}", state=state, tier=Tier.RAM, last_used=last_used, **requests)
        for n, state in enumerate(states)
    ]
    names = [each.name for each in views]
    details = {name: Details("ref", 4096, 4, f"http://h/{name}/v1") for name in names}
    return Overview(
        "1",
        details,
        idle_limit=3600,
        active_for=60,
        devices=lambda: [Device("0", "CUDA0", "H200", 1, 2)],
        view=lambda: views,
        host=lambda: (3, 4),
        phase=phase,
        begun=0.0,
        begun_at=0.0,
        serving_since=0.0,
    )


@pytest.mark.parametrize(
    "found, expected",
    [
        (overview(S.READY), Health.OK),
        (overview(S.COLD), Health.OK),
        (overview(S.FAILED, S.COLD), Health.OK),
        (overview(S.DOWNLOADING), Health.LOADING),
        (overview(S.FAILED, S.LOADING), Health.LOADING),
        (overview(S.FAILED), Health.FAILED),
        (overview(S.READY, phase=Phase.STOPPING), Health.DRAINING),
    ],
)
def test_health(found, expected):
    assert health(found) is expected


def test_ready_when_no_model_is_out_of_memory_by_a_failure():
    assert is_ready(overview(S.READY))
    assert not is_ready(overview(S.READY, S.DOWNLOADING))
    assert is_ready(overview(S.READY, S.PARKED, S.COLD, S.LOADING))  # others' turns
    again = overview(S.COLD)
    again.view = lambda: [view("m0", state=S.COLD, reason="unused for 1 hour", unused=True)]
    assert is_ready(again)
    again.view = lambda: [view("m0", state=S.LOADING, reason="crashed")]
    assert not is_ready(again)
    assert not is_ready(overview(S.READY, phase=Phase.SETTING_UP))


class Asked:
    """A request that keeps its answer."""

    address = "127.0.0.1"

    def reply(self, status, body):
        self.answer = status, json.loads(body)


@pytest.mark.parametrize(
    "path, found, expected",
    [
        ("/health", overview(S.READY), (200, {"status": "ok"})),
        ("/health", overview(S.FAILED), (503, {"status": "failed"})),
        ("/ready", overview(S.READY), (200, {"status": "ready"})),
        (
            "/ready",
            overview(S.DOWNLOADING),
            (
                503,
                {"status": "loading", "models": {"m0": {"state": "downloading", "progress": None}}},
            ),
        ),
    ],
)
def test_health_and_ready_as_they_are_answered(path, found, expected):
    assert answered(found, path) == expected


@pytest.mark.parametrize("sent, told", [([], 1), ([(b"x-api-key", b"no")], 1), (KEY, 2)])
def test_only_who_has_a_key_is_told_which_models_are_coming(sent, told):
    code, body = answered(overview(S.DOWNLOADING), "/ready", Keys(["k"]), sent)
    assert code == 503 and len(body) == told and body["status"] == "loading"


def test_a_model_of_the_list_says_what_it_can():
    found = overview(S.READY, S.DOWNLOADING)
    found.models["m0"].multimodal = True
    found.models["m0"].meta = lambda: {"n_vocab": 3}
    found.models["m1"] = Details(embedding=True)
    first, second = answered(found, MODELS)[1]["data"]
    assert first == {
        "id": "m0",
        "aliases": ["m0"],
        "object": "model",
        "created": 0,
        "owned_by": "llamacpp",
        "state": "ready",
        "tier": "ram",
        "context": 4096,
        "slots": 4,
        "capabilities": ["completion", "multimodal"],
        "meta": {"n_vocab": 3},
    }
    assert second["context"] is second["meta"] is None
    assert second["capabilities"] == ["embedding"]


def test_each_name_of_a_model_is_in_the_list_and_can_be_retrieved():
    found = overview(S.READY, S.COLD)
    found.models["m0"].aliases = ("gpt-4o", "chat")
    data = answered(found, MODELS)[1]["data"]
    assert [entry["id"] for entry in data] == ["m0", "gpt-4o", "chat", "m1"]
    assert [entry["aliases"] for entry in data] == [["m0", "gpt-4o", "chat"]] * 3 + [["m1"]]
    assert answered(found, MODEL, model="gpt-4o") == (200, data[1])
    assert answered(found, MODELS, model="m0")[1]["data"] == data[:3]
    assert status(found, 0.0)["models"][0]["aliases"] == ("gpt-4o", "chat")


def answered(found, path, keys=NONE, headers=(), model=None, holder=UNNAMED):
    asked = Asked()
    asked.headers = headers
    waiting = pages(found, keys)[path](asked, model, holder)
    if waiting is not None:
        asyncio.run(waiting)
    return asked.answer


@pytest.mark.parametrize(
    "found, now, expected",
    [
        (overview(S.LOADING, phase=Phase.SETTING_UP), 1000, "setting up"),
        (overview(S.READY), 59, "active"),
        (overview(S.READY), 61, "idle"),
        (overview(S.READY, last_used=50), 61, "active"),
        (overview(S.READY, leased=1), 1000, "active"),
        (overview(S.READY, phase=Phase.STOPPING), 1, "stopping"),
    ],
)
def test_status_words(found, now, expected):
    assert found.status(now) == expected


@pytest.mark.parametrize(
    "reference, told",
    [
        ("/home/ann/secret/m.gguf", "m.gguf"),
        ("~/m.gguf", "m.gguf"),
        ("unsloth/m-GGUF/m-Q4.gguf", "unsloth/m-GGUF/m-Q4.gguf"),
        ("s3://bucket/m.gguf", "s3://bucket/m.gguf"),
    ],
)
def test_a_caller_of_the_keys_file_is_not_told_in_which_folder_a_file_lies(reference, told):
    found = overview(S.READY)
    found.models["m0"].reference = reference
    (model,) = status(found, 0.0, Holder("ann"))["models"]
    assert model["reference"] == told
    (model,) = status(found, 0.0)["models"]
    assert model["reference"] == reference


def test_the_whole_status():
    found = status(overview(S.READY, last_used=50.0, admitted=3, leased=2), now=61.0)
    assert found["uptime"] == 61 and found["idle"] == {"seconds": 0, "limit": 3600}
    assert found["last_activity"] == "1970-01-01T00:01:01+00:00"
    assert found["devices"] == [{"id": "0", "name": "H200", "used": 1, "total": 2}]
    assert found["host"] == {"name": host.name(), "used": 3, "total": 4}
    (model,) = found["models"]
    assert model == {
        "name": "m0",
        "aliases": (),
        "reference": "ref",
        "state": "ready",
        "tier": "ram",
        "reason": "",
        "unused": False,
        "progress": None,
        "context": 4096,
        "slots": 4,
        "memory": {"gpu": {}, "host": 0},
        "need": {},
        "prompt_cache": 0,
        "placed": "",
        "embedding": False,
        "speculation": None,
        "in_flight": 2,
        "queued": 1,
        "requests": 3,
        "denied": 1,
        "switches": 0,
        "pinned": False,
        "endpoint": "http://h/m0/v1",
    }


def test_what_waits_for_a_load_is_queued():
    (model,) = status(overview(S.LOADING, admitted=3), now=1.0)["models"]
    assert (model["in_flight"], model["queued"]) == (0, 3)


def test_how_well_tokens_are_guessed():
    found = overview(S.READY)
    found.models["m0"].speculation = Speculation(cost=0.5)
    (model,) = status(found, now=1.0)["models"]
    assert model["speculation"] == {"acceptance": None, "slower": ""}
    found.models["m0"].speculation.seen(Tokens(generated=500, drafted=300, accepted=100))
    (model,) = status(found, now=1.0)["models"]
    assert model["speculation"]["acceptance"] == 33.3
    assert "33 % of the guesses are right" in model["speculation"]["slower"]


@pytest.mark.parametrize(
    "tier, held, expected",
    [
        (Tier.GPU, MemoryUse({"CUDA0": 7}, 5), MemoryUse({"0": 7}, 5)),
        (Tier.GPU, MemoryUse(host=5), MemoryUse({"0": 9, "CUDA1": 8}, 5)),  # as in a container
        (Tier.RAM, MemoryUse(host=5), MemoryUse(host=5)),
    ],
)
def test_the_memory_of_a_model(tier, held, expected):
    found = overview(S.READY)
    found.models["m0"].memory = lambda: held
    need = {"CUDA0": 9, "CUDA1": 8, "host": 1}
    seen = found.view()[0]._replace(tier=tier, need=need)
    assert found.memory(seen) == expected and expected.total == sum(expected.gpu.values()) + 5


def test_open_pages_are_not_told_anew_where_only_time_has_passed(monkeypatch):
    found = overview(S.READY)
    told = status(found, 1.0)
    monkeypatch.setattr(clock, "wall", lambda: told["time"] + 1)
    later = status(found, 2.0)
    assert told["time"] != later["time"]
    assert events._happened(told) == events._happened(later)
