"""Who takes how much of a memory that callers share."""

from app.gateway.http.shares import Shares


def test_a_household_has_a_bound_of_its_own():
    shares = Shares(8, of_one=4)
    shares.add("a", 3)
    assert shares.fits_one("a", 1) and not shares.fits_one("a", 2) and shares.fits_one("b", 4)
    shares.add("a", -3)
    assert shares.fits_one("a", 4) and not shares._of


def test_all_together_have_a_bound_and_give_back_what_they_took():
    shares = Shares(8, of_one=4)
    for home in "ab":
        shares.add(home, 4)
    assert shares.taken == 8 and shares.fits(0) and not shares.fits(1)
    shares.add("b", -2)
    assert shares.fits(2) and not shares.fits(3)
