"""Samples, views and overviews with what a test does not care about filled in."""

from app.memory.ledger import ModelState, Tier, View
from app.telemetry.overview import Details, Overview, Phase
from app.telemetry.samples import Sample, Tokens


def sample(model="a", *, status=200, latency=1.0, tokens=None, **more):
    first_token = more.pop("first_token", None)
    tokens = tokens or Tokens(prompt=10, generated=20)
    return Sample(
        model=model,
        status=status,
        latency=latency,
        first_token=first_token,
        tokens=tokens,
        **more,
    )


def view(name="a", **more):
    nothing = {"admitted": 0, "leased": 0, "requests": 0, "denied": 0, "last_used": 0.0}
    state = {"state": ModelState.READY, "tier": Tier.GPU, "reason": "", "progress": None}
    return View(**{"name": name, **state, **nothing, **more})


def overview(*views, devices=()):
    """Serving since second 0."""
    found = Overview(
        version="1",
        models={view.name: Details() for view in views},
        idle_limit=None,
        active_for=60.0,
        devices=lambda: devices,
        view=lambda: views,
        host=lambda: (0, 1),
    )
    found.phase, found.begun, found.serving_since = Phase.SERVING, 0.0, 0.0
    return found
