from hypothesis import given
from hypothesis import strategies as st

from app.telemetry.callers import ByCaller, Used
from app.telemetry.prometheus import Metrics
from app.telemetry.samples import Tokens
from tests.telemetry.examples import overview, sample, view
from tests.telemetry.test_prometheus import read

TOKENS = Tokens(prompt=10, cached=4, generated=6)
NAMES = st.sampled_from(["alice", "bob", "carol", ""])


def by_caller(*names):
    made = ByCaller("other")
    made.keep(names)
    return made


def test_requests_and_tokens_count_for_the_caller_and_all_others_together():
    told = by_caller("alice", "bob")
    for caller in ("alice", "alice", "", "nobody"):
        told.add(sample(caller=caller, tokens=TOKENS))
    assert list(told.used.items()) == [
        ("alice", Used(2, 0, 20, 8, 12)),
        ("bob", Used()),
        ("other", Used(2, 0, 20, 8, 12)),
    ]


def test_what_a_caller_used_that_left_the_file_counts_for_all_others():
    told = by_caller("alice", "bob")
    told.add(sample(caller="alice", tokens=TOKENS))
    told.add(sample(caller="bob", tokens=TOKENS))
    told.deny("alice")
    told.keep(["bob", "carol"])
    told.add(sample(caller="alice", tokens=TOKENS))  # was under way
    assert dict(told.used) == {
        "bob": Used(1, 0, 10, 4, 6),
        "carol": Used(),
        "other": Used(2, 1, 20, 8, 12),
    }


@given(st.lists(NAMES | st.lists(NAMES.filter(bool), unique=True)))
def test_no_request_is_lost_and_no_name_is_kept_that_the_file_has_not(events):
    told, names, sent = by_caller(), [], 0
    for event in events:
        if isinstance(event, list):
            names = event
            told.keep(names)
        else:
            told.add(sample(caller=event))
            sent += 1
        assert list(told.used) == [*names, "other"]
        assert sum(used.requests for used in told.used.values()) == sent


def test_metrics_have_a_series_for_each_caller_and_none_without_a_keys_file():
    seen = overview(view("a"))
    assert not [name for name, *_ in read(Metrics(seen, lambda: 0.0)) if "caller" in name]
    seen.by_caller = by_caller("alice")
    seen.by_caller.add(sample(caller="alice", tokens=TOKENS))
    seen.by_caller.deny("alice")
    found = read(Metrics(seen, lambda: 0.0))
    assert found["llamacpp_caller_denied_requests_total", "alice"] == 1
    assert found["llamacpp_caller_requests_total", "alice"] == 1
    assert found["llamacpp_caller_prompt_tokens_total", "alice"] == 10
    assert found["llamacpp_caller_cached_tokens_total", "alice"] == 4
    assert found["llamacpp_caller_generated_tokens_total", "alice"] == 6
    assert found["llamacpp_caller_requests_total", "other"] == 0
