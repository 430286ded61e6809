"""What has to hold in every world: all along, at the end of the instance, and afterwards."""

import asyncio

from app.memory.ledger import ModelState
from app.task.outcome import Outcome
from app.telemetry.overview import Phase
from tests.simulation import answers

LOOK = 1.0  # seconds
NOTICED = 15.0  # seconds, at the latest
INTERRUPTED = 254  # under an agent
REASONS = {  # of the end, and the exit status
    "SIGTERM": ("stopped by SIGTERM", 143),
    "SIGINT": ("stopped by SIGINT", 130),
    "idle": ("idle for", 0),
    "abort": ("aborted in ClearML", 143),
    "taken": ("another run has the task", 143),
}


async def watch(world):
    """All along."""
    while world.ended_at is None:
        await asyncio.sleep(LOOK)
        for text in world.machine.over:
            if not surprising(world):
                world.violated(f"memory: {text}")
        world.machine.over.clear()
        if world.opened is not None:
            _look(world, world.opened)


def surprising(world):
    """Whether a model takes more than was predicted."""
    return any(real > said + (400 << 20) for said, real in world.scene.sizes.values())


def _look(world, opened):
    for model in opened.pool._ledger:
        line, budget = model.line, model.line.budget
        if budget.context is not None and budget.used > budget.context:
            world.violated(f"{model.name}: {budget.used} of {budget.context} KV tokens given away")
        counts = (line.leased, line.seated, line.waiting, model.admitted, model.requests)
        if min(counts) < 0 or line.leased > model.admitted + line._counting + 1:
            world.violated(f"{model.name}: counts {counts}")
        if model.limit is not None and model.admitted > model.limit:
            world.violated(f"{model.name}: {model.admitted} of {model.limit} at once")
        if not opened.pool._ledger.closed:  # else nobody gets a seat any more
            _seats_of_left(world, model)
    _idle_clock(world, opened.overview)


def _seats_of_left(world, model):
    """They come free soon after llama-server has noticed that the client is gone."""
    if model.state is not ModelState.READY or world.still[model.name]:
        return
    for seat in model.line.budget._seats:
        since = max(seat.left or world.loop.time(), model.here_since)
        if world.loop.time() - since > NOTICED:
            world.violated(f"{model.name}: a seat is kept for a client that has left")


def _idle_clock(world, overview):
    """It tells for how long no request has been at work or has waited, and no longer."""
    now = world.loop.time()
    lines = [model.line for model in world.opened.pool._ledger]
    if any(line._waiters.size or line.leased for line in lines):  # loads may wait, too
        world.used_at = now
    if overview.phase is not Phase.SERVING:
        return
    idle, since = overview.idle(now), max(overview.serving_since, world.used_at)
    if idle > now - since + 1e-3:
        world.violated(f"idle for {idle:.1f} s, and one was under way {now - since:.1f} s ago")


def at_the_end(world):
    """Of the instance."""
    _ended_rightly(world, world.scene, world.reason)
    for child in world.machine.alive:
        world.violated(f"{child.name} is left")
    left = [path.name for path in world.folder.glob("lmd-*")]
    if left:
        world.violated(f"folders are left: {left}")
    if world.opened is not None:
        _all_given_back(world, world.opened)
        _counters(world, world.opened)
    if world.reason.outcome is Outcome.COMPLETED:
        _ended_in_time(world)


def _ended_rightly(world, scene, reason):
    words, expected = REASONS[scene.end]
    if scene.agent and expected:
        expected = INTERRUPTED
    if reason.outcome is Outcome.FAILED:
        told = scene.agent and world.clearml.task["status"] == "failed"
        expected = 0 if told else reason.exit_status
        if not world.happened:
            world.violated(f"fails without a fault: {reason.text}")
    elif not reason.text.startswith(words):
        world.violated(f"ends because it is {reason.text}, and not by {scene.end}")
    if world.status != expected:
        world.violated(f"exit status {world.status}, and not {expected}: {reason.text}")


