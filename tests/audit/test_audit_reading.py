"""How much is read, and what is made of it: ranges, unions, links; and images that play hostile."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from audit.planting import ROOT, TAR, Entries, Image, Item, directory, empty, hardlink, link, tar, view_of
from fixtures.registry import Front, MemoryBlob
from fixtures.virtualregistry import VirtualRegistry, big_image
from layerbuild import http
from layerbuild.audit import checks
from layerbuild.audit.blobs import Blobs
from layerbuild.audit.filesystem import Filesystem
from layerbuild.audit.interest import Interest
from layerbuild.audit.limits import Limits, Unreadable
from layerbuild.audit.parts import BlobPart
from layerbuild.audit.view import open_image
from layerbuild.baseimage import BaseSource, open_base
from layerbuild.destinations import open_destination
from layerbuild.errors import LayerbuildError, SourceError
from layerbuild.model import Descriptor
from layerbuild.progress import Silent
from layerbuild.registry.clients import Clients
from layerbuild.registry.manifests import MANIFEST_TYPE, layers_of, read_object

MIB = 1024 * 1024


def clients() -> Clients:
    return Clients(http.Client(http.Policy(retries=1, backoff=0.001)), {})


def files_of(tmp_path: Path, *layers: Entries, compression: str = "none") -> Filesystem:
    image = empty(tmp_path / "out")
    for layer in layers:
        image = image.plant(layer, compression=compression)
    return image.view().files


# --- what is read --------------------------------------------------------------------------------------


@pytest.fixture
def big() -> Iterator[VirtualRegistry]:
    """A registry with 40 checkpoints of 512 MiB each."""
    server = big_image(files=40, size=512 * MIB)
    yield server
    server.close()


def test_twenty_gigabytes_of_weights_cost_two_megabytes(big: VirtualRegistry) -> None:
    assert big.size > 20 * 1024**3
    source = open_base(big.reference, client_for=(known := clients()), project=Path("/"))
    (digest,) = source.platforms().values()
    view, blobs = open_image(source, digest, client_for=known, progress=Silent())
    findings = checks.run(view)
    assert len(view.models) == 40
    assert {view.architecture(model) for model in view.models} == {"sd1"}
    assert not [f for f in findings if f.severity != "info"]
    assert big.sent < 2 * MIB
    assert blobs.bytes_read <= big.sent
    assert big.requests < 4 * 40


def test_a_registrys_image_is_read_by_ranges(registry: Front, sound: Image) -> None:
    image = sound.plant({"data/big.bin": bytes(3 * MIB), "data/other.bin": b"x"})
    destination = open_destination(f"{registry.host}/{registry.prefix}", client_for=clients(), directory=Path("/"))
    image.save()
    for descriptor in image.layers:
        path = image.layout / "blobs" / "sha256" / descriptor["digest"].removeprefix("sha256:")
        destination.put("image", MemoryBlob(path.read_bytes()), advance=lambda amount: None)
    config = MemoryBlob(json.dumps(image.config).encode())
    destination.put("image", config, advance=lambda amount: None)
    described = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config.digest, "size": config.size}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": described, "layers": list(image.layers)}
    destination.put_manifest("image", "1", MANIFEST_TYPE, json.dumps(manifest).encode())
    before = sum(r.sent for r in registry.requests("GET"))
    view = view_of(f"{registry.host}/{registry.prefix}/image:1")
    assert not [f for f in checks.run(view) if f.severity != "info"]
    assert view.files.file("/data/other.bin") is not None
    assert sum(r.sent for r in registry.requests("GET")) - before < 512 * 1024


def test_small_files_of_a_plain_layer_are_read_together(tmp_path: Path) -> None:
    image = empty(tmp_path / "out").plant({f"a/{i:05}": b"x" * 3000 for i in range(2000)})
    blobs = Counting(*opened(image)[:1], clients())
    (part,) = parts_of(image, blobs)
    assert len(part.nodes(0, Interest(), Limits())) == 2000
    assert len(blobs.asked) < 20


class Counting(Blobs):
    """Remembers how many bytes each range had."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked: list[int] = []

    def range(self, descriptor: Descriptor, offset: int, length: int) -> bytes:
        self.asked.append(length)
        return super().range(descriptor, offset, length)


def opened(image: Image) -> tuple[BaseSource, str]:
    source = open_base(image.save(), client_for=clients(), project=Path("/"))
    (digest,) = source.platforms().values()
    return source, digest


def parts_of(image: Image, blobs: Blobs | None = None) -> list[BlobPart]:
    """The image's layers, each to be read by itself."""
    source, digest = opened(image)
    blobs = blobs or Blobs(source, clients())
    return [BlobPart(blobs, d) for d in layers_of(read_object(source.manifest(digest), ""), "")]


