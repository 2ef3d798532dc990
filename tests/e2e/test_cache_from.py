"""Layers taken over from images that somebody pushed, and an attacker who would like to have his taken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from e2e.readers import fetch, layout_manifests
from fixtures.forgery import DIFF_ID, KEY, Forged, push_index
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import Front
from layerbuild.model import Entry
from layerbuild.tarstream import headers

_LAYERS = """
sd: {kind: model, type: checkpoint, source: file:sd.safetensors}
ink: {kind: model, type: lora, source: file:ink.safetensors}
start: {kind: files, files: {/opt/w/start.sh: {content: "#!/bin/sh\\n", mode: "0755"}, /opt/w/data: file:data}}
"""
_RECIPE = "name: one\nwebui: {root: /webui}\nlayers: [sd, ink, start]\ntags: [v1]\n"
_SOURCES = ("sd.safetensors", "ink.safetensors", "data")
_TITLES = ("weights sd", "weights ink", "links one", "hash-cache one", "files start")


def _fill(project: Project) -> Project:
    return project.write(
        {
            "layers/l.yaml": _LAYERS,
            "recipes/r.yaml": _RECIPE,
            "sd.safetensors": safetensors(BIG, {"a": "b"}),
            "ink.safetensors": safetensors(3000, {"ss_output_name": "ink"}),
            "data": b"data " * 1000,
        }
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project that made its image by its own hands, in the layout `honest`; nobody touches it."""
    directory = tmp_path_factory.mktemp("made")
    project = _fill(Project(directory / "project", directory / "store"))
    project.run("lock")
    project.run("push", "oci:honest")
    return project


@pytest.fixture
def project(made: Project, tmp_path: Path) -> Project:
    """A copy of it."""
    return made.copy(tmp_path / "project")


@pytest.fixture
def honest(project: Project) -> Forged:
    """Its image."""
    return Forged.of(project.root / "honest", "one:v1")


@pytest.fixture
def victim(honest: Forged, project: Project, tmp_path: Path) -> Project:
    """The same project on a machine that has made nothing yet."""
    return _fresh(project, tmp_path / "victim")


def _fresh(project: Project, root: Path, environ: dict[str, str] | None = None) -> Project:
    """The project, with its lock but without receipts, on another machine."""
    other = _fill(Project(root, root.with_name(f"{root.name}-store"), environ))
    shutil.copy(project.lockfile, other.lockfile)

    def forget(lock: Any) -> None:
        lock["receipts"] = {}
        lock["images"]["one"].pop("manifest", None)

    other.edit_lock(forget)
    return other


def _without_sources(project: Project) -> Project:
    for name in _SOURCES:
        (project.root / name).unlink()
    return project


def _evil(honest: Forged) -> Forged:
    """Every layer's key, claimed for something else."""
    sd, ink, links = (honest.tar(title) for title in ("weights sd", "weights ink", "links one"))
    mode = links.rindex(b"0000777\0")
    start = honest.tar("files start")
    return (
        honest.evil("weights sd", sd[:-5000] + b"evil" + sd[-4996:])
        .evil("weights ink", ink[:-1024] + _extra_entry() + bytes(1024))
        .evil("links one", links[:mode] + b"0000755\0" + links[mode + 8 :])
        .swapped("files start", _bomb(start))
        .annotated("hash-cache one", encoding=None)
    )


def _extra_entry() -> bytes:
    return headers(Entry(path="etc/ld.so.preload", type="file", mode=0o644), 512) + b"/opt/evil.so".ljust(512, b"\n")


def _bomb(tar: bytes) -> bytes:
    """The honest tar, and 256 MiB of zeros behind it, in some KiB."""
    stream = zstandard.ZstdCompressor(level=9).compressobj()
    parts = [stream.compress(tar), *(stream.compress(bytes(1 << 20)) for _ in range(256)), stream.flush()]
    packed = b"".join(parts)
    assert len(packed) < 2 * len(tar) + 64 * 1024
    return packed


def _at(registry: Front, name: str) -> str:
    return f"{registry.host}/{registry.prefix}/{name}"


def _is_right(project: Project, registry: Front, honest: Forged) -> None:
    """The image in the registry is the one that the project makes, byte for byte."""
    manifest = json.loads(fetch(f"{registry.url}/v2/{registry.prefix}/team/one/manifests/v1"))
    assert manifest == layout_manifests(project.root / "honest")["one:v1"]
    for layer in manifest["layers"]:
        path = f"{registry.root}/docker/registry/v2/blobs/sha256/{layer['digest'][7:9]}/{layer['digest'][7:]}/data"
        assert Path(path).read_bytes() == honest.blobs[layer["digest"]]


