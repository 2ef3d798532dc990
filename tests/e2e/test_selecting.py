"""Images chosen by name, by label, and by what changed since a revision, in every command that takes them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fixtures.gitrepo import GitRepo
from fixtures.project import Project

_LAYERS = """
start: {kind: files, files: {/opt/x/start: {content: "{{ image.name }}"}}}
logo: {kind: files, files: {/opt/x/logo: file:logo.txt}}
"""
_FAMILY = """
matrix: {n: [a, b]}
name: "family-{{ n }}"
layers: [start]
config: {labels: {family: sd, letter: "{{ n }}"}}
"""
_ALONE = "layers: [logo]\ntags: [t]\n"


@pytest.fixture
def history(project: Project) -> Project:
    """A project of three images, built and committed."""
    files = {"layers/l.yaml": _LAYERS, "recipes/family.yaml": _FAMILY, "recipes/alone.yaml": _ALONE, "logo.txt": "1"}
    project.write(files)
    project.run("lock")
    project.run("build")
    _commit(project)
    return project


def _commit(project: Project, files: dict[str, Any] | None = None, *, ref: str = "refs/heads/main") -> None:
    repo = GitRepo(project.root / ".git")
    repo.commit(files or {"lockfile.yaml": project.lockfile.read_bytes()}, ref=ref)
    repo.git("config", "core.bare", "false")


def _names(project: Project, *arguments: str) -> list[str]:
    """What each command makes of `arguments`, which is the same."""
    plan = project.run("plan", *arguments, "--json").json["images"]
    build = [image["name"] for image in project.run("build", *arguments, "--json").json["images"]]
    push = [image["name"] for image in project.run("push", "oci:out", *arguments, "--json").json["images"]]
    assert plan == build == push
    return build


def test_by_name_and_label(history: Project) -> None:
    assert _names(history, "*a") == ["family-a"]
    assert _names(history, "--label", "family") == ["family-a", "family-b"]
    assert _names(history, "--label", "family=s*", "--label", "letter=b") == ["family-b"]
    assert _names(history, "--label", "family", "family-[!b]") == ["family-a"]
    for command in (["plan"], ["build"], ["push", "oci:out"], ["audit"]):
        found = history.run(*command, "--label", "famly", check=False)
        found.failed(2, "no image has a label 'famly'", "family=sd")


def test_changed_since(history: Project) -> None:
    assert _names(history, "--changed-since", "HEAD") == []
    history.write({"logo.txt": "2"})
    history.run("lock", "--update", "logo")
    assert _names(history, "--changed-since", "HEAD") == ["alone"]
    history.write({"recipes/family.yaml": _FAMILY.replace("[a, b]", "[a, b, c]")})
    history.run("lock")
    assert _names(history, "--changed-since", "main") == ["alone", "family-c"]
    assert _names(history, "--changed-since", "main", "--label", "family") == ["family-c"]
    _commit(history)
    # The first commit's lock knew no third image, and another logo.
    assert _names(history, "--changed-since", "HEAD~1", "alone") == ["alone"]
    assert {a["org.opencontainers.image.ref.name"].partition(":")[0] for a in _annotations(history)} == {
        "alone",
        "family-c",
    }


def _annotations(project: Project) -> list[Any]:
    return [entry["annotations"] for entry in json.loads((project.root / "out/index.json").read_text())["manifests"]]


def test_nothing_changed_is_done_at_once(history: Project) -> None:
    before = history.lockfile.stat().st_mtime_ns
    for command in (["plan"], ["build"], ["push", "oci:out"], ["audit"]):
        found = history.run(*command, "--changed-since", "HEAD")
        assert (found.out, found.err) == ("no image changed since HEAD\n", "")
        empty = history.run(*command, "--changed-since", "HEAD", "--json").json
        assert empty["images"] == []
    assert not (history.root / "out").exists()
    assert history.lockfile.stat().st_mtime_ns == before


def test_a_lock_that_does_not_stand_for_the_declarations(history: Project) -> None:
    """What has changed cannot be seen in a lock that was not made anew."""
    history.write({"layers/l.yaml": _LAYERS.replace("/opt/x/start", "/opt/x/begin")})
    for command in (["plan"], ["build"], ["push", "oci:out"]):
        history.run(*command, "--changed-since", "HEAD", check=False).failed(3, "family-a", "layerbuild lock")


def test_a_revision_without_a_lock_and_no_revision(history: Project) -> None:
    _commit(history, {"README": b""}, ref="refs/heads/other")
    assert _names(history, "--changed-since", "other") == ["alone", "family-a", "family-b"]
    history.run("plan", "--changed-since", "nope", check=False).failed(2, "git knows no commit 'nope' here")
    history.run("plan", "--changed-since=--all", check=False).failed(2, "git knows no commit '--all' here")


def test_no_git_at_all(project: Project) -> None:
    project.write({"layers/l.yaml": _LAYERS, "recipes/alone.yaml": _ALONE, "logo.txt": "1"})
    project.run("lock")
    project.run("build", "--changed-since", "HEAD", check=False).failed(2, "lies in no git repository")


def test_audit_takes_no_label_of_an_image_elsewhere(history: Project) -> None:
    history.run("push", "oci:out", "alone")
    history.run("audit", "oci:out:alone:t", "--label", "family", check=False).failed(2, "images of the project")
    history.run("audit", check=False).failed(2, "no image is named")
    assert [
        i["reference"] for i in history.run("audit", "--label", "letter=a", "--json", check=False).json["images"]
    ] == ["family-a"]
