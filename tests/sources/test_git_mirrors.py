"""A git source whose own address is gone, or never had the commit; and submodules, from real repositories."""

from __future__ import annotations

import json

import pytest

from fixtures.gitrepo import GitRepo
from fixtures.web import Answer, Web
from layerbuild.errors import NotFound, SourceError, Unreachable
from layerbuild.model import Content, Pin
from layerbuild.sources import Context, Request
from layerbuild.sources.git import GitSource
from sources.conftest import Notes

GONE = "git+file:gone.git"


@pytest.fixture
def repo(context: Context) -> GitRepo:
    return GitRepo(context.project / "repo.git")


def resolve(context: Context, uri: str, *mirrors: str) -> Pin:
    return GitSource(context).resolve(Request(uri=uri, mirrors=mirrors))


def text(context: Context, pin: Pin, path: str) -> str | None:
    return GitSource(context).read_text(pin, path, limit=100)


def test_a_mirror_gives_the_same_pin(context: Context, repo: GitRepo, notes: Notes) -> None:
    commit = repo.commit({"a": b"text"})
    repo.commit({"a": b"later"})
    pin = resolve(context, f"{GONE}@{commit}", "git+file:no.git", "git+file:repo.git")
    own = resolve(context, f"git+file:repo.git@{commit}")
    assert pin.source == f"{GONE}@{commit}"
    assert (pin.revision, pin.tree, pin.listing, pin.date) == (own.revision, own.tree, own.listing, own.date)
    assert pin.mirrors == ("git+file:no.git", "git+file:repo.git")
    assert notes.lines == [f"{GONE}: commit {commit} was had from git+file:repo.git"]
    # What was fetched once is read without asking anybody.
    repo.directory.rename(repo.directory.with_name("moved.git"))
    assert text(context, pin, "a") == "text"
    (item,) = json.loads(GitSource(context).listing(pin))
    content = Content(size=4, git_blob=item["blob"])
    assert [b"".join(chunks) for _, chunks in GitSource(context).open_many(pin, [content])] == [b"text"]


def test_an_upstream_that_lacks_the_commit(context: Context, repo: GitRepo) -> None:
    repo.commit({"a": b"rewritten"})
    fork = GitRepo(context.project / "fork.git")
    commit = fork.commit({"a": b"original"})
    with pytest.raises(NotFound):
        resolve(context, f"git+file:repo.git@{commit}")
    assert text(context, resolve(context, f"git+file:repo.git@{commit}", "git+file:fork.git"), "a") == "original"


def test_an_upstream_that_answers_needs_no_mirror(context: Context, repo: GitRepo, web: Web, notes: Notes) -> None:
    commit = repo.commit({"a": b"text"})
    resolve(context, f"git+file:repo.git@{commit}", f"git+{web.url}/fork.git")
    assert web.requests == [] and notes.lines == []


def test_over_http(context: Context, repo: GitRepo, web: Web) -> None:
    commit = repo.commit({"a": b"text"})
    web.handle("/gone.git", lambda asked: Answer(status=404))
    web.handle("/repo.git", repo.serve)
    pin = resolve(context, f"git+{web.url}/gone.git@{commit}", f"git+{web.url}/repo.git")
    assert text(context, pin, "a") == "text"


def test_a_mirror_is_not_asked_what_a_branch_is(context: Context, repo: GitRepo) -> None:
    commit = repo.commit({"a": b"text"})
    with pytest.raises(NotFound) as caught:
        resolve(context, f"{GONE}@main", "git+file:repo.git")
    assert "write the commit instead of main" in (caught.value.hint or "")
    # A branch of the address itself, whose commit only a mirror has: a half copy.
    half = GitRepo(context.project / "half.git")
    half.directory.joinpath("refs/heads/main").write_text(f"{commit}\n")
    half.directory.joinpath("packed-refs").write_text("")
    with pytest.raises(SourceError):
        resolve(context, "git+file:half.git@main")


def test_a_mirror_that_says_another_commit_is_this_one(context: Context, repo: GitRepo) -> None:
    """Objects are named by what they hold: there is nothing that a mirror could put in their place."""
    commit = repo.commit({"a": b"text"})
    liar = GitRepo(context.project / "liar.git")
    other = liar.commit({"a": b"evil"})
    source = liar.directory / "objects" / other[:2] / other[2:]
    target = liar.directory / "objects" / commit[:2] / commit[2:]
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(source.read_bytes())
    liar.directory.joinpath("refs/heads/main").write_text(f"{commit}\n")
    with pytest.raises(SourceError):
        resolve(context, f"{GONE}@{commit}", "git+file:liar.git")
    assert text(context, resolve(context, f"{GONE}@{commit}", "git+file:liar.git", "git+file:repo.git"), "a") == "text"


