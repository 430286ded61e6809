import pytest

from app.gateway.http.ids import request_id


@pytest.mark.parametrize("given", [b"a", b"req_011:CS/1+2=3@x.y-z", b"0" * 128])
def test_a_name_that_is_safe_is_kept(given):
    assert request_id(given) == given


@pytest.mark.parametrize("given", [None, b"", b"0" * 129, b"a b", b"\xe4", b"a\r\nb", b"<b>", b'"'])
def test_another_one_is_replaced(given, monkeypatch):
    monkeypatch.setattr("app.machine.chance.name", lambda size: "00" * size)
    assert request_id(given) == b"req-" + b"00" * 12
