import pytest


@pytest.fixture
def socket(tmp_path):
    return tmp_path / "x.sock"
