"""Other people's programs as readers of what layerbuild wrote, and their answers as values."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MTIME = 315619200

Tree = dict[str, tuple[Any, ...]]
"""Path -> ("directory", mode), ("file", mode, sha256) or ("symlink", target), each with its mtime last."""


def call(*command: str, env: Mapping[str, str] | None = None) -> str:
    """Standard output of a program that must succeed, and must not warn of anything."""
    environ = None if env is None else {**os.environ, **env}
    done = subprocess.run(command, capture_output=True, timeout=120, check=False, env=environ)
    assert done.returncode == 0, (command, done.stdout.decode(), done.stderr.decode())
    return done.stdout.decode()


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def fetch(url: str) -> bytes:
    """What a registry answers to a plain GET."""
    request = urllib.request.Request(url, headers={"Accept": MANIFEST})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=30) as answer:
        data: bytes = answer.read()
        return data


def tags(root: Path, repository: str) -> list[str]:
    """Tags of a repository in the storage of a docker-registry; [] where there is no such repository."""
    directory = root / "docker/registry/v2/repositories" / repository / "_manifests/tags"
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


def layout_blob(layout: Path, digest: str) -> bytes:
    """A blob of an OCI layout, held against its digest."""
    data = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
    assert f"sha256:{sha256(data)}" == digest
    return data


def no_image(layout: Path) -> bool:
    """Whether a run has left no image in a layout, and no half of a file."""
    if not layout.exists():
        return True
    parts = list(layout.rglob(".layerbuild-*"))
    return not parts and (not (layout / "index.json").exists() or layout_manifests(layout) == {})


def layout_manifests(layout: Path) -> dict[str, Any]:
    """Name -> manifest of every image that the index of an OCI layout names."""
    index = json.loads((layout / "index.json").read_text())
    return {
        entry["annotations"]["org.opencontainers.image.ref.name"]: json.loads(layout_blob(layout, entry["digest"]))
        for entry in index["manifests"]
    }


def members(layout: Path, manifest: Mapping[str, Any]) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    """Every path of an image's layers that are no zstd, the upper layer's where two have one; with its content."""
    found = {}
    for layer in manifest["layers"]:
        data = layout_blob(layout, layer["digest"])
        data = gzip.decompress(data) if layer["mediaType"].endswith("+gzip") else data
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            for member in archive:
                stream = archive.extractfile(member) if member.isfile() else None
                found[member.name] = (member, stream.read() if stream is not None else b"")
    return found


def unpack(layout: Path, name: str, bundle: Path) -> Path:
    """The root file system that umoci makes of an image."""
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    call("umoci", "unpack", *rootless, "--image", f"{layout}:{name}", str(bundle))
    return bundle / "rootfs"


def tree(root: Path) -> Tree:
    """Everything below `root`."""
    found: Tree = {}
    for directory, below, files in os.walk(root):
        for name in [*below, *files]:
            path = Path(directory) / name
            status = path.lstat()
            assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid()), path
            key = path.relative_to(root).as_posix()
            if path.is_symlink():
                found[key] = ("symlink", str(path.readlink()), int(status.st_mtime))
            elif path.is_dir():
                found[key] = ("directory", stat.S_IMODE(status.st_mode), int(status.st_mtime))
            else:
                found[key] = ("file", stat.S_IMODE(status.st_mode), sha256(path.read_bytes()), int(status.st_mtime))
    return found


def expected_tree(
    *,
    files: Mapping[str, bytes],
    links: Mapping[str, str],
    executable: Sequence[str] = (),
) -> Tree:
    """The tree that these files and links make, by layerbuild's rules for modes and mtimes."""
    found: Tree = {}
    for path in [*files, *links]:
        for parent in Path(path).parents:
            if str(parent) != ".":
                found[parent.as_posix()] = ("directory", 0o755, MTIME)
    for path, content in files.items():
        found[path] = ("file", 0o755 if path in executable else 0o644, sha256(content), MTIME)
    for path, target in links.items():
        found[path] = ("symlink", target, MTIME)
    return found
