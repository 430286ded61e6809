import re

from app.page.assemble import FOLDER, assemble

PAGE = assemble("index.html").decode()


def test_the_page_needs_nothing_else():
    assert "@@" not in PAGE
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=[\"'](?!data:)", PAGE)
    ours = [path for path in FOLDER.iterdir() if path.suffix in (".js", ".css")]
    for path in ours:
        if not path.name.startswith("example"):
            assert path.read_text().strip() in PAGE, path.name


def test_no_markup_is_made_of_text():
    for path in FOLDER.glob("*.js"):
        text = path.read_text()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)


def test_the_vendored_library_has_its_licence():
    assert "MIT License" in (FOLDER / "vendor" / "uPlot.LICENSE").read_text()
