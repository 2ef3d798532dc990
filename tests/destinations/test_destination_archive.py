from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import json
import os
import resource
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import zstandard

from fixtures.container import Podman
from fixtures.registry import Image, MemoryBlob, digest_of, make_image
from layerbuild.destinations import Destination, open_destination
from layerbuild.destinations.archive import ArchiveDestination
from layerbuild.errors import (
    BlobUnknown,
    ContentMismatch,
    DestinationDown,
    DestinationError,
    DigestFirst,
    SourceError,
    UsageError,
)

TAR = "application/vnd.oci.image.layer.v1.tar"
INDEX = "application/vnd.oci.image.index.v1+json"
EMPTY_TAR = bytes(10240)


def ignore(amount: int) -> None:
    pass


def archive(path: Path) -> Destination:
    return ArchiveDestination(f"archive:{path}", path)


def push(destination: Destination, name: str, tag: str | None, image: Image) -> None:
    for blob in image.blobs:
        destination.put(name, blob, advance=ignore)
    destination.put_manifest(name, tag, image.media_type, image.manifest)


def write(path: Path, images: dict[str, Image]) -> None:
    """An archive of images by NAME:TAG."""
    destination = archive(path)
    with destination.whole():
        for name, image in images.items():
            push(destination, *name.split(":"), image)


def tar_of(**files: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            made.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


def packed_image(**config: Any) -> Image:
    """An image with a plain layer, one of gzip and one of zstd."""
    tars = [tar_of(plain="a"), tar_of(gzipped="b"), tar_of(zstandard="c")]
    layers = [
        (TAR, tars[0]),
        (f"{TAR}+gzip", gzip.compress(tars[1], mtime=0)),
        (f"{TAR}+zstd", zstandard.ZstdCompressor().compress(tars[2])),
    ]
    rootfs = {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]}
    return make_image(layers, rootfs=rootfs, **config)


def members(path: Path) -> list[str]:
    with tarfile.open(path) as found:
        return found.getnames()


def document(path: Path, name: str) -> Any:
    with tarfile.open(path) as found:
        stream = found.extractfile(name)
        assert stream is not None
        return json.loads(stream.read())


def check_blobs(path: Path) -> None:
    """Every blob is what its name says."""
    with tarfile.open(path) as found:
        for member in found:
            if member.isfile() and member.name.startswith("blobs/sha256/"):
                stream = found.extractfile(member)
                assert stream is not None
                assert hashlib.sha256(stream.read()).hexdigest() == member.name.rpartition("/")[2]


