"""A webui layer whose checkouts, mirrors and submodules are found out by `lock`, from real repositories."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e.readers import layout_manifests, members
from fixtures.gitrepo import GitRepo
from fixtures.project import Project
from fixtures.web import Answer, Web

_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [webui]\ntags: [v1]\ncompression: gzip\n"


class Repos:
    """Repositories of one project, and a server that gives them."""

    def __init__(self, project: Project, web: Web) -> None:
        self.project = project
        self.web = web
        self._made: dict[str, GitRepo] = {}

    def __getitem__(self, name: str) -> GitRepo:
        if name not in self._made:
            self._made[name] = GitRepo(self.project.root / "git" / name)
            self.web.handle(f"/{name}/", self._made[name].serve)
        return self._made[name]

    def address(self, name: str) -> str:
        return f"{self.web.url}/{name}"

    def script(self, **clones: str) -> bytes:
        """A launch script that clones repositories at their commits: name -> commit."""
        lines = [f"{n}_repo = os.environ.get('{n}_REPO', '{self.address(n)}')" for n in clones]
        lines += [f"{n}_commit_hash = os.environ.get('{n}_COMMIT_HASH', '{c}')" for n, c in clones.items()]
        lines += [f"git_clone({n}_repo, repo_dir('{n}'), '{n}', {n}_commit_hash)" for n in clones]
        return "\n".join(["import os", "def prepare_environment():", *(f"    {line}" for line in lines)]).encode()

    def fetches(self, name: str) -> int:
        """How often the server was asked for objects of a repository."""
        return sum(r.method == "POST" and r.path.startswith(f"/{name}/") for r in self.web.requests)


@pytest.fixture
def repos(project: Project, web: Web) -> Repos:
    return Repos(project, web)


def declare(project: Project, **declaration: Any) -> None:
    layers = {"webui": {"kind": "webui", **declaration}}
    project.write({"layers/l.yaml": yaml.safe_dump(layers), "recipes/r.yaml": _RECIPE})


def pins(project: Project) -> dict[str, Any]:
    found: dict[str, Any] = project.lock["layers"]["webui"]["pins"]
    return found


def files(project: Project) -> dict[str, bytes]:
    """The image's files, from a layout, without what layerbuild itself adds."""
    shutil.rmtree(project.root / "out", ignore_errors=True)
    project.run("push", "oci:out")
    (manifest,) = layout_manifests(project.root / "out").values()
    found = members(project.root / "out", manifest)
    return {path: data for path, (info, data) in found.items() if info.isreg() and "/.git" not in path}


# --- checkouts ---------------------------------------------------------------------------------------


def test_the_commit_names_its_checkouts(project: Project, repos: Repos) -> None:
    blip, diffusion = repos["BLIP"].commit({"blip.py": b"1"}), repos["kd"].commit({"kd.py": b"2"})
    first = repos["webui"].commit({"webui.py": b"", "modules/launch_utils.py": repos.script(BLIP=blip, kd=diffusion)})
    declare(project, source=f"git+file:git/webui@{first}", repositories="auto")
    project.run("lock")
    assert {role: pin["source"] for role, pin in pins(project).items()} == {
        "webui": f"git+file:git/webui@{first}",
        "repositories/BLIP": f"git+{repos.address('BLIP')}@{blip}",
        "repositories/kd": f"git+{repos.address('kd')}@{diffusion}",
    }
    assert files(project).keys() == {
        *("webui/webui.py", "webui/modules/launch_utils.py"),
        *("webui/repositories/BLIP/blip.py", "webui/repositories/kd/kd.py"),
    }
    # Written out, it is the same lock but for the declaration.
    auto = project.lock
    named = {name: f"git+{repos.address(name)}@{commit}" for name, commit in (("BLIP", blip), ("kd", diffusion))}
    declare(project, source=f"git+file:git/webui@{first}", repositories=named)
    project.run("lock", "--check", check=False).failed(3, "has changed")
    project.run("lock", "--offline")
    explicit = project.lock
    assert explicit["layers"]["webui"].pop("declaration") != auto["layers"]["webui"].pop("declaration")
    assert explicit == auto


