"""The lock at a revision, out of real repositories."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixtures.gitrepo import GitRepo
from layerbuild.errors import LockError, SourceError, UsageError
from layerbuild.lockhistory import lock_at
from layerbuild.lockmodel import Lock
from layerbuild.locktext import dump

_LOCK = Lock(unlocked={"a": "why"})
_TEXT = dump(_LOCK).encode()


@pytest.fixture
def repo(tmp_path: Path) -> GitRepo:
    """A repository whose working tree is `tmp_path/work`, with a project in a directory of odd name."""
    repo = GitRepo(tmp_path / "work/.git")
    repo.git("config", "core.bare", "false")
    (tmp_path / "work/:(glob) ä\n").mkdir()
    return repo


def _project(repo: GitRepo) -> Path:
    return repo.directory.parent / ":(glob) ä\n"


def _raw(repo: GitRepo, mode: str, oid: str) -> str:
    """Commits an entry called lockfile.yaml in the project's directory."""
    inner = repo.tree([(mode, "lockfile.yaml", oid)])
    return repo.commit_tree(repo.tree([("40000", _project(repo).name, inner)]))


def test_by_branch_tag_and_distance(repo: GitRepo) -> None:
    first = _raw(repo, "100644", repo.blob(_TEXT))
    other = Lock(unlocked={"b": "why"})
    _raw(repo, "100644", repo.blob(dump(other).encode().replace(b"\n", b"\r\n")))
    repo.git("tag", "-a", "-m", "x", "v1", first)
    for revision, expected in (("main", other), ("HEAD", other), ("HEAD~1", _LOCK), ("v1", _LOCK), (first[:9], _LOCK)):
        assert lock_at(_project(repo), revision, os.environ) == expected


def test_a_project_at_the_top(repo: GitRepo) -> None:
    repo.commit({"lockfile.yaml": _TEXT})
    assert lock_at(repo.directory.parent, "main", os.environ) == _LOCK


def test_no_lock_there(repo: GitRepo) -> None:
    repo.commit({"lockfile.yaml": _TEXT, "x/lockfile.yaml": _TEXT})
    assert lock_at(_project(repo), "main", os.environ) is None


@pytest.mark.parametrize(
    "revision",
    [
        *("", "nope", "-h", "--all", "--output=x", "^main", "main..main", "main:lockfile.yaml", "main^{tree}"),
        *("main\nmain", "main main", "0" * 40, "\udcff"),
    ],
)
def test_what_is_no_commit(repo: GitRepo, revision: str) -> None:
    repo.commit({"lockfile.yaml": _TEXT})
    with pytest.raises(UsageError) as caught:
        lock_at(repo.directory.parent, revision, os.environ)
    assert caught.value.message == f"git knows no commit {revision!r} here"
    assert "git fetch --unshallow" in str(caught.value.hint)
    assert not (repo.directory.parent / "x").exists()


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lies in no git repository"):
        lock_at(tmp_path, "main", {**os.environ, "GIT_DIR": str(tmp_path / "elsewhere")})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"\xff", "decode"),
        (b"version: 99\n", "version 99"),
        (b"<<<<<<< a\n", "conflict markers"),
        (b"- a\n", "a mapping is expected"),
        (b"a: [\n", "not valid YAML"),
    ],
)
def test_a_lock_that_cannot_be_read(repo: GitRepo, text: bytes, said: str) -> None:
    _raw(repo, "100644", repo.blob(text))
    with pytest.raises(LockError) as caught:
        lock_at(_project(repo), "main", os.environ)
    assert caught.value.message == "lockfile.yaml at main cannot be read"
    assert said in str(caught.value.cause)


def test_a_link_and_a_directory_are_no_locks(repo: GitRepo) -> None:
    _raw(repo, "120000", repo.blob(b"/etc/passwd"))
    with pytest.raises(LockError, match="cannot be read"):
        lock_at(_project(repo), "main", os.environ)
    _raw(repo, "40000", repo.tree([]))
    with pytest.raises(LockError, match="git cannot read"):
        lock_at(_project(repo), "main", os.environ)


def test_a_blob_that_is_not_there_is_not_fetched(repo: GitRepo) -> None:
    """A clone without blobs names where to get them: a server, or any program."""
    blob = repo.blob(_TEXT)
    _raw(repo, "100644", blob)
    ran = repo.directory / "ran"
    for key, value in (("url", f"ext::touch {ran}"), ("promisor", "true")):
        repo.git("config", f"remote.origin.{key}", value)
    repo.git("config", "protocol.ext.allow", "always")
    repo.git("config", "extensions.partialClone", "origin")
    (repo.directory / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(LockError, match="git cannot read"):
        lock_at(_project(repo), "main", os.environ)
    assert not ran.exists()


def test_neither_filters_nor_text_conversions_run(repo: GitRepo) -> None:
    commit = repo.commit({"lockfile.yaml": _TEXT, ".gitattributes": b"* filter=f diff=d text eol=crlf\n"})
    ran = repo.directory / "ran"
    for key in ("filter.f.smudge", "filter.f.clean", "diff.d.textconv"):
        repo.git("config", key, f"touch {ran}")
    assert lock_at(repo.directory.parent, commit, os.environ) == _LOCK
    assert not ran.exists()


def test_git_that_is_not_installed(repo: GitRepo, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="git cannot be run"):
        lock_at(_project(repo), "main", {"PATH": str(tmp_path)})
