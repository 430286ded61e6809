import pytest

from app.models.header import Tensor
from app.planning.placement import attempts, shares, spare_small, split, threshold, used

F32 = 0
TENSORS = (
    Tensor("blk.1.ffn_up.weight", (1024, 1024), F32, 0),  # 4 MiB
    Tensor("blk.1.ffn_norm.weight", (1024,), F32, 0),  # 4 KiB
    Tensor("blk.2.ffn_up.weight", (1024, 1024), F32, 0),
)


def test_the_single_gpu_with_most_room_first_then_all():
    budget, assigned = {"CUDA0": 80, "CUDA1": 40}, {"CUDA0": 60}
    found = attempts(["CUDA0", "CUDA1"], (), budget, assigned)
    assert found == [("--device", "CUDA1"), ("--device", "CUDA0"), ()]


@pytest.mark.parametrize("given", [("--tensor-split", "3,2"), ("-mg", "1"), ("-ot", "x=CPU")])
def test_a_persons_own_word_is_left_alone(given):
    assert attempts(["CUDA0", "CUDA1"], given, {}, {}) == [()]
    assert attempts(["CUDA0"], (), {}, {}) == [()]


@pytest.mark.parametrize(
    "given, expected",
    [
        ((), {"CUDA0": 0.5, "CUDA1": 0.5}),
        (("--tensor-split", "3,1"), {"CUDA0": 0.75, "CUDA1": 0.25}),
        (("-ts", "1/0/7"), {"CUDA0": 1.0}),
        (("-ts", "0,0"), {"CUDA0": 0.5, "CUDA1": 0.5}),
        (("-ts", "much"), {"CUDA0": 0.5, "CUDA1": 0.5}),
    ],
)
def test_the_shares_of_each_device(given, expected):
    assert shares(given, ["CUDA0", "CUDA1"]) == expected


@pytest.mark.parametrize(
    "given, devices, expected",
    [(None, 1, -1), (None, 2, 66_000 << 10), (100, 1, 100 << 10), (-1, 4, -1), (0, 1, 0)],
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


@pytest.mark.parametrize(
    "given, expected",
    [
        ((), ("CUDA0", "CUDA1")),
        (("--device", "CUDA1"), ("CUDA1",)),
        (("-ctk", "q8_0", "-dev", "CUDA1,CUDA0"), ("CUDA1", "CUDA0")),
    ],
)
def test_the_devices_that_a_model_goes_to(given, expected):
    assert used(given, ["CUDA0", "CUDA1"]) == expected


@pytest.mark.parametrize(
    "given, expected",
    [
        ((), ("--tensor-split", "8192,4096")),
        (("-dev", "CUDA1,CUDA0"), ("--tensor-split", "4096,8192")),
        (("--device", "CUDA1"), ()),
        (("-ts", "1,1"), ()),
        (("--split-mode", "row"), ()),
    ],
)
def test_the_proportion_is_settled(given, expected):
    room = {"CUDA0": 8 << 30, "CUDA1": 4 << 30}
    assert split(["CUDA0", "CUDA1"], given, room) == expected
    assert split(["CUDA0"], given, room) == () or len(used(given, ["CUDA0"])) > 1
    assert split(["CUDA0", "CUDA1"], given, {}) == ()
