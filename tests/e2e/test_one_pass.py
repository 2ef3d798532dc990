"""Source -> hash -> destination: each byte is fetched, hashed and sent once, and kept only where that is wanted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from e2e.readers import fetch, layout_blob, layout_manifests, sha256, tags
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import Front
from fixtures.web import Answer, Asked, Web
from layerbuild.model import LARGE

_MODEL = safetensors(BIG, {"a": "b"}, seed=1)
_INK = safetensors(BIG, {"ss_output_name": "ink"}, seed=2)
_RECIPE = "name: worker\nwebui: {root: /webui}\nlayers: [sd, ink]\ntags: [v1]\n"


def _declare(project: Project, web: Web, *, ink: bytes = _INK) -> Project:
    """A checkpoint and a large Lora, which both only the web has; locked without being downloaded."""
    layers = ""
    for name, kind, data in (("sd", "checkpoint", _MODEL), ("ink", "lora", _INK)):
        layers += f"{name}: {{kind: model, type: {kind}, source: '{web.url}/{name}.safetensors', "
        layers += f"sha256: {sha256(data)}, size: {len(data)}}}\n"
    web.route("/sd.safetensors", _MODEL)
    web.route("/ink.safetensors", _INK)
    project.write({"layers/l.yaml": layers, "recipes/r.yaml": _RECIPE}).run("lock")
    web.route("/ink.safetensors", ink)
    return project


@pytest.fixture
def declared(project: Project, web: Web) -> Project:
    return _declare(project, web)


def _at(registry: Front) -> str:
    return f"{registry.host}/{registry.prefix}"


def _whole(web: Web, name: str) -> int:
    """How often the whole of a file was asked for."""
    return len([r for r in web.asked(f"/{name}.safetensors", "GET") if "range" not in r.headers])


def _pulled(registry: Front) -> dict[str, bytes]:
    """The contents of the model layers that the registry has, by their path."""
    prefix = f"{registry.url}/v2/{registry.prefix}/worker"
    layers = json.loads(fetch(f"{prefix}/manifests/v1"))["layers"]
    found = {}
    for layer in layers:
        if layer["size"] >= LARGE:
            tar = fetch(f"{prefix}/blobs/{layer['digest']}")
            assert f"sha256:{sha256(tar)}" == layer["digest"]
            found.update(_files(tar))
    return found


def _files(tar: bytes) -> dict[str, bytes]:
    import io
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        members = [m for m in archive.getmembers() if m.isfile()]
        return {m.name: (archive.extractfile(m) or io.BytesIO()).read() for m in members}


def _expect_both(registry: Front) -> None:
    weights = {f"opt/weights/sha256/{sha256(data)}": data for data in (_MODEL, _INK)}
    assert _pulled(registry) == weights


def test_models_are_fetched_once_and_sent_once_on_the_way(declared: Project, web: Web, registry: Front) -> None:
    declared.run("push", _at(registry))
    assert [_whole(web, name) for name in ("sd", "ink")] == [1, 1]
    assert 2 * BIG < registry.uploaded() < 2 * BIG + 64 * 1024
    # A streamed PATCH for each: nobody knew the digest when it began.
    assert len([r for r in registry.requests("PATCH", "/blobs/uploads/") if r.received > BIG]) == 2
    assert len([size for size in declared.stored_files().values() if size >= LARGE]) == 2
    _expect_both(registry)
    # The hash cache needed the digest behind the Lora's header: it was learnt in the same pass.
    assert _whole(web, "ink") == 1
    assert declared.lock["files"][sha256(_INK)]["addnet"] and "addnet" not in declared.lock["files"][sha256(_MODEL)]


def test_no_store_keeps_nothing_and_makes_the_same_image(
    declared: Project, web: Web, registry: Front, tmp_path: Path
) -> None:
    declared.run("push", _at(registry), "--no-store")
    assert [_whole(web, name) for name in ("sd", "ink")] == [1, 1]
    assert all(size < LARGE for size in declared.stored_files().values()) and declared.leftovers() == []
    _expect_both(registry)
    manifest = declared.lock["images"]["worker"]["manifest"]
    other = {"LAYERBUILD_STORE": str(tmp_path / "other")}
    declared.run("build", env=other)
    assert declared.lock["images"]["worker"]["manifest"] == manifest
    # With receipts, too, another registry's need is met without the disk.
    declared.run("push", f"{_at(registry)}/again", "--no-store")
    assert all(size < LARGE for size in declared.stored_files().values())


def test_no_store_with_receipts_and_an_empty_registry(declared: Project, web: Web, registry: Front) -> None:
    declared.run("build")
    fresh = declared.store.with_name("fresh")
    declared.run("push", _at(registry), "--no-store", env={"LAYERBUILD_STORE": str(fresh)})
    assert [_whole(web, name) for name in ("sd", "ink")] == [2, 2]
    # The digests are known: nothing is hashed first, and no PATCH is needed.
    assert registry.requests("PATCH") == []
    assert all(path.stat().st_size < LARGE for path in (fresh / "files").glob("*/*"))
    _expect_both(registry)


@pytest.mark.parametrize("options", [[], ["--no-store"]], ids=["store", "no store"])
def test_bytes_that_are_not_the_pinned_ones_cancel_the_upload(
    project: Project, web: Web, registry: Front, options: list[str]
) -> None:
    wrong = _INK[:-1] + bytes([_INK[-1] ^ 1])
    _declare(project, web, ink=wrong)
    found = project.run("push", _at(registry), *options, check=False)
    found.failed(1, "ink", "not what was pinned", sha256(_INK))
    # Every byte was on its way, and the registry was told to forget them.
    assert len(registry.requests("DELETE", "/blobs/uploads/")) == 1
    assert tags(registry.root, f"{registry.prefix}/worker") == []
    planned = {layer["layer"]: layer["digest"] for layer in project.run("plan", "--json").json["layers"]}
    assert planned["weights sd"] and planned["weights ink"] is None
    assert sha256(wrong) not in project.stored_files() and project.leftovers() == []


@pytest.mark.parametrize("options", [[], ["--no-store"]], ids=["store", "no store"])
def test_registry_that_wants_the_digest_first(declared: Project, web: Web, registry: Front, options: list[str]) -> None:
    registry.rule("PATCH", "/blobs/uploads/", status=405, times=99)
    found = declared.run("push", _at(registry), *options)
    _expect_both(registry)
    assert ("through the store first" in found.err) == bool(options)
    if options:
        assert len([size for size in declared.stored_files().values() if size >= LARGE]) == 2
    # The first connection breaks off; what is fetched afterwards is fetched once.
    assert max(_whole(web, name) for name in ("sd", "ink")) <= 2


def test_broken_upload_is_tried_again(declared: Project, web: Web, registry: Front) -> None:
    registry.rule("PATCH", "/blobs/uploads/", cut=5_000_000, times=1)
    declared.run("push", _at(registry))
    _expect_both(registry)
    assert max(_whole(web, name) for name in ("sd", "ink")) <= 2


def test_one_image_whose_source_is_gone_does_not_stop_the_others(declared: Project, web: Web, registry: Front) -> None:
    declared.write({"recipes/plain.yaml": _RECIPE.replace("worker", "plain").replace(", ink", "")}).run("lock")
    web.route("/ink.safetensors", Answer(status=404))
    found = declared.run("push", _at(registry), "--json", check=False)
    found.failed(1, "1 of 2 images failed", "worker", "ink")
    assert [image["name"] for image in found.json["images"]] == ["plain"]
    assert [image["name"] for image in found.json["failed"]] == ["worker"]
    assert tags(registry.root, f"{registry.prefix}/plain") == ["v1"]
    assert tags(registry.root, f"{registry.prefix}/worker") == []
    # What was learnt of the good image stays; the other one goes on from here.
    assert declared.lock["images"]["plain"]["manifest"]
    web.route("/ink.safetensors", _INK)
    declared.run("push", _at(registry))
    assert tags(registry.root, f"{registry.prefix}/worker") == ["v1"]
    assert _whole(web, "sd") == 1


def test_processes_that_want_the_same_share_one_download(declared: Project, web: Web) -> None:
    with ThreadPoolExecutor() as pool:
        runs = list(pool.map(lambda _: declared.run("build", "--frozen"), range(3)))
    assert [run.code for run in runs] == [0, 0, 0]
    assert [_whole(web, name) for name in ("sd", "ink")] == [1, 1]
    assert declared.leftovers() == [] and list((declared.store / "fetching").iterdir()) == []


def _expect_no_half_image(layout: Path) -> None:
    """Whatever the index names is whole."""
    if (layout / "index.json").exists():
        for manifest in layout_manifests(layout).values():
            for descriptor in [manifest["config"], *manifest["layers"]]:
                assert len(layout_blob(layout, descriptor["digest"])) == descriptor["size"]


def test_killed_at_any_moment_the_next_run_goes_on(declared: Project, web: Web) -> None:
    def slow(asked: Asked) -> Answer:
        time.sleep(0.05)
        return Answer(body=_MODEL if "sd" in asked.path else _INK)

    web._routes.clear()
    web.handle("/", slow)
    for moment in (0.3, 0.45, 0.6, 0.75, 0.9):
        process = subprocess.Popen(
            [sys.executable, "-m", "layerbuild", "push", "oci:out"],
            cwd=declared.root,
            env=declared.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moment)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        _expect_no_half_image(declared.root / "out")
    # Its holder is dead, so nobody waits for what it was fetching.
    declared.run("push", "oci:out")
    declared.run("push", "oci:again", env={"LAYERBUILD_STORE": str(declared.store.with_name("fresh"))})
    assert (declared.root / "out/index.json").read_bytes() == (declared.root / "again/index.json").read_bytes()
