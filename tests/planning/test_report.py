import pytest

from app.engine.arguments import Resolved, Wanted
from app.form.settings import ModelSettings
from app.models.reference import Tiny
from app.planning.allot import Files, Planned
from app.planning.footprint import Footprint
from app.planning.report import placed_text, resolved_text

GB = 10**9


def planned(devices, layers=9999, placement=(), *, whole=True):
    resolved = Resolved(4096, layers, 4, 2, 2, 100, placement, whole)
    footprint = Footprint(devices, GB // 2)
    return Planned(ModelSettings(), Tiny(), Files(None, None, None), Wanted(), resolved, footprint)


@pytest.mark.parametrize(
    "model, expected",
    [
        (planned({}, None), ""),
        (planned({"CUDA0": 8 * GB}), "CUDA0 8.00 GB, host 0.50 GB"),
        (
            planned({"CUDA0": 8 * GB, "CUDA1": GB}, 17, ("-ts", "2,1"), whole=False),
            "CUDA0 8.00 GB, CUDA1 1.00 GB, host 0.50 GB; cut to fit: context 4096, "
            "17 layers on the GPU",
        ),
        (
            planned({"CUDA0": 8 * GB}, placement=("-ot", r"blk\.1\.=CPU"), whole=False),
            r"CUDA0 8.00 GB, host 0.50 GB; cut to fit: context 4096, tensors in host memory: "
            r"blk\.1\.=CPU",
        ),
    ],
)
def test_where_a_model_lies(model, expected):
    assert placed_text(model) == expected


def test_what_was_settled():
    found = resolved_text(planned({"CUDA0": GB}, 17, ("-ts", "2,1"), whole=False))
    assert found == (
        "context 4096, gpu_layers 17, parallel 4, threads 2, threads_batch 2, cache_ram 100, "
        "-ts 2,1, cut to fit"
    )
