"""`verify`: pushed images against the lock, in a real registry and in layouts, sound and damaged in every way."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from e2e.readers import fetch
from fixtures.forgery import Forged
from fixtures.project import BIG, Project, Result, safetensors
from fixtures.registry import Front, MemoryBlob, make_image
from test_baseimage import GZIP, tar

_LAYERS = """
sd: {kind: model, type: checkpoint, source: file:sd.safetensors}
ink: {kind: model, type: lora, source: file:ink.safetensors}
start: {kind: files, files: {/opt/w/start.sh: {content: "#!/bin/sh\\n", mode: "0755"}, /opt/w/data: file:data}}
"""
_RECIPE = "name: one\nwebui: {root: /webui}\nlayers: [sd, ink, start]\nconfig: {cmd: [/opt/w/start.sh]}\ntags: [v1]\n"
_TITLES = ["weights sd", "weights ink", "links one", "hash-cache one", "files start"]


def _fill(project: Project, recipe: str = _RECIPE) -> Project:
    project.write(
        {
            "layers/l.yaml": _LAYERS,
            "recipes/r.yaml": recipe,
            "sd.safetensors": safetensors(BIG, {"a": "b"}),
            "ink.safetensors": safetensors(3000, {"ss_output_name": "ink"}),
            "data": b"data " * 1000,
        }
    )
    project.run("lock")
    return project


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose image lies in the layout `out`; nobody touches it."""
    directory = tmp_path_factory.mktemp("made")
    project = _fill(Project(directory / "project", directory / "store"))
    project.run("push", "oci:out")
    return project


@pytest.fixture
def pushed(made: Project, tmp_path: Path) -> Project:
    """A copy of it."""
    return made.copy(tmp_path / "pushed")


@pytest.fixture
def honest(pushed: Project) -> Forged:
    """That image, to be changed."""
    return Forged.of(pushed.root / "out", "one:v1")


def _verify(project: Project, *arguments: str) -> Result:
    """A run that finds something."""
    return project.run("verify", *arguments, "--json", check=False).failed(1, "is not what the lock makes of image one")


def _findings(result: Result) -> list[str]:
    value = result.json
    assert value["ok"] is (not value["findings"])
    found: list[str] = value["findings"]
    return found


def _results(result: Result) -> dict[str, str]:
    return {row["layer"]: row["result"] for row in result.json["layers"]}


def _state(project: Project) -> Any:
    """What verify must leave alone."""
    blobs = sorted(path.name for path in (project.store / "blobs").glob("*/*"))
    return project.lockfile.read_bytes(), blobs, project.stored_files(), project.leftovers()


def _stored(registry: Front, digest: str) -> Path:
    return registry.root / "docker/registry/v2/blobs/sha256" / digest[7:9] / digest[7:] / "data"


