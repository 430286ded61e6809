from hypothesis import given
from hypothesis import strategies as st

from app.models.spans import Spans

SIZE = 40
SPANS = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=12)


@given(SPANS)
def test_spans_are_the_set_of_their_bytes(spans):
    found = Spans(spans)
    there = {byte for start, end in spans for byte in range(start, end)}
    missing = {byte for start, end in found.missing(SIZE) for byte in range(start, end)}
    assert missing == set(range(SIZE)) - there
    assert found.total == len(there)
    assert found.prefix == next(n for n in range(SIZE + 1) if n not in there)
    assert all(
        before[1] < after[0] for before, after in zip(found.all, found.all[1:], strict=False)
    )
