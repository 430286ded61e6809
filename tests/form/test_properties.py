"""Whatever a form accepts, it says the same after every way that a form travels."""

import json
import string
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import FormError
from app.form.fields import FIELDS, MODEL, MODEL_FIELDS, MODELS_KEY, Kind
from app.form.file import read, write
from app.form.merge import merge, parse

PLAIN = st.text(string.ascii_letters + string.digits + " .,-_/*@:'\"\\ü\u4e16", max_size=20)
NAMES = st.sampled_from(["", "abc", "Team One"])  # ClearML's have three characters at least
SPECIAL = {
    "instance_name": NAMES,
    "project": NAMES,
    "queue": NAMES,
    "endpoint_name": st.sampled_from(["", "a", "a/b.c", "x_1"]),
    "rope_scaling": st.sampled_from(["", "yarn", "Linear", "2", "0.5"]),
    "tensor_split": st.sampled_from(["", "3,2", "1/1", "0,1"]),
    "speculative": st.sampled_from(["", "auto", "OFF", "org/repo/d.gguf"]),
    "hf_token": st.just(""),  # taken out before a form is parsed
}


def texts(field):
    if field.name in SPECIAL:
        return SPECIAL[field.name]
    if field.kind is Kind.CHECKBOX:
        return st.sampled_from(["", "true", "False", "1", "off"])
    if field.kind is Kind.DROPDOWN:
        return st.sampled_from(["", *field.choices, *(c.upper() for c in field.choices)])
    if field.kind is Kind.INTEGER:
        return st.just("") | st.integers(int(field.minimum), int(field.maximum)).map(str)
    if field.kind is Kind.FLOAT:
        return st.just("") | st.floats(field.minimum, field.maximum).map(repr)
    return PLAIN


def item():
    return st.fixed_dictionaries({}, optional={f.name: texts(f) for f in MODEL_FIELDS})


@st.composite
def parameters(draw):
    found = {}
    for field in FIELDS:
        if field.key != MODELS_KEY and field.section != MODEL and draw(st.booleans()):
            found[field.key] = draw(texts(field))
    if draw(st.booleans()):
        items = draw(st.lists(item(), min_size=1, max_size=3))
        found[MODELS_KEY] = json.dumps(items)
        found |= {f"Model/{name}": text for name, text in draw(item()).items()}
        number = draw(st.integers(1, len(items)))
        found |= {f"Model_{number}/{name}": text for name, text in draw(item()).items()}
    else:
        found |= {f"Model/{name}": text for name, text in draw(item()).items()}
    return found


def accepted(found):
    """The settings, or None; of the list of models, what it says rather than how it is written."""
    try:
        found = parse(merge(found))
    except FormError:
        return None
    return replace(found, general=replace(found.general, models=bool(found.general.models)))


@settings(max_examples=30)
@given(parameters())
def test_a_form_survives_every_way_that_it_travels(found):
    wanted = accepted(found)
    if wanted is None:
        return
    form = merge(found)
    assert accepted(read("f", write(form))) == wanted  # export, then --config
    task = form.to_write() | {key: text for key, text in found.items() if key.startswith("Model")}
    assert accepted(task) == wanted  # written to the task, and read from it again
    assert accepted(read("f", write(merge(task)))) == wanted  # exported from the task


def test_most_of_these_forms_are_accepted():
    """Else the property above would say nothing."""
    tried = []

    @settings(max_examples=100, database=None, derandomize=True)
    @given(parameters())
    def look(found):
        tried.append(accepted(found) is not None)

    look()
    assert sum(tried) >= len(tried) * 0.3
