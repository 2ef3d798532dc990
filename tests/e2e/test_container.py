"""An image on a base, pulled from a registry by podman, started by runc."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.readers import MTIME, call, fetch, sha256, tags
from fixtures.project import BIG, Project, safetensors
from fixtures.registry import Front, Image, MemoryBlob, digest_of

pytestmark = pytest.mark.xdist_group("podman")

_PROGRAMS = ("sh", "stat", "readlink", "sha256sum", "cat")
_TAR = "application/vnd.oci.image.layer.v1.tar"


def _libraries(program: str) -> set[str]:
    """Absolute paths of what the dynamic linker loads for a program."""
    listed = call("ldd", program)
    return set(re.findall(r"(/\S+) \(0x", listed))


def _base_tar() -> bytes:
    """A root file system with a shell and a few of this machine's programs, and directories with habits."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        directories = {"bin": 0o755, "tmp": 0o1777, "srv": 0o750, "srv/webui": 0o700, "root": 0o700, "opt": 0o755}
        for name, mode in directories.items():
            member = tarfile.TarInfo(name)
            member.type, member.mode = tarfile.DIRTYPE, mode
            member.uid = member.gid = 33 if name.startswith("srv/") else 0
            archive.addfile(member)
        for name in _PROGRAMS:
            program = shutil.which(name)
            assert program is not None, name
            _add(archive, program, f"bin/{name}")
        for library in sorted(set().union(*(_libraries(shutil.which(n) or n) for n in _PROGRAMS))):
            _add(archive, library, library[1:])
    return stream.getvalue()


def _add(archive: tarfile.TarFile, source: str, name: str) -> None:
    data = Path(source).read_bytes()
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o755
    archive.addfile(member, io.BytesIO(data))


def _base() -> Image:
    tar = _base_tar()
    architecture = call("podman", "info", "--format", "{{.Host.Arch}}").strip()
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {"Env": ["PATH=/bin", "BASE=yes"], "User": "0", "Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar)]},
    }
    data = json.dumps(config).encode()
    blobs = [MemoryBlob(data), MemoryBlob(tar)]
    types = ["application/vnd.oci.image.config.v1+json", _TAR]
    described = [{"mediaType": t, "digest": b.digest, "size": b.size} for t, b in zip(types, blobs, strict=True)]
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    manifest |= {"config": described[0], "layers": described[1:]}
    return Image(blobs=blobs, manifest=json.dumps(manifest).encode())


def _write_layout(base: Image, layout: Path) -> str:
    """Writes a base as an OCI layout. Gives its platform."""
    (layout / "blobs/sha256").mkdir(parents=True)
    for data in (base.manifest, *(blob.data for blob in base.blobs)):
        (layout / "blobs/sha256" / hashlib.sha256(data).hexdigest()).write_bytes(data)
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": base.digest,
        "size": len(base.manifest),
        "annotations": {"org.opencontainers.image.ref.name": "base"},
    }
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    config = json.loads(base.blobs[0].data)
    return f"linux/{config['architecture']}"


class Podman:
    """podman with a storage of its own."""

    def __init__(self, directory: Path) -> None:
        self._options = ["--root", str(directory / "root"), "--runroot", str(directory / "run"), "--runtime", "runc"]
        self._environ = {**os.environ, "TMPDIR": str(directory)}

    def __call__(self, *arguments: str) -> str:
        """Standard output of a command that must succeed."""
        command = ["podman", *self._options, *arguments]
        done = subprocess.run(command, capture_output=True, timeout=120, check=False, env=self._environ)
        assert done.returncode == 0, (command, done.stdout.decode(), done.stderr.decode())
        return done.stdout.decode()

    def shell(self, image: str, script: str) -> list[str]:
        """Lines that a shell script prints in a new container of an image that was pulled."""
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"]
        return self("run", "--rm", "--network=none", *limits, image, "sh", "-c", script).splitlines()


@pytest.fixture
def podman() -> Iterator[Podman]:
    """An empty podman. It takes no run root whose path is longer than 50 characters."""
    directory = Path(tempfile.mkdtemp(prefix="podman-"))
    podman = Podman(directory)
    yield podman
    podman("rmi", "--all", "--force")
    # The overlay driver leaves its directory mounted on itself.
    mounted = [p for p in directory.glob("root/*") if os.path.ismount(p)]
    for path in mounted:
        call("umount", str(path))
    shutil.rmtree(directory)


_MODEL = safetensors(BIG, {"format": "pt"}, seed=5)
_LAYERS = """
sd: {kind: model, type: checkpoint, source: file:sd.safetensors}
vocabulary:
  kind: huggingface
  source: file:vocabulary
  repository: openai/clip-vit-large-patch14
  revision: 32bd64288804d66eefd0ccbe215aa642df71cc41
note: {kind: files, files: {/srv/webui/extra/note.txt: {content: "from {{ image.name }}"}}}
"""
_RECIPE = """
name: worker
base: BASE
platform: PLATFORM
webui: {root: /srv/webui, provided_by: base, version: 1.10.1}
layers: [sd, vocabulary, note]
config: {env: {LANG: C.UTF-8}}
tags: [v1]
"""