def call(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- other tools as readers --------------------------------------------------------------------------


def test_skopeo_reads_both_formats(tmp_path: Path) -> None:
    out = tmp_path / "out.tar"
    image, other = packed_image(author="one"), packed_image(author="two")
    write(out, {"acme/a1111:1.0": image, "other:latest": other})
    for name, expected in (("acme/a1111:1.0", image), ("other:latest", other)):
        call("skopeo", "copy", "--preserve-digests", f"oci-archive:{out}:{name}", f"oci:{tmp_path / 'oci'}:{name}")
        found = json.loads(call("skopeo", "inspect", f"oci:{tmp_path / 'oci'}:{name}"))
        assert found["Digest"] == expected.digest
        call("skopeo", "copy", f"docker-archive:{out}:{name}", f"dir:{tmp_path / 'docker'}")
        config = json.loads((tmp_path / "docker" / "manifest.json").read_bytes())["config"]
        assert config["digest"] == expected.blobs[0].digest


@pytest.mark.xdist_group("podman")
def test_podman_loads_every_image(tmp_path: Path, podman: Podman) -> None:
    out = tmp_path / "out.tar"
    images = {"acme/a1111:1.0": packed_image(author="one"), "other:latest": packed_image(author="two")}
    write(out, images)
    podman("load", "--input", str(out))
    listed = podman("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").split("\n")
    found = dict(line.split() for line in listed if line)
    assert found == {f"localhost/{name}": image.blobs[0].digest for name, image in images.items()}


@pytest.mark.xdist_group("podman")
def test_podman_loads_one_image(tmp_path: Path, podman: Podman) -> None:
    image = packed_image()
    write(tmp_path / "out.tar", {"other:latest": image})
    podman("load", "--input", str(tmp_path / "out.tar"))
    assert podman("images", "--no-trunc", "--format", "{{.ID}}").split() == [image.blobs[0].digest]


# --- what is in it -----------------------------------------------------------------------------------


def test_what_is_in_it(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out.tar"
    destination = archive(out)
    assert not out.parent.exists(), "nothing is made before something is put"
    one, two = packed_image(author="one"), packed_image(author="two")
    old = os.umask(0o077)
    try:
        with destination.whole():
            assert not destination.has("one", one.blobs[1].digest)
            push(destination, "one", "1", one)
            assert destination.has("two", one.blobs[1].digest, one.blobs[1].size)
            assert not destination.has("two", one.blobs[1].digest, 1)
            assert destination.mount("two", one.blobs[1].digest, ["one"])
            assert not destination.mount("two", two.blobs[0].digest, ["one"])
            push(destination, "acme/two", "2", two)
            destination.put_manifest("acme/two", "again", two.media_type, two.manifest)
            assert destination.manifest("acme/two", "again") == two.manifest
            assert destination.manifest("acme/two", "3") is None
            assert not out.exists()
    finally:
        os.umask(old)
    blobs = [b.digest for b in one.blobs] + [one.digest, two.blobs[0].digest, two.digest]
    paths = [f"blobs/sha256/{digest.removeprefix('sha256:')}" for digest in blobs]
    assert members(out) == ["oci-layout", "blobs", "blobs/sha256", *paths, "index.json", "manifest.json"]
    check_blobs(out)
    assert out.stat().st_mode & 0o777 == 0o644
    assert document(out, "oci-layout") == {"imageLayoutVersion": "1.0.0"}
    listed = [(e["digest"], e["annotations"]) for e in document(out, "index.json")["manifests"]]
    names = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
    assert [(digest, *(annotations[name] for name in names)) for digest, annotations in listed] == [
        (two.digest, "acme/two:2", "docker.io/acme/two:2"),
        (two.digest, "acme/two:again", "docker.io/acme/two:again"),
        (one.digest, "one:1", "docker.io/library/one:1"),
    ]
    assert document(out, "manifest.json") == [
        {"Config": paths[5], "RepoTags": ["acme/two:2", "acme/two:again"], "Layers": paths[1:4]},
        {"Config": paths[0], "RepoTags": ["one:1"], "Layers": paths[1:4]},
    ]


def test_same_images_same_bytes(tmp_path: Path) -> None:
    images = {"one:1": packed_image(author="one"), "two:1": packed_image(author="two")}
    for name in ("first.tar", "second.tar"):
        write(tmp_path / name, images)
    assert (tmp_path / "first.tar").read_bytes() == (tmp_path / "second.tar").read_bytes()


def test_a_name_with_a_host_stays_one(tmp_path: Path) -> None:
    write(tmp_path / "out.tar", {"ghcr.io/acme/a:1": make_image()})
    (entry,) = document(tmp_path / "out.tar", "index.json")["manifests"]
    assert entry["annotations"]["io.containerd.image.name"] == "ghcr.io/acme/a:1"


def test_of_an_index_docker_has_the_first_image(tmp_path: Path) -> None:
    images = [make_image(architecture=name) for name in ("arm64", "amd64")]
    described = [{"mediaType": i.media_type, "digest": i.digest, "size": len(i.manifest)} for i in images]
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": described}).encode()
    destination = archive(tmp_path / "out.tar")
    with destination.whole():
        push(destination, "a", None, images[0])
        with pytest.raises(BlobUnknown, match=images[1].digest):
            destination.put_manifest("a", "1", INDEX, index)
        push(destination, "a", None, images[1])
        destination.put_manifest("a", "1", INDEX, index)
        destination.put_manifest("a", "2", INDEX, index)
        assert destination.manifest("a", "1") == index
        assert destination.manifest("a", images[1].digest) == images[1].manifest
        assert destination.manifest("a", "3") is None
    listed = document(tmp_path / "out.tar", "index.json")["manifests"]
    assert [(e["mediaType"], e["digest"]) for e in listed] == [(INDEX, digest_of(index))] * 2
    (docker,) = document(tmp_path / "out.tar", "manifest.json")
    assert docker["RepoTags"] == ["a:1", "a:2"]
    assert docker["Config"] == f"blobs/sha256/{images[0].blobs[0].digest.removeprefix('sha256:')}"
    check_blobs(tmp_path / "out.tar")


def test_threads_write_one_archive(tmp_path: Path) -> None:
    destination = archive(tmp_path / "out.tar")
    images = [make_image([(TAR, bytes([n]) * 1_500_000)], author=str(n)) for n in range(8)]
    with destination.whole(), ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: push(destination, "a", str(n), images[n]), range(8)))
    check_blobs(tmp_path / "out.tar")
    found = {e["digest"] for e in document(tmp_path / "out.tar", "index.json")["manifests"]}
    assert found == {image.digest for image in images}


def test_a_blob_has_its_digest_first(tmp_path: Path) -> None:
    destination = archive(tmp_path / "out.tar")

    def opened() -> Iterator[bytes]:
        raise AssertionError("nothing is read")

    with pytest.raises(DigestFirst), destination.whole():
        destination.put_unnamed("a", 1, opened, title="x", advance=ignore)


# --- failures ----------------------------------------------------------------------------------------


