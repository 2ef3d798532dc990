"""`layerbuild diff`: what moved between two locks, in words, and what a registry with the old images lacks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from fixtures.gitrepo import GitRepo
from fixtures.hub import Hub
from fixtures.project import BIG, Project, safetensors

_INK = safetensors(BIG, {"ss_output_name": "ink"}, seed=5)
_PEN = safetensors(BIG, {"ss_output_name": "pen"}, seed=6)
_LAYERS = """
ink: {kind: model, type: lora, source: hf://acme/ink@main/ink.safetensors}
pen: {kind: model, type: lora, source: hf://acme/pen@main/pen.safetensors}
clip: {kind: huggingface, source: hf://acme/clip@main}
"""


def _recipe(*layers: str, more: str = "") -> str:
    return f"name: worker\nwebui: {{root: /webui}}\nlayers: [{', '.join(layers)}]\ntags: [v1]\n{more}"


@pytest.fixture
def built(project: Project, hub: Hub) -> Project:
    """A project whose lock is committed, its image built."""
    hub.add("acme/ink", lfs={"ink.safetensors": _INK})
    hub.add("acme/pen", lfs={"pen.safetensors": _PEN})
    hub.add("acme/clip", files={"vocab.json": b"{}", "merges.txt": b"a"})
    project.environ["HF_ENDPOINT"] = hub.endpoint
    project.write({"layers/all.yaml": _LAYERS, "recipes/worker.yaml": _recipe("ink", "clip")})
    project.run("lock")
    project.run("build")
    for command in (["init", "--quiet"], ["add", "lockfile.yaml"], ["commit", "--quiet", "--message=x"]):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.example")
        subprocess.run(["git", *identity, *command], cwd=project.root, check=True)
    return project


def _layer(project: Project, name: str) -> list[str]:
    return next(c["words"] for c in project.run("diff", "--json").json["layers"] if c["name"] == name)


def test_nothing_moved(built: Project) -> None:
    assert built.run("diff").out == "nothing moved\n"
    assert built.run("diff", "--json").json == {"layers": [], "images": [], "push": 0, "unknown": 0, "believed": []}


def test_a_new_model_costs_its_own_layer_and_two_small_ones(built: Project) -> None:
    built.write({"recipes/worker.yaml": _recipe("ink", "clip", "pen")})
    built.run("lock")
    told = built.run("diff").out
    assert "+ pen" in told and "hf://acme/pen@" in told
    assert "+ weights/pen" in told and "~ links/worker" in told
    found = built.run("diff", "--json").json
    assert found["push"] == len(_PEN), "nobody has made the layer, and its file's size is known"
    before = found["unknown"]
    built.run("build")
    found = built.run("diff", "--json").json
    assert before == 2 and found["unknown"] == 0
    receipts = [r for r in built.lock["receipts"].values() if "blobs" not in r]
    weights = max(r["size"] for r in receipts)
    assert weights < found["push"] < weights + 4096, "the tar, the links and the hash cache"
    assert "MiB to push" in built.run("diff").out


def test_the_way_back_costs_what_the_old_image_had_alone(built: Project, tmp_path: Path) -> None:
    old = tmp_path / "old.yaml"
    old.write_bytes(built.lockfile.read_bytes())
    built.write({"recipes/worker.yaml": _recipe("clip")})
    built.run("lock")
    assert "- weights/ink" in built.run("diff", str(old)).out
    found = built.run("diff", "lockfile.yaml", str(old), "--json").json
    assert found["push"] > len(_INK)
    assert [c["change"] for c in found["layers"]] == ["added"]


def test_a_moved_pin_says_from_where_to_where(built: Project, hub: Hub) -> None:
    hub.add("acme/ink", lfs={"ink.safetensors": _PEN})
    hub.add("acme/clip", files={"vocab.json": b'{"a": 1}', "config.json": b"{}"})
    built.run("lock", "--update-all")
    old = built.run("diff", "--json").json
    commits, content = _layer(built, "ink")
    assert commits.startswith("commit ") and " -> " in commits and content.startswith("content ")
    assert _layer(built, "clip")[1:] == ["1 files changed", "1 files added", "1 files gone"]
    assert [c["name"] for c in old["images"]] == ["worker"]


def test_a_commit_with_the_same_file_says_so(built: Project, hub: Hub) -> None:
    hub.add("acme/ink", lfs={"ink.safetensors": _INK}, files={"README.md": b"new"})
    built.run("lock", "--update", "ink")
    assert _layer(built, "ink")[1] == "the same file"
    assert built.run("diff", "--json").json["images"] == []


def test_the_webui_by_its_release(built: Project, tmp_path: Path) -> None:
    upstream = GitRepo(tmp_path / "webui.git")
    layer = f"webui: {{kind: webui, source: 'git+file://{upstream.directory}@main'}}\n"
    built.write({"layers/webui.yaml": layer, "recipes/worker.yaml": _recipe("webui", "ink")})
    upstream.commit({"CHANGELOG.md": b"## 1.9.4\n", "webui.py": b""})
    built.run("lock")
    before = built.root / "before.yaml"
    before.write_bytes(built.lockfile.read_bytes())
    upstream.commit({"CHANGELOG.md": b"## 1.10.1\n## 1.9.4\n", "webui.py": b""})
    built.run("lock", "--update", "webui")
    assert "1.9.4 -> 1.10.1" in built.run("diff", str(before)).out


def test_settings_and_other_images(built: Project) -> None:
    more = "config: {cmd: [/start]}\n"
    built.write({"recipes/worker.yaml": _recipe("ink", "clip", more=more), "recipes/second.yaml": "layers: [clip]\n"})
    built.run("lock")
    told = built.run("diff").out
    assert "settings (config" in told and "+ second" in told
    (built.root / "recipes/second.yaml").unlink()
    after = built.root / "after.yaml"
    after.write_bytes(built.lockfile.read_bytes())
    built.run("lock")
    assert "- second" in built.run("diff", str(after)).out


def test_errors(built: Project, tmp_path: Path) -> None:
    built.run("diff", "nothing", check=False).failed(2, "no commit 'nothing'")
    built.run("diff", "--", "-x", check=False).failed(2, "no commit")
    damaged = tmp_path / "damaged.yaml"
    damaged.write_text("version: 9\n")
    built.run("diff", str(damaged), check=False).failed(2, "version 9")


def test_names_in_anothers_lock_do_not_reach_the_terminal_as_they_are(built: Project, tmp_path: Path) -> None:
    text = built.lockfile.read_text()
    theirs = tmp_path / "theirs.yaml"
    theirs.write_text(text.replace("\n  ink:\n", '\n  "i\\e[2Jnk":\n'))
    out = built.run("diff", str(theirs)).out
    assert "- i\\x1b[2Jnk" in out and "\x1b" not in out


def test_what_is_believed_and_has_changed(built: Project) -> None:
    text = built.lockfile.read_text()
    (key, receipt), *_ = built.lock["receipts"].items()
    other = "sha256:" + "0" * 64
    built.write({"lockfile.yaml": text.replace(receipt["diff_id"], other)})
    told = built.run("diff").out
    assert f"~ receipt {key[:16]}" in told and "diffID" in told and "nothing moved" not in told
    (found,) = built.run("diff", "--json").json["believed"]
    assert found["name"] == f"receipt {key[:16]}"
