import pytest

from app.form.fields import BY_KEY, FIELDS, GENERAL, IDLE, MODEL_FIELDS, MODELS_KEY
from app.form.merge import merge, parse
from app.form.wizard import hocon, hyperparameters, wizard

TYPES = "string integer float dropdown checkbox multiline_text group list".split()


def flat(entries):
    for entry in entries:
        yield entry
        if entry["type"] == "group":
            yield from flat(entry["item_template"])


ENTRIES = list(flat(wizard()))
TARGETS = {f"{e['target']['section']}/{e['target']['name']}": e for e in ENTRIES if "target" in e}


def test_every_field_has_one_entry():
    """General and Idle by their targets; the model's by the list's items."""
    expected = [f.key for f in FIELDS if f.section in (GENERAL, IDLE)]
    assert sorted(TARGETS) == sorted(expected)
    items = TARGETS[MODELS_KEY]["item_template"]
    assert [item["name"] for item in items] == [field.name for field in MODEL_FIELDS]
    assert not any("target" in item for item in items)


def test_titles_types_and_choices_are_the_fields():
    items = {f"Model/{e['name']}": e for e in TARGETS[MODELS_KEY]["item_template"]}
    for key, entry in {**TARGETS, **items}.items():
        assert entry["title"] == BY_KEY[key].title
        assert entry["type"] in TYPES and "required" in entry
        if BY_KEY[key].choices:
            assert entry["choices"] == list(BY_KEY[key].choices)


def test_the_pages_order():
    assert [entry["title"] for entry in wizard()] == [
        "Instance Name",
        "Service Project - Access Control",
        "Queue",
        "AI Gateway Route",
        "Model Configuration",
        "General",
        "Idle Options",
    ]


def test_a_condition_names_an_earlier_field():
    seen = []
    for entry in ENTRIES:
        for condition in entry.get("conditional", {}).get("entries", []):
            assert condition["name"] in seen
        seen.append(entry["name"])
    assert "conditional" in TARGETS["General/disk_swapping"]


def test_an_untouched_form_is_the_defaults():
    """What the wizard would write when nobody types anything. Result: the settings' own."""
    texts = {k: str(e.get("default", "")).replace("False", "false") for k, e in TARGETS.items()}
    assert parse(merge(texts)) == parse(merge())
    written = {
        f"{s}/{n}": text for s, names in hyperparameters().items() for n, text in names.items()
    }
    assert parse(merge(written)) == parse(merge())


@pytest.mark.parametrize("value", [{}, [], 'a ${b} "c"\n', {"a-b": [1, {"c": None}]}, True, 1.5])
def test_hocon_is_read_as_it_was(value):
    from pyhocon import ConfigFactory

    found = ConfigFactory.parse_string("x: " + hocon(value))["x"]
    assert found == value or (found is None and value is None)