# --- the union of layers -------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_whiteouts_and_opaque_directories(tmp_path: Path, compression: str) -> None:
    below: Entries = {"a/one": "1", "a/two": "2", "b/c/d": "3", "e": "4", "f/g": "5"}
    above: Entries = {
        "a/one": None,
        "b/.wh..wh..opq": "",
        "b/new": "6",
        "e/now": "7",
        "f": link("a"),
        "a/.wh..wh.plnk": "",
    }
    files = files_of(tmp_path, below, above, compression=compression)
    assert sorted(path for path, _ in files.everything()) == ["/a", "/a/two", "/b", "/b/new", "/e", "/e/now", "/f"]


def test_a_whiteout_spares_what_its_own_layer_has(tmp_path: Path) -> None:
    for layer in ({"a": "new", "./.wh.a": ""}, {"./.wh.a": "", "a": "new"}):
        files = files_of(tmp_path, {"a": "old"}, layer)
        node = files.file("/a")
        assert node is not None and files.read(node) == b"new"


def test_parents_are_followed_as_runtimes_do(tmp_path: Path) -> None:
    below: Entries = {"usr/lib/x": "1", "lib": link("usr/lib"), "etc": link("/usr/etc"), "usr/etc": directory()}
    files = files_of(tmp_path, below, {"lib/y": "2", "etc/z": "3"})
    assert files.file("/usr/lib/y") and files.file("/usr/etc/z") and files.file("/lib/x")
    replaced = files_of(tmp_path, below, {"lib": directory(), "lib/y": "2"})
    assert replaced.file("/lib/y") and not replaced.file("/usr/lib/y") and not replaced.file("/lib/x")


def test_links_as_the_kernel_follows_them(tmp_path: Path) -> None:
    layer: Entries = {
        "a/file": "1",
        "absolute": link("/a/file"),
        "relative": link("a/../a/./file"),
        "escape": link("../../../../a/file"),
        "loop": link("loop"),
        "ping": link("pong"),
        "pong": link("ping"),
        "dir": link("a"),
        "through": link("absolute/x"),
        "empty": link("nowhere"),
        **{f"chain{i}": link(f"chain{i + 1}") for i in range(50)},
        "chain50": "end",
    }
    files = files_of(tmp_path, layer)
    for name in ("absolute", "relative", "escape", "dir/file", "dir/../a/file", "../../a/file", "chain10"):
        assert files.file(f"/{name}"), name
    for name in ("loop", "ping", "through", "empty", "a/file/x", "chain9"):
        assert files.resolve(f"/{name}") is None, name
    assert files.resolve("/dir/file") is not None and files.resolve("/dir/file")[0] == "/a/file"  # type: ignore[index]


def test_hard_links_share_their_file(tmp_path: Path) -> None:
    files = files_of(
        tmp_path, {"a": "same", "b": hardlink("a")}, {"c": hardlink("./b"), "d": hardlink("none"), "a": None}
    )
    assert [files.read(node) for path, node in files.everything()] == [b"same", b"same"]
    assert files.file("/d") is None


def test_walks_end(tmp_path: Path) -> None:
    layer: Entries = {"m/x/f": "1", "m/self": link("."), "m/up": link(".."), "m/x/back": link("../../m")}
    listed = dict(files_of(tmp_path, layer).walk("/m"))
    assert listed["/m/x"] == ["f"]
    mutual: dict[str, Any] = {f"d{i}/to{j}": link(f"/d{j}") for i in range(12) for j in range(12)}
    with pytest.raises(Unreadable, match="symlinks make more paths"):
        list(files_of(tmp_path, mutual).walk("/"))


def test_what_tar_can_say(tmp_path: Path) -> None:
    name = "d/" + "long" * 40 + "/ünïcode"
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.size, info.mtime = 3, 12345
        archive.addfile(info, io.BytesIO(b"abc"))
    for data in (out.getvalue(), tar({name: Item(data=b"abc", mtime=12345.75)})):
        files = empty(tmp_path / "out").plant(data).view().files
        node = files.file(f"/{name}")
        assert node is not None and (files.read(node), node.mtime) == (b"abc", 12345)


# --- hostile -------------------------------------------------------------------------------------------


def refused(image: Image, *words: str, limits: Limits | None = None) -> None:
    with pytest.raises(LayerbuildError) as raised:
        checks.run(image.view(limits))
    assert not [word for word in words if word not in str(raised.value)], raised.value