@pytest.mark.parametrize("where", ["a sibling repository", "the tag that is pushed to"])
def test_an_attacker_smuggles_nothing_in(
    victim: Project, project: Project, registry: Front, honest: Forged, where: str
) -> None:
    name = "evil" if where.startswith("a sibling") else "team/one"
    evil = _evil(honest)
    evil.push(f"{registry.host}/{registry.prefix}", name, "v1")
    assert all(a["digest"] != b["digest"] for a, b in zip(evil.layers[:3], honest.layers[:3], strict=True))
    # Who asks nobody believes nobody, whatever lies around where he pushes.
    victim.run("push", _at(registry, "team"))
    _is_right(project, registry, honest)
    # Who names the image has it read, and every lie refused; what is built is right.
    evil.push(f"{registry.host}/{registry.prefix}", name, "v1")
    other = _fresh(project, victim.root.with_name("other"))
    reference = f"{_at(registry, name)}:v1"
    found = other.run("push", _at(registry, "team"), "--cache-from", reference, "--json")
    assert found.json["cache"]["adopted"] == []
    reasons = {refused["layer"]: refused["reason"] for refused in found.json["cache"]["refused"]}
    assert set(reasons) == set(_TITLES)
    assert "has the digest" in reasons["weights sd"] and "opt/weights/sha256/" in reasons["weights sd"]
    assert "are pinned" in reasons["weights ink"]
    assert "webui" in reasons["links one"] and "another header" in reasons["links one"]
    assert "goes on after" in reasons["files start"] or "are pinned" in reasons["files start"]
    assert reasons["hash-cache one"] == "it does not say what packed it"
    for title in _TITLES:
        assert f"warning: {reference} does not hold {title}" in found.err
    _is_right(project, registry, honest)
    receipts = other.lock["receipts"]
    assert receipts == project.lock["receipts"] and len(receipts) == len(_TITLES)


def test_a_lie_that_was_read_costs_no_more_than_the_layer(victim: Project, registry: Front, honest: Forged) -> None:
    evil = honest.swapped("files start", _bomb(honest.tar("files start")))
    evil.push(f"{registry.host}/{registry.prefix}", "evil", "v1")
    registry.records.clear()
    found = victim.run("build", "--cache-from", f"{_at(registry, 'evil')}:v1", "--json")
    (refused,) = found.json["cache"]["refused"]
    assert refused["layer"] == "files start" and len(found.json["cache"]["adopted"]) == 4
    assert sum(r.sent for r in registry.requests("GET", "/blobs/")) <= sum(layer["size"] for layer in evil.layers)


@pytest.mark.parametrize("kind", ["registry", "layout"])
def test_an_honest_image_spares_the_source(
    victim: Project, project: Project, registry: Front, honest: Forged, kind: str
) -> None:
    if kind == "registry":
        project.run("push", _at(registry, "team"))
        reference = f"{_at(registry, 'team')}/one:v1"
    else:
        shutil.move(project.root / "honest", victim.root / "honest")
        reference = "oci:honest:one:v1"
    blind = _fresh(project, victim.root.with_name("blind"))
    _without_sources(blind).run("build", check=False).failed(1)
    registry.records.clear()
    result = _without_sources(victim).run("build", "--cache-from", reference)
    assert "5 layers taken over after 16.0 MiB were checked, 0 layers refused" in result.out
    assert victim.stored_files() == {}
    assert victim.lock["receipts"] == project.lock["receipts"]
    assert victim.lock["images"] == project.lock["images"]
    if kind == "registry":
        # Each blob was read once, and another repository takes them all from there.
        assert len(registry.requests("GET", "/blobs/")) == 5
        registry.records.clear()
        report = victim.run("push", _at(registry, "release"), "--json").json
        assert report["mounted_bytes"] == sum(layer["size"] for layer in honest.layers)
        assert registry.requests("GET", "/blobs/") == []
    # A second run has receipts, and reads nothing.
    registry.records.clear()
    again = victim.run("build", "--cache-from", reference, "--json").json
    assert again["cache"] == {"adopted": [], "refused": [], "read_bytes": 0} and not again["lock_changed"]
    assert registry.requests("GET", "/blobs/") == []


def test_push_takes_over_and_mounts(victim: Project, project: Project, registry: Front) -> None:
    project.run("push", _at(registry, "team"))
    registry.records.clear()
    reference = f"{_at(registry, 'team')}/one:v1"
    report = _without_sources(victim).run("push", _at(registry, "mine"), "--cache-from", reference, "--json").json
    assert len(report["cache"]["adopted"]) == 5 and report["mounted_bytes"] > BIG
    # One reading of each blob to check it, and not a byte sent but the manifest.
    assert len(registry.requests("GET", "/blobs/")) == 5 and report["uploaded_bytes"] < 4096


