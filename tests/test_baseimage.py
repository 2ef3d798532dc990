from __future__ import annotations

import contextlib
import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from fixtures.registry import Front, Image, MemoryBlob, digest_of, make_image
from layerbuild import http
from layerbuild.baseimage import MOST_MANIFESTS, BaseSource, Found, Occupied, directories, open_base
from layerbuild.destinations import open_destination
from layerbuild.destinations.layoutdir import blob_path
from layerbuild.errors import ContentMismatch, LayerbuildError, NotFound, SourceError, UsageError
from layerbuild.model import Descriptor, Directory
from layerbuild.registry.clients import Clients
from layerbuild.registry.layertar import layer_headers
from layerbuild.registry.manifests import INDEX_TYPE, MANIFEST_TYPE

TAR = "application/vnd.oci.image.layer.v1.tar"
GZIP = f"{TAR}+gzip"
ZSTD = f"{TAR}+zstd"
DOCKER = "application/vnd.docker.image.rootfs.diff.tar"
Spec = tuple[Any, ...]


def clients() -> Clients:
    return Clients(http.Client(http.Policy(retries=1, backoff=0.001)), {})


def tar(*entries: Spec, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar of (name, type, mode, uid, gid, what): what is a link's target or a file's size."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, kind, *rest in entries:
            info = tarfile.TarInfo(name)
            info.type = {"d": tarfile.DIRTYPE, "l": tarfile.SYMTYPE, "f": tarfile.REGTYPE, "h": tarfile.LNKTYPE}[kind]
            mode, uid, gid, what = [*rest, *(0o755, 0, 0, None)[len(rest) :]]
            info.mode, info.uid, info.gid = mode, uid, gid
            if kind in "lh":
                info.linkname = what or "target"
            elif kind == "f":
                info.size = what or 0
            archive.addfile(info, io.BytesIO(b"\x01" * info.size) if kind == "f" else None)
    return out.getvalue()


def push(text: str, name: str, tag: str | None, image: Image, directory: Path | None = None) -> None:
    destination = open_destination(text, client_for=clients(), directory=directory)
    for blob in image.blobs:
        destination.put(name, blob, advance=lambda amount: None)
    destination.put_manifest(name, tag, image.media_type, image.manifest)


def push_index(text: str, name: str, tag: str, images: dict[str, Image], directory: Path | None = None) -> bytes:
    entries: list[dict[str, Any]] = []
    for platform, image in images.items():
        push(text, name, None, image, directory)
        keys = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
        entries.append(
            {
                "mediaType": image.media_type,
                "digest": image.digest,
                "size": len(image.manifest),
                "platform": keys,
            }
        )
    data = json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": entries}).encode()
    destination = open_destination(text, client_for=clients(), directory=directory)
    destination.put_manifest(name, tag, INDEX_TYPE, data)
    return data


Place = tuple[str, str]


@pytest.fixture(params=["registry", "layout"])
def place(request: pytest.FixtureRequest) -> Place:
    """Where to push, and how a base there is called, without its tag."""
    if request.param == "registry":
        front: Front = request.getfixturevalue("registry")
        return f"{front.host}/{front.prefix}", f"{front.host}/{front.prefix}/base"
    return "oci:out", "oci:out:base"


def base(reference: str, project: Path) -> BaseSource:
    return open_base(reference, client_for=clients(), project=project)


def test_a_base_is_read_by_tag_and_by_digest(place: Place, tmp_path: Path) -> None:
    where, name = place
    image = make_image([(TAR, tar(("root", "d")))])
    push(where, "base", "1", image, tmp_path)
    push(where, "base", "latest", make_image(author="other"), tmp_path)
    by_digest = f"{name.removesuffix(':base')}@{image.digest}"
    for reference in (f"{name}:1", by_digest):
        source = base(reference, tmp_path)
        assert source.reference == reference
        assert source.resolve("linux/amd64") == image.digest
        assert source.manifest(image.digest) == image.manifest
        assert source.config(image.manifest) == image.blobs[0].data
        layer = json.loads(image.manifest)["layers"][0]
        blob = source.blob(Descriptor(media_type=TAR, digest=layer["digest"], size=layer["size"]))
        assert (blob.digest, blob.size) == (layer["digest"], layer["size"])
        assert b"".join(blob.open()) == image.blobs[1].data
        assert b"".join(blob.open(100)) == image.blobs[1].data[100:]


def test_without_a_tag_it_is_the_latest(place: Place, tmp_path: Path) -> None:
    where, name = place
    image = make_image()
    push(where, "base", "latest", image, tmp_path)
    push(where, "base", "1", make_image(author="other"), tmp_path)
    assert base(name, tmp_path).resolve("linux/amd64") == image.digest


def test_documents_need_not_say_what_they_are(place: Place, tmp_path: Path) -> None:
    where, name = place
    image = make_image()
    bare = json.loads(image.manifest)
    del bare["mediaType"]
    image = Image(blobs=image.blobs, manifest=json.dumps(bare).encode())
    push(where, "base", "1", image, tmp_path)
    for reference in (f"{name}:1", f"{name.removesuffix(':base')}@{image.digest}"):
        source = base(reference, tmp_path)
        assert source.resolve("linux/amd64") == image.digest
        assert source.manifest(image.digest) == image.manifest


def test_a_layout_that_lacks_its_index(tmp_path: Path) -> None:
    push("oci:out", "base", "1", make_image(), tmp_path)
    (tmp_path / "out" / "index.json").unlink()
    with pytest.raises(LayerbuildError, match="cannot be read"):
        base("oci:out:base:1", tmp_path).resolve("linux/amd64")


def test_where_a_base_can_be_mounted_from(tmp_path: Path) -> None:
    source = base("docker.io/debian:12", tmp_path)
    assert (source.host, source.repository) == ("docker.io", "library/debian")
    assert (source.name, source.tag) == ("library/debian", "12")
    source = base("oci:x:y", tmp_path)
    assert (source.host, source.repository, source.name) == (None, None, "y")
    source = base("oci:x:acme/y:1", tmp_path)
    assert (source.name, source.tag) == ("acme/y", "1")
    source = base(f"oci:x@sha256:{'0' * 64}", tmp_path)
    assert (source.name, source.tag) == (None, None)
    source = base(f"oci:x:acme/y:1@sha256:{'0' * 64}", tmp_path)
    assert (source.name, source.tag) == ("acme/y", "1")


def test_a_digest_decides_also_where_a_name_is_said(tmp_path: Path) -> None:
    old, new = make_image(), make_image(architecture="arm64")
    push("oci:out", "base", "1", old, tmp_path)
    push("oci:out", "base", "1", new, tmp_path)
    assert base("oci:out:base:1", tmp_path).resolve("linux/arm64") == new.digest
    assert base(f"oci:out:base:1@{old.digest}", tmp_path).resolve("linux/amd64") == old.digest


@pytest.mark.parametrize(
    "reference", ["oci:", "oci::x", "oci:dir:", "ghcr.io/UPPER", "oci:@sha256:" + "0" * 64, "oci:x:@sha256:" + "0" * 64]
)
def test_what_is_no_base(reference: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        base(reference, tmp_path)


def test_an_index_is_followed_to_the_platform(place: Place, tmp_path: Path) -> None:
    where, name = place
    images = {
        "linux/amd64": make_image(),
        "linux/arm64": make_image(architecture="arm64"),
        "linux/arm/v7": make_image(architecture="arm", variant="v7"),
        "unknown/unknown": make_image(os="unknown"),
    }
    data = push_index(where, "base", "1", images, tmp_path)
    source = base(f"{name}:1", tmp_path)
    for platform in ("linux/amd64", "linux/arm64", "linux/arm/v7"):
        assert source.resolve(platform) == images[platform].digest
    assert source.resolve("linux/arm64/v8") == images["linux/arm64"].digest
    assert source.resolve("linux/arm") == images["linux/arm/v7"].digest
    for platform in ("linux/s390x", "windows/amd64", "linux/arm64/v9"):
        with pytest.raises(NotFound) as caught:
            source.resolve(platform)
        assert "linux/amd64, linux/arm64, linux/arm/v7" in str(caught.value)
        assert "unknown" not in str(caught.value)
    with pytest.raises(SourceError, match="makes no sense"):
        source.manifest(digest_of(data))


def test_every_manifest_is_listed_without_a_config(place: Place, tmp_path: Path) -> None:
    where, name = place
    images = {"linux/amd64": make_image(), "linux/arm64": make_image(architecture="arm64")}
    push_index(where, "base", "1", {**images, "linux/arm64/v8": images["linux/arm64"]}, tmp_path)
    alone = make_image(author="alone")
    push(where, "base", "2", alone, tmp_path)
    if where.startswith("oci:"):
        for image in (*images.values(), alone):
            blob_path(tmp_path / "out", image.blobs[0].digest).unlink()
    assert base(f"{name}:1", tmp_path).manifests() == tuple(image.digest for image in images.values())
    assert base(f"{name}:2", tmp_path).manifests() == (alone.digest,)


def test_an_index_of_very_many_images_is_refused(place: Place, tmp_path: Path) -> None:
    where, name = place
    images = {f"linux/a{number}": make_image(architecture=f"a{number}") for number in range(MOST_MANIFESTS + 1)}
    push_index(where, "base", "1", images, tmp_path)
    with pytest.raises(SourceError, match="makes no sense") as caught:
        base(f"{name}:1", tmp_path).manifests()
    assert "index of 33 images" in str(caught.value)


def test_the_size_of_a_blob_is_told_unread(place: Place, tmp_path: Path) -> None:
    where, name = place
    image = make_image([(TAR, tar(("root", "d")))])
    push(where, "base", "1", image, tmp_path)
    source = base(f"{name}:1", tmp_path)
    assert [source.stored_size(blob.digest) for blob in image.blobs] == [blob.size for blob in image.blobs]
    assert source.stored_size(f"sha256:{'0' * 64}") is None


def test_an_image_of_another_platform(place: Place, tmp_path: Path) -> None:
    where, name = place
    push(where, "base", "1", make_image(architecture="arm64"), tmp_path)
    with pytest.raises(NotFound, match="it is there for linux/arm64"):
        base(f"{name}:1", tmp_path).resolve("linux/amd64")


def test_a_base_that_is_not_there(place: Place, tmp_path: Path) -> None:
    where, name = place
    push(where, "base", "1", make_image(), tmp_path)
    with pytest.raises(NotFound):
        base(f"{name}:2", tmp_path).resolve("linux/amd64")
    with pytest.raises(NotFound):
        base(f"{name.removesuffix(':base')}@sha256:{'0' * 64}", tmp_path).resolve("linux/amd64")
    with pytest.raises(NotFound):
        base("oci:nowhere:x", tmp_path).resolve("linux/amd64")


@pytest.mark.parametrize(
    ("media_type", "document", "expected"),
    [
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", {"schemaVersion": 1}, "old schema 1"),
        (MANIFEST_TYPE, {"schemaVersion": 1, "fsLayers": []}, "old schema 1"),
        (MANIFEST_TYPE, {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": []}, "makes no sense"),
        (MANIFEST_TYPE, {"schemaVersion": 2, "layers": [], "manifests": []}, "makes no sense"),
        (MANIFEST_TYPE, {"schemaVersion": 2, "config": {}, "layers": []}, "makes no sense"),
        (MANIFEST_TYPE, {"schemaVersion": 2, "config": None}, "makes no sense"),
        (INDEX_TYPE, {"schemaVersion": 2, "manifests": [{"digest": "md5:x", "platform": {}}]}, "makes no sense"),
        (INDEX_TYPE, {"schemaVersion": 2, "manifests": [7]}, "makes no sense"),
        (INDEX_TYPE, {"schemaVersion": 2, "manifests": 7}, "no platform"),
        ("text/html", {"schemaVersion": 2}, "makes no sense"),
        (MANIFEST_TYPE, [], "makes no sense"),
    ],
)
def test_manifests_that_make_no_sense(
    registry: Front, tmp_path: Path, media_type: str, document: Any, expected: str
) -> None:
    body = json.dumps(document).encode()
    registry.rule("GET", "/manifests/", 200, headers={"Content-Type": media_type}, body=body, times=2)
    source = base(f"{registry.host}/{registry.prefix}/base:1", tmp_path)
    with pytest.raises(SourceError, match=expected):
        source.resolve("linux/amd64")


@pytest.mark.parametrize("size", [-1, True, "7", None, 10**9])
def test_sizes_that_make_no_sense(registry: Front, tmp_path: Path, size: Any) -> None:
    image = make_image()
    document = json.loads(image.manifest)
    document["config"]["size"] = size
    body = json.dumps(document).encode()
    registry.rule("GET", "/manifests/", 200, headers={"Content-Type": MANIFEST_TYPE}, body=body)
    with pytest.raises(SourceError, match="makes no sense"):
        base(f"{registry.host}/{registry.prefix}/base:1", tmp_path).resolve("linux/amd64")


def test_damaged_blobs_are_noticed(place: Place, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    where, name = place
    image = make_image()
    push(where, "base", "1", image, tmp_path)
    hexdigest = image.blobs[0].digest.removeprefix("sha256:")
    good = image.blobs[0].data
    for bad in (good[:-1] + b"?", good + b" ", good[:-1]):
        if where.startswith("oci:"):
            (tmp_path / "out" / "blobs" / "sha256" / hexdigest).write_bytes(bad)
        else:
            request.getfixturevalue("registry").rule("GET", "/blobs/", 200, body=bad)
        with pytest.raises(ContentMismatch):
            base(f"{name}:1", tmp_path).config(image.manifest)


# --- what the layers have ------------------------------------------------------------------------


class FakeSource:
    """A base of layers in memory, that counts what was read of each."""

    reference = "fake"
    host = None
    repository = None

    def __init__(self, *layers: tuple[str, bytes]) -> None:
        self.image = make_image(layers)
        self.blobs = {blob.digest: blob for blob in self.image.blobs}

    def resolve(self, platform: str) -> str:
        return self.image.digest

    def manifest(self, digest: str) -> bytes:
        return self.image.manifest

    def config(self, manifest: bytes) -> bytes:
        return self.image.blobs[0].data

    def blob(self, descriptor: Descriptor) -> MemoryBlob:
        return self.blobs[descriptor.digest]

    def find(self, *wanted: str) -> dict[str, Found]:
        return directories(self, self.image.manifest, wanted)


def found(*layers: bytes, wanted: str = "root/.cache") -> Found:
    """What `wanted` is in a base of plain tars, the lowest first."""
    return FakeSource(*((TAR, layer) for layer in layers)).find(wanted)[wanted]


def directory(path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> Directory:
    return Directory(path=path, mode=mode, uid=uid, gid=gid)


PACKED: list[tuple[str, Callable[[bytes], bytes]]] = [
    (TAR, bytes),
    (DOCKER, bytes),
    (GZIP, gzip.compress),
    (f"{DOCKER}.gzip", gzip.compress),
    (ZSTD, zstandard.ZstdCompressor().compress),
    (f"{DOCKER}.zstd", zstandard.ZstdCompressor().compress),
    (GZIP, lambda data: gzip.compress(data[:700]) + gzip.compress(data[700:])),
    (ZSTD, lambda data: b"".join(zstandard.ZstdCompressor().compress(part) for part in (data[:700], data[700:]))),
]


@pytest.mark.parametrize(("media_type", "pack"), PACKED, ids=lambda v: v if isinstance(v, str) else "")
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_layer(media_type: str, pack: Callable[[bytes], bytes], format: int) -> None:
    layer = tar(
        ("./", "d"),
        ("./root/", "d", 0o700, 7, 8),
        ("./root/big", "f", 0o644, 0, 0, 3_000_000),
        ("./root/.cache", "d", 0o1777, 1000, 2000),
        format=format,
    )
    source = FakeSource((media_type, pack(layer)))
    assert source.find("root", "root/.cache", "opt") == {
        "root": directory("root", 0o700, 7, 8),
        "root/.cache": directory("root/.cache", 0o1777, 1000, 2000),
        "opt": None,
    }


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_large_owners(format: int) -> None:
    path = "/".join(["d" * 90] * 4)
    layer = tar((path, "d", 0o700, 3_000_000, 4_000_000), format=format)
    assert found(layer, wanted=path) == directory(path, 0o700, 3_000_000, 4_000_000)


@pytest.mark.parametrize("name", ["/root/.cache", "./root/./.cache/", "root/x/../.cache", "../root/.cache"])
def test_names_are_taken_in_normal_form(name: str) -> None:
    assert found(tar((name, "d", 0o711))) == directory("root/.cache", 0o711)


def test_the_topmost_layer_decides_and_lower_ones_are_not_read() -> None:
    low, middle, top = tar(("root", "d", 0o700)), tar(("root", "d", 0o750)), tar(("opt", "d"))
    source = FakeSource((TAR, low), (TAR, middle), (TAR, top))
    assert source.find("root") == {"root": directory("root", 0o750)}
    assert source.blobs[digest_of(low)].opened == 0


def test_nothing_is_read_when_nothing_is_wanted() -> None:
    source = FakeSource((TAR, tar(("root", "d"))))
    assert source.find() == {}
    assert sum(blob.opened for blob in source.blobs.values()) == 0


def test_the_last_entry_of_a_path_counts() -> None:
    assert found(tar(("root/.cache", "d", 0o700), ("root/.cache", "d", 0o711))) == directory("root/.cache", 0o711)


CACHE = tar(("root", "d", 0o700), ("root/.cache", "d", 0o711, 5, 6))


@pytest.mark.parametrize(
    "upper",
    [
        tar(("root/.wh..cache", "f")),
        tar((".wh.root", "f")),
        tar(("root/.wh..wh..opq", "f")),
        tar((".wh..wh..opq", "f")),
        tar(("root", "f")),
        tar(("root", "l", 0o777, 0, 0, "home/root")),
        tar(("root", "h", 0o644, 0, 0, "etc/passwd")),
    ],
)
def test_what_hides_a_path(upper: bytes) -> None:
    assert found(CACHE, upper) is None
    again = tar(("root/.cache", "d", 0o500))
    assert found(CACHE, upper, again) == directory("root/.cache", 0o500)


@pytest.mark.parametrize(
    "upper",
    [
        tar(("root/.cache/.wh..wh..opq", "f")),
        tar(("root/.wh..cached", "f")),
        tar(("root/.cache/.wh.x", "f")),
        tar(("root/.wh..wh.plnk", "f")),
        tar(("opt/.wh..wh..opq", "f")),
        tar(("root/.cache/x", "f")),
        tar(("root", "d", 0o755)),
    ],
)
def test_what_does_not_hide_a_path(upper: bytes) -> None:
    assert found(CACHE, upper) == directory("root/.cache", 0o711, 5, 6)


def test_a_whiteout_hides_only_what_is_below_its_layer() -> None:
    upper = tar(("root/.cache", "d", 0o500), ("root/.wh..cache", "f"), ("root/.wh..wh..opq", "f"))
    assert found(CACHE, upper) == directory("root/.cache", 0o500)


def test_links_and_files_are_told_as_such() -> None:
    layer = tar(("a", "l", 0o777, 0, 0, "/b/c"), ("b", "f"), ("c", "h", 0o644, 0, 0, "b"), ("d", "d"))
    assert FakeSource((TAR, layer)).find("a", "b", "c", "d", "a/x") == {
        "a": Occupied(path="a", type="symlink", target="/b/c"),
        "b": Occupied(path="b", type="file"),
        "c": Occupied(path="c", type="file"),
        "d": directory("d"),
        "a/x": None,
    }


def test_a_directory_that_only_its_contents_imply() -> None:
    assert found(tar(("root/.cache/x", "f"))) == directory("root/.cache", 0o755)
    assert found(CACHE, tar(("root/.cache/x", "f"))) == directory("root/.cache", 0o711, 5, 6)
    assert found(CACHE, tar(("root/.wh..cache", "f")), tar(("root/.cache/x", "f"))) == directory("root/.cache", 0o755)


# --- layers that nobody has vouched for ----------------------------------------------------------


def header(name: bytes, kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo(name.decode())
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("size", [2 << 20, 1 << 40])
def test_huge_extended_headers_are_refused_unread(kind: bytes, size: int) -> None:
    blob = MemoryBlob(header(b"x", kind, size) + bytes(1 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="extended header"):
            list(layer_headers(blob, TAR))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("media_type", [GZIP, ZSTD])
def test_a_bomb_costs_no_memory(media_type: str) -> None:
    plain = header(b"zeros", tarfile.REGTYPE, 64 << 20) + bytes(64 << 20) + tar(("root", "d", 0o701))
    packed = gzip.compress(plain, 1) if media_type == GZIP else zstandard.ZstdCompressor().compress(plain)
    del plain
    source = FakeSource((media_type, packed))
    tracemalloc.start()
    try:
        assert source.find("root") == {"root": directory("root", 0o701)}
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


GOOD = tar(("root", "d"), ("root/x", "f", 0o644, 0, 0, 5000), ("root/" + "y" * 120, "d"))
# With the time of day in it, two workers of a test run would see two different parameters.
PACKED = gzip.compress(GOOD, mtime=0)


def pax(record: bytes) -> bytes:
    return header(b"p", tarfile.XHDTYPE, len(record)) + record.ljust(512, b"\0") + GOOD


@pytest.mark.parametrize(
    ("media_type", "data"),
    [
        (TAR, b"not a tar".ljust(1024, b"\x01")),
        (TAR, GOOD[:700]),
        (TAR, GOOD[:100]),
        (TAR, GOOD[:150] + b"\xff" + GOOD[151:]),
        (TAR, header(b"p", tarfile.XHDTYPE, 300) + b"300 path="),
        (TAR, pax(b"path=x\n")),
        (TAR, pax(b"99999999999999999999999 path=x\n")),
        (TAR, pax(b"0 path=x\n")),
        (TAR, pax(b"-5 path=x\n")),
        (TAR, pax(b"12 size=-12\n")),
        (TAR, pax(b"13 uid=\xd9\xa3abc\n")),
        (GZIP, b"not gzip"),
        (GZIP, PACKED[:-9]),
        (GZIP, PACKED[:60]),
        (GZIP, PACKED[:40] + b"\xff" * 40 + PACKED[80:]),
        (ZSTD, b"not zstd"),
    ],
)
def test_damaged_layers_are_told(media_type: str, data: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        FakeSource((media_type, data)).find("root")
    assert digest_of(data) in str(caught.value)


@pytest.mark.parametrize("media_type", ["application/octet-stream", f"{GZIP}+encrypted", "", "tar+bzip2"])
def test_other_types_of_layers_are_refused(media_type: str) -> None:
    with pytest.raises(SourceError, match="is of the type"):
        FakeSource((media_type, GOOD)).find("root")


def test_any_cut_and_any_flip_is_survived() -> None:
    layer = tar(("root", "d"), ("root/" + "y" * 120, "l", 0o777, 0, 0, "z" * 120), format=tarfile.PAX_FORMAT)
    for position in range(0, len(layer), 37):
        for data in (layer[:position], layer[:position] + bytes([layer[position] ^ 0x55]) + layer[position + 1 :]):
            for media_type, packed in ((TAR, data), (GZIP, gzip.compress(data, 1))):
                with contextlib.suppress(LayerbuildError):
                    FakeSource((media_type, packed)).find("root", "root/" + "y" * 120)


def test_large_files_in_plain_layers_are_not_transferred(registry: Front, tmp_path: Path) -> None:
    layer = tar(("weights", "f", 0o644, 0, 0, 40_000_000), ("small", "f", 0o644, 0, 0, 1000), ("root", "d", 0o700))
    image = make_image([(TAR, layer)])
    push(f"{registry.host}/{registry.prefix}", "base", "1", image)
    registry.records.clear()
    source = base(f"{registry.host}/{registry.prefix}/base:1", tmp_path)
    assert directories(source, image.manifest, ["root"]) == {"root": directory("root", 0o700)}
    assert len(registry.requests("GET", "/blobs/")) == 2
    assert registry.requests("GET", "/blobs/")[1].sent < 1_000_000


def test_a_compressed_layer_is_held_against_its_digest(registry: Front, tmp_path: Path) -> None:
    layer = gzip.compress(GOOD, mtime=0)
    image = make_image([(GZIP, layer)])
    push(f"{registry.host}/{registry.prefix}", "base", "1", image)
    registry.rule("GET", "/blobs/", 200, body=gzip.compress(GOOD, mtime=1))
    with pytest.raises(ContentMismatch):
        directories(base(f"{registry.host}/{registry.prefix}/base:1", tmp_path), image.manifest, ["root"])


def test_memory_does_not_grow_with_the_number_of_entries() -> None:
    class Many(MemoryBlob):
        def open(self, offset: int = 0) -> Iterator[bytes]:
            for number in range(50):
                yield b"".join(header(b"d/%d-%d" % (number, i), tarfile.DIRTYPE, 0) for i in range(100))
            yield bytes(1024)

    tracemalloc.start()
    try:
        assert sum(1 for _ in layer_headers(Many(b""), TAR)) == 5_000
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("media_type", [GZIP, ZSTD])
def test_a_layer_that_decodes_without_end_is_given_up(media_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerbuild.registry.tarstreams._INFLATION_START", 1 << 20)
    data = bytes(64 << 20)
    packed = gzip.compress(data, 9) if media_type == GZIP else zstandard.compress(data)
    with pytest.raises(SourceError, match="makes no sense"):
        # After the end mark, where a reader has no more to learn.
        list(layer_headers(MemoryBlob(packed * 2), media_type))
