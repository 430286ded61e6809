import pytest

from app.gateway.http.households import household


@pytest.mark.parametrize(
    "address, known",
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("fe80::1:2:3:4%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_household_is_an_address_or_an_ipv6_network(address, known):
    assert household(address) == known
