import pytest

from app.engine.resolved import Wanted, memory_wanted
from app.errors import FormError
from app.form.settings import ModelSettings


@pytest.mark.parametrize(
    "text, expected",
    [
        ("-c 0", Wanted()),
        ("-ngl auto -np -1", Wanted()),
        ("-cram -1", Wanted(cache_ram=-1)),
        ("-np 3 -no-kvu", Wanted(parallel=3, unified=False)),
        ("-t 3 -tb 4", Wanted(threads=3, threads_batch=4)),
        ("--jinja -ts 3,1 -ctk q8_0", Wanted(placement=("-ts", "3,1", "-ctk", "q8_0"))),
    ],
)
def test_wanted_by_cli(text, expected):
    assert memory_wanted(ModelSettings(cli=text)) == expected


def test_wanted_by_the_form():
    model = ModelSettings(context_size=0, gpu_layers=0, parallel=3)
    assert memory_wanted(model) == Wanted(context=None, gpu_layers=0, parallel=3)


@pytest.mark.parametrize(
    "text, says",
    [
        ("-c many", "-c many: not a whole number"),
        ("-np 257", "-np 257 is more than 256"),
        ("-t 3 -tb 1025", "-tb 1025 is more than 1024"),
        ("-t 3 | tee log", "-t takes one value, and '|' follows it"),
        ("-ngl all of them", "-ngl takes one value, and 'of' follows it"),
        ("-np --jinja", "-np has no value"),
    ],
)
def test_what_is_no_number_in_cli(text, says):
    with pytest.raises(FormError) as raised:
        memory_wanted(ModelSettings(cli=text))
    assert str(raised.value) == f"Model/cli: {says}"


def test_what_is_no_number_in_extra_arguments():
    with pytest.raises(FormError, match="Model/extra_args: -cram takes one value, and '2'"):
        memory_wanted(ModelSettings(extra_args="-cram 1 2"))


def test_placement_is_told_to_the_planning_tool():
    model = ModelSettings(tensor_split="3,1", main_gpu=0, extra_args="-ctk q8_0 --jinja")
    expected = ("--tensor-split", "3,1", "--main-gpu", "0", "-ctk", "q8_0")
    assert memory_wanted(model).placement == expected
