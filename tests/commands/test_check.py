"""What `check` does around a plan; what a plan is, tests/planning and the end-to-end tests say."""

import asyncio
import json
import os

import pytest

from app.commands.check import check
from app.engine.capabilities import Capabilities
from app.errors import ConfigError, FormError
from app.instance.invocation import Invocation
from app.planning.plan import Plan
from app.planning.site import Machine, Site


class Planner:
    """Notes what it is asked, and answers with a plan of no models."""

    def __init__(self, error=None):
        self.error, self.settings, self.around, self.folder_was_there = error, None, None, False

    async def __call__(self, settings, around):
        self.settings, self.around = settings, around
        self.folder_was_there = around.folder.is_dir()
        if self.error:
            raise self.error
        capabilities = Capabilities({}, around.folder / "llama-server")
        site = Site(capabilities, Machine(1 << 30, 2, 1, {}, {}, 0))
        return Plan((), site, around.store, {}, sharing=False)


@pytest.fixture
def ask(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("HF_TOKEN", raising=False)

    def asked(planner, *, as_json=False, environment=None, **fields):
        config = {key.replace("__", "/"): text for key, text in fields.items()}
        wanted = Invocation(config, offline=True, cache_dir=str(tmp_path / "cache"))
        around = environment or {}
        return asyncio.run(check(wanted, around, as_json=as_json, planner=planner))

    return asked


def test_the_plan_of_the_form_is_shown(ask, capsys):
    planner = Planner()
    assert ask(planner, Model__threads="3", General__port="0") == 0
    assert planner.settings.models[0].threads == 3 and planner.settings.general.port == 0
    assert planner.around.trial and planner.around.store.cache.name == "cache"
    assert capsys.readouterr().out.startswith("model ")


def test_json_is_all_that_programs_get(ask, capsys):
    assert ask(Planner(), as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["models"] == []


def test_the_private_folder_goes_also_after_a_refusal(ask, tmp_path):
    planner = Planner(ConfigError("no llama-server"))
    with pytest.raises(ConfigError, match="no llama-server"):
        ask(planner)
    assert planner.folder_was_there and not planner.around.folder.exists()
    assert list(tmp_path.glob("lmd-*")) == []


def test_a_bad_field_is_refused_before_anything_is_asked(ask):
    planner = Planner()
    with pytest.raises(FormError, match="Model/threads"):
        ask(planner, Model__threads="x")
    assert planner.settings is None


@pytest.mark.parametrize(
    "variable, text, problem",
    [
        ("LLAMACPP_API_KEY", "a\nb", "no header can carry"),
        ("LLAMACPP_ALLOW_FROM", "10.0.0.0/99", "write networks as"),
        ("LLAMACPP_API_KEYS_FILE", "/none.toml", "No such file"),
    ],
)
def test_what_the_environment_says_of_callers_can_be_heeded(ask, variable, text, problem):
    """As at the start."""
    planner = Planner()
    with pytest.raises(ConfigError, match=f"{variable}: .*{problem}"):
        ask(planner, environment={variable: text})
    assert planner.settings is None


def test_a_token_in_the_file_is_for_the_hub_alone(ask):
    planner = Planner()
    ask(planner, General__hf_token="hf_secret")
    assert os.environ.pop("HF_TOKEN") == "hf_secret"
    assert planner.settings.general.hf_token == ""