def header(name: str, size: int, *, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("size", [513, 2**40, 2**62])
def test_a_size_beyond_the_layer(tmp_path: Path, compression: str, size: int) -> None:
    data = header("a", size) + bytes(512)
    refused(empty(tmp_path / "out").plant(data, compression=compression), "layer")


def test_a_negative_size(tmp_path: Path) -> None:
    info = bytearray(header("a", 0))
    info[124:136] = b"\xff" * 12
    info[148:156] = b" " * 8
    info[148:156] = b"%06o\0 " % sum(info)
    refused(empty(tmp_path / "out").plant(bytes(info) + bytes(1024)), "cannot be")


def test_more_headers_than_any_honest_image(tmp_path: Path) -> None:
    many = b"".join(header(f"{i}", 0) for i in range(300))
    image = empty(tmp_path / "out").plant(many * 40, compression="zstd")
    (part,) = parts_of(image)
    tracemalloc.start()
    with pytest.raises(Unreadable, match="the layer") as raised:
        part.nodes(0, Interest(), Limits(entries=5000))
    assert "more paths" in str(raised.value.cause)
    assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    tracemalloc.stop()


def test_deep_directories(tmp_path: Path) -> None:
    refused(empty(tmp_path / "out").plant({"d/" * 1000 + "f": ""}), "a path that cannot be")
    assert empty(tmp_path / "out").plant({"d/" * 250 + "f": ""}).ids() == {"no-webui"}
    # each entry implies as many directories as it has parts
    wide = {f"{i}/" + "d/" * 200 + "f": "" for i in range(30)}
    refused(empty(tmp_path / "out").plant(wide), "more paths", limits=Limits(entries=5000))


def test_small_files_without_end(tmp_path: Path) -> None:
    image = empty(tmp_path / "out").plant({f"{i}/cache.json": bytes(MIB) for i in range(20)}, compression="zstd")
    refused(image, "configuration files", limits=Limits(kept=10 * MIB))


def test_a_layer_that_decodes_to_much_more_than_itself(tmp_path: Path) -> None:
    compressor = zstandard.ZstdCompressor().compressobj()
    packed = compressor.compress(header("zeros", 2 * 1024**3))
    packed += b"".join(compressor.compress(bytes(16 * MIB)) for _ in range(80)) + compressor.flush()
    image = empty(tmp_path / "out").stack(f"{TAR}+zstd", packed)
    (part,) = parts_of(image)
    tracemalloc.start()
    with pytest.raises(Unreadable, match="the layer") as raised:
        part.nodes(0, Interest(), Limits())
    assert "decodes to more" in str(raised.value.cause)
    assert tracemalloc.get_traced_memory()[1] < 32 * MIB
    tracemalloc.stop()


def test_whiteouts_of_everything(sound: Image) -> None:
    image = sound.plant({"srv": None, "opt": None, ".wh..wh..opq": "", "..": directory(), "../../etc/x": "y"})
    assert {f.id for f in image.findings() if f.severity != "info"} <= {"no-webui", "bytes-hidden"}


@pytest.mark.parametrize("data", [b"", b"x", bytes(100), b"\x1f\x8b" + bytes(40), b"x" * 2000])
@pytest.mark.parametrize("compression", ["", "+gzip", "+zstd"])
def test_layers_that_are_none(tmp_path: Path, data: bytes, compression: str) -> None:
    image = empty(tmp_path / "out").stack(TAR + compression, data)
    try:
        assert image.ids() == {"no-webui"}
    except SourceError as error:
        assert "layer" in error.message


def test_a_layer_of_an_unknown_type(tmp_path: Path) -> None:
    refused(empty(tmp_path / "out").stack("application/vnd.oci.image.layer.v1.tar+encrypted", b"x"), "encrypted")


@pytest.mark.parametrize(
    "config",
    [b"", b"nonsense", b"[]", b'{"config": {"Env": "A=b", "Cmd": 1}}', b'{"config": {"Env": [1]}}',
     b'{"history": {"a": 1}}', b"[" * 10000, b'{"config": "x"}'],
)  # fmt: skip
def test_configs_that_make_no_sense(sound: Image, config: bytes) -> None:
    with pytest.raises(LayerbuildError):
        view_of(sound.save(config=config))


def test_odd_configs_that_do(sound: Image) -> None:
    config = {
        "config": {
            "Env": ["", "=", "A", "PATH=" + ":" * 5000],
            "Cmd": "python3 /srv/webui/webui.py",
            "User": "../x",
            "Volumes": None,
            "Labels": {"a": 1},
            "WorkingDir": "",
        },
        "history": [None, {}, {"created_by": 5}],
    }
    view = view_of(sound.save(config=json.dumps(config).encode()))
    assert view.webui is not None
    checks.run(view)


def test_names_that_a_terminal_would_obey(sound: Image) -> None:
    evil = "\x1b[2J\u202eevil\n"
    image = sound.plant({f"{ROOT}/models/Lora/{evil}.pt": "x"})
    finding = image.found("model-not-hashed")
    text = f"{finding.paths} {finding.what} {finding.hint}"
    assert "\x1b" not in str(finding.paths[0]) and "evil" in text
    assert all(c.isprintable() for f in image.findings() for part in (*f.paths, f.what, f.hint) for c in part)


def test_safetensors_headers_that_lie(sound: Image) -> None:
    for data in (
        b"",
        b"\xff" * 8,
        (100).to_bytes(8, "little") + b"{",
        (2**62).to_bytes(8, "little"),
        (2).to_bytes(8, "little") + b"[]",
    ):
        for compression in ("none", "gzip"):
            checks.run(
                sound.plant(
                    {f"{ROOT}/models/Stable-diffusion/a.safetensors": data, f"{ROOT}/models/Lora/l.safetensors": data},
                    compression=compression,
                ).view()
            )
