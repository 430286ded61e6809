import asyncio
import logging

import pytest

from app.engine.capabilities import Capabilities
from app.engine.resolved import Resolved, Wanted
from app.form.settings import ModelSettings
from app.instance import parking
from app.instance.parking import find_checkpoints
from app.models.files import ModelFiles
from app.models.header import Header
from app.models.reference import Tiny
from app.planning.candidate import Candidate, Files
from app.planning.footprint import Footprint
from app.planning.plan import Plan
from app.planning.site import Site

FILES = ModelFiles((), Header({}, (), 0))


@pytest.fixture
def found(tmp_path, monkeypatch, caplog):
    """`found(gpus of each model, gpus that can be parked)`: checkpoints, and what was logged."""
    caplog.set_level(logging.INFO, "app")

    def found(models, can):
        async def probe(environment, gpus):
            return "" if gpus in can else f"{gpus} cannot"

        monkeypatch.setattr(parking, "probe", probe)
        names = [f"CUDA{number}" for number in range(max(models, default=0))]
        capabilities = Capabilities({}, tmp_path / "llama-server", dict.fromkeys(names, 1))
        listed = tuple(on(names[:gpus]) for gpus in models)
        plan = Plan(listed, Site(capabilities, None), None, {}, sharing=True)
        return asyncio.run(find_checkpoints(plan, {})), caplog.messages

    return found


def on(gpus):
    model = Candidate(ModelSettings(), Tiny(), Files(FILES), Wanted())
    resolved = Resolved(512, None, 1, 1, 1, 0)
    return model.allotted(FILES, resolved, Footprint(dict.fromkeys(gpus, 1), 1))


def test_models_on_as_many_gpus_as_any_has_are_parked(found):
    checkpoints, said = found([1, 3], {1, 3})
    assert checkpoints.most_gpus == 3
    assert said == ["idle models are moved to CPU RAM by CUDA checkpoints"]


def test_where_several_gpus_are_too_many_one_may_do(found):
    checkpoints, said = found([1, 2], {1})
    assert checkpoints.most_gpus == 1
    assert said[0] == (
        "idle models on 2 GPUs are stopped, their weights stay in the page cache: 2 cannot"
    )
    assert said[1].startswith("idle models are moved")


def test_a_machine_that_cannot_says_why(found):
    checkpoints, said = found([1], set())
    assert checkpoints is None and said == [
        "idle models on a GPU are stopped, their weights stay in the page cache: 1 cannot"
    ]


def test_without_a_gpu_nothing_is_tried(found):
    assert found([], {1}) == (None, [])
