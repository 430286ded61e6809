from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from app.task.thinning import SELDOM, Thinning
from app.telemetry.scalars import Point

SERIES = "ab"
WINDOWS = st.lists(st.fixed_dictionaries({s: st.sampled_from([None, 0, 0, 0, 5]) for s in SERIES}))


def points(window, number):
    return [Point("t", s, v, number) for s, v in window.items() if v is not None]


def sent(windows):
    """By series, the points that are sent of these windows, in their order."""
    thinning, found = Thinning(), defaultdict(list)
    told = [thinning.thin(points(window, number)) for number, window in enumerate(windows)]
    for point in sum([*told, thinning.rest()], []):
        found[point.series].append(point)
    return found


def test_a_value_that_stays_is_told_ever_more_seldom_and_at_the_end():
    told = [point.iteration for point in sent([{"a": 3}] * 100)["a"]]
    assert told == [0, 1, 3, 7, 15, 31, 51, 71, 91, 99]
    assert max(b - a for a, b in zip(told, told[1:], strict=False)) == SELDOM


def test_before_a_new_value_the_old_one_is_told_as_it_was_a_window_before():
    told = sent([{"a": 3}] * 10 + [{"a": 4}] * 2)["a"]
    assert [(point.iteration, point.value) for point in told[-4:]] == [
        (7, 3),
        (9, 3),
        (10, 4),
        (11, 4),
    ]


def test_a_series_that_ends_is_told_to_its_end_and_begins_anew():
    told = sent([{"a": 3}] * 6 + [{"a": None}] * 3 + [{"a": 3}] * 2)["a"]
    assert [point.iteration for point in told] == [0, 1, 3, 5, 9, 10]


@given(WINDOWS)
def test_each_plot_has_the_shape_that_it_would_have_with_all_points(windows):
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
                windows[n][series] is not None for n in range(before.iteration, after.iteration)
            )
