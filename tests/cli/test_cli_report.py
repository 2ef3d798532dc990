"""`layerbuild report`: what it knows without a network, what it says of the rest, and what it leaves on disk."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fixtures.inprocess import Run
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import Front, make_image
from fixtures.several import Several
from layerbuild import http
from layerbuild.registry.client import RegistryClient

_TAR = "application/vnd.oci.image.layer.v1.tar"
_LAYERS = """
sd: {kind: model, type: checkpoint, source: file:sd.safetensors, licence: MIT}
worker: {kind: files, files: {/opt/x: {content: hi}}}
"""
_RECIPE = "name: one\nwebui: {root: /webui}\nlayers: [sd, worker]\n"


def data_of(page: Path) -> Any:
    """What a page is drawn from."""
    found = re.findall(r'<script type="application/json" id="data">(.*)</script>', page.read_text(encoding="utf-8"))
    return json.loads(found[0])


def sizes(report: Any) -> dict[str, int | None]:
    return {title: layer["size"] for layer in report["layers"] for title in layer["titles"]}


@pytest.fixture
def locked(project: Project) -> Project:
    """An image whose layers nobody has made."""
    files = {"layers/l.yaml": _LAYERS, "recipes/r.yaml": _RECIPE, "sd.safetensors": safetensors(BIG, {"a": "b"})}
    project.write(files).run("lock")
    return project


def test_the_page_and_the_json_say_the_same(several: Several) -> None:
    done = several.project.run("report", "--html", "r.html", "--json")
    page = several.project.root / "r.html"
    assert done.json == data_of(page)
    assert page.stat().st_mode & 0o777 == 0o644
    told = several.project.run("report", "--html", "r.html").out
    assert told.startswith("wrote r.html: 3 images, 9 layers\n") and "are stored as" in told
    assert [p.name for p in several.project.root.iterdir() if p.name.startswith((".", "r.html"))] == ["r.html"]


def test_some_images_only(several: Several) -> None:
    report = several.project.run("report", "a", "c", "--json").json
    assert [image["name"] for image in report["images"]] == ["a", "c"]
    several.project.run("report", "--json", "nobody", check=False).failed(2, "nobody")


def test_audits_say_what_the_audit_says(several: Several) -> None:
    report = several.project.run("report", "a", "--json").json
    (alone,) = several.project.run("audit", "a", "--json", check=False).json["images"]
    audit = report["images"][0]["audit"]
    assert [report["findings"][i]["id"] for i in audit["findings"]] == [f["id"] for f in alone["findings"]]
    assert audit["total"] == alone["total"] and (audit["state"] == "clean") == alone["clean"]
    left_out = several.project.run("report", "a", "--json", "--no-audit").json["images"][0]["audit"]
    assert left_out["state"] == "unknown" and "left out" in left_out["reason"]


def test_before_anything_was_made(locked: Project) -> None:
    report = locked.run("report", "--json").json
    found = sizes(report)
    assert (found["weights sd"] or 0) > BIG and found["files worker"] is None
    assert [note["command"] for note in report["notes"]] == ["layerbuild build"]
    told = locked.run("report", "--html", "r.html").out
    assert "were never made" in told and "'layerbuild build' tells" in told
    locked.run("build")
    after = locked.run("report", "--json").json
    assert after["notes"] == [] and sizes(after)["weights sd"] == found["weights sd"]
    assert None not in sizes(after).values()


def test_facts_that_are_pending_are_told(locked: Project) -> None:
    locked.edit_lock(lambda lock: lock.pop("files"))
    locked.edit_lock(lambda lock: lock["images"]["one"]["layers"].remove(_hash_cache(lock)))
    locked.edit_lock(lambda lock: lock["images"]["one"]["layers"].insert(-1, "hash-cache/one@pending"))
    (image,) = locked.run("report", "--json").json["images"]
    assert image["audit"]["state"] == "unknown" and "waits for facts" in image["audit"]["reason"]
    assert "layerbuild build one" in image["audit"]["hint"]


def _hash_cache(lock: Any) -> str:
    (line,) = [line for line in lock["images"]["one"]["layers"] if line.startswith("hash-cache/")]
    return str(line)


@pytest.fixture
def based(project: Project, registry: Front, run: Run) -> tuple[Project, dict[str, int]]:
    """An image that was built on a base of a registry, and the sizes of the base's layers by digest."""
    base = make_image([(_TAR, bytes(10240)), (_TAR, bytes(20480))])
    client = RegistryClient(registry.host, client=http.Client(), environ={})
    for blob in base.blobs:
        client.upload_blob(f"{registry.prefix}/base", blob, advance=lambda amount: None)
    client.put_manifest(f"{registry.prefix}/base", "1", base.media_type, base.manifest)
    recipe = f"{_RECIPE}base: {registry.host}/{registry.prefix}/base:1\n"
    files = {"layers/l.yaml": _LAYERS, "recipes/r.yaml": recipe, "sd.safetensors": safetensors(1000, {"a": "b"})}
    project.write(files)
    assert run(project, "lock").code == 0
    layers = json.loads(base.manifest)["layers"]
    return project, {layer["digest"]: layer["size"] for layer in layers}