class TestSound:
    def test_registry_quick_and_deep(self, pushed: Project, registry: Front) -> None:
        where = f"{registry.host}/{registry.prefix}"
        pushed.run("push", where)
        manifest = json.loads(fetch(f"{registry.url}/v2/{registry.prefix}/one/manifests/v1"))
        before = _state(pushed)
        registry.records.clear()
        found = pushed.run("verify", f"{where}/one:v1")
        lines = found.out.splitlines()
        assert lines[0].split() == ["LAYER", "SIZE", "DIGEST", "RESULT"]
        assert [line.rpartition("  ")[2] for line in lines[1:6]] == ["same"] * 5
        assert all(len(line) <= 80 for line in lines[:6])
        assert "is what the lock makes of image one" in lines[6] and "no layer read" in lines[6]
        # One question for each blob; of bytes only manifest and config.
        assert len(registry.requests("HEAD", "/blobs/")) == 6
        (read,) = registry.requests("GET", "/blobs/")
        assert read.path.endswith(manifest["config"]["digest"])
        deep = pushed.run("verify", "--deep", f"{where}/one:v1", "--json").json
        total = sum(layer["size"] for layer in manifest["layers"]) + manifest["config"]["size"]
        assert deep["ok"] and deep["read_bytes"] == total and deep["image"] == "one"
        assert [(row["layer"], row["result"]) for row in deep["layers"]] == [(title, "same") for title in _TITLES]
        assert _state(pushed) == before

    def test_layout_by_name_and_by_digest(self, pushed: Project) -> None:
        for reference in ("oci:out:one:v1", f"oci:out@{pushed.lock['images']['one']['manifest']}"):
            for options in ((), ("--deep",)):
                value = pushed.run("verify", reference, *options, "--json").json
                assert value["ok"] and set(_results(Result(code=0, out=json.dumps(value), err="")).values()) == {"same"}
                assert value["digest"] == pushed.lock["images"]["one"]["manifest"]

    def test_another_machine_has_the_lock_alone(self, pushed: Project, tmp_path: Path) -> None:
        other = Project(tmp_path / "other", tmp_path / "other-store")
        other.write({"layers/l.yaml": _LAYERS, "recipes/r.yaml": _RECIPE})
        shutil.copy(pushed.lockfile, other.lockfile)
        shutil.copytree(pushed.root / "out", other.root / "out")
        # Not one file of the source is here, and every byte is checked all the same.
        assert other.run("verify", "oci:out:one:v1", "--deep", "--json").json["ok"]
        assert other.stored_files() == {}

    def test_on_a_base(self, project: Project, registry: Front) -> None:
        below = make_image([("application/vnd.oci.image.layer.v1.tar", tar(("etc", "d"))), _gzipped(), _gzipped()])
        config = json.loads(below.blobs[0].data)
        config["rootfs"]["diff_ids"][1:] = [MemoryBlob(tar(("srv", "d"))).digest] * 2
        base = Forged(
            config=json.dumps(config).encode(),
            layers=tuple(json.loads(below.manifest)["layers"]),
            blobs={blob.digest: blob.data for blob in below.blobs},
        )
        base.push(f"{registry.host}/{registry.prefix}", "base", "1")
        _fill(project, _RECIPE + f"base: {registry.host}/{registry.prefix}/base:1\n")
        project.run("push", f"{registry.host}/{registry.prefix}")
        reference = f"{registry.host}/{registry.prefix}/one:v1"
        for options in ((), ("--deep",)):
            rows = project.run("verify", reference, *options, "--json").json["layers"]
            assert [row["layer"].partition(" ")[0] for row in rows[:3]] == ["base"] * 3
            assert {row["result"] for row in rows} == {"same"} and len(rows) == 8
        # A base's layer that unpacks to something else than its config says: only reading tells.
        config["rootfs"]["diff_ids"][2] = f"sha256:{'0' * 64}"
        liar = replace(base, config=json.dumps(config).encode())
        liar.push(f"{registry.host}/{registry.prefix}", "base", "1")
        project.run("lock", "--update", f"{registry.host}/{registry.prefix}/base:1")
        project.run("push", f"{registry.host}/{registry.prefix}")
        project.run("verify", reference)
        found = _verify(project, reference, "--deep")
        unpacked = f"unpacks to {MemoryBlob(tar(('srv', 'd'))).digest}"
        assert len(_findings(found)) == 2 and all(unpacked in finding for finding in _findings(found))


def _gzipped() -> tuple[str, bytes]:
    return GZIP, gzip.compress(tar(("srv", "d")), mtime=0)


class TestDamaged:
    """In the storage of a real registry."""

    @pytest.fixture
    def where(self, pushed: Project, registry: Front) -> str:
        pushed.run("push", f"{registry.host}/{registry.prefix}")
        return f"{registry.host}/{registry.prefix}/one:v1"

    @pytest.fixture
    def blob(self, honest: Forged, registry: Front) -> Any:
        """Files of layers; the registry is shared, so they are put back."""
        before: dict[Path, bytes] = {}

        def path(title: str) -> Path:
            file = _stored(registry, honest.layers[honest.at(title)]["digest"])
            before[file] = file.read_bytes()
            return file

        yield path
        for file, data in before.items():
            file.write_bytes(data)

    def test_bytes_that_changed_are_seen_by_reading_only(
        self, pushed: Project, where: str, blob: Callable[[str], Path]
    ) -> None:
        for title in ("weights sd", "files start"):
            data = blob(title).read_bytes()
            middle = len(data) // 2
            blob(title).write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
        pushed.run("verify", where)
        found = _verify(pushed, where, "--deep")
        assert {k for k, v in _results(found).items() if v != "same"} == {"weights sd", "files start"}
        findings = _findings(found)
        assert len(findings) == 2 and "opt/weights/sha256/" in findings[0] and "has the digest" in findings[0]
        assert findings[1].startswith("files start: ")

    def test_cut_and_lost_blobs_are_seen_without_reading(
        self, pushed: Project, where: str, blob: Callable[[str], Path]
    ) -> None:
        file = blob("weights sd")
        file.write_bytes(file.read_bytes()[:-512])
        blob("files start").unlink()
        for options in ((), ("--deep",)):
            found = _verify(pushed, where, *options)
            assert {k: v for k, v in _results(found).items() if v != "same"} == {
                "weights sd": "gone",
                "files start": "gone",
            }
            findings = _findings(found)
            assert len(findings) == 2 and "bytes there" in findings[0] and "is not there" in findings[1]

    def test_config_that_is_gone_or_damaged(self, pushed: Project, where: str, registry: Front, honest: Forged) -> None:
        file = _stored(registry, MemoryBlob(honest.config).digest)
        data = file.read_bytes()
        file.write_bytes(b"x" + data[1:])
        findings = _findings(_verify(pushed, where))
        assert len(findings) == 1 and findings[0].startswith("its config: ") and "damaged" in findings[0]
        file.unlink()
        findings = _findings(_verify(pushed, where))
        assert len(findings) == 1 and "its config sha256:" in findings[0] and "is not there" in findings[0]

    def test_registry_in_trouble_is_no_finding(self, pushed: Project, where: str, registry: Front) -> None:
        registry.rule("HEAD", "/blobs/", 403, times=99)
        found = pushed.run("verify", where, check=False).failed(1, "does not allow us")
        assert "is not what the lock makes" not in found.err


