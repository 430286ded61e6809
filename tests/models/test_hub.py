"""Which files of a repository the cache has, and what a hub may write there."""

from contextlib import contextmanager

import pytest
from huggingface_hub import constants

from app.errors import FormError
from app.models import hub
from app.models.reference import HubFile
from tests.hub.server import Hub

FILE = "dir/m.gguf"


@contextmanager
def serving(monkeypatch, repositories):
    with Hub(repositories) as server:
        url = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        yield server


def fetched(revision, cache):
    """Paths that are there, and the bytes that came."""
    came = []
    located = hub.locate(HubFile("org/repo", FILE, revision), cache)
    paths = hub.fetch(located, cache, came.append, lambda path, source: None)
    return paths, sum(came)


def test_a_branch_that_moves_on_without_the_file_has_it_still(monkeypatch, tmp_path):
    """A commit that changes other files only. Result: the file has its name below that commit, and
    is not fetched again."""
    files = {FILE: b"w" * 100}
    with serving(monkeypatch, {"org/repo": files, "org/repo@v1": {**files, "README": b""}}):
        assert fetched(None, tmp_path)[1] == 100
        (path,), came = fetched("v1", tmp_path)
    assert path.read_bytes() == b"w" * 100 and came == 0


@pytest.mark.parametrize("path", [FILE, "absent.gguf"])
def test_no_commit_leads_out_of_the_cache(monkeypatch, tmp_path, path):
    """Of a file that there is, and of one that there is not, which the library keeps in mind."""
    with serving(monkeypatch, {"org/repo": {FILE: b"w"}}) as server:
        server.told["X-Repo-Commit"] = "../../../outside"
        with pytest.raises(FormError, match="tells of the commit"):
            hub.locate(HubFile("org/repo", path), tmp_path / "cache")
    assert not (tmp_path / "outside").exists()
