import json

from app.doctor.finding import as_json, has_problem, lines, not_checked, ok, problem, warning

REPORT = {"a": ok("fine"), "long name": warning("old\n\x1b[31m", "update it")}


def test_a_line_for_each_check_with_what_to_do():
    first, second = lines(REPORT)
    assert first == "ok       a          fine"
    assert second.startswith("warning  long name  old") and second.endswith(" -> update it")
    assert "\x1b" not in second and "\n" not in second


def test_programs_get_the_same():
    assert json.loads(as_json(REPORT))[1] == {
        "check": "long name",
        "verdict": "warning",
        "seen": "old\n\x1b[31m",
        "advice": "update it",
    }


def test_only_a_problem_counts():
    assert not has_problem({**REPORT, "b": not_checked("no GPU")})
    assert has_problem({**REPORT, "b": problem("taken")})