def test_nobody_has_it(context: Context, repo: GitRepo, web: Web) -> None:
    repo.commit({"a": b"text"})
    web.handle("/x.git", lambda asked: Answer(status=503))
    with pytest.raises(NotFound, match="gone") as caught:
        resolve(context, f"{GONE}@{'1' * 40}", "git+file:repo.git", f"git+{web.url}/x.git")
    cause = caught.value.cause or ""
    assert "repo.git" in cause and "503" in cause and "mirrors" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "mirror", ["git+https://me:secret@example.com/x", "git+http://example.com/x", "git+ssh://x/y", "git+https://", "x"]
)
def test_a_mirror_must_be_an_address_before_anything_is_asked(context: Context, repo: GitRepo, mirror: str) -> None:
    commit = repo.commit({"a": b"text"})
    with pytest.raises(SourceError) as caught:
        resolve(context, f"git+file:repo.git@{commit}", mirror)
    assert "secret" not in str(caught.value)


def test_offline_only_what_is_here(context: Context, repo: GitRepo) -> None:
    from dataclasses import replace

    commit = repo.commit({"a": b"text"})
    offline = replace(context, offline=True)
    with pytest.raises(Unreachable):
        resolve(offline, f"{GONE}@{commit}", "git+file:repo.git")
    resolve(context, f"git+file:repo.git@{commit}")
    assert resolve(offline, f"{GONE}@{commit}", "git+file:repo.git").revision == commit


def test_an_annotated_tag_is_peeled(context: Context, repo: GitRepo) -> None:
    commit = repo.commit({"a": b"text"})
    repo.git("tag", "-a", "-m", "one", "v1", commit)
    repo.git("tag", "-a", "-m", "of a tag", "v1-again", "v1")
    for ref in ("v1", "refs/tags/v1", "v1-again"):
        pin = resolve(context, f"git+file:repo.git@{ref}")
        assert (pin.revision, pin.ref) == (commit, ref)
    repo.git("tag", "of-a-tree", repo.git("rev-parse", "main^{tree}"))
    with pytest.raises(NotFound, match="no commit"):
        resolve(context, "git+file:repo.git@of-a-tree")


# --- submodules --------------------------------------------------------------------------------------


def with_submodule(repo: GitRepo, commit: str, modules: bytes, path: str = "lib") -> str:
    """Commits a tree with a submodule at `path`."""
    tree = repo.tree([("100644", ".gitmodules", repo.blob(modules)), ("160000", path, commit)])
    return repo.commit_tree(tree)


def test_submodules_are_followed_where_gitmodules_says(context: Context, repo: GitRepo) -> None:
    lib = GitRepo(context.project / "lib.git")
    commit = lib.commit({"x": b"x"})
    modules = b'[submodule "the lib"]\n\tpath = lib\n\turl = ../lib.git\n\tbranch = main\n'
    with_submodule(repo, commit, modules)
    source = GitSource(context)
    with pytest.raises(SourceError, match="a submodule at lib"):
        source.resolve(Request(uri="git+file:repo.git@main", submodules=("other",)))
    pin = source.resolve(Request(uri="git+file:repo.git@main", submodules=("lib",)))
    (found,) = source.submodules(pin, ("lib",))
    assert (found.path, found.source) == ("lib", f"git+file:lib.git@{commit}")
    assert [item["path"] for item in json.loads(source.listing(pin))] == [".gitmodules"]
    assert source.resolve(Request(uri=found.source)).revision == commit
    assert source.submodules(pin, ()) == []


@pytest.mark.parametrize(
    "modules",
    [
        b'[submodule "a"]\n\tpath = lib\n\turl = file:///etc\n',
        b'[submodule "a"]\n\tpath = lib\n\turl = ext::sh -c touch% pwned\n',
        b'[submodule "a"]\n\tpath = elsewhere\n\turl = ../lib.git\n',
        b'[include]\n\tpath = stolen\n[submodule "a"]\n\tpath = lib\n',
        b"[broken\n",
        b"#" * (257 * 1024),
    ],
)
def test_what_gitmodules_may_not_say(context: Context, repo: GitRepo, modules: bytes) -> None:
    (context.project / "stolen").write_text('[submodule "a"]\n\turl = https://example.com/x\n')
    with_submodule(repo, "1" * 40, modules)
    with pytest.raises(SourceError) as caught:
        source = GitSource(context)
        source.submodules(source.resolve(Request(uri="git+file:repo.git@main", submodules=("*",))), ("*",))
    assert caught.value.hint
    assert not (context.project / "pwned").exists()
