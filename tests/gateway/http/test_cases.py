"""The table of raw messages, over real sockets, in pieces, and by h11."""

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.gateway.http.heads import ASK_TO_UPGRADE as WISH
from tests.fakes import RawClient, serving
from tests.gateway.http import second_opinion
from tests.gateway.http.asking import whole
from tests.gateway.http.cases import CASES
from tests.gateway.http.wired import FINAL, talk, talk_all

PATIENCE = 10
AT_ONCE = 50
LONG = 1000  # bytes: longer messages are only sent whole


def lines_of(data):
    return data.splitlines(keepends=True)


async def answer(request):
    await whole(request)
    assert request.target != "/smuggled"
    request.reply(200, b"ok\n")


async def told(port, case, pieces):
    """The statuses that a client gets, and whether the front closes."""
    client = await RawClient.to(port)
    reading = asyncio.create_task(answers(client, case))
    for piece in pieces:
        if reading.done():
            break
        with contextlib.suppress(ConnectionError):
            await client.send(piece)
        await asyncio.sleep(0)
    got = await asyncio.wait_for(reading, PATIENCE)
    await client.close()
    return got


async def answers(client, case):
    text, closed = b"", False
    while not closed and (case.closed or len(FINAL.findall(text)) < len(case.statuses)):
        try:
            piece = await client.reader.read(65536)
        except ConnectionError:
            piece = b""
        text, closed = text + piece, not piece
    return tuple(int(status) for status in FINAL.findall(text)), closed


@pytest.mark.parametrize("bytewise", [False, True], ids=["whole", "bytewise"])
def test_each_message_of_the_table_is_answered_as_it_says(run, bytewise, caplog):
    async def scenario():
        wrong = {}
        async with serving(answer, linger=0.2, sweep=0.05) as port:
            gate = asyncio.Semaphore(AT_ONCE)

            async def check(case):
                data = case.data
                cut = bytewise and len(data) < LONG
                pieces = [data[i : i + 1] for i in range(len(data))] if cut else [data]
                async with gate:
                    got = await told(port, case, pieces)
                if got != (case.statuses, case.closed):
                    wrong[case.name] = got

            await asyncio.gather(*(check(case) for case in CASES))
        assert wrong == {}

    run(scenario)
    assert caplog.records == []


def test_each_message_is_answered_alike_wherever_it_is_cut():
    async def scenario():
        wrong = {}
        for case in CASES:
            data = case.data
            cuts = range(1, len(data) if len(data) < LONG else 1)
            outcomes = await talk_all([(data[:cut], data[cut:]) for cut in cuts] or [(data,)])
            for cut, outcome in zip(cuts, outcomes, strict=False):
                if (outcome.statuses, outcome.closed) != (case.statuses, case.closed):
                    wrong[case.name, cut] = outcome.text
        assert wrong == {}

    asyncio.run(scenario())


def test_no_body_and_no_rest_becomes_a_request_and_no_trailer_a_header():
    async def scenario():
        for case in CASES:
            for _, target, headers, _ in (await talk(case.data)).requests:
                assert target != "/smuggled", case.name
                assert case.data.split(b"\r\n\r\n")[0].count(b"\n") >= len(headers), case.name

    asyncio.run(scenario())


def test_h11_parses_the_same_requests_and_refuses_nothing_that_the_front_takes():
    """Where it does otherwise, the row says why; and no row says so in vain."""

    async def scenario():
        differs = set()
        for case in CASES:
            opinion, outcome = second_opinion.of(case.data), await talk(case.data)
            refused = any(status >= 400 for status in outcome.statuses)
            if (opinion.refuses, known(opinion.requests)) != (refused, known(outcome.requests)):
                differs.add(case.name)
        assert differs == {case.name for case in CASES if case.h11}

    asyncio.run(scenario())


def known(requests):
    """As both tell them: without blanks around values, and without the wish to upgrade."""
    return [
        (method, target, [(n, v.strip(b" \t").lower()) for n, v in headers if n not in WISH], body)
        for method, target, headers, body in requests
    ]


PIECES = sorted({piece for case in CASES if len(case.data) < LONG for piece in lines_of(case.data)})


@st.composite
def mutated(draw):
    """Messages of the table after each other, with bytes changed, dropped and repeated; cut
    anywhere."""
    short = [case.data for case in CASES if len(case.data) < LONG]
    data = b"".join(draw(st.lists(st.sampled_from(short), min_size=1, max_size=3)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        what = draw(st.one_of(st.binary(max_size=3), st.sampled_from(PIECES)))
        data = data[:at] + what + data[at + draw(st.integers(0, 3)) :]
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=5)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


@settings(max_examples=200)
@given(mutated())
def test_mutated_messages_get_one_answer_each_and_never_a_500(pieces):
    """Wherever they are cut: each request that is taken has one answer, and only the last answer
    refuses what is no request. What h11 and the front both take, they read alike."""
    outcome, whole = asyncio.run(talk_all([pieces, [b"".join(pieces)]]))
    assert (outcome.statuses, outcome.closed, outcome.requests) == whole[:3]
    assert outcome.statuses.count(200) == len(outcome.requests)
    assert 500 not in outcome.statuses
    assert all(status == 200 for status in outcome.statuses[:-1])
    assert outcome.closed or all(status == 200 for status in outcome.statuses)
    opinion = second_opinion.of(b"".join(pieces))
    for ours, theirs in zip(known(outcome.requests), known(opinion.requests), strict=False):
        assert ours == theirs