class TestOther:
    """Images that are whole, and others than the lock's."""

    def _seen(self, pushed: Project, forged: Forged, *options: str) -> Result:
        forged.push("oci:evil", "one", "v1", directory=pushed.root)
        return _verify(pushed, "oci:evil:one:v1", *options)

    def test_manifest_alone(self, pushed: Project, honest: Forged) -> None:
        found = self._seen(pushed, honest)
        assert len(_findings(found)) == 1 and "its manifest is sha256:" in _findings(found)[0]
        assert set(_results(found).values()) == {"same"}

    @pytest.mark.parametrize("deep", [(), ("--deep",)])
    def test_layer_that_is_another(self, pushed: Project, honest: Forged, deep: tuple[str, ...]) -> None:
        links = honest.tar("links one")
        mode = links.rindex(b"0000777\0")
        evil = honest.evil("links one", links[:mode] + b"0000755\0" + links[mode + 8 :])
        found = self._seen(pushed, evil, *deep)
        assert {k for k, v in _results(found).items() if v == "different"} == {"links one"}
        text = "\n".join(_findings(found))
        assert "links one is sha256:" in text and "its receipt says" in text
        # Reading names what differs.
        assert ("the entry webui/" in text) is bool(deep)

    def test_missing_extra_and_moved_layers(self, pushed: Project, honest: Forged) -> None:
        extra = honest.more("files start", tar(("etc", "d")))
        stranger = {**extra.layers[-1], "annotations": {}, "mediaType": "application/vnd.oci.image.layer.v1.tar"}
        changed = replace(extra, layers=(*extra.layers[:-1], stranger)).without("weights ink")
        layers = changed.layers
        moved = replace(changed, layers=(layers[1], layers[0], *layers[2:]))
        found = self._seen(pushed, moved, "--deep")
        results = _results(found)
        assert results.pop("weights ink") == "missing"
        assert results.pop(f"layer {stranger['digest'][7:19]}") == "extra"
        text = "\n".join(_findings(found))
        assert all(words in text for words in ("weights ink is missing", "is no layer of it", "in another order"))
        # Its config still names the diffIDs of the honest image, in their order.
        assert "has the diffID" in text

    def test_config_that_starts_something_else(self, pushed: Project, honest: Forged) -> None:
        def change(config: Any) -> None:
            config["config"]["Cmd"] = ["/opt/evil"]
            config["config"]["\x1b[31m"] = 1
            config["variant"] = "v9"

        findings = _findings(self._seen(pushed, honest.configured(change)))
        assert len(findings) == 2
        assert findings[1] == "its config differs from what the lock makes: config.'\\x1b[31m', config.Cmd, variant"

    def test_config_whose_diff_ids_are_none(self, pushed: Project, honest: Forged) -> None:
        for value in (None, "x", [1], []):
            text = "\n".join(
                _findings(self._seen(pushed, honest.configured(lambda c, v=value: c["rootfs"].update(diff_ids=v))))
            )
            assert "no diffID for each of the 5 layers" in text and "rootfs" in text

    def test_sizes_and_types_that_lie(self, pushed: Project, honest: Forged) -> None:
        at = honest.at("files start")
        size = honest.layers[at]["size"] + 1
        lying = {**honest.layers[at], "size": size, "mediaType": "application/vnd.oci.image.layer.v1.tar"}
        evil = replace(honest, layers=(*honest.layers[:at], lying, *honest.layers[at + 1 :]))
        text = "\n".join(_findings(self._seen(pushed, evil)))
        assert f"said to have {size} bytes" in text and "is of the type" in text and f"{size} are named" in text

    def test_annotated_as_another_layer(self, pushed: Project, honest: Forged) -> None:
        swapped = honest.annotated("links one", key=honest.key("files start"))
        text = "\n".join(_findings(self._seen(pushed, swapped)))
        assert "links one is annotated as another layer" in text


