"""What a seed draws: the machine, the form, the callers, the faults and the end."""

import json
from dataclasses import dataclass

from tests.simulation.machine import GIB, MIB

CONTEXT = 400 * MIB  # of CUDA, by process
LEAST_FREE = GIB  # what llama-server leaves free


@dataclass(frozen=True)
class Scale:
    """How much happens: callers, and seconds until the end is drawn."""

    callers: tuple = (2, 5)
    seconds: tuple = (10.0, 45.0)
    pauses: tuple = (0.3, 2.0, 10.0)  # of a caller


QUICK = Scale()
LONG = Scale(callers=(8, 32), seconds=(1200.0, 14400.0), pauses=(10.0, 60.0, 300.0))


@dataclass(frozen=True)
class Habits:
    """Of one caller: seconds, and how likely things are."""

    begin: float
    pause: float
    length: float  # words of an answer
    patience: float
    most: float = 900.0  # seconds until it leaves in any case
    leaves: float = 0.0
    wrong: float = 0.0
    slow: float = 0.0


@dataclass(frozen=True)
class Scene:
    capacity: int  # bytes of the GPU
    sizes: dict  # by file: bytes as predicted, and as they are
    config: dict
    habits: list
    seconds: float
    end: str
    agent: bool
    hides: bool
    faults: list  # seconds, and the name of each
    visits: float  # seconds between two of a person; 0: there is none

    @property
    def models(self):
        return [each["endpoint_name"] for each in json.loads(self.config["General/models"])]

    @property
    def embedding(self):
        models = json.loads(self.config["General/models"])
        return [each["endpoint_name"] for each in models if each["embedding"]]


ENDS = ("SIGTERM", "SIGINT", "idle", "abort", "taken")
FAULTS = (
    "kill",
    "segfault",
    "crash on load",
    "break",
    "freeze",
    "wedge",
    "slow",
    "stubborn",
    "others",
    "disk full",
    "no processes",
)
OF_CLEARML = (
    "ClearML is down",
    "ClearML is silent",
    "ClearML fails",
    "ClearML is slow",
    "the token expires",
)


def scene(draw, scale):
    names = ["red", "green", "blue"]
    predicted = {name: draw.randrange(1500, 7000) * MIB for name in names}
    surprising = draw.random() < 0.15
    sizes = {f"{n}.gguf": (p, _real(draw, p, surprising)) for n, p in predicted.items()}
    seconds = draw.uniform(*scale.seconds)
    agent = draw.random() < 0.6
    end = draw.choice(ENDS if agent else ENDS[:3])
    faults = sorted(_faults(draw, seconds, agent))
    return Scene(
        capacity=_capacity(draw, list(predicted.values())),
        sizes=sizes,
        config=_form(draw, names, end),
        habits=[_habits(draw, seconds, scale) for _ in range(draw.randint(*scale.callers))],
        seconds=seconds * (0.02 if draw.random() < 0.1 else 1),
        end=end,
        agent=agent,
        hides=draw.random() < 0.5,
        faults=faults,
        visits=draw.choice((0.0, 0.0, 2.0, 20.0)),
    )


def _real(draw, predicted, surprising):
    part = draw.uniform(1.02, 1.2) if surprising else draw.uniform(0.92, 1.0)
    return int(predicted * part) + CONTEXT


def _capacity(draw, predicted):
    """Room for one of them, for two, or for all."""
    together = sum(sorted(predicted)[-draw.choice((1, 1, 2, 2, 3)) :])
    return together + 3 * CONTEXT + LEAST_FREE + draw.randrange(2048) * MIB


def _form(draw, names, end):
    models = [
        {
            "model": f"{name}.gguf",
            "endpoint_name": name,
            "context_size": draw.choice((2048, 4096)),
            "parallel": draw.choice((1, 2, 4)),
            "preload": draw.random() < 0.7,
            "priority": draw.choice((0, 0, 1)),
            "embedding": name == "blue" and draw.random() < 0.3,
            **({"max_concurrent_requests": draw.choice((1, 3))} if draw.random() < 0.3 else {}),
            **({"ttl": draw.choice((0.2, 1, 5))} if draw.random() < 0.3 else {}),
        }
        for name in names
    ]
    if draw.random() < 0.3 and "ttl" not in models[0]:
        models[0]["pin"] = True
    return {
        "General/models": json.dumps(models),
        "General/disk_swapping": "true",
        "General/wait_timeout": str(draw.choice((10, 60, 300))),
        "General/drain_timeout": str(draw.choice((0, 5, 20))),
        "Idle/idle_time_limit": str(draw.choice((0.005, 0.02, 0.1))) if end == "idle" else "2",
        "Idle/last_action_interval": str(draw.choice((10, 60))),
    }


def _habits(draw, seconds, scale):
    return Habits(
        begin=draw.choice((1.0, 20.0, seconds)),
        pause=draw.choice(scale.pauses),
        length=draw.choice((4, 12, 40)),
        patience=draw.choice((0.05, 1.0, 10.0)),
        leaves=draw.choice((0.0, 0.1, 0.4)),
        wrong=draw.choice((0.0, 0.1, 0.4)),
        slow=draw.choice((0.0, 0.0, 0.2)),
    )


def _faults(draw, seconds, agent):
    if draw.random() < 0.25:
        return []
    count = 1 + int(draw.expovariate(max(15 / seconds, 0.1)))
    known = (*FAULTS, *OF_CLEARML) if agent else FAULTS
    return [(draw.uniform(1, seconds), draw.choice(known)) for _ in range(min(count, 200))]