def _all_given_back(world, opened):
    for model in opened.pool._ledger:
        line = model.line
        counts = {
            "admitted": model.admitted,
            "leased": line.leased,
            "waiting": line.waiting,
            "counting": line._counting,
            "KV tokens": sum(s.tokens for s in line.budget._seats if s.left is None),
            "places": sum(1 for s in line.budget._seats if s.left is None),
        }
        left = {what: count for what, count in counts.items() if count}
        if left:
            world.violated(f"{model.name}: {left} at the end")
        moving = (ModelState.LOADING, ModelState.READY, ModelState.PARKING)
        if model.state in moving and not world.still[model.name]:
            world.violated(f"{model.name} is {model.state.value} at the end")
    room = opened.front._proxy._reading._room
    if room.taken:
        world.violated(f"{room.taken} bytes of bodies at the end")


def _counters(world, opened):
    """What /metrics counts are the requests that ended, and so are the pool's."""
    counted = {}
    for line in opened.front._metrics.text().decode().splitlines():
        if line.startswith("llamacpp_requests_total{"):
            model = line.partition('model="')[2].partition('"')[0]
            counted[model] = counted.get(model, 0) + float(line.rpartition(" ")[2])
    for model in opened.pool._ledger:
        ended = sum(s.model == model.name for each in world.samples.values() for s in each)
        if not ended == model.requests == counted.get(model.name, 0):
            world.violated(
                f"{model.name}: {ended} requests ended, {model.requests} in the pool, "
                f"{counted.get(model.name)} in /metrics"
            )


SAID = {"SIGTERM": "stopped", "SIGINT": "stopped", "idle": "completed", "abort": "stopped"}
WORDS = 90.0  # seconds after an outage, in which the SDK's thread may be behind


def last_words(world):
    """What ClearML has of the end, if it could be told: an agent has ended, too."""
    server, end = world.clearml, world.scene.end
    if end == "taken":
        return _nothing_more(world)
    tried = [call for at, call in server.asked if at >= world.reason_at]
    if not tried:
        world.violated("nobody tried to say the last words")
    if any(at + WORDS > world.reason_at for at, kind in world.weathers if kind != "fine"):
        return
    if server.weather == "fine" and all(at + WORDS < world.reason_at for at in world.cleared):
        _all_is_told(world, server, end)


def _all_is_told(world, server, end):
    if server.state.containers:
        world.violated(f"rows are left in Model Endpoints: {sorted(server.state.containers)}")
    failed = world.reason.outcome is Outcome.FAILED
    shown = server.task["hyperparams"].get("properties", {})
    told = {name: shown.get(name, {}).get("value") for name in ("status", "stop_reason")}
    expected = {"status": "failed" if failed else "stopped", "stop_reason": world.reason.text}
    if told != expected:
        world.violated(f"the task shows {told}, and not {expected}")
    if server.task["status"] != (status := "failed" if failed else SAID[end]):
        world.violated(f"the task is {server.task['status']}, and not {status}")


def _nothing_more(world):
    """Of this run, once the task is another one's."""
    if world.status == INTERRUPTED and world.clearml.task["status"] != "created":
        world.violated(f"the task is {world.clearml.task['status']}, and was reset")


def _ended_in_time(world):
    limit = float(world.scene.config["Idle/idle_time_limit"]) * 3600
    overview = world.opened.overview
    last = max(max(v.last_used, v.gave_up) for v in overview.view())
    last = max(last, overview.serving_since)
    idle = world.reason_at - last
    if not -0.001 <= idle - limit <= 1.0:
        world.violated(f"ended {idle:.1f} s after the last request, and the limit is {limit:.1f}")


def afterwards(world):
    """Everything has come to rest."""
    for task in asyncio.all_tasks(world.loop):
        if not task.get_name().startswith("sim ") and task is not asyncio.current_task():
            world.violated(f"a task is left: {task!r}")
    for transport in world.network.open:
        world.violated(f"a connection is left: {transport.protocol!r}")
    for place in world.network.listeners:
        world.violated(f"somebody listens at {place} still")
    for call in world.calls:
        for problem in answers.problems(world, call):
            world.violated(f"{call.name}: {problem}: {call.path} {call.wrong} {call.status}")
        world.counts[answers.kind(call)] += 1
