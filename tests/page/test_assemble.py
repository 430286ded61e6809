import re

import pytest

from app.page.assemble import FOLDER, assemble

PAGES = {name: assemble(name).decode() for name in ("index.html", "door.html")}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_needs_nothing_else(page):
    assert "@@" not in page
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"'](?!data:)", page)


def test_every_file_is_in_a_page():
    ours = [path for path in FOLDER.iterdir() if path.suffix in (".js", ".css")]
    for path in ours:
        if not path.name.startswith("example"):
            text = path.read_text().strip()
            assert any(text in page for page in PAGES.values()), path.name


def test_no_markup_is_made_of_text():
    for path in FOLDER.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_the_vendored_library_has_its_licence():
    assert "MIT License" in (FOLDER / "vendor" / "uPlot.LICENSE").read_text()
