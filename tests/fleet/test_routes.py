import asyncio
import json

import pytest

from app.fleet.config import Route
from app.fleet.standing import Coming
from app.fleet.watch import take_back
from app.gateway import trust
from app.machine import clock
from app.memory.caller import Caller
from tests.fleet.door import ANSWER, DRAINING, SECRET, Front, ScriptedInstance

EVENTS = b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b"a\r\ndata: {}\n\n\r\n"


def test_a_request_goes_below_the_models_name_with_the_instances_key(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with Front(one) as front:
            status, _, body = await front.ask("/service/chat/m/v1/completions")
            assert (status, body) == (200, b'{"usage":{}}')
            ((_, target, head),) = [each for each in one.asked if each[1].startswith("/m/")]
            assert target == "/m/v1/completions"
            assert "authorization: bearer " in head and SECRET not in head
            assert "session: address:127.0.0.1" in head and "x-wait-timeout: 5" in head
            assert front.samples[0].model == "chat/m" and front.state.served == 1
            # It has come and gone between two looks at the route, and was needed all the same.
            assert front.state.demand.peak(clock.now(), 60) == 1

    run(scenario)


def test_nothing_is_sent_to_an_instance_that_proves_nothing(run):
    async def scenario():
        one = ScriptedInstance("t1", proves=False)
        async with Front(one, wait=0.1) as front:
            status, _, body = await front.ask()
            assert status == 503 and b"does not prove" in body
            assert [target.partition("?")[0] for _, target, _ in one.asked] == ["/api/proof"]
            assert not any("authorization" in head for *_, head in one.asked)

    run(scenario)


def test_models_have_names_such_as_instances_give(run):
    """Without the secret anybody may be an instance."""

    async def scenario():
        one = ScriptedInstance("t1")
        for name in ("<img src=x>", "a\x1b[31m", "\ud800", "m/../../x", "v1", "a b", ""):
            one.models[name] = "ready"
        async with Front(one) as front:
            assert front.member(one).serves and set(front.routes.names) == {"chat", "chat/m", "m"}

    run(scenario)


def test_what_proves_another_instance_or_answered_another_question_proves_nothing(run):
    """Whoever has edited the address of a task passes the question on to the real instance, or says
    once more what that has answered."""

    async def scenario():
        real = ScriptedInstance("t2")
        await real.start()
        nonce = "0" * 32
        for told in (
            trust.proof(SECRET, nonce, "t2", real.address),  # an earlier answer
            trust.key(SECRET, "t2"),
            trust.order(SECRET, "t2", "chat"),
            nonce,
            None,
            ["0" * 64],
        ):
            evil = ScriptedInstance("t2")
            evil.says = json.dumps({"proof": told}).encode()
            async with Front(evil, wait=0.1) as front:
                assert not front.member(evil).serves
            assert {target.partition("?")[0] for _, target, _ in evil.asked} == {"/api/proof"}
        relaying = Relaying("t2", real)
        async with Front(relaying, wait=0.1) as front:
            assert not front.member(relaying).serves
            assert len(real.asked) == len(relaying.asked) > 0
            assert not any("authorization" in head for *_, head in relaying.asked)
        await real.stop()

    run(scenario)


class Relaying(ScriptedInstance):
    """Has no secret, and asks one that has."""

    def __init__(self, task, real):
        super().__init__(task)
        self.real = real

    async def _answer(self, target, body):
        self.real.asked.append(("GET", target, ""))
        return await self.real._answer(target, body)


def test_another_program_that_takes_the_port_of_a_proven_instance_gets_nothing(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with Front(one, wait=0.1) as front:
            assert (await front.ask())[0] == 200
            one.proves = False
            one.break_off()
            known = len(one.asked)
            status, _, body = await front.ask()
            assert status in (502, 503) and b"does not prove" in body
            later = one.asked[known:]
            assert {target.partition("?")[0] for _, target, _ in later} == {"/api/proof"}
            assert not any("authorization" in head for *_, head in later)

    run(scenario)


@pytest.mark.parametrize("trouble", [None, DRAINING, b"no HTTP\r\n\r\n"])
def test_what_got_no_answer_goes_to_another_instance(run, trouble):
    async def scenario():
        instances = [ScriptedInstance("t1", [trouble]), ScriptedInstance("t2", [trouble])]
        async with Front(*instances) as front:
            chosen = front.state.choose("m", 0, ())
            for instance in instances:
                if instance.task != chosen.task:
                    instance.answers = [ANSWER]
            for _ in range(8):  # of any conversation
                assert (await front.ask(body=b'{"model":"m","prompt":"%d"}' % _))[0] == 200
            for member in front.state.members.values():
                assert member.in_flight == 0

    run(scenario)


def test_an_instance_that_takes_no_connection_gets_none_any_more(run):
    async def scenario():
        instances = [ScriptedInstance("t1"), ScriptedInstance("t2")]
        async with Front(*instances) as front:
            await instances[0].stop()
            for number in range(8):
                assert (await front.ask(body=b'{"model":"m","prompt":"%d"}' % number))[0] == 200
            assert not front.member(instances[0]).serves
            assert front.member(instances[0]).useless

    run(scenario)


def test_a_stream_that_broke_ends_with_an_error_event(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with Front(one) as front:
            one.answers = [EVENTS + EVENT]
            client = await front.begin(body=b'{"model":"m","stream":true}')
            await client.reader.readuntil(b"data: {}")
            one.break_off()
            rest = await client.rest_of_answer()
            assert b'"error"' in rest and b"task t1" in rest
            assert one.requests == ["/m/v1/completions"]

    run(scenario)


def test_a_refusal_of_the_only_instance_is_told(run):
    async def scenario():
        busy = DRAINING.replace(b"the instance is stopping", b"512 are waiting for it  ")
        one = ScriptedInstance("t1", [busy])
        async with Front(one) as front:
            status, _, body = await front.ask()
            assert status == 503 and b"512 are waiting" in body and len(one.requests) == 2

    run(scenario)


def test_a_request_waits_for_an_instance_and_is_told_of_what_comes(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with Front(one) as front:
            front.member(one).let_go = True
            wanted = asyncio.Event()
            front.routes.on_wait = wanted.set
            front.state.coming = {"t9": Coming("t9", "task t9 is number 3 in gpu")}
            client = await front.begin(headers=b"x-wait-timeout: 0\r\n")
            status, headers, body = await client.response()
            assert status == 503 and b"number 3 in gpu" in body and headers["retry-after"] == "10"
            client = await front.begin()
            await wanted.wait()
            assert take_back(front.state)  # it has not ended yet
            assert (await client.response())[0] == 200

    run(scenario)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: setattr(state, "route", Route("chat", max=0)), b"max is 0"),
        (lambda state: state.coming.update(t=Coming("t", "no agent", hopeless=True)), b"no agent"),
        (lambda state: vars(state).update(problem="it failed", retry_at=1e12), b"it failed"),
    ],
)
def test_who_would_wait_in_vain_is_told_at_once(run, change, told):
    async def scenario():
        async with Front(wait=60.0) as front:
            change(front.state)
            status, _, body = await front.ask()
            assert status == 503 and told in body

    run(scenario)


def test_a_model_that_no_instance_has(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with Front(one, wait=60.0) as front:
            one.models = {"other": "ready"}
            await front.look()
            status, _, body = await front.ask()
            assert status == 503 and b"is not there" in body
            one.models = {"m": "failed"}
            await front.look()
            assert (await front.ask())[0] == 503

    run(scenario)


def test_a_route_of_several_models_lets_the_body_choose(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with Front(one) as front:
            assert (await front.ask("/chat/v1/completions", b'{"model":"whatever"}'))[0] == 200
            one.models = {"m": "ready", "n/o": "ready"}
            await front.look()
            for path, model in (("/chat", "n/o"), ("/service/chat", "chat/n/o"), ("", "n/o")):
                body = b'{"model":"%b"}' % model.encode()
                assert (await front.ask(f"{path}/v1/completions", body))[0] == 200
                assert one.asked[-1][1] == "/n/o/v1/completions"
            assert (await front.ask("/chat/v1/completions", b"{}"))[0] == 400
            assert (await front.ask("/chat/v1/completions", b'{"model":"p"}'))[0] == 404

    run(scenario)


def test_a_route_whose_template_is_being_read_keeps_callers_waiting(run):
    async def scenario():
        async with Front(wait=0.2) as front:
            front.state.models = ()
            front.routes.rename()
            status, _, body = await front.ask("/chat/v1/completions")
            assert status == 503 and b"serves its model yet" in body and b"?" not in body
            one = ScriptedInstance("t1")
            await one.start()
            client = await front.begin("/chat/v1/completions", headers=b"x-wait-timeout: 20\r\n")
            while not front.state.waiting:
                await asyncio.sleep(0.01)
            front.instances = (one,)
            await front.look()
            assert (await client.response())[0] == 200
            assert one.requests == ["/m/v1/completions"]

    run(scenario)


def test_a_full_instance_gives_way(run):
    async def scenario():
        instances = [ScriptedInstance("t1", slots=1), ScriptedInstance("t2", slots=1)]
        async with Front(*instances) as front:
            for instance in instances:
                instance.held.clear()
            same = b'{"model":"m","prompt":"the same conversation"}'
            clients = [await front.begin(body=same) for _ in range(2)]
            while sum(len(instance.requests) for instance in instances) < 2:
                await asyncio.sleep(0.01)
            assert [len(instance.requests) for instance in instances] == [1, 1]
            for instance in instances:
                instance.held.set()
            assert [(await client.response())[0] for client in clients] == [200, 200]

    run(scenario)


def test_a_route_that_is_taken_out_lets_its_requests_end(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with Front(one) as front:
            one.held.clear()
            client = await front.begin()
            while not one.requests:
                await asyncio.sleep(0.01)
            front.routes.configure([Route("other", template="t")])
            one.held.set()
            assert (await client.response())[0] == 200
            assert (await front.ask("/chat/m/v1/completions"))[0] == 404

    run(scenario)


def test_it_drains(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with Front(one) as front:
            one.held.clear()
            client = await front.begin()
            while not one.requests:
                await asyncio.sleep(0.01)
            front.routes.close()
            drained = asyncio.ensure_future(front.routes.drained())
            status, _, body = await front.ask()
            assert status == 503 and "stopping" in json.loads(body)["error"]["message"]
            assert not drained.done()
            one.held.set()
            assert (await client.response())[0] == 200
            await drained

    run(scenario)


def test_who_waits_for_an_instance_goes_to_it_in_turns_between_callers(run):
    async def scenario():
        async with Front(ScriptedInstance("t1", slots=2)) as front:
            woken = []

            async def wait(caller, since):
                await front.state.change(30, Caller("key", caller), since)
                woken.append(f"{caller}{since}")

            asked = [asyncio.ensure_future(wait("a", n)) for n in range(3)]
            asked.append(asyncio.ensure_future(wait("b", 3)))
            await asyncio.sleep(0)
            front.state.tell()
            await asyncio.gather(*asked)
            assert woken == ["a0", "b3", "a1", "a2"] and not front.state.waiting

    run(scenario)


def test_while_the_server_is_away_callers_are_told(run):
    async def scenario():
        async with Front() as front:
            front.routes.unlisted = "ClearML: tasks.get_all_ex: no answer in 20 s"
            status, _, body = await front.ask(headers=b"x-wait-timeout: 0\r\n")
            assert status == 503 and b"tasks.get_all_ex: no answer in 20 s" in body

    run(scenario)


def test_keeps_and_releases(run):
    async def scenario():
        one = ScriptedInstance("t1")
        async with Front(one) as front:
            member = front.member(one)
            for _ in range(3):
                await member.keep("a door")
            member.release()
            assert not member.serves
            for _ in range(3):
                await member.keep("a door")
            assert one.kept == [120, 0]
            member.take_back()
            await member.keep("a door")
            assert one.kept == [120, 0, 120] and member.serves
            assert member.client.progress == 0  # that it answers us says nothing of what it owes

    run(scenario)
