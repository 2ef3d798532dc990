"""`git+file:` and `git+http:` against real repositories, and git's own HTTP server."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.gitrepo import GitRepo
from fixtures.web import Answer, Web
from layerbuild.errors import AccessDenied, ContentMismatch, NotFound, SourceError, StoreError, Unreachable
from layerbuild.model import Content, Pin, PinnedFile, canonical_json, sha256_hex
from layerbuild.sources import Request, source_for
from layerbuild.sources.base import Context
from layerbuild.sources.git import GitSource

BIG = os.urandom(3 * 1024 * 1024)
FILES: dict[str, Any] = {
    "webui.py": b"print()\n",
    "webui.sh": ("100755", b"#!/bin/sh\n"),
    "a/b/c.bin": BIG,
    "a-file": b"",
    "a/link": ("120000", b"../webui.py"),
    "crlf.txt": b"one\r\ntwo\r\n",
    ".gitattributes": b"*.txt text eol=lf export-ignore\n",
}


@pytest.fixture
def repo(context: Context) -> GitRepo:
    return GitRepo(context.project / "repo.git")


def git_source(context: Context) -> GitSource:
    source = source_for("git+file:x", context)
    assert isinstance(source, GitSource)
    return source


def resolve(context: Context, uri: str, **more: Any) -> Pin:
    return git_source(context).resolve(Request(uri=uri, **more))


def cached(context: Context) -> Path:
    (directory,) = (context.cache / "git").glob("*[!k]")
    return directory


def test_a_branch(context: Context, repo: GitRepo) -> None:
    repo.commit({"old": b"old"})
    commit = repo.commit(FILES)
    pin = resolve(context, "git+file:repo.git@main")
    assert pin.source == f"git+file:repo.git@{commit}"
    assert (pin.revision, pin.ref) == (commit, "main")
    assert pin.tree == repo.git("rev-parse", "main^{tree}")
    listing = git_source(context).listing(pin)
    assert sha256_hex(listing) == pin.listing
    items = json.loads(listing)
    assert canonical_json(items).encode() == listing
    assert [i["path"] for i in items] == sorted(FILES, key=str.encode)
    by_path = {i["path"]: i for i in items}
    assert by_path["webui.sh"]["mode"] == "100755"
    assert by_path["a/link"] == {
        **{"path": "a/link", "mode": "120000", "size": 11, "target": "../webui.py"},
        "blob": repo.blob(b"../webui.py"),
    }
    assert "target" not in by_path["webui.py"]


def test_blobs_are_raw(context: Context, repo: GitRepo) -> None:
    repo.commit(FILES)
    source = git_source(context)
    pin = resolve(context, "git+file:repo.git@main")
    items = json.loads(source.listing(pin))
    wanted = [Content(size=i["size"], git_blob=i["blob"]) for i in items]
    contents = [b"".join(chunks) for _, chunks in source.open_many(pin, wanted)]
    expected = [FILES[i["path"]] for i in items]
    assert contents == [e[1] if isinstance(e, tuple) else e for e in expected]
    big = next(PinnedFile(path=i["path"], content=c) for i, c in zip(items, wanted, strict=True) if i["size"] > 1000)
    assert b"".join(source.open(pin, big)) == BIG
    assert b"".join(source.open(pin, big, offset=2**20 - 5, length=10)) == BIG[2**20 - 5 : 2**20 + 5]
    assert b"".join(source.open(pin, big, offset=len(BIG))) == b""


def test_blobs_may_be_left_half_read(context: Context, repo: GitRepo) -> None:
    repo.commit(FILES)
    pin = resolve(context, "git+file:repo.git@main")
    wanted = [Content(size=None, git_blob=repo.blob(b)) for b in (BIG, b"print()\n", BIG)]
    pairs = git_source(context).open_many(pin, wanted)
    assert next(next(pairs)[1])
    assert b"".join(next(pairs)[1]) == b"print()\n"
    pairs.close()  # type: ignore[attr-defined]


def test_only_the_wanted_commit_is_fetched(context: Context, repo: GitRepo) -> None:
    first = repo.commit({"old": BIG})
    commit = repo.commit({"new": b"new"})
    resolve(context, f"git+file:repo.git@{commit}")
    look = ["git", f"--git-dir={cached(context)}", "cat-file", "-e"]
    assert subprocess.run([*look, commit], check=False).returncode == 0
    assert subprocess.run([*look, first], check=False, capture_output=True).returncode != 0


def test_a_cached_commit_needs_no_network(context: Context, repo: GitRepo) -> None:
    commit = repo.commit(FILES)
    uri = f"git+file:repo.git@{commit}"
    pin = resolve(context, uri)
    repo.directory.rename(repo.directory.with_name("gone"))
    offline = replace(context, offline=True)
    assert resolve(offline, uri) == pin
    assert pin.ref is None
    assert git_source(offline).listing(pin)


def test_offline(context: Context, repo: GitRepo) -> None:
    commit = repo.commit(FILES)
    offline = replace(context, offline=True)
    for revision in ("main", commit):
        with pytest.raises(Unreachable, match="offline"):
            resolve(offline, f"git+file:repo.git@{revision}")


@pytest.mark.parametrize("revision", ["v1", "light", "refs/tags/v1", "refs/heads/feature/x", "feature/x", "HEAD"])
def test_refs(context: Context, repo: GitRepo, revision: str) -> None:
    commit = repo.commit(FILES)
    repo.git("tag", "-a", "-m", "message", "v1", commit)
    repo.git("tag", "light", commit)
    repo.git("update-ref", "refs/heads/feature/x", commit)
    repo.git("update-ref", "refs/heads/refs/tags/v1", repo.commit({"x": b"x"}, ref="refs/heads/another"))
    pin = resolve(context, f"git+file:repo.git@{revision}")
    assert (pin.revision, pin.ref) == (commit, revision)


def test_a_branch_and_a_tag_of_one_name(context: Context, repo: GitRepo) -> None:
    first, second = repo.commit({"a": b"a"}), repo.commit({"b": b"b"})
    repo.git("update-ref", "refs/heads/twin", first)
    repo.git("update-ref", "refs/tags/twin", second)
    with pytest.raises(SourceError, match="branch and a tag twin"):
        resolve(context, "git+file:repo.git@twin")
    assert resolve(context, "git+file:repo.git@refs/tags/twin").revision == second


@pytest.mark.parametrize("form", ["git+file:{}", "git+file://{}"])
def test_absolute_paths(context: Context, form: str, tmp_path: Path) -> None:
    repo = GitRepo(tmp_path / "a 100% odd@name")
    commit = repo.commit(FILES)
    uri = form.format(repo.directory)
    assert resolve(context, f"{uri}@main").source == f"{uri}@{commit}"


def test_what_is_not_there(context: Context, repo: GitRepo) -> None:
    commit = repo.commit(FILES)
    with pytest.raises(NotFound, match="no branch or tag nothing"):
        resolve(context, "git+file:repo.git@nothing")
    with pytest.raises(NotFound, match="no branch or tag"):
        resolve(context, f"git+file:repo.git@{commit[:12]}")
    with pytest.raises(NotFound) as caught:
        resolve(context, "git+file:repo.git@" + "1" * 40)
    assert "not our ref" in str(caught.value)
    with pytest.raises(NotFound, match="cannot be"):
        resolve(context, "git+file:missing.git@main")
    with pytest.raises(NotFound, match="it is no commit"):
        resolve(context, "git+file:repo.git@" + repo.git("rev-parse", "main^{tree}"))


def test_a_smart_server(context: Context, repo: GitRepo, web: Web) -> None:
    old = repo.commit({"old": BIG})
    repo.commit(FILES)
    web.handle("/repo.git", repo.serve)
    pin = resolve(context, f"git+{web.url}/repo.git@{old}")
    assert [i["path"] for i in json.loads(git_source(context).listing(pin))] == ["old"]
    assert resolve(context, f"git+{web.url}/repo.git@main").ref == "main"


@pytest.mark.parametrize("earlier", [False, True])
def test_an_old_server_gives_everything(context: Context, repo: GitRepo, web: Web, earlier: bool) -> None:
    old = repo.commit({"old": b"old"})
    tip = repo.commit(FILES)
    web.handle("/repo.git", lambda asked: repo.serve(asked, protocol=False))
    if earlier:
        resolve(context, f"git+{web.url}/repo.git@{tip}")
        assert (cached(context) / "shallow").exists()
    assert resolve(context, f"git+{web.url}/repo.git@{old}").revision == old


def test_a_server_of_plain_files(context: Context, repo: GitRepo, web: Web) -> None:
    commit = repo.commit(FILES)
    repo.git("update-server-info")

    def serve(asked: Any) -> Answer:
        path = repo.directory.parent / asked.path.lstrip("/")
        return Answer(body=path.read_bytes()) if path.is_file() else Answer(status=404)

    web.handle("/", serve)
    assert resolve(context, f"git+{web.url}/repo.git@{commit}").revision == commit


@pytest.mark.parametrize(
    ("status", "error"), [(401, AccessDenied), (403, AccessDenied), (404, NotFound), (500, Unreachable)]
)
def test_servers_that_refuse(context: Context, web: Web, status: int, error: type[SourceError]) -> None:
    headers = {"WWW-Authenticate": 'Basic realm="x"'} if status == 401 else {}
    web.handle("/", lambda asked: Answer(status=status, headers=headers))
    with pytest.raises(error) as caught:
        resolve(context, f"git+{web.url}/repo.git@main")
    assert caught.value.cause
    assert caught.value.hint


def test_a_server_that_is_down(context: Context) -> None:
    with pytest.raises(Unreachable):
        resolve(context, "git+http://127.0.0.1:1/repo.git@main")


def test_no_git(context: Context, repo: GitRepo) -> None:
    with pytest.raises(SourceError, match="git cannot be run"):
        resolve(replace(context, environ={"PATH": "/nowhere"}), "git+file:repo.git@main")


@pytest.mark.parametrize(
    "uri",
    [
        *("git+file:repo.git", "git+file:repo.git@", "git+file:repo.git@-x", "git+file:repo.git@--upload-pack=x"),
        *("git+file:repo.git@a..b", "git+file:repo.git@a b", "git+file:repo.git@a:b", "git+file:repo.git@/a"),
        *("git+file:repo.git@a^", "git+file:repo.git@a\nb", "git+file:repo.git@a/", "git+file://host/repo@main"),
        *("git+https://host@main", "git+https://host/@main", "git+https:///repo@main", "git+https://-oX/repo@main"),
        *("git+https://host/repo?x@main", "git+https://host/re po@main", "git+https://[::1/repo@main"),
        *("git+http://example.com/repo@main", "git+http://localhost.example.com/repo@main"),
        *("git+https://user:hunter2@host/repo@main", "git+https://hunter2@host/repo@main"),
        "git+https://user:hunter2@host/repo",
    ],
)
def test_what_is_no_address(context: Context, uri: str) -> None:
    with pytest.raises(SourceError) as caught:
        resolve(context, uri)
    assert "hunter2" not in str(caught.value)
    assert caught.value.hint
    assert not (context.cache / "git").exists()


def test_a_tree_has_no_digest_to_declare(context: Context) -> None:
    with pytest.raises(SourceError, match="do not apply"):
        resolve(context, "git+file:repo.git@main", sha256="0" * 64)


def test_unsafe_trees(context: Context, repo: GitRepo) -> None:
    blob = repo.blob(b"x")
    for name in ("..", ".git", ".GIT", "."):
        below = repo.tree([("100644", "x", blob)])
        for tree in (repo.tree([("40000", name, below)]), repo.tree([("100644", name, blob)])):
            commit = repo.commit_tree(tree)
            with pytest.raises(SourceError) as caught:
                resolve(context, f"git+file:repo.git@{commit}")
            assert "do not use this repository" in (caught.value.hint or "")
    assert not list(cached(context).glob("refs/layerbuild/*"))


def test_submodules_and_lfs_are_refused(context: Context, repo: GitRepo) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
    repo.commit({"model.bin": pointer})
    with pytest.raises(SourceError, match=r"keeps model\.bin in Git LFS"):
        resolve(context, "git+file:repo.git@main")
    repo.commit_tree(repo.tree([("160000", "sub", "1" * 40)]))
    with pytest.raises(SourceError, match="a submodule at sub"):
        resolve(context, "git+file:repo.git@main")


@pytest.mark.parametrize("target", [b"/etc/passwd", b"../../etc", b"..", b"", b"a\nb", b"\xff"])
def test_links_that_lead_out_are_refused(context: Context, repo: GitRepo, target: bytes) -> None:
    repo.commit({"a": b"a", "link": ("120000", target)})
    with pytest.raises(SourceError, match="has a link"):
        resolve(context, "git+file:repo.git@main")


def test_old_histories_can_be_fetched(context: Context, repo: GitRepo) -> None:
    tree = repo.tree(
        [("100664", "f", repo.blob(b"x")), ("040000", "zero", repo.tree([("100644", "x", repo.blob(b""))]))]
    )
    text = f"tree {tree}\nauthor a <a@b>1000 +051800\ncommitter  <> 99999999999999999999 +0000\n\nm\0"
    commit = repo.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", data=text.encode())
    repo.git("update-ref", "refs/heads/main", commit)
    pin = resolve(context, "git+file:repo.git@main")
    assert [(i["path"], i["mode"]) for i in json.loads(git_source(context).listing(pin))] == [
        ("f", "100644"),
        ("zero/x", "100644"),
    ]


def test_a_small_text_of_the_tree(context: Context, repo: GitRepo) -> None:
    repo.commit({**FILES, "latin": b"caf\xe9", "sub/latin": b"other"})
    pin = resolve(context, "git+file:repo.git@main")
    source = git_source(context)
    assert source.read_text(pin, "webui.py", limit=1000) == "print()\n"
    assert source.read_text(pin, "webui.py", limit=3) == "pri"
    assert source.read_text(pin, "latin", limit=1000) == "caf\ufffd"
    assert source.read_text(pin, "a-file", limit=1000) == ""
    # Neither what is not there, nor what a link leads to.
    assert source.read_text(pin, "gone", limit=1000) is None
    assert source.read_text(pin, "a/link", limit=1000) is None
    assert len(source.read_text(pin, "a/b/c.bin", limit=100) or "") <= 100


def test_when_it_was_committed(context: Context, repo: GitRepo) -> None:
    repo.commit(FILES)
    assert resolve(context, "git+file:repo.git@main").date == 1704067200
    tree = repo.git("rev-parse", "main^{tree}")
    raw = f"tree {tree}\nauthor A <a@b.c> 1 +0000\ncommitter A <a@b.c> -86400 +0100\n\nm\n"
    old = repo.git("hash-object", "-t", "commit", "-w", "--stdin", "--literally", data=raw.encode())
    repo.git("update-ref", "refs/heads/old", old)
    assert resolve(context, "git+file:repo.git@old").date == 0


def test_a_listing_that_is_not_the_pinned_one(context: Context, repo: GitRepo) -> None:
    repo.commit(FILES)
    pin = resolve(context, "git+file:repo.git@main")
    for wrong in (replace(pin, listing="0" * 64), replace(pin, tree="0" * 40)):
        with pytest.raises(ContentMismatch, match="is pinned"):
            git_source(context).listing(wrong)
    with pytest.raises(SourceError, match="names no commit"):
        git_source(context).listing(replace(pin, revision="0" * 40))


def test_blobs_that_are_not_there(context: Context, repo: GitRepo) -> None:
    repo.commit(FILES)
    source, pin = git_source(context), resolve(context, "git+file:repo.git@main")
    tree = pin.tree or ""
    for content in (
        Content(size=1, git_blob="1" * 40),
        Content(size=None, git_blob=tree),
        Content(size=1, sha256="0" * 64),
    ):
        with pytest.raises(SourceError, match=r"is not there|no blob id"):
            list(source.open(pin, PinnedFile(path="x", content=content)))
    with pytest.raises(ContentMismatch, match="9 are pinned"):
        list(source.open(pin, PinnedFile(path="x", content=Content(size=9, git_blob=repo.blob(b"print()\n")))))


def test_a_damaged_cache_is_noticed(context: Context, repo: GitRepo) -> None:
    repo.commit({"f": b"content"})
    pin = resolve(context, "git+file:repo.git@main")
    for pack in cached(context).glob("objects/pack/*.pack"):
        pack.chmod(0o644)
        pack.write_bytes(b"damage")
    with pytest.raises(StoreError, match="git cache") as caught:
        git_source(context).listing(pin)
    assert "deleted" in (caught.value.hint or "")


def test_leftovers_of_a_killed_git_do_not_hurt(context: Context, repo: GitRepo) -> None:
    repo.commit({"f": b"1"})
    resolve(context, "git+file:repo.git@main")
    for name in ("shallow.lock", "config.lock", "refs/layerbuild/x.lock", "objects/pack/tmp_pack_x"):
        (cached(context) / name).touch()
    repo.commit({"f": b"2"})
    assert resolve(context, "git+file:repo.git@main")
    assert not list(cached(context).glob("**/*.lock"))


def test_fetching_waits_for_others(context: Context, repo: GitRepo) -> None:
    repo.commit({"f": b"1"})
    resolve(context, "git+file:repo.git@main")
    commit = repo.commit({"f": b"2"})
    done: list[Pin] = []
    worker = threading.Thread(target=lambda: done.append(resolve(context, "git+file:repo.git@main")))
    with cached(context).with_suffix(".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        worker.start()
        worker.join(0.3)
        assert not done
        assert not (cached(context) / "refs" / "layerbuild" / commit).exists()
    worker.join()
    assert done[0].revision == commit


def test_the_user_s_configuration_and_hooks_do_not_run(context: Context, repo: GitRepo, tmp_path: Path) -> None:
    commit = repo.commit(FILES)
    trap = tmp_path / "trap"
    config = tmp_path / ".gitconfig"
    config.write_text(f'[core]\n\tfsmonitor = touch {trap}\n[url "file:///nowhere/"]\n\tinsteadOf = file://\n')
    environ = {**context.environ, "HOME": str(tmp_path), "GIT_DIR": "/nowhere", "GIT_SSH_COMMAND": f"touch {trap}"}
    pin = resolve(replace(context, environ=environ), f"git+file:repo.git@{commit}")
    assert pin.revision == commit
    assert not trap.exists()


def test_the_repository_around_us_is_not_obeyed(
    context: Context, repo: GitRepo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = repo.commit(FILES)
    around = GitRepo(tmp_path / "around" / ".git")
    around.git("config", "url.file:///nowhere/.insteadOf", "file://")
    monkeypatch.chdir(tmp_path / "around")
    assert resolve(context, "git+file:repo.git@main").revision == commit


def test_a_repository_of_somebody_else(context: Context, repo: GitRepo, tmp_path: Path) -> None:
    commit = repo.commit(FILES)
    # git's own tests use this variable; the upload-pack that reads the other side sees it too.
    wrapper = tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    wrapper.write_text('#!/bin/sh\nGIT_TEST_ASSUME_DIFFERENT_OWNER=1 PATH=${PATH#*:} exec git "$@"\n')
    wrapper.chmod(0o755)
    environ = {**context.environ, "PATH": f"{wrapper.parent}:{context.environ['PATH']}"}
    assert resolve(replace(context, environ=environ), "git+file:repo.git@main").revision == commit


def test_no_login_of_netrc_goes_to_a_server_that_asks(context: Context, web: Web, tmp_path: Path) -> None:
    """Neither that of a machine's line, nor the default: a stranger's tree may name any server."""
    challenge = Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="x"'})
    web.handle("/", lambda asked: challenge)
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password one\ndefault login me password two\n")
    known = replace(context, environ={**context.environ, "HOME": str(tmp_path)})
    with pytest.raises(AccessDenied):
        resolve(known, f"git+{web.url}/x.git@main")
    assert web.requests and not any("authorization" in asked.headers for asked in web.requests)
