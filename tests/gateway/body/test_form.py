import pytest

from app.errors import RequestError
from app.gateway.body.form import LONGEST_DISPOSITION, LONGEST_TYPE, ModelField, boundary_of

B = b"x-y"
SOUND = b'form-data; name="file"; filename="a.wav"'
INSIDE = b'\r\n\r\nContent-Disposition: form-data; name="model"\r\n\r\nwrong'


def part(value, disposition=b'form-data; name="model"', before=b"", after=b""):
    head = before + b"Content-Disposition: " + disposition + b"\r\n" + after
    return b"--x-y\r\n" + head + b"\r\n" + value + b"\r\n"


def form(*parts):
    return b"".join(parts) + b"--x-y--\r\n"


def other(number):
    return part(b"%d" % number, b'form-data; name="field%d"' % number)


def read(body):
    field = ModelField(B)
    field.feed(body)
    return field.fields()


MODEL = part(b"tiny")


@pytest.mark.parametrize(
    "body",
    [
        form(MODEL),
        form(part(b"tiny", b"form-data; name=model")),
        form(part(b"tiny", b'form-data;name="model"', before=b"X-Y: 1\r\n")),
        form(part(b"tiny", before=b"Content-Type: text/plain\r\n", after=b"X-Z: model\r\n")),
        form(part(b"tiny").replace(b"Content-Disposition", b"CONTENT-DISPOSITION")),
        form(*map(other, range(200)), MODEL),
        form(part(b"RIFF\0\xff" + INSIDE, SOUND), MODEL),
        form(part(b"RIFF", b'form-data; name="file"; filename="model"'), MODEL),
        form(part(b"wrong", b'form-data; name="model"; filename="a.wav"'), MODEL),
        form(part(b"wrong", b'form-data; name="file"; filename="a; name=model"'), MODEL),
        form(part(b"wrong", b"form-data; name=\"model\"; filename*=utf-8''a.wav"), MODEL),
        form(part(b"wrong", b'form-data; name="f\\"; name=model; x="'), MODEL),
        form(part(b"wrong", b'attachment; name="model"'), MODEL),
        form(part(b"wrong", b'form-data; name="Model"'), MODEL),
        form(part(b"wrong", b'form-data; x="name=model"'), MODEL),
        form(MODEL, MODEL),
        form(part(b"a\r\n--x-\r\nb", b'form-data; name="prompt"'), MODEL),
        b"\r\n" + form(MODEL) + b"after the end",
    ],
)
def test_the_model_is_that_of_the_field(body):
    for size in (1, 7, 1 << 20):
        field = ModelField(B)
        for begin in range(0, len(body), size):
            field.feed(body[begin : begin + size])
        assert field.fields() == {"model": "tiny"}, f"in pieces of {size} bytes"


@pytest.mark.parametrize("body", [form(part(b"RIFF" + INSIDE, SOUND)), form(other(1))])
def test_a_form_without_the_field_names_no_model(body):
    assert read(body) == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        MODEL,
        form(MODEL)[:-5],
        form(MODEL, part(b"other")),
        b"--x-y\r\nno head\r\n\r\n--x-y--\r\n",
        b"--x-y\r\n" + b"A" * 5000 + b": 1\r\n\r\n\r\n--x-y--\r\n",
        form(*(b"--x-y\r\n\r\n\r\n" for _ in range(5000)), MODEL),
        form(*(part(b"", b"form-data; name=" + b"a" * 4000) for _ in range(80)), MODEL),
    ],
    ids=["nothing", "JSON", "no end", "cut", "two", "a head", "a name", "parts", "heads"],
)
def test_a_form_that_is_none_is_refused(body):
    with pytest.raises(RequestError) as raised:
        read(body)
    assert raised.value.status == 400


@pytest.mark.parametrize(
    "kind",
    [b'multipart/form-data; boundary="x-y"', b"Multipart/Form-Data;charset=a; boundary=x-y"],
)
def test_the_boundary_of_a_content_type(kind):
    assert boundary_of(kind) == B


@pytest.mark.parametrize(
    "kind",
    [None, b"", b"application/json", b"multipart/mixed; boundary=a", b"multipart/form-data"],
)
def test_a_content_type_of_no_form(kind):
    with pytest.raises(RequestError):
        boundary_of(kind)


def test_a_boundary_has_a_bound():
    with pytest.raises(RequestError):
        ModelField(b"b" * 1000)


def test_a_long_disposition_is_a_files_and_costs_nothing():
    """What parses its options takes 25 ms for 4,000 semicolons."""
    long = b'form-data; name="model"' + b";" * LONGEST_DISPOSITION
    assert read(form(part(b"wrong", long), MODEL)) == {"model": "tiny"}
    with pytest.raises(RequestError) as raised:
        boundary_of(b"multipart/form-data; boundary=x-y" + b";" * LONGEST_TYPE)
    assert raised.value.status == 400