def test_trust_reads_nothing_and_says_whom_it_believed(
    victim: Project, project: Project, registry: Front, honest: Forged
) -> None:
    sd = honest.tar("weights sd")
    # What nobody looks at can be anything, as long as it has the right shape: that is what the option says.
    evil = honest.evil("weights sd", sd[:-5000] + b"evil" + sd[-4996:])
    evil = evil.evil("weights ink", honest.tar("weights ink") + bytes(512))
    evil.push(f"{registry.host}/{registry.prefix}", "evil", "v1")
    reference = f"{_at(registry, 'evil')}:v1"
    result = victim.run("build", "--cache-from", reference, "--trust-receipts", "--json")
    assert registry.requests("GET", "/blobs/") == []
    cache = result.json["cache"]
    assert {a["layer"] for a in cache["adopted"]} == set(_TITLES) - {"weights ink"}
    assert all(a["trusted"] and a["from"] == reference for a in cache["adopted"]) and cache["read_bytes"] == 0
    assert [r["layer"] for r in cache["refused"]] == ["weights ink"]
    key = evil.layers[evil.at("weights sd")]["annotations"][KEY]
    assert victim.lock["receipts"][key]["diff_id"] == evil.layers[evil.at("weights sd")]["digest"]
    other = _fresh(project, victim.root.with_name("other"))
    out = other.run("build", "--cache-from", reference, "--trust-receipts").out
    assert "trusted unread: files start (" in out and out.count(f" from {reference}") == 4
    # And how to find out.
    found = other.run("build", "--check", check=False).failed(1, "not reproducible", "weights sd")
    assert found.out.count("  different") == 1


def test_an_honest_image_behind_a_dishonest_one(victim: Project, registry: Front, honest: Forged) -> None:
    _evil(honest).push(f"{registry.host}/{registry.prefix}", "evil", "v1")
    honest.push(f"{registry.host}/{registry.prefix}", "good", "v1")
    references = ["--cache-from", f"{_at(registry, 'evil')}:v1", "--cache-from", f"{_at(registry, 'good')}:v1"]
    cache = _without_sources(victim).run("build", *references, "--json").json["cache"]
    assert len(cache["refused"]) == len(cache["adopted"]) == 5
    assert {a["from"] for a in cache["adopted"]} == {references[3]}


def test_claims_that_contradict_a_receipt(victim: Project, project: Project, registry: Front, honest: Forged) -> None:
    sd = honest.tar("weights sd")
    evil = honest.evil("weights sd", sd[:-5000] + b"evil" + sd[-4996:])
    evil.push(f"{registry.host}/{registry.prefix}", "evil", "v1")
    registry.records.clear()
    before = project.lockfile.read_bytes()
    options = ("--cache-from", f"{_at(registry, 'evil')}:v1", "--trust-receipts", "--json")
    cache = project.run("build", *options).json["cache"]
    (refused,) = cache["refused"]
    assert refused["layer"] == "weights sd" and evil.layers[0]["annotations"][DIFF_ID] not in refused["reason"]
    assert honest.layers[0]["digest"] in refused["reason"] and cache["adopted"] == []
    assert project.lockfile.read_bytes() == before and registry.requests("GET", "/blobs/") == []


def _gone(registry: Front, victim: Project) -> str:
    return f"{_at(registry, 'nobody')}:v1"


def _no_layout(registry: Front, victim: Project) -> str:
    return "oci:nowhere:one:v1"


def _an_index_of_too_many(registry: Front, victim: Project) -> str:
    images = [Forged(config=b"{}", layers=(), blobs={}).configured(lambda c, n=n: c.update(n=n)) for n in range(33)]
    push_index(f"{registry.host}/{registry.prefix}", "many", "v1", images)
    return f"{_at(registry, 'many')}:v1"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (_gone, ("does not exist",)),
        (_no_layout, ("there is no OCI image layout",)),
        (_an_index_of_too_many, ("makes no sense", "33 images")),
    ],
)
def test_a_reference_that_is_of_no_use_is_an_error(
    victim: Project, registry: Front, name: Callable[[Front, Project], str], words: tuple[str, ...]
) -> None:
    before = victim.lockfile.read_bytes()
    victim.run("build", "--cache-from", name(registry, victim), check=False).failed(1, *words)
    assert victim.lockfile.read_bytes() == before


def test_command_lines_that_make_no_sense(victim: Project) -> None:
    victim.run("build", "--trust-receipts", check=False).failed(2, "nobody is named")
    victim.run("build", "--check", "--cache-from", "oci:x:y", check=False).failed(2, "--check believes nobody")
    victim.run("build", "--cache-from", "https://x/y", check=False).failed(2, "not the name of an image")
