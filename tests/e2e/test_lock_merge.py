"""Two branches of a lock come together; what another machine recorded is taken over; facts are fetched early."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from e2e.readers import sha256
from fixtures.hub import Hub
from fixtures.project import BIG, Project, safetensors

_INK = safetensors(BIG, {"ss_output_name": "ink"}, seed=5)
_PEN = safetensors(BIG, {"ss_output_name": "pen"}, seed=6)
_LAYERS = """
ink: {kind: model, type: lora, source: hf://acme/ink@main/ink.safetensors}
pen: {kind: model, type: lora, source: hf://acme/pen@main/pen.safetensors}
chalk: {kind: model, type: lora, source: hf://acme/pen@main/pen.safetensors, filename: chalk.safetensors}
"""


def _recipe(*layers: str) -> str:
    return f"name: worker\nwebui: {{root: /webui}}\nlayers: [{', '.join(layers)}]\ntags: [v1]\n"


@pytest.fixture
def shared(project: Project, hub: Hub) -> Project:
    """A locked project in git, on a branch that others have left from."""
    hub.add("acme/ink", lfs={"ink.safetensors": _INK})
    hub.add("acme/pen", lfs={"pen.safetensors": _PEN})
    project.environ["HF_ENDPOINT"] = hub.endpoint
    project.write({"layers/all.yaml": _LAYERS, "recipes/worker.yaml": _recipe("ink")})
    project.run("lock")
    _git(project, "init", "--quiet", "--initial-branch=main")
    _commit(project)
    return project


def _git(project: Project, *arguments: str, check: bool = True) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.example")
    subprocess.run(["git", *identity, *arguments], cwd=project.root, check=check, capture_output=True)


def _commit(project: Project) -> None:
    _git(project, "add", "lockfile.yaml", "recipes")
    _git(project, "commit", "--quiet", "--message=x")


def _diverge(project: Project, theirs: Any, ours: Any) -> str:
    """Two branches, and an attempt to merge them: the text that git leaves."""
    _git(project, "checkout", "--quiet", "-b", "theirs")
    theirs()
    _commit(project)
    _git(project, "checkout", "--quiet", "main")
    ours()
    _commit(project)
    _git(project, "merge", "theirs", check=False)
    text = project.lockfile.read_text(encoding="utf-8")
    assert "<<<<<<<" in text and ">>>>>>>" in text
    return text


def _lock_with(project: Project, *layers: str) -> None:
    project.write({"recipes/worker.yaml": _recipe(*layers)})
    project.run("lock")


@pytest.mark.parametrize("style", ["merge", "diff3"])
def test_a_merge_is_resolved_where_both_sides_agree(shared: Project, hub: Hub, style: str) -> None:
    _git(shared, "config", "merge.conflictStyle", style)
    _diverge(shared, lambda: _lock_with(shared, "ink", "pen"), lambda: _lock_with(shared, "ink", "chalk"))
    shared.write({"recipes/worker.yaml": _recipe("ink", "chalk", "pen")})
    shared.run("lock", "--check", check=False).failed(2, "conflict markers", "layerbuild lock")
    shared.run("plan", check=False).failed(2, "conflict markers")
    before = len(hub.requests)
    assert "conflict markers" in shared.run("lock").err
    assert len(hub.requests) == before, "what both sides know is not asked again"
    shared.run("lock", "--check")
    assert set(shared.lock["layers"]) == {"ink", "pen", "chalk"}


def test_what_the_sides_say_differently_is_named_and_chosen(shared: Project, hub: Hub) -> None:
    old = shared.lock["layers"]["ink"]["pins"]["model"]["revision"]

    def moved() -> None:
        hub.add("acme/ink", lfs={"ink.safetensors": _PEN})
        shared.run("lock", "--update", "ink")

    def moved_elsewhere() -> None:
        hub.add("acme/ink", lfs={"ink.safetensors": safetensors(BIG, {"ss_output_name": "new"}, seed=9)})
        shared.run("lock", "--update", "ink")

    text = _diverge(shared, moved, moved_elsewhere)
    failed = shared.run("lock", check=False).failed(2, "layers.ink: hf://acme/ink@", " there", "lock --update ink")
    assert old not in failed.err
    assert shared.lockfile.read_text(encoding="utf-8") == text
    shared.run("lock", "--update", "ink")
    shared.run("lock", "--check")
    assert "<<<" not in shared.lockfile.read_text(encoding="utf-8")


def test_the_side_that_stands_for_the_declaration_is_right(shared: Project, hub: Hub) -> None:
    def declared(source: str) -> None:
        shared.write({"layers/all.yaml": _LAYERS.replace("hf://acme/ink@main/ink", source)})
        shared.run("lock")

    hub.add("acme/other", lfs={"a.safetensors": _PEN, "b.safetensors": _INK})
    _diverge(shared, lambda: declared("hf://acme/other@main/a"), lambda: declared("hf://acme/other@main/b"))
    declared("hf://acme/other@main/a")
    assert shared.lock["layers"]["ink"]["pins"]["model"]["files"][0]["sha256"] == sha256(_PEN)


def test_markers_that_do_not_belong_together(shared: Project) -> None:
    text = shared.lockfile.read_text(encoding="utf-8")
    for broken in (f"<<<<<<< a\n{text}", f"{text}=======\n", f"<<<<<<< a\n>>>>>>> b\n{text}"):
        shared.lockfile.write_text(broken, encoding="utf-8")
        shared.run("lock", check=False).failed(2, "do not belong together", "git checkout --ours")
        assert shared.lockfile.read_text(encoding="utf-8") == broken


def test_two_receipts_of_one_key_are_named(shared: Project) -> None:
    shared.run("build")
    key = min(shared.lock["receipts"])
    text = shared.lockfile.read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "diff_id" in line)
    other = line[:-4] + ("0000" if line[-4:] != "0000" else "1111")
    conflict = f"<<<<<<< a\n{line}\n=======\n{other}\n>>>>>>> b"
    shared.lockfile.write_text(text.replace(line, conflict), encoding="utf-8")
    shared.run("lock", check=False).failed(2, f"receipts.{key[:16]}", "leave one side")
    shared.run("lock", "--update-all", check=False).failed(2, f"receipts.{key[:16]}")


def test_receipts_of_another_machine_are_taken_over(shared: Project, tmp_path: Path) -> None:
    out, before = tmp_path / "out.yaml", shared.lockfile.read_bytes()
    elsewhere = {"LAYERBUILD_STORE": str(tmp_path / "elsewhere")}
    shared.run("build", "--frozen", "--receipts-out", str(out), env=elsewhere)
    assert shared.lockfile.read_bytes() == before
    assert "recorded" in shared.run("lock", "--record", str(out)).out
    assert shared.lock["receipts"] and shared.lock["images"]["worker"]["manifest"]
    assert shared.lockfile.read_bytes() == out.read_bytes()
    shared.run("lock", "--check")
    assert shared.run("lock", "--record", str(out), "--json").json == {"changed": False, "receipts": 0}
    # nothing is fetched or made again for them
    shared.run("push", "oci:out", "--receipts-out", str(tmp_path / "again.yaml"))
    assert (tmp_path / "again.yaml").read_bytes() == out.read_bytes()


def test_receipts_of_another_lock_are_refused(shared: Project, hub: Hub, tmp_path: Path) -> None:
    out = tmp_path / "out.yaml"
    shared.run("build", "--frozen", "--receipts-out", str(out))
    hub.add("acme/ink", lfs={"ink.safetensors": _PEN})
    shared.run("lock", "--update", "ink")
    before = shared.lockfile.read_bytes()
    shared.run("lock", "--record", str(out), check=False).failed(2, "another lock", "worker")
    shared.run("lock", "--record", "nothing.yaml", check=False).failed(2, "there is no file nothing.yaml")
    assert shared.lockfile.read_bytes() == before


def test_receipts_that_contradict_the_lock_are_refused(shared: Project, tmp_path: Path) -> None:
    out = tmp_path / "out.yaml"
    shared.run("build", "--receipts-out", str(out))
    before = shared.lockfile.read_bytes()
    text = out.read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if "diff_id" in line)
    out.write_text(text.replace(line, line[:-4] + ("0000" if line[-4:] != "0000" else "1111")), encoding="utf-8")
    shared.run("lock", "--record", str(out), check=False).failed(2, "contradicts", "receipts.", "build --check")
    assert shared.lockfile.read_bytes() == before


def test_facts_are_fetched_when_asked_for(shared: Project) -> None:
    facts = shared.lock["files"][sha256(_INK)]
    assert "addnet" not in facts and any("@pending" in line for line in shared.lock["images"]["worker"]["layers"])
    shared.run("lock", "--facts")
    assert shared.lock["files"][sha256(_INK)]["addnet"]
    assert not any("@pending" in line for line in shared.lock["images"]["worker"]["layers"])
    assert "receipts" not in shared.lock or not shared.lock["receipts"]
    shared.run("lock", "--check")
    assert "unchanged" in shared.run("lock", "--facts").out
