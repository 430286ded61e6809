import pytest

from app.task.api import RefusedError
from app.task.mode import Mode
from app.task.outcome import TAKEN, Outcome, Run, Said, last_words, say, say_of, unwatched


@pytest.mark.parametrize(
    "mode, outcome, status",
    [
        (Mode.LOCAL, Outcome.COMPLETED, ["completed"]),
        (Mode.LOCAL, Outcome.STOPPED, ["stopped"]),
        (Mode.LOCAL, Outcome.FAILED, ["failed"]),
        (Mode.AGENT, Outcome.COMPLETED, ["completed"]),
        (Mode.AGENT, Outcome.STOPPED, []),  # the agent reads it from our exit status
        (Mode.AGENT, Outcome.FAILED, ["failed"]),
    ],
    ids=str,
)
def test_the_reason_is_shown_first_and_the_status_set_last(mode, outcome, status):
    words = last_words("t", mode, outcome, "the reason")
    assert [word.action for word in words] == ["edit_hyper_params", "edit_runtime", *status]
    shown = {item["name"]: item["value"] for item in words[0].fields["hyperparams"]}
    ended = "failed" if outcome is Outcome.FAILED else "stopped"
    assert shown == {"status": ended, "endpoint": "", "progress": "", "stop_reason": "the reason"}
    told = {"llamacpp_status": ended, "llamacpp_endpoint": ""}
    assert words[1].fields["add_or_update"] == told
    for word in words[2:]:
        assert word.fields["status_message"] == word.fields["status_reason"] == "the reason"


WORDS = last_words("t", Mode.LOCAL, Outcome.FAILED, "no room")


NOBODY = ConnectionError("nobody there")


def asked(*, refused=(), silent=(), problem=NOBODY):
    """The actions in their order, and what is said of them."""
    actions = []

    def ask(service, action, fields, timeout):
        assert (service, timeout) == ("tasks", 3.0)
        actions.append(action)
        if action in refused:
            raise RefusedError(f"ClearML: {action}: no", 400)
        if action in silent:
            raise problem
        return {}

    return actions, say(ask, WORDS, 3.0)


def test_everything_is_said_once_and_the_status_confirmed():
    actions, said = asked()
    assert actions == ["edit_hyper_params", "edit_runtime", "failed"]
    assert said == Said((), "", confirmed=True)


def test_what_gets_no_answer_is_left_with_all_that_comes_after_it():
    actions, said = asked(silent=["edit_runtime"])
    assert actions == ["edit_hyper_params", "edit_runtime"]
    assert [word.action for word in said.left] == ["edit_runtime", "failed"]
    assert said.problem == "ConnectionError: nobody there" and not said.confirmed


def test_a_server_that_cannot_answer_now_is_asked_again():
    _, said = asked(silent=["failed"], problem=RefusedError("ClearML: no database", 500))
    assert len(said.left) == 1 and not said.confirmed


@pytest.mark.parametrize(
    "refused, problem, confirmed",
    [
        ("edit_hyper_params", "ClearML: edit_hyper_params: no", True),
        ("edit_runtime", "", True),  # an older server has it not
        ("failed", "ClearML: failed: no", False),
    ],
)
def test_what_is_refused_does_not_cost_the_status_and_is_not_said_again(
    refused, problem, confirmed
):
    actions, said = asked(refused=[refused])
    assert len(actions) == 3 and said == Said((), problem, confirmed)


def test_nobody_watches_a_task_at_its_end():
    class Watcher:
        def unregister(self):
            self.left = True

    class Task:
        _dev_worker = Watcher()

    unwatched(Task())
    assert Task._dev_worker.left
    unwatched(object())  # one that was never watched


@pytest.mark.parametrize(
    "answer, left, problem",
    [
        ({"tasks": [{"status": "stopped", "hyperparams": {}}]}, 0, ""),
        ({"tasks": [{"status": "queued", "hyperparams": {}}]}, 0, TAKEN),
        (RefusedError("ClearML: tasks.get_all: no", 400), 0, ""),
        (RefusedError("ClearML: no database", 500), 3, "ClearML: no database"),
        (NOBODY, 3, "ConnectionError: nobody there"),
    ],
    ids=["ours", "enqueued", "refused", "cannot answer", "silent"],
)
def test_nothing_is_said_of_a_task_that_is_no_longer_ours(answer, left, problem):
    actions = []

    def ask(service, action, fields, timeout):
        actions.append(action)
        if action != "get_all":
            return {}
        if isinstance(answer, Exception):
            raise answer
        return answer

    said = say_of(Run("t", "this"), ask, WORDS, 3.0)
    assert (len(said.left), said.problem, said.confirmed) == (left, problem, not problem)
    assert len(actions) == (1 if problem else 4)
