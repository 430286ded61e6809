from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from app.task.thinning import Thinning
from app.telemetry.scalars import Point

SERIES = "ab"
WINDOWS = st.lists(st.fixed_dictionaries({s: st.sampled_from([None, 0, 0, 0, 5]) for s in SERIES}))


def points(window, number):
    return [Point("t", s, v, 15 * number) for s, v in window.items() if v is not None]


def sent(windows):
    """By series, the points that are sent of these windows, in their order."""
    thinning, found = Thinning(), defaultdict(list)
    told = [thinning.thin(points(window, number)) for number, window in enumerate(windows)]
    for point in sum([*told, thinning.rest()], []):
        found[point.series].append(point)
    return found


def test_a_value_that_stays_is_told_ever_more_seldom_and_at_the_end():
    told = [point.iteration for point in sent([{"a": 3}] * 100)["a"]]
    assert told == [0, 15, 45, 105, 225, 465, 765, 1065, 1365, 1485]


def test_before_a_new_value_the_old_one_is_told_as_it_was_a_window_before():
    told = [(p.iteration, p.value) for p in sent([{"a": 3}] * 10 + [{"a": 4}] * 2)["a"]]
    assert told[-4:] == [(105, 3), (135, 3), (150, 4), (165, 4)]


def test_a_series_that_ends_is_told_to_its_end_and_begins_anew():
    told = sent([{"a": 3}] * 6 + [{"a": None}] * 3 + [{"a": 3}] * 2)["a"]
    assert [point.iteration for point in told] == [0, 15, 45, 75, 135, 150]


def test_what_is_no_number_is_told_each_time():
    told = sent([{"a": float("nan")}] * 10)["a"]
    assert len(told) == 10


@given(WINDOWS)
def test_each_line_is_the_one_that_it_would_be_with_all_points(windows):
    found = sent(windows)
    for series in SERIES:
        whole = [
            p for number, w in enumerate(windows) for p in points(w, number) if p.series == series
        ]
        kept = found[series]
        assert kept == sorted(set(kept), key=lambda point: point.iteration)  # each once, in order
        assert set(kept) <= set(whole)
        assert kept[:1] == whole[:1] and kept[-1:] == whole[-1:]
        for left_out in set(whole) - set(kept):
            before = max(
                (p for p in kept if p.iteration < left_out.iteration), key=lambda p: p.iteration
            )
            after = min(
                (p for p in kept if p.iteration > left_out.iteration), key=lambda p: p.iteration
            )
            assert before.value == left_out.value == after.value
            assert all(
                windows[n][series] is not None
                for n in range(before.iteration // 15, after.iteration // 15)
            )
