import pytest

from app.errors import RequestError
from app.gateway.body.sizes import BATCH, LEAST, MEDIA, MIB, MOST, Allowance, allowance


@pytest.mark.parametrize(
    "given, text, media",
    [
        ({"context": 4096}, LEAST, 0),
        ({"context": 1 << 17}, 4 * MIB, 0),
        ({"context": None}, 4 * MIB, 0),
        ({"context": 1 << 17, "multimodal": True}, 4 * MIB, MEDIA),
        ({"context": 512, "embedding": True}, BATCH, 0),
        ({"context": 1 << 20, "embedding": True}, 32 * MIB, 0),
        ({"context": 1 << 24, "multimodal": True}, MOST, 0),
        ({"context": 1 << 21, "multimodal": True}, 64 * MIB, 36 * MIB),
        ({"context": 4096, "multimodal": True, "limit": 5}, 5, 0),
    ],
)
def test_the_limit_follows_from_the_model_unless_the_form_says_it(given, text, media):
    assert allowance(**given) == Allowance(text, media)


def test_what_media_may_take_is_not_for_text():
    allowed = Allowance(10, 20)
    allowed.check(30, media=20)
    allowed.check(10, media=0)
    for size, media in ((31, 31), (30, 19), (11, 0)):
        with pytest.raises(RequestError) as raised:
            allowed.check(size, media)
        assert raised.value.status == 413
