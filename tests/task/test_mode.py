import pytest

from app.task import mode
from app.task.mode import Mode


@pytest.mark.parametrize(
    "wanted, variable, expected",
    [(True, None, True), (False, "1", True), (False, "2.33", True), (False, "0", False)]
    + [(False, "False", False), (False, None, False)],
)
def test_offline_is_known_without_the_sdk(wanted, variable, expected):
    environment = {} if variable is None else {"CLEARML_OFFLINE_MODE": variable}
    assert mode.known_offline(wanted, environment) is expected


def test_a_task_id_is_an_agents_and_a_key_is_a_persons():
    assert mode.find({"CLEARML_TASK_ID": "t", "CLEARML_API_ACCESS_KEY": "k"}) is Mode.AGENT
    assert mode.find({"TRAINS_API_ACCESS_KEY": "k"}) is Mode.LOCAL