def test_nothing_is_asked_twice(project: Project, repos: Repos) -> None:
    blip = repos["BLIP"].commit({"blip.py": b"1"})
    repos["webui"].commit({"launch.py": repos.script(BLIP=blip)})
    declare(project, source=f"git+{repos.address('webui')}@main", repositories="auto")
    project.run("lock")
    before, asked = project.lockfile.read_bytes(), len(repos.web.requests)
    # One POST is `ls-refs` of the branch.
    assert repos.fetches("BLIP") <= 2 and repos.fetches("webui") <= 3
    for command in (["lock"], ["lock", "--offline"], ["lock", "--check"], ["build"], ["build", "--frozen"]):
        project.run(*command)
    assert len(repos.web.requests) == asked
    assert project.lock["layers"] == yaml.safe_load(before)["layers"]


def test_a_moved_branch_moves_its_checkouts_when_told(project: Project, repos: Repos) -> None:
    old = repos["BLIP"].commit({"blip.py": b"1"})
    repos["webui"].commit({"launch.py": repos.script(BLIP=old)})
    declare(project, source="git+file:git/webui@main", repositories="auto")
    project.run("lock")
    new, other = repos["BLIP"].commit({"blip.py": b"2"}), repos["other"].commit({"x": b""})
    repos["webui"].commit({"launch.py": repos.script(BLIP=new, other=other)})
    project.run("lock")
    assert pins(project)["repositories/BLIP"]["revision"] == old
    project.run("lock", "--update", "webui")
    assert pins(project)["repositories/BLIP"]["revision"] == new
    assert set(pins(project)) == {"webui", "repositories/BLIP", "repositories/other"}
    repos["webui"].commit({"launch.py": repos.script(other=other)})
    project.run("lock", "--update-all")
    assert set(pins(project)) == {"webui", "repositories/other"}
    assert files(project).keys() == {"webui/launch.py", "webui/repositories/other/x"}


def test_what_is_written_wins(project: Project, repos: Repos) -> None:
    theirs, ours = repos["BLIP"].commit({"blip.py": b"theirs"}), repos["fork"].commit({"blip.py": b"ours"})
    script = repos.script(BLIP=theirs, dead="1" * 40)
    repos["webui"].commit({"launch.py": script})
    more = repos["more"].commit({"x": b""})
    declare(
        project,
        source="git+file:git/webui@main",
        repositories={"*": "auto", "dead": f"git+file:git/fork@{ours}", "more": f"git+file:git/more@{more}"},
    )
    project.run("lock")
    assert {role: pin["revision"] for role, pin in pins(project).items() if role != "webui"} == {
        "repositories/BLIP": theirs,
        "repositories/dead": ours,
        "repositories/more": more,
    }


def test_a_tree_that_names_no_checkouts(project: Project, repos: Repos) -> None:
    repos["webui"].commit({"webui.py": b"", "launch.py": b"from modules import launch_utils\n"})
    declare(project, source="git+file:git/webui@main", repositories="auto")
    project.run("lock", check=False).failed(1, "webui cannot be locked", "does not name its checkouts", "launch_utils")
    repos["webui"].commit({"launch.py": b"\ngit_clone(a, repo_dir('x'), 'X', b)\n"})
    project.run("lock", check=False).failed(1, "launch.py of", "line 2", "name the webui's checkouts")
    assert not project.lockfile.exists()
    project.run("lock", "--keep-going")
    assert "line 2" in project.lock["unlocked"]["webui"] and project.lock["layers"] == {}


