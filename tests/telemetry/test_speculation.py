import pytest

from app.telemetry.samples import Tokens
from app.telemetry.speculation import LAST, MANY_GUESSES, MANY_REQUESTS, Speculation, slower

NO_GUESS = Tokens(generated=100, seconds=1.0)


def guessed(drafted=100, accepted=50, seconds=1.0):
    return Tokens(generated=100, drafted=drafted, accepted=accepted, seconds=seconds)


@pytest.mark.parametrize(
    "last, cost, said",
    [
        ([], 0.5, ""),
        ([NO_GUESS] * 50, 0.5, ""),
        ([guessed(accepted=60)] * 9, 0.5, ""),
        ([guessed(accepted=40)] * 9, 0.5, "40 % of the guesses are right"),
        ([guessed(accepted=40)] * 9, 0.0, ""),  # by the text: they cost nothing
        ([guessed(drafted=MANY_GUESSES - 1, accepted=0)], 0.5, ""),
        ([guessed(drafted=MANY_GUESSES, accepted=0)], 0.5, "0 % of the guesses are right"),
        ([guessed(seconds=1.2), NO_GUESS] * MANY_REQUESTS, 0.0, "12 ms with guesses, and 10 ms"),
        ([guessed(seconds=1.05), NO_GUESS] * MANY_REQUESTS, 0.0, ""),
        ([guessed(seconds=0.5), NO_GUESS] * MANY_REQUESTS, 0.0, ""),
        ([guessed(seconds=1.2)] * 50 + [NO_GUESS] * (MANY_REQUESTS - 1), 0.0, ""),
        ([guessed(seconds=9)] + [guessed(), NO_GUESS] * MANY_REQUESTS, 0.0, ""),  # one is noise
        ([guessed(seconds=0), NO_GUESS] * MANY_REQUESTS, 0.0, ""),  # not told
    ],
)
def test_whether_guesses_make_it_slower(last, cost, said):
    found = slower(last, cost)
    assert said in found and bool(said) == bool(found)


def test_it_is_told_once_and_shown_as_long_as_it_is_so():
    watched = Speculation(cost=0.5)
    assert watched.acceptance is None
    bad, good = guessed(drafted=300, accepted=0), guessed(drafted=300, accepted=300)
    assert watched.seen(bad) and watched.slower
    assert watched.seen(bad) == "" and watched.slower
    assert watched.seen(Tokens()) == ""
    for _ in range(LAST):
        assert watched.seen(good) == ""
    assert watched.slower == "" and watched.acceptance == 100
    for _ in range(LAST):
        assert watched.seen(bad) == ""
    assert watched.slower
