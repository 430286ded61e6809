import base64
import json

import pytest

from app.task.login import Entry
from app.task.survey import Server, told

NOON = 1795867200.0  # Sat, 28 Nov 2026 12:00:00 GMT


def token(claims):
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"h.{payload}.s"


@pytest.mark.parametrize(
    "date, skew",
    [
        ("Sat, 28 Nov 2026 12:00:00 GMT", 0.5),
        ("Sat, 28 Nov 2026 12:01:00 GMT", 60.5),
        ("Sat, 28 Nov 2026 11:58:00 GMT", -119.5),
        ("", None),
        ("yesterday", None),
    ],
)
def test_its_clock(date, skew):
    assert told("h", Entry(token({}), date), NOON).skew == skew


def test_what_its_token_says():
    claims = {"server_version": "2.3.0", "api_version": "2.34", "feature_set": "advanced"}
    assert told("h", Entry(token(claims)), NOON) == Server("h", "2.3.0", "2.34", enterprise=True)


@pytest.mark.parametrize("text", ["", "a.b.c", "a", token([1]), "a.!.c"])
def test_a_token_of_another_kind(text):
    assert told("h", Entry(text), NOON) == Server("h")
