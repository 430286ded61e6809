from app.form.fields import FIELDS


def test_names_are_unique_over_all_sections():
    assert len({field.name for field in FIELDS}) == len(FIELDS)
