import subprocess

import pytest

from app.errors import ConfigError
from app.task.checkout import checkout, lost, origin, without_credentials

GIT = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]


def git(folder, *arguments):
    subprocess.run([*GIT, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "remote").mkdir()
    git(tmp_path / "remote", "init", "-q", "--bare")
    found = tmp_path / "work"
    found.mkdir()
    git(found, "init", "-q", "-b", "main")
    (found / "requirements.txt").write_text("clearml>=2\n")
    git(found, "add", "-A")
    git(found, "commit", "-q", "-m", "one")
    return found


def test_a_checkout_tells_where_an_agent_finds_it(folder, tmp_path):
    git(folder, "remote", "add", "origin", str(tmp_path / "remote"))
    git(folder, "push", "-q", "origin", "main")
    script, warnings = checkout(folder)
    assert script.repository == str(tmp_path / "remote") and script.branch == "main"
    assert len(script.commit) == 40 and script.requirements == "clearml>=2\n"
    assert warnings == []


def test_what_an_agent_would_not_find_is_said(folder):
    git(folder, "remote", "add", "origin", "https://user:ghp_secret@host/x.git")
    (folder / "requirements.txt").write_text("changed\n")
    script, warnings = checkout(folder)
    assert script.repository == "https://host/x.git"
    assert len(warnings) == 2 and "not pushed" in warnings[1]


@pytest.mark.parametrize(
    "address, expected",
    [
        ("https://user:ghp_secret@host/x.git", "https://host/x.git"),
        ("https://ghp_secret@host/x.git", "https://host/x.git"),
        ("http://user:p%40ss@host:80/x", "http://host:80/x"),
        ("https://user:p@ss@host/x", "https://host/x"),
        ("ssh://git:p@ss@host/x", "ssh://git@host/x"),
        ("ssh://git@host:22/x.git", "ssh://git@host:22/x.git"),  # without it ssh asks as another
        ("ssh://git:secret@host/x.git", "ssh://git@host/x.git"),
        ("git@host:team/x.git", "git@host:team/x.git"),
        ("https://host/@team/x.git", "https://host/@team/x.git"),
        ("/folder/x", "/folder/x"),
    ],
)
def test_an_address_keeps_no_credentials(address, expected):
    assert without_credentials(address) == expected


def test_without_an_origin_the_repository_must_be_named(folder, tmp_path):
    with pytest.raises(ConfigError, match="--repo URL"):
        checkout(folder)
    with pytest.raises(ConfigError, match="--repo URL"):
        checkout(tmp_path)


def test_the_checkout_around_an_installed_package_is_not_ours(folder):
    git(folder, "remote", "add", "origin", "https://host/somebody-elses.git")
    installed = folder / ".venv" / "site-packages"
    installed.mkdir(parents=True)
    with pytest.raises(ConfigError, match="--repo URL"):
        origin(installed)
    assert origin(folder) == "https://host/somebody-elses.git"


def test_of_changes_a_task_loses_only_what_its_diff_lacks(folder, tmp_path):
    """An agent applies the diff that a task records of uncommitted changes."""
    git(folder, "remote", "add", "origin", str(tmp_path / "remote"))
    git(folder, "push", "-q", "origin", "main")
    assert lost(folder, {}) == []
    (folder / "requirements.txt").write_text("changed\n")
    assert lost(folder, {"diff": "diff --git a/requirements.txt"}) == []
    assert lost(folder, {"diff": ""}) == ["uncommitted changes are not recorded"]
    (folder / "app" / "__pycache__").mkdir(parents=True)
    (folder / "app" / "__pycache__" / "new.pyc").write_text("")
    assert lost(folder, {"diff": "diff"}) == []
    (folder / "app" / "new.py").write_text("")
    (new,) = lost(folder, {"diff": "diff"})
    assert new.startswith("app/new.py is not in the repository")


def test_of_commits_a_task_loses_only_the_one_that_it_names(folder, tmp_path):
    """The SDK may be set to record the last commit that was pushed, and a diff from there."""
    git(folder, "remote", "add", "origin", str(tmp_path / "remote"))
    git(folder, "push", "-q", "origin", "main")
    pushed = subprocess.check_output([*GIT, "rev-parse", "HEAD"], cwd=folder, text=True).strip()
    git(folder, "commit", "-q", "--allow-empty", "-m", "two")
    (problem,) = lost(folder, {"version_num": None})
    assert "not pushed" in problem
    assert lost(folder, {"version_num": pushed}) == []
