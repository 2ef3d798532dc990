"""The Hub's own clients and a caching mirror, beside layerbuild: from one Hub they get the same."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e.readers import sha256, unpack
from fixtures.hub import Hub
from fixtures.mirror import PEERS, mirror
from fixtures.project import BIG, Project, safetensors
from fixtures.web import Web

pytestmark = pytest.mark.xdist_group("hub_clients")

_UNET = safetensors(BIG, seed=1)
_PART = safetensors(5000, seed=2)
_LAYERS = """
clip: {kind: huggingface, source: hf://org/clip@main, files: ["*", "!*.md"], absent: [added_tokens.json]}
words: {kind: huggingface, source: hf://datasets/org/words@v1, refs: []}
sd: {kind: model, type: checkpoint, source: "hf://org/clip@main/unet/model.safetensors"}
"""
_RECIPE = "name: all\nwebui: {root: /w}\ncompression: gzip\nlayers: [clip, words, sd]\ntags: [v1]\n"
_REQUEST = "request: {kind: huggingface, source: hf://org/clip@refs/pr/7, refs: []}\n"
"""A mirror need not know such revisions: olah does not."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """An image that was made from a Hub, unpacked."""

    hub: Hub
    root: Path
    cache: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    directory = tmp_path_factory.mktemp("clients")
    with Web() as web, Web() as cdn:
        hub = Hub(web, cdn)
        small = {"config.json": b"{}", "README.md": b"#", "text/part/merges.txt": b"a b\n", "text/empty": b""}
        hub.add("org/clip", files=small, lfs={"unet/model.safetensors": _UNET, "part.safetensors": _PART})
        hub.add("org/clip", files={"config.json": b'{"request": 7}'}, ref="refs/pr/7")
        hub.add("org/words", files={"words.txt": b"a\n"}, lfs={"w.parquet": b"PAR1" * 9}, kind="datasets", ref="v1")
        hub.add("org/words", files={"words.txt": b"b\n"}, kind="datasets")
        project = _project(directory / "project", hub.endpoint)
        recipe = _RECIPE.replace("all", "request").replace("layers: [", "layers: [request, ")
        project.write({"layers/request.yaml": _REQUEST, "recipes/request.yaml": recipe}).run("lock")
        project.run("push", f"oci:{directory / 'layout'}")
        root = unpack(directory / "layout", "request:v1", directory / "bundle")
        yield Built(hub=hub, root=root, cache=root / "opt/huggingface/hub")


def _project(root: Path, endpoint: str) -> Project:
    """Locked, not built."""
    project = Project(root, root.with_name(f"{root.name}-store"), {"HF_ENDPOINT": endpoint})
    project.write({"layers/l.yaml": _LAYERS, "recipes/r.yaml": _RECIPE}).run("lock")
    return project


_DOWNLOAD = """
from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.utils import EntryNotFoundError
snapshot_download("org/clip", ignore_patterns=["*.md"])
try:
    hf_hub_download("org/clip", "added_tokens.json")
except EntryNotFoundError:
    pass
snapshot_download("org/clip", revision="refs/pr/7")
snapshot_download("org/words", revision="v1", repo_type="dataset")
"""

_VERIFY = """
from huggingface_hub import HfApi
for name, kind, revision in [("org/words", "dataset", "v1"), ("org/clip", "model", "refs/pr/7")]:
    found = HfApi().verify_repo_checksums(name, repo_type=kind, revision=revision)
    assert not found.mismatches and not found.missing_paths and not found.extra_paths, found
    print(found.checked_count)
"""


def _client(peer: str, script: str, endpoint: str, home: Path) -> str:
    environ = {
        **{"PATH": os.environ["PATH"], "HOME": str(home), "HF_HOME": str(home), "HF_ENDPOINT": endpoint},
        **{"PYTHONPATH": str(PEERS / peer), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"},
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _contents(cache: Path, image: Path) -> dict[str, str]:
    """What readers see in a cache: refs, files by their path in a snapshot, absent names, and names of blobs."""
    found: dict[str, str] = {}
    for repository in cache.glob("*--*"):
        for path in repository.rglob("*"):
            section, _, name = path.relative_to(repository).as_posix().partition("/")
            if section not in ("refs", "snapshots", ".no_exist", "blobs") or path.is_dir():
                continue
            goal = str(path.readlink()) if path.is_symlink() else ""
            # The file of a weights layer has its place in the image.
            data = (image / goal[1:] if goal.startswith("/opt/") else path).read_bytes()
            found[f"{repository.name}/{section}/{name}"] = data.decode() if section == "refs" else sha256(data)
    return found


@pytest.mark.parametrize("peer", ["hub-old", "hub-mid", "hub-new"])
def test_a_client_downloads_what_the_layers_hold(built: Built, tmp_path: Path, peer: str) -> None:
    _client(peer, _DOWNLOAD, built.hub.endpoint, tmp_path)
    theirs, ours = _contents(tmp_path / "hub", built.root), _contents(built.cache, built.root)
    # The large file lies in a layer of its own, under another name.
    assert theirs.pop(f"models--org--clip/blobs/{sha256(_UNET)}") == sha256(_UNET)
    assert ours == theirs
    assert (built.root / f"opt/weights/sha256/{sha256(_UNET)}").read_bytes() == _UNET
    assert sum("/snapshots/" in path for path in ours) == 8 and len(ours) == 19


def test_the_newest_client_verifies_the_layers_against_the_hub(built: Built) -> None:
    assert _client("hub-new", _VERIFY, built.hub.endpoint, built.cache.parent).split() == ["2", "1"]


def test_a_caching_mirror_gives_the_same_pins_and_layers(built: Built, tmp_path: Path) -> None:
    straight = _project(tmp_path / "straight", built.hub.endpoint)
    straight.run("build")
    with mirror(built.hub, tmp_path / "olah") as address:
        first = _project(tmp_path / "first", address)
        first.run("build")
        assert first.lockfile.read_bytes() == straight.lockfile.read_bytes()
        assert first.stored_files().keys() >= {sha256(_UNET), sha256(_PART)}
        built.hub.forget()
        second = _project(tmp_path / "second", address)
        second.run("build")
        assert second.lockfile.read_bytes() == first.lockfile.read_bytes()
        assert built.hub.cdn_requests == [], "the mirror had it"
