"""What a seed draws of a fleet: its route, doors, agents, callers and faults."""

from dataclasses import dataclass

QUIET_END = 300.0  # seconds without faults and requests, at the end
QUICK, LONG = (40.0, 240.0), (600.0, 7200.0)  # seconds with them


@dataclass(frozen=True)
class Scene:
    route: dict  # the fields of `Route`
    doors: int
    agents: int
    slots: int
    callers: list  # seconds between the requests of each
    seconds: float
    faults: list  # seconds, and the name of each
    refuses: tuple  # actions that the server does not allow


def scene(draw, faults, scale):
    most = draw.choice((1, 1, 2, 3))
    seconds = draw.uniform(*scale)
    return Scene(
        route={
            "min": draw.choice((0, 0, 1, most)) if most > 1 else draw.choice((0, 1)),
            "max": most,
            "quiet": draw.choice((30.0, 90.0, 600.0)),
            "queue_wait": draw.choice((0.5, 5.0)),
        },
        doors=draw.choice((1, 1, 2, 3)),
        agents=draw.choice((1, most, most + 2)),
        slots=draw.choice((1, 2, 4)),
        callers=[draw.choice((1.0, 5.0, 40.0)) for _ in range(draw.randint(1, 8))],
        seconds=seconds,
        faults=sorted(
            (draw.uniform(0, seconds * 0.8), draw.choice(sorted(faults)))
            for _ in range(round(draw.choice((0, 1, 3, 6)) * max(1, seconds / 600)))
        ),
        refuses=("queues.create",) if draw.random() < 0.25 else (),
    )