@pytest.mark.parametrize("repositories", ["automatic", {"*": "git+file:x@main"}, {"BLIP": "auto"}, ["auto"]])
def test_other_ways_to_say_auto(project: Project, repositories: Any) -> None:
    declare(project, source="git+file:git/webui@main", repositories=repositories)
    project.run("lock", check=False).failed(2, "layers/l.yaml", "auto")


def test_pins_that_nothing_asks_for_are_drift(project: Project, repos: Repos) -> None:
    blip = repos["BLIP"].commit({"blip.py": b"1"})
    repos["webui"].commit({"launch.py": repos.script(BLIP=blip)})
    declare(project, source="git+file:git/webui@main", repositories="auto")
    project.run("lock")
    good = project.lockfile.read_bytes()
    for role in ("extensions/x", "repositories/a/b", "repositories/..", "repositories/BLIP:lib", "webui:../../etc"):

        def add(lock: Any, role: str = role) -> None:
            pinned = lock["layers"]["webui"]["pins"]
            pinned[role] = pinned["webui"]

        project.lockfile.write_bytes(good)
        project.edit_lock(add)
        project.run("build", check=False).failed(3, "other pins")
    project.lockfile.write_bytes(good)
    project.edit_lock(lambda lock: lock["layers"]["webui"]["pins"].pop("repositories/BLIP"))
    project.run("build", check=False).failed(3, "BLIP")


# --- mirrors -----------------------------------------------------------------------------------------


def test_a_dead_checkout_comes_from_its_mirror(project: Project, repos: Repos) -> None:
    commit = repos["sd"].commit({"ldm.py": b"x"})
    repos["webui"].commit({"launch.py": repos.script(sd=commit)})
    source = f"git+file:git/webui@{repos['webui'].git('rev-parse', 'main')}"
    declare(project, source=source, repositories="auto")
    project.run("lock")
    alive = project.lockfile.read_bytes()
    fork = repos["fork"]
    fork.git("fetch", "--quiet", str(repos["sd"].directory), "main:main")
    repos.web.handle("/sd/", lambda asked: Answer(status=404))
    other = project.sibling("other")
    shutil.copytree(project.root, other.root, dirs_exist_ok=True)
    other.run("lock", "--update", "webui", check=False).failed(1, "/sd", "not found")
    # As people write it: with .git, without git+.
    mirrors = {f"{repos.address('sd')}.git": [f"{repos.address('nobody')}", repos.address("fork")]}
    declare(other, source=source, repositories="auto", mirrors=mirrors)
    other.run("lock", "--check", check=False).failed(3, "other mirrors")
    other.run("lock", "--update", "webui")
    moved, before = other.lock, yaml.safe_load(alive)
    pinned = moved["layers"]["webui"]["pins"]["repositories/sd"]
    assert pinned.pop("mirrors") == [f"git+{repos.address('nobody')}", f"git+{repos.address('fork')}"]
    assert moved == before
    # And a build with nothing but the lock finds it there too.
    other.run("build", env={"LAYERBUILD_STORE": str(other.root.parent / "empty")})
    # Mirrors come and go without a request, and move nothing.
    declare(other, source=source, repositories="auto")
    asked = len(repos.web.requests)
    other.run("lock")
    assert other.lock["layers"] == before["layers"] and len(repos.web.requests) == asked


# --- submodules --------------------------------------------------------------------------------------


def _submodule(repo: GitRepo, path: str, commit: str, url: str, files: dict[str, bytes]) -> str:
    """Commits `files` and a submodule at `path`."""
    modules = f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n'.encode()
    repo.git("read-tree", "--empty")
    lines = [f"100644 {repo.blob(data)}\t{name}" for name, data in {**files, ".gitmodules": modules}.items()]
    repo.git("update-index", "--index-info", data="\n".join([*lines, f"160000 {commit}\t{path}", ""]).encode())
    return repo.commit_tree(repo.git("write-tree"))


