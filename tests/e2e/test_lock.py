"""`layerbuild lock` against a Hub: what it asks for, what it writes, and what nobody else writes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from e2e.readers import sha256
from fixtures.hub import Hub
from fixtures.project import BIG, Project, safetensors
from fixtures.web import Web

_MODEL = safetensors(BIG, {"format": "pt"}, seed=4)
_LORA = safetensors(BIG, {"ss_output_name": "ink"}, seed=5)
_LAYERS = """
sd: {kind: model, type: checkpoint, source: hf://acme/sd@main/sd.safetensors}
ink: {kind: model, type: lora, source: hf://acme/sd@main/ink.safetensors}
clip: {kind: huggingface, source: hf://acme/clip@main, files: ["*.json", model.safetensors]}
"""
_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [sd, ink, clip]\ntags: [v1]\n"


@pytest.fixture
def locked(project: Project, hub: Hub) -> Project:
    """A project whose sources are on a Hub, locked."""
    hub.add("acme/sd", files={"README.md": b"x"}, lfs={"sd.safetensors": _MODEL, "ink.safetensors": _LORA})
    hub.add("acme/clip", files={"vocab.json": b"{}"}, lfs={"model.safetensors": _MODEL})
    project.environ["HF_ENDPOINT"] = hub.endpoint
    project.write({"layers/all.yaml": _LAYERS, "recipes/worker.yaml": _RECIPE})
    project.run("lock")
    return project


def test_lock_downloads_no_weights(locked: Project, hub: Hub) -> None:
    sent = {path: count for path, count in hub.sent.items() if path.startswith("/lfs/")}
    # Of each model its beginning, with the header. Of the snapshot's file nothing.
    assert set(sent) == {f"/lfs/{sha256(_MODEL)}", f"/lfs/{sha256(_LORA)}"}
    assert set(sent.values()) == {256 * 1024}
    assert locked.stored_files() == {}
    facts = locked.lock["files"]
    assert facts[sha256(_MODEL)]["metadata"] == '{"format":"pt"}' and "addnet" not in facts[sha256(_LORA)]


def test_second_lock_changes_no_byte_and_asks_nothing(locked: Project, hub: Hub) -> None:
    before, asked = locked.lockfile.read_bytes(), len(hub.requests)
    locked.run("lock")
    locked.run("lock", "--offline")
    assert locked.lockfile.read_bytes() == before
    assert len(hub.requests) == asked
    # Nor does one with another store, which knows nothing.
    locked.run("lock", env={"LAYERBUILD_STORE": str(locked.root.parent / "empty")})
    assert locked.lockfile.read_bytes() == before


def test_unchanged_declaration_keeps_its_pin_until_told(locked: Project, hub: Hub) -> None:
    before = locked.lockfile.read_bytes()
    commit = hub.add("acme/clip", files={"vocab.json": b'{"a": 1}'}, lfs={"model.safetensors": _MODEL})
    locked.run("lock")
    assert locked.lockfile.read_bytes() == before
    locked.run("lock", "--update", "clip")
    layers, old = locked.lock["layers"], yaml.safe_load(before)["layers"]
    assert layers["clip"]["pins"]["snapshot"]["revision"] == commit != old["clip"]["pins"]["snapshot"]["revision"]
    assert (layers["sd"], layers["ink"]) == (old["sd"], old["ink"])


def test_check_says_drift(locked: Project, hub: Hub) -> None:
    asked = len(hub.requests)
    locked.run("lock", "--check")
    for old, new, word in (
        ("layers: [sd, ink, clip]", "layers: [sd, clip]", "ink"),
        ("root: /webui", "root: /elsewhere", "links"),
        ("name: worker", "name: other", "other"),
    ):
        assert old in _RECIPE
        locked.write({"recipes/worker.yaml": _RECIPE.replace(old, new)})
        locked.run("lock", "--check", check=False).failed(3, "drift", word, "layerbuild lock")
        locked.run("build", check=False).failed(3)
    locked.write({"recipes/worker.yaml": _RECIPE, "layers/all.yaml": _LAYERS.replace("clip@main", "clip@v2")})
    before = locked.lockfile.read_bytes()
    locked.run("lock", "--check", check=False).failed(3, "clip")
    found = locked.run("lock", "--check", "--json", check=False)
    assert (found.code, len(found.json["drift"])) == (3, 1)
    assert locked.lockfile.read_bytes() == before
    assert len(hub.requests) == asked
    # Where the layer is not pinned by a source, but only placed by it, nothing has to be locked anew.
    locked.write({"layers/all.yaml": _LAYERS + "unused: {kind: model, type: vae, source: file:nothing}\n"})
    locked.run("lock", "--check")


def test_build_adds_receipts_and_facts_and_nothing_else(locked: Project) -> None:
    before = locked.lock
    locked.run("build")
    after = locked.lock
    assert before["receipts"] == {} and len(after["receipts"]) == 5
    assert (after["version"], after["layers"], after["unlocked"]) == (before["version"], before["layers"], {})
    for name, facts in before["files"].items():
        assert facts == {k: v for k, v in after["files"][name].items() if k != "addnet"}
    # What the hash cache needs of the Lora, and no digest of the checkpoint that nobody asks for.
    assert [bool(facts.get("addnet")) for facts in after["files"].values()].count(True) == 1
    image, now = before["images"]["worker"], after["images"]["worker"]
    assert now.pop("manifest").startswith("sha256:")
    assert [line.partition("@")[0] for line in now["layers"]] == [line.partition("@")[0] for line in image["layers"]]
    assert [line for line in image["layers"] if line.endswith("@pending")] == ["hash-cache/worker@pending"]
    settled = [(a, b) for a, b in zip(image["layers"], now["layers"], strict=True) if not a.endswith("@pending")]
    assert all(a == b for a, b in settled)
    assert {k: v for k, v in now.items() if k != "layers"} == {k: v for k, v in image.items() if k != "layers"}
    # Neither another build, nor a push, nor a lock has anything to add.
    text = locked.lockfile.read_bytes()
    locked.run("build")
    locked.run("push", "oci:out")
    locked.run("lock")
    locked.run("lock", "--check")
    assert locked.lockfile.read_bytes() == text


@pytest.mark.parametrize(("arguments", "environ"), [(["--frozen"], {}), ([], {"CI": "1"})])
def test_frozen_leaves_the_file_alone(locked: Project, arguments: list[str], environ: dict[str, Any]) -> None:
    before = locked.lockfile.stat()
    locked.run("build", *arguments, env=environ)
    locked.run("push", "oci:out", *arguments, env=environ)
    after = locked.lockfile.stat()
    assert (after.st_mtime_ns, after.st_ino) == (before.st_mtime_ns, before.st_ino)
    locked.run("build", "--no-frozen", env=environ)
    assert locked.lock["receipts"]


def test_keep_going_names_what_is_missing_and_build_refuses_it(project: Project, hub: Hub) -> None:
    hub.add("acme/sd", lfs={"sd.safetensors": _MODEL})
    project.environ["HF_ENDPOINT"] = hub.endpoint
    single = "name: single\nwebui: {root: /webui}\nlayers: [sd]\ntags: [v1]\n"
    project.write({"layers/all.yaml": _LAYERS, "recipes/worker.yaml": _RECIPE, "recipes/single.yaml": single})
    project.run("lock", check=False).failed(1, "ink", "clip", "--keep-going")
    assert not project.lockfile.exists()
    project.run("lock", "--keep-going")
    assert set(project.lock["unlocked"]) == {"ink", "clip"}
    assert set(project.lock["images"]) == {"single"}
    project.run("lock", "--check")
    project.run("build", "single")
    project.run("build", check=False).failed(2, "unlocked", "ink")
    # Once it is there, lock takes it up by itself.
    hub.add("acme/sd", lfs={"sd.safetensors": _MODEL, "ink.safetensors": _LORA})
    hub.add("acme/clip", files={"vocab.json": b"{}"}, lfs={"model.safetensors": _MODEL})
    project.run("lock")
    assert project.lock["unlocked"] == {} and set(project.lock["images"]) == {"single", "worker"}


def test_fetch_happens_once(locked: Project, hub: Hub) -> None:
    locked.run("build")
    total = sum(count for path, count in hub.sent.items() if path.startswith("/lfs/"))
    assert total == len(_MODEL) + len(_LORA) + 2 * 256 * 1024
    asked = len(hub.requests)
    locked.run("push", "oci:out")
    locked.run("build")
    assert len(hub.requests) == asked


def test_a_pin_that_is_not_what_was_declared(project: Project, web: Web) -> None:
    """Whoever changes the lock alone changes nothing unseen, and adds no header that reads the environment."""
    good, evil = (web.route(f"/{name}", _MODEL) for name in ("good", "evil"))
    declared = f"source: '{good}', filename: x.safetensors, sha256: '{sha256(_MODEL)}'"
    layer = f"sd: {{kind: model, type: checkpoint, {declared}}}\n"
    single = "name: single\nwebui: {root: /webui}\nlayers: [sd]\ntags: [v1]\n"
    project.write({"layers/all.yaml": layer, "recipes/single.yaml": single})
    project.run("lock")
    text = project.lockfile.read_text()
    line = next(line for line in text.splitlines() if line.strip().startswith("source: "))
    header = line.replace(line.strip(), "headers: {X-Leak: '${SECRET}'}")
    for changed, words in (
        (text.replace(good, evil), "another source"),
        (text.replace(line, f"{line}\n{header}"), "other mirrors or headers"),
    ):
        assert changed != text
        project.write({"lockfile.yaml": changed})
        for command in (["lock", "--check"], ["build"]):
            project.run(*command, check=False, env={"SECRET": "x"}).failed(3, words)
        project.run("lock")
        assert project.lockfile.read_text() == text
    assert not any("x-leak" in asked.headers for asked in web.requests)


def test_update_takes_no_image(locked: Project) -> None:
    locked.run("lock", "--update", "worker", check=False).failed(2, "no recipe uses a layer or base called 'worker'")
