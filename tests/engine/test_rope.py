import pytest

from app.engine.rope import build, warnings
from app.form.settings import ModelSettings

YARN = {"yarn_ext_factor": -1, "yarn_attn_factor": 1.0, "yarn_beta_fast": 32.0}
SENT = "--yarn-ext-factor 0 --yarn-attn-factor 1.0 --yarn-beta-fast 32.0"


@pytest.mark.parametrize(
    "fields, file_says_yarn, expected",
    [
        ({}, True, ""),
        ({"rope_scaling": "2"}, False, "--rope-scale 2"),
        ({"rope_scaling": "Linear"}, False, "--rope-scaling linear"),
        ({"rope_scaling": "yarn", **YARN}, False, f"--rope-scaling yarn {SENT}"),
        (YARN, True, SENT),
        ({"rope_scaling": "4", **YARN}, True, f"--rope-scale 4 {SENT}"),
        (YARN, False, ""),
        ({"rope_scaling": "none", **YARN}, True, "--rope-scaling none"),
    ],
)
def test_build(fields, file_says_yarn, expected):
    assert " ".join(build(ModelSettings(**fields), yarn=file_says_yarn)) == expected


def test_what_will_not_do_what_it_seems_to_is_said():
    model = ModelSettings(yarn_beta_slow=1.0, rope_freq_base=500_000.0)
    assert warnings(model, yarn=False, freq_base=10_000.0) == [
        "Model/rope_freq_base is 500000, but the file says 10000",
        "Model/yarn_beta_slow is ignored: nothing says yarn",
    ]
    assert warnings(model, yarn=True, freq_base=500_000.0) == []
    assert warnings(ModelSettings(cli="-c 1", yarn_beta_slow=1.0), yarn=False, freq_base=1.0) == []
