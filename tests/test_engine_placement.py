import pytest

from app.engine.placement import candidates, spare_small, threshold
from app.models.gguf import Tensor

F32 = 0
TENSORS = (
    Tensor("blk.1.ffn_up.weight", (1024, 1024), F32, 0),  # 4 MiB
    Tensor("blk.1.ffn_norm.weight", (1024,), F32, 0),  # 4 KiB
    Tensor("blk.2.ffn_up.weight", (1024, 1024), F32, 0),
)


def test_the_single_gpu_with_most_room_first_then_all():
    budget, assigned = {"CUDA0": 80, "CUDA1": 40}, {"CUDA0": 60}
    found = candidates(["CUDA0", "CUDA1"], (), budget, assigned)
    assert found == [("--device", "CUDA1"), ("--device", "CUDA0"), ()]


@pytest.mark.parametrize("given", [("--tensor-split", "3,2"), ("-mg", "1"), ("-ot", "x=CPU")])
def test_a_persons_own_word_is_left_alone(given):
    assert candidates(["CUDA0", "CUDA1"], given, {}, {}) == [()]
    assert candidates(["CUDA0"], (), {}, {}) == [()]


@pytest.mark.parametrize(
    "given, devices, expected",
    [(None, 1, -1), (None, 2, 66_000_000), (100, 1, 100_000), (-1, 4, -1), (0, 1, 0)],
)
def test_the_threshold(given, devices, expected):
    assert threshold(given, devices) == expected


@pytest.mark.parametrize(
    "placement, least, expected",
    [
        (("-ot", r"blk\.1\.ffn.*=CPU"), -1, ("-ot", r"blk\.1\.ffn.*=CPU")),
        (("-ot", r"blk\.1\.ffn.*=CPU"), 10, ("-ot", r"blk\.1\.ffn.*=CPU")),
        (
            ("-ts", "3,1", "-ot", r"blk\.1\.ffn.*=CPU"),
            5000,
            ("-ts", "3,1", "-ot", r"^(blk\.1\.ffn_up\.weight)$=CPU"),
        ),
        (("-ot", r"norm=CPU,blk\.2=CUDA1"), 5000, ("-ot", r"blk\.2=CUDA1")),
        (("-ot", "norm=CPU", "-ts", "1,1"), 5000, ("-ts", "1,1")),
        ((), 5000, ()),
    ],
)
def test_small_tensors_stay(placement, least, expected):
    assert spare_small(placement, TENSORS, least) == expected
