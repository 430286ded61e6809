from app.gateway.guesses import ALLOWED, EVERY, Guesses

HERE, THERE = "10.0.0.1", "10.0.0.2"


def spent(guesses, address=HERE, now=0.0):
    """Take all that an address may, all at once."""
    for _ in range(ALLOWED):
        assert not guesses.suspect(address, now)
        assert guesses.wrong(address, now) is None
    return guesses


def test_after_some_wrong_keys_the_next_one_may_come_in_a_moment():
    guesses = spent(Guesses())
    assert guesses.suspect(HERE, 0.0)
    assert guesses.wrong(HERE, 0.0) == EVERY
    assert guesses.wrong(HERE, 0.25) == 0.75 * EVERY
    assert guesses.wrong(HERE, EVERY) is None
    assert guesses.wrong(HERE, EVERY) == EVERY


def test_an_address_answers_for_itself_alone():
    guesses = spent(Guesses())
    assert not guesses.suspect(THERE, 0.0) and guesses.wrong(THERE, 0.0) is None


def test_the_addresses_of_one_household_are_one():
    guesses = spent(Guesses(), "2001:db8::1")
    assert guesses.suspect("2001:db8::ffff:1", 0.0)
    assert not guesses.suspect("2001:db8:0:1::1", 0.0)


def test_a_right_key_clears_its_address_until_all_is_forgotten():
    guesses = spent(Guesses())
    guesses.right(HERE)
    guesses.right(THERE)  # of which nothing is known
    assert not guesses.suspect(HERE, 0.0)
    assert guesses.wrong(HERE, 0.0) == EVERY  # a guess is one all the same
    later = ALLOWED * EVERY
    assert guesses.wrong(THERE, later) is None
    spent(guesses, HERE, later)
    assert guesses.suspect(HERE, later)


def test_no_more_addresses_are_kept_than_said_and_the_others_share_one_bucket():
    guesses = Guesses(addresses=2)
    for address in ("a", "b"):
        guesses.wrong(address, 0.0)
    for number in range(ALLOWED):
        assert guesses.wrong(f"c{number}", 0.0) is None
    assert guesses.wrong("d", 0.0) == EVERY
    assert not guesses.suspect("d", 0.0)  # a right key from there would have to wait
    assert len(guesses._buckets) == 3
    assert guesses.wrong("a", 0.0) is None  # it still has its own


def test_who_guesses_on_does_not_keep_the_others_from_being_forgotten():
    guesses = Guesses(addresses=2)
    for address in ("a", "a", "b"):
        guesses.wrong(address, 0.0)
    for second in range(1, 2 * ALLOWED):
        guesses.wrong("a", second * EVERY)
    assert list(guesses._buckets) == ["a"]