@pytest.fixture
def nested(project: Project, repos: Repos) -> dict[str, Any]:
    """A webui with an extension that has a submodule that has a submodule; and one of its own."""
    deep = repos["deep"].commit({"deep.py": b"deep"})
    lib = _submodule(repos["lib"], "deep", deep, "../deep", {"lib.py": b"lib"})
    _submodule(repos["ext"], "third_party/lib", lib, repos.address("lib"), {"ext.py": b"ext"})
    _submodule(repos["webui"], "own", deep, "../deep", {"webui.py": b""})
    return {"source": "git+file:git/webui@main", "extensions": {"ext": "git+file:git/ext@main"}}


def test_submodules_are_named_and_refused(project: Project, nested: dict[str, Any]) -> None:
    declare(project, **nested)
    project.run("lock", check=False).failed(1, "a submodule at own", "submodules: true")


def test_submodules_are_followed_to_their_end(project: Project, nested: dict[str, Any], repos: Repos) -> None:
    declare(project, **nested, submodules=True)
    project.run("lock")
    assert {role: Path(pin["source"].rpartition("@")[0]).name for role, pin in pins(project).items()} == {
        **{"webui": "webui", "webui:own": "deep", "extensions/ext": "ext"},
        **{"extensions/ext:third_party/lib": "lib", "extensions/ext:third_party/lib/deep": "deep"},
    }
    found = files(project)
    assert found["webui/extensions/ext/third_party/lib/deep/deep.py"] == found["webui/own/deep.py"] == b"deep"
    assert found["webui/extensions/ext/third_party/lib/lib.py"] == b"lib"
    layers = "\n".join(project.lock["images"]["worker"]["layers"])
    assert "git-tree/webui/own@" in layers and "git-tree/webui/ext/third_party/lib/deep@" in layers
    project.run("lock", "--check")


def test_submodules_by_their_paths(project: Project, nested: dict[str, Any]) -> None:
    declare(project, **nested, submodules=["own", "extensions/ext/third_party/lib"])
    project.run("lock", check=False).failed(1, "lib", "a submodule at deep")
    paths = ["own", "extensions/ext/third_party/lib", "extensions/ext/third_party/lib/deep"]
    declare(project, **nested, submodules=paths)
    project.run("lock")
    assert len(pins(project)) == 5
    declare(project, **nested, submodules=[*paths, "extensions/ext/thirdparty/lib"])
    project.run("lock", check=False).failed(1, "no submodule lies at extensions/ext/thirdparty/lib")
    # Not followed any more, they are refused again.
    declare(project, **nested)
    project.run("build", check=False).failed(3, "has changed")
    project.run("lock", check=False).failed(1, "a submodule at own")


def test_submodules_without_end(project: Project, repos: Repos) -> None:
    webui = repos["webui"]
    listed = "".join(f'[submodule "{i}"]\n\tpath = {i}\n\turl = ../{i}\n' for i in range(128)).encode()
    links = sorted((str(i) for i in range(128)), key=str.encode)
    entries = [("100644", ".gitmodules", webui.blob(listed)), *(("160000", link, "1" * 40) for link in links)]
    webui.commit_tree(webui.tree(entries))
    declare(project, source="git+file:git/webui@main", submodules=True)
    project.run("lock", check=False).failed(1, "more than 128 trees")


def test_pointers_of_lfs_may_stay(project: Project, repos: Repos) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 5\n"
    repos["ext"].commit({"docs/a.png": pointer, "ext.py": b""})
    repos["webui"].commit({"webui.py": b""})
    extensions = {"ext": "git+file:git/ext@main"}
    declare(project, source="git+file:git/webui@main", extensions=extensions, lfs_pointers=["docs/*"])
    project.run("lock", check=False).failed(1, "keeps docs/a.png in Git LFS", "lfs_pointers")
    declare(project, source="git+file:git/webui@main", extensions=extensions, lfs_pointers=["extensions/ext/docs/*"])
    project.run("lock")
    assert files(project)["webui/extensions/ext/docs/a.png"] == pointer