class Broken(MemoryBlob):
    def open(self, offset: int = 0) -> Iterator[bytes]:
        yield self.data[: len(self.data) // 2]
        raise SourceError("the line is dead")


@pytest.mark.parametrize(
    ("blob", "error"),
    [
        (MemoryBlob(b"x" * 3_000_000, digest=digest_of(b"y")), ContentMismatch),
        (MemoryBlob(b"x" * 3_000_000, size=2_000_000), ContentMismatch),
        (MemoryBlob(b"x" * 3_000_000, size=4_000_000), ContentMismatch),
        (Broken(b"x" * 3_000_000), SourceError),
    ],
)
def test_what_failed_is_cut_off(tmp_path: Path, blob: MemoryBlob, error: type[Exception]) -> None:
    told: list[int] = []
    image = packed_image()
    write(tmp_path / "expected.tar", {"a:1": image})
    destination = archive(tmp_path / "out.tar")
    with destination.whole():
        destination.put("a", image.blobs[0], advance=ignore)
        with pytest.raises(error):
            destination.put("a", blob, advance=told.append)
        assert sum(told) == 0
        assert not destination.has("a", blob.digest)
        push(destination, "a", "1", image)
    assert (tmp_path / "out.tar").read_bytes() == (tmp_path / "expected.tar").read_bytes()


def test_a_manifest_that_names_what_is_not_there(tmp_path: Path) -> None:
    destination = archive(tmp_path / "out.tar")
    image = packed_image()
    with destination.whole():
        destination.put("a", image.blobs[0], advance=ignore)
        with pytest.raises(BlobUnknown):
            destination.put_manifest("a", "1", image.media_type, image.manifest)
        push(destination, "a", "1", image)
    assert document(tmp_path / "out.tar", "manifest.json")[0]["RepoTags"] == ["a:1"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, DestinationError("no")])
def test_what_is_not_whole_does_not_appear(tmp_path: Path, error: BaseException) -> None:
    out = tmp_path / "out.tar"
    write(out, {"old:1": make_image()})
    before = out.read_bytes()
    for path in (out, tmp_path / "new.tar"):
        destination = archive(path)
        with pytest.raises(BaseException) as caught, destination.whole():
            push(destination, "a", "1", packed_image())
            raise error
        assert caught.value is error or caught.type is error
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_an_older_archive_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out.tar"
    write(out, {"old:1": packed_image()})
    write(out, {"new:1": make_image()})
    write(tmp_path / "expected.tar", {"new:1": make_image()})
    assert out.read_bytes() == (tmp_path / "expected.tar").read_bytes()


def test_without_an_image_nothing_appears(tmp_path: Path) -> None:
    destination = archive(tmp_path / "out.tar")
    with destination.whole():
        destination.put("a", MemoryBlob(b"x"), advance=ignore)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    out = tmp_path / "out.tar"
    destination = archive(out)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, limits[1]))
    try:
        with pytest.raises(DestinationDown, match="cannot be written") as caught, destination.whole():
            destination.put("a", MemoryBlob(b"x" * 5_000_000), advance=ignore)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(DestinationDown, match="cannot be written"):
        write(tmp_path / "file" / "out.tar", {"a:1": make_image()})


@pytest.mark.parametrize("content", [b"My thesis", b"PK\x03\x04" + bytes(600)])
def test_another_file_is_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "thesis"
    path.write_bytes(content)
    with pytest.raises(DestinationError, match="is not an archive") as caught:
        archive(path)
    assert caught.value.hint
    assert path.read_bytes() == content


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="is not a file"):
        archive(tmp_path)


def test_what_killed_writers_left_is_swept_up_and_what_live_ones_write_is_not(tmp_path: Path) -> None:
    for name in ("out.tar-dead", "out.tar-live", "out.tar-young", "other.tar-dead"):
        (tmp_path / f".layerbuild-{name}").write_bytes(b"half")
        if not name.endswith("young"):
            os.utime(tmp_path / f".layerbuild-{name}", (1, 1))
    with (tmp_path / ".layerbuild-out.tar-live").open("rb") as live:
        fcntl.flock(live, fcntl.LOCK_EX)
        write(tmp_path / "out.tar", {"a:1": make_image()})
    left = sorted(path.name for path in tmp_path.glob(".layerbuild-*"))
    assert left == [".layerbuild-other.tar-dead", ".layerbuild-out.tar-live", ".layerbuild-out.tar-young"]


@pytest.mark.parametrize("text", ["archive:", "archive:a:b.tar", "archive:a\0b"])
def test_names_that_no_tool_can_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(UsageError, match="is not a destination"):
        open_destination(text, client_for=None, directory=tmp_path)  # type: ignore[arg-type]  # not asked


def test_a_relative_file(tmp_path: Path) -> None:
    destination = open_destination("archive:out.tar", client_for=None, directory=tmp_path)  # type: ignore[arg-type]
    with destination.whole():
        push(destination, "a", "1", make_image())
    assert (tmp_path / "out.tar").is_file()
