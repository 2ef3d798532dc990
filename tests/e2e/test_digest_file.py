"""`push --digest-file`: what was pushed, and never what was not."""

from __future__ import annotations

import os
import subprocess

import pytest

from e2e.readers import fetch, sha256
from fixtures.project import Project
from fixtures.registry import Front

_LAYERS = """
start: {kind: files, files: {/opt/worker/start.sh: {content: "#!/bin/sh\\n"}}}
note: {kind: files, files: {/opt/worker/note.txt: file:note.txt}}
"""


@pytest.fixture
def locked(project: Project) -> Project:
    """A project with two small images."""
    first = "name: first\nlayers: [start]\ntags: [one, two]\n"
    project.write({"layers/all.yaml": _LAYERS, "recipes/first.yaml": first, "note.txt": "a"})
    project.write({"recipes/second.yaml": "name: second\nlayers: [note]\ntags: [one]\n"}).run("lock")
    return project


def _lines(project: Project, name: str = "digests") -> list[str]:
    return (project.root / name).read_text().splitlines()


def test_line_for_each_image_and_tag(locked: Project, registry: Front) -> None:
    at = f"{registry.host}/{registry.prefix}"
    locked.run("push", at, "--digest-file", "digests")

    def line(name: str, tag: str) -> str:
        manifest = fetch(f"{registry.url}/v2/{registry.prefix}/{name}/manifests/{tag}")
        return f"{at}/{name}:{tag}@sha256:{sha256(manifest)}"

    found = _lines(locked)
    assert found == [line("first", "one"), line("first", "two"), line("second", "one")]
    locked.run("verify", found[2])
    # nothing moves any more, and the images are there
    locked.run("push", at, "--digest-file", "digests")
    assert _lines(locked) == found
    locked.run("push", "oci:out", "second", "--digest-file", "digests")
    assert _lines(locked) == [f"oci:out:second:one@{found[2].rpartition('@')[2]}"]


def test_image_that_fails_has_no_line(locked: Project) -> None:
    (locked.root / "note.txt").write_text("b")
    locked.run("push", "oci:out", "--digest-file", "digests", check=False).failed(1, "second")
    assert [line.partition("@")[0] for line in _lines(locked)] == ["oci:out:first:one", "oci:out:first:two"]
    locked.run("push", "oci:out", "second", "--digest-file", "digests", check=False).failed(1, "note")
    assert _lines(locked) == [], "lines of an earlier run would be taken for this one's"


def test_no_image_changed(locked: Project) -> None:
    git = {**locked.environ, "GIT_CONFIG_GLOBAL": os.devnull}
    for command in (["init", "-q"], ["add", "lockfile.yaml"], ["commit", "-qm", "lock"]):
        author = ["-c", "user.name=t", "-c", "user.email=t@example.com"]
        subprocess.run(["git", *author, *command], cwd=locked.root, env=git, check=True)
    (locked.root / "digests").write_text("old\n")
    locked.run("push", "oci:out", "--changed-since", "HEAD", "--digest-file", "digests")
    assert _lines(locked) == []


def test_link_is_followed(locked: Project) -> None:
    (locked.root / "digests").symlink_to("target")
    locked.run("push", "oci:out", "second", "--digest-file", "digests")
    assert (locked.root / "digests").is_symlink() and len(_lines(locked, "target")) == 1


@pytest.mark.parametrize(("name", "code", "words"), [("layers", 2, "is not a file"), ("no/such", 1, "digest file")])
def test_file_that_cannot_be_written_is_told_before_anything_moves(
    locked: Project, name: str, code: int, words: str
) -> None:
    locked.run("push", "oci:out", "--digest-file", name, check=False).failed(code, words)
    assert not (locked.root / "out").exists()