def _forget(project: Project) -> None:
    """Has the store lose the documents of bases."""
    for path in (project.store / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()


def test_a_registry_is_asked_only_with_online(based: tuple[Project, dict[str, int]], registry: Front, run: Run) -> None:
    project, below = based
    _forget(project)
    asked = len(registry.requests("GET"))
    report = run(project, "report", "--json").json
    (image,) = report["images"]
    assert len(registry.requests("GET")) == asked
    assert not image["base_known"] and image["audit"]["state"] == "unknown" and "network" in image["audit"]["reason"]
    assert any(note["command"].startswith("layerbuild report --online") for note in report["notes"])
    report = run(project, "report", "--json", "--online").json
    (image,) = report["images"]
    assert len(registry.requests("GET")) > asked and image["base_known"] and image["audit"]["state"] != "unknown"
    assert {i["digest"]: i["size"] for i in report["layers"] if i["kind"] == "base"} == below
    # Now this machine knows them.
    asked = len(registry.requests("GET"))
    report = run(project, "report", "--json").json
    assert len(registry.requests("GET")) == asked and report["images"][0]["base_known"]
    assert report["images"][0]["audit"]["state"] == "unknown"


def test_a_base_that_is_gone_is_no_failure(based: tuple[Project, dict[str, int]], registry: Front, run: Run) -> None:
    project, _ = based
    _forget(project)
    registry.rule("GET", "/manifests/", 404, times=9)
    done = run(project, "report", "--json", "--online")
    (image,) = done.json["images"]
    assert not image["base_known"] and image["audit"]["state"] == "unknown" and "does not exist" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, ["--html FILE"]),
        (["--html", "recipes"], 2, ["recipes is not a file"]),
        (["--html", "no/such/r.html"], 1, ["no/such/r.html cannot be written"]),
    ],
)
def test_what_cannot_be_done(locked: Project, arguments: list[str], code: int, words: list[str]) -> None:
    locked.run("report", *arguments, check=False).failed(code, *words)


def test_a_lock_that_is_another_is_refused(locked: Project) -> None:
    locked.write({"recipes/r.yaml": _RECIPE.replace("sd, worker", "worker, sd, worker")})
    locked.run("report", "--html", "r.html", check=False).failed(2, "twice")
    locked.write({"recipes/r.yaml": f"{_RECIPE}platform: linux/arm64\n"})
    locked.run("report", "--html", "r.html", check=False).failed(3, "linux/arm64")
    assert not (locked.root / "r.html").exists()


def test_the_same_lock_gives_the_same_page(several: Several) -> None:
    pages = []
    for name in ("one.html", "two.html"):
        several.project.run(
            "report", "--html", name, env={"PYTHONHASHSEED": name[0].replace("o", "1").replace("t", "2")}
        )
        pages.append(hashlib.sha256((several.project.root / name).read_bytes()).hexdigest())
    assert pages[0] == pages[1]
    text = (several.project.root / "one.html").read_text(encoding="utf-8")
    assert str(several.project.root) not in text and str(several.project.home) not in text