class TestLock:
    def test_manifest_not_known_yet(self, pushed: Project) -> None:
        pushed.edit_lock(lambda lock: lock["images"]["one"].pop("manifest"))
        found = pushed.run("verify", "oci:out:one:v1")
        assert "note: the lock has no manifest of one yet" in found.out and "is what the lock makes" in found.out
        value = pushed.run("verify", "oci:out:one:v1", "--json").json
        assert value["ok"] and len(value["notes"]) == 1

    def test_without_receipts_only_reading_tells(self, pushed: Project) -> None:
        def forget(lock: Any) -> None:
            lock["receipts"] = {}
            lock["images"]["one"].pop("manifest")

        pushed.edit_lock(forget)
        fresh = {"LAYERBUILD_STORE": str(pushed.store) + "-fresh"}
        found = pushed.run("verify", "oci:out:one:v1", "--json", check=False, env=fresh).failed(1, "5 differences")
        assert set(_results(found).values()) == {"no receipt"}
        assert all("only --deep can tell" in finding for finding in _findings(found))
        assert pushed.run("verify", "oci:out:one:v1", "--deep", "--json", env=fresh).json["ok"]

    def test_receipts_that_are_wrong(self, pushed: Project, honest: Forged) -> None:
        other = f"sha256:{'f' * 64}"
        pushed.edit_lock(lambda lock: lock["receipts"][honest.key("weights sd")].update(diff_id=other))
        # This store knows better and says so; the lock is what counts.
        text = "\n".join(_findings(_verify(pushed, "oci:out:one:v1", "--deep")))
        assert "this machine made" in text and f"weights sd unpacks to {honest.layers[0]['digest']}" in text

    def test_another_tag(self, pushed: Project) -> None:
        pushed.write({"recipes/r.yaml": _RECIPE.replace("cmd: [/opt/w/start.sh]", "cmd: [/other]").replace("v1", "v2")})
        pushed.run("lock")
        pushed.run("push", "oci:out")
        pushed.run("verify", "oci:out:one:v2")
        findings = _findings(_verify(pushed, "oci:out:one:v1"))
        assert len(findings) == 2 and "config.Cmd" in findings[1]

    def test_another_projects_lock(self, pushed: Project) -> None:
        other = pushed.sibling("other")
        other.write({"layers/l.yaml": "x: {kind: files, files: {/opt/x: {content: x}}}\n"})
        other.write({"recipes/r.yaml": "name: two\nlayers: [x]\ntags: [v1]\n"})
        other.run("lock")
        reference = f"oci:{pushed.root / 'out'}:one:v1"
        other.run("verify", reference, check=False).failed(2, "cannot be told which image", "--image: two")
        found = other.run("verify", reference, "--image", "two", "--json", check=False).failed(1, "7 differences")
        assert _results(found).pop("files x") == "missing"
        assert list(_results(found).values()).count("extra") == 5
        other.run("verify", reference, "--image", "nobody", check=False).failed(2, "no image 'nobody'", "two")

    def test_which_image_it_is(self, pushed: Project) -> None:
        # The manifest says it, whatever the name; else the end of the name; else the user.
        shutil.copytree(pushed.root / "out", pushed.root / "copy")
        index = pushed.root / "copy/index.json"
        index.write_text(index.read_text().replace("one:v1", "acme/unknown:7"))
        assert pushed.run("verify", "oci:copy:acme/unknown:7", "--json").json["image"] == "one"
        pushed.edit_lock(lambda lock: lock["images"]["one"].pop("manifest"))
        pushed.run("verify", "oci:copy:acme/unknown:7", check=False).failed(2, "cannot be told")
        assert pushed.run("verify", "oci:copy:acme/unknown:7", "--image", "one", "--json").json["ok"]

    def test_drift_is_told_first(self, pushed: Project) -> None:
        pushed.write({"layers/l.yaml": _LAYERS.replace("start.sh", "begin.sh")})
        pushed.run("verify", "oci:out:one:v1", check=False).failed(3, "does not say what the declarations say")


@pytest.mark.parametrize(
    ("reference", "code", "words"),
    [
        ("oci:out:two:v1", 1, "no single image"),
        ("oci:nowhere:one:v1", 1, "no OCI image layout"),
        ("oci:out", 2, "not the name of an image"),
        ("https://x/y", 2, "not the name of an image"),
        ("ghcr.io/UPPER/one", 2, "cannot be the name of a repository"),
    ],
)
def test_references_that_are_none(pushed: Project, reference: str, code: int, words: str) -> None:
    pushed.run("verify", reference, check=False).failed(code, words)


def test_missing_lock(project: Project) -> None:
    project.write({"layers/l.yaml": _LAYERS, "recipes/r.yaml": _RECIPE})
    project.run("verify", "oci:out:one:v1", check=False).failed(2, "no lockfile.yaml")