def _write(project: Project, base: str, platform: str) -> None:
    recipe = _RECIPE.replace("BASE", base).replace("PLATFORM", platform)
    project.write({"layers/all.yaml": _LAYERS, "recipes/worker.yaml": recipe})
    project.write({"sd.safetensors": _MODEL, "vocabulary/vocab.json": b"{}"})


def test_container_sees_links_times_and_the_bases_directories(
    project: Project, registry: Front, podman: Podman
) -> None:
    platform = _write_layout(_base(), project.root / "base")
    _write(project, "oci:base:base", platform)
    project.run("lock")
    destination = f"{registry.host}/{registry.prefix}"
    project.run("push", destination)
    image = f"{destination}/worker:v1"
    podman("pull", "--tls-verify=false", image)
    link = "/srv/webui/models/Stable-diffusion/sd.safetensors"
    snapshot = "hub/models--openai--clip-vit-large-patch14/snapshots/32bd64288804d66eefd0ccbe215aa642df71cc41"
    lines = podman.shell(
        image,
        f"readlink {link}; stat -L -c '%Y %s %a' {link}; sha256sum <{link}; cat $HF_HOME/{snapshot}/vocab.json; echo;"
        "echo $HF_HUB_OFFLINE $BASE $LANG; stat -c '%n %a %u:%g' /opt /srv /srv/webui /srv/webui/extra /root;"
        "cat /srv/webui/extra/note.txt; echo; cat /srv/webui/cache.json",
    )
    assert lines[:10] == [
        f"/opt/weights/sha256/{sha256(_MODEL)}",
        f"{MTIME} {len(_MODEL)} 644",
        f"{sha256(_MODEL)}  -",
        "{}",
        "1 yes C.UTF-8",
        # The base's own attributes, though layers pass through these directories.
        "/opt 755 0:0",
        "/srv 750 0:0",
        "/srv/webui 700 33:33",
        "/srv/webui/extra 755 0:0",
        "/root 700 0:0",
    ]
    assert lines[10] == "from worker"
    cache = json.loads("\n".join(lines[11:]))
    assert cache["hashes"]["checkpoint/sd.safetensors"] == {"mtime": float(MTIME), "sha256": sha256(_MODEL)}


def test_base_in_the_registry_is_mounted_and_pinned(project: Project, registry: Front) -> None:
    base = _base()
    layout = project.root / "base"
    platform = _write_layout(base, layout)
    name = f"{registry.host}/{registry.prefix}/bases/tools"
    call("skopeo", "copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{layout}:base", f"docker://{name}:1")
    _write(project, f"{name}:1", platform)
    project.run("lock")
    locked = project.lock["images"]["worker"]["base"]
    assert locked["digest"] == base.digest
    # Looked up in the base's layers: what passes through them repeats their attributes.
    assert locked["directories"] == {
        "srv": "0750 0:0",
        "srv/webui": "0700 33:33",
        "srv/webui/extra": None,
        "srv/webui/models": None,
        "srv/webui/models/Stable-diffusion": None,
    }
    shutil.rmtree(layout)
    registry.records.clear()
    project.run("push", f"{registry.host}/{registry.prefix}/images")
    layer = base.blobs[1]
    mounts = [r for r in registry.requests("POST", "/blobs/uploads/") if layer.digest.split(":")[1] in r.query]
    assert [(r.status, f"from={registry.prefix}" in r.query.replace("%2F", "/")) for r in mounts] == [(201, True)]
    manifest = json.loads(fetch(f"{registry.url}/v2/{registry.prefix}/images/worker/manifests/v1"))
    assert manifest["layers"][0]["digest"] == layer.digest
    # A layout is self-contained: the base's layer comes out of the registry.
    report = project.run("push", f"oci:{project.root / 'out'}", "--json").json
    assert report["uploaded_bytes"] > layer.size + BIG
    assert (project.root / "out/blobs" / layer.digest.replace(":", "/")).stat().st_size == layer.size


def test_base_that_is_not_what_was_locked(project: Project, registry: Front) -> None:
    layout = project.root / "base"
    platform = _write_layout(_base(), layout)
    _write(project, "oci:base:base", platform)
    project.run("lock")
    destination = f"{registry.host}/{registry.prefix}"

    def change(lock: Any) -> None:
        lock["images"]["worker"]["base"]["digest"] = f"sha256:{'f' * 64}"

    locked = project.lockfile.read_bytes()
    project.edit_lock(change)
    project.run("push", destination, check=False).failed(1, "f" * 64)
    project.lockfile.write_bytes(locked)
    # A layer of the base that was damaged since is never sent.
    largest = max((layout / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
    content = largest.read_bytes()
    largest.write_bytes(content[:-1] + b"!")
    project.run("push", destination, check=False).failed(1, largest.name)
    assert tags(registry.root, f"{registry.prefix}/worker") == []
    largest.write_bytes(content)
    project.run("push", destination)
    assert tags(registry.root, f"{registry.prefix}/worker") == ["v1"]
