"""What has to hold of every request: one answer or one clear error, in time, of its own model."""

import json

from tests.simulation.clients import EMBEDDINGS, WRONG

SLACK = 10.0  # seconds beyond what a request may wait
STUCK = 180.0  # seconds that a llama-server may stand still, until it is ended
LONGEST = 300.0  # seconds that an answer may take that is slow
HEAD = 15.0  # seconds that a head may take to arrive
ERRORS = {400, 404, 408, 413, 429, 501, 502, 503}
ANY_TIME = {429, 502, 503}  # what may answer a wrong request, too


def kind(call):
    """For the summary."""
    if call.left:
        return "left"
    if not call.status:
        return "no answer"
    return f"{'wrong ' if call.wrong else ''}{call.status}"


def problems(world, call):
    """What is wrong with what became of a request."""
    samples = world.samples.get(call.name, [])
    try:
        return [*_counted(call, samples), *_ended(world, call)]
    except (ValueError, LookupError, TypeError) as error:
        return [f"an answer that nobody can read: {error!r}: {bytes(call.body)[:200]!r}"]


def _counted(call, samples):
    """Once, for its model, and with the status that was told."""
    if len(samples) > 1:
        yield f"counted {len(samples)} times"
    for sample in samples:
        if sample.model != call.model:
            yield f"counted for {sample.model}"
        if call.status and not call.left and call.status != 200 and sample.status != call.status:
            yield f"counted as {sample.status}"
    if call.status == 200 and not samples:
        yield "not counted"


def _ended(world, call):
    if call.ended is None:
        yield "no end"
    elif call.refused:
        if world.listens(call.ended):
            yield "nobody listens"
        return
    yield from _in_time(world, call)
    if call.left:
        if call.leaves_after is None and world.still[call.model] < 4:
            yield "no answer for as long as anybody would wait"
    elif not call.status:
        if not call.stale and not world.ending(call.ended):
            yield "neither an answer nor an error"
    else:
        yield from _answer(world, call)


def _in_time(world, call):
    """Until its answer or its llama-server has it: that takes as long as that takes."""
    if call.reads_slowly:
        return
    wait = float(world.scene.config["General/wait_timeout"]) if call.wait is None else call.wait
    bound = HEAD if call.wrong == "slow head" else wait
    stuck = STUCK * world.still[call.model]
    got = world.begun.get(call.name)
    taken = (got[0][0] if got else call.ended) - max(call.sent, world.opened_at)
    if taken > bound + SLACK + stuck:
        yield f"took {taken:.1f} s, and might wait {bound:.1f}"
    if got and call.ended - got[-1][0] > LONGEST + stuck:
        yield f"took {call.ended - got[-1][0]:.1f} s once its llama-server had it"


def _answer(world, call):
    if call.status == 401:
        if call.key:
            yield "the key is refused"
    elif call.status != 200:
        expected = WRONG[call.wrong] | ANY_TIME if call.wrong else ERRORS
        if call.status not in expected:
            yield f"not one of {sorted(expected)}"
        yield from _clear(json.loads(bytes(call.body)))
    elif call.streams:
        yield from _stream(world, call)
    elif call.wrong:
        yield "a wrong request is answered"
    elif not call.whole:
        yield from _broken(world, call)
    else:
        yield from _whole(call, json.loads(bytes(call.body)))


def _whole(call, told):
    if told.get("model") != call.model:
        yield f"answered by {told.get('model')}"
    if call.path != EMBEDDINGS:
        choice = told["choices"][0]
        yield from _words(call, choice["message"]["content"], choice["finish_reason"])


def _clear(told):
    error = told.get("error")
    if not (isinstance(error, dict) and error.get("message") and error.get("type")):
        yield f"no clear error: {told!r}"


def _stream(world, call):
    events = [each.strip() for each in bytes(call.body).split(b"\n\n")]
    told = [event[6:] for event in events if event.startswith(b"data: ")]
    over = told[-1:] == [b"[DONE]"]
    parsed = [json.loads(event) for event in told[: len(told) - over]]
    failed = bool(parsed) and "error" in parsed[-1]
    if failed:
        yield from _clear(parsed.pop())
    elif call.wrong:
        yield "a wrong request is answered"
    elif not over:
        yield from _broken(world, call)
    choices = [event["choices"][0] for event in parsed]
    words = "".join(choice["delta"].get("content", "") for choice in choices)
    yield from _words(call, words, choices[-1]["finish_reason"] if over else "")


def _broken(world, call):
    if not world.ending(call.ended) and call.name not in world.broken:
        yield "broken off, and nothing says why"


def _words(call, words, reason):
    """All of this model and this request, each once, in their order."""
    found = words.split()
    if found != [f"{call.model}/{call.name}/{number}" for number in range(len(found))]:
        yield f"other words: {words[:200]!r}"
    if reason == "stop" and len(found) != call.length:
        yield f"{len(found)} words of {call.length}"
    wanted = call.length if call.limit is None else min(call.length, call.limit)
    if len(found) > wanted:
        yield f"{len(found)} words, and at most {wanted} were wanted"
