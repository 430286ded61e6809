import pytest

from app.doctor.releases import FAULTS, RELEASES, Version, age, version_of


@pytest.mark.parametrize(
    "text, version",
    [
        ("version: 3860 (0cc32ff0)\nbuilt with cc", Version("3860 (0cc32ff0)", 3860)),
        ("ggml_cuda_init: found 1\nversion: 9000 (a)\n", Version("9000 (a)", 9000)),
        (
            "version: 0.5.0-dev (build 1, commit 0c1e570)\nbuilt with GNU",
            Version("0.5.0-dev (build 1, commit 0c1e570)"),
        ),
        (
            "version: 0.6.0 (build 11234, commit ab)",
            Version("0.6.0 (build 11234, commit ab)", 11234),
        ),
        ("version: unknown", Version("of no known version")),
        ("", Version("of no known version")),
    ],
)
def test_what_it_says_of_its_version(text, version):
    assert version_of(text) == version


@pytest.mark.parametrize(
    "build, told",
    [
        (None, "its build number tells no age"),
        (8000, "made before 3 April 2026"),
        (8651, "made about April 2026"),
        (10119, "made about July 2026"),
        (10864, "made about September 2026"),
        (11000, "made about 8 September 2026 or later"),
    ],
)
def test_its_age(build, told):
    assert age(Version("", build)) == told


def test_its_faults_are_those_mended_later():
    first, *_, last = FAULTS
    assert Version("", first.fixed - 1).faults == list(FAULTS)
    assert first not in Version("", first.fixed).faults
    assert Version("", last.fixed).faults == []
    assert Version("", None).faults == []  # nobody knows


def test_the_tables_are_in_order_and_each_row_has_its_source():
    assert sorted(RELEASES) == list(RELEASES)
    assert [release[1] for release in RELEASES] == sorted(release[1] for release in RELEASES)
    assert all(fault.source.startswith("github.com/") for fault in FAULTS)
