"""`oci://` against a real registry: artifacts as ORAS, ModelPack, KitOps and Docker make them, and images."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import oras.client
import pytest
import zstandard

from fixtures.registry import PASSWORD, USER, Front, Image, MemoryBlob, docker_config, make_image
from layerbuild import http
from layerbuild.artifact import open_artifact
from layerbuild.destinations import open_destination
from layerbuild.errors import AccessDenied, ContentMismatch, NotFound, SourceError, Unreachable
from layerbuild.model import Pin
from layerbuild.registry.clients import Clients
from layerbuild.sources import Request, source_for
from layerbuild.sources.base import Context
from sources.conftest import Notes

BIG = os.urandom(3 << 20)
SMALL = b"text"
TAR = "application/vnd.oci.image.layer.v1.tar"
CNCF = "application/vnd.cncf.model.weight.v1"
KIT = "application/vnd.kitops.modelkit"
FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
Layer = tuple[str, bytes, dict[str, str]]


@pytest.fixture
def oci(context: Context) -> Context:
    """The context, with registries."""
    return connected(context, {})


def connected(context: Context, environ: dict[str, str]) -> Context:
    client = http.Client(http.Policy(retries=2, backoff=0.001))
    clients = Clients(client, {**context.environ, **environ})
    return replace(context, artifact=lambda name: open_artifact(name, client_for=clients))


def tar(*entries: tuple[str, bytes | str], kind: bytes = tarfile.SYMTYPE) -> bytes:
    """A tar of files (bytes) and links (text); a name that ends in a slash is a directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, what in entries:
            info = tarfile.TarInfo(name.rstrip("/"))
            if name.endswith("/"):
                info.type = tarfile.DIRTYPE
            elif isinstance(what, str):
                info.type, info.linkname = kind, what
            else:
                info.size = len(what)
            archive.addfile(info, io.BytesIO(what) if isinstance(what, bytes) and info.isreg() else None)
    return out.getvalue()


PACKED = {
    "": lambda data: data,
    "+gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "+zstd": lambda data: zstandard.compress(data, 1),
}


def artifact(layers: Sequence[Layer], config_type: str = "application/vnd.oci.empty.v1+json") -> Image:
    """An artifact of (media type, bytes, annotations)."""
    image = make_image([(media_type, data) for media_type, data, _ in layers])
    manifest = json.loads(image.manifest)
    manifest["config"]["mediaType"] = config_type
    for entry, (_, _, notes) in zip(manifest["layers"], layers, strict=True):
        if notes:
            entry["annotations"] = notes
    return replace(image, manifest=json.dumps(manifest).encode())


def push(front: Front, image: Image, tag: str | None = "1") -> str:
    """Stores an artifact; gives the address of what is in it."""
    destination = open_destination(f"{front.host}/{front.prefix}", client_for=Clients(http.Client(), {}))
    for blob in image.blobs:
        destination.put("model", blob, advance=lambda amount: None)
    destination.put_manifest("model", tag, image.media_type, image.manifest)
    front.records.clear()
    return f"oci://{front.host}/{front.prefix}/model:{tag}"


def resolve(context: Context, uri: str, **more: Any) -> Pin:
    return source_for(uri, context).resolve(Request(uri=uri, **more))


def read(context: Context, pin: Pin, **more: Any) -> bytes:
    return b"".join(source_for(pin.source, context).open(pin, pin.files[0], **more))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check(context: Context, pin: Pin, data: bytes) -> None:
    """The pin is that of `data`, and gives it: whole, and in parts."""
    (file,) = pin.files
    assert (file.content.sha256, file.content.size) == (sha256(data), len(data))
    assert read(context, pin) == data
    assert read(context, pin, offset=2) == data[2:]
    assert read(context, pin, offset=1, length=2) == data[1:3]
    assert read(context, pin, offset=1, length=0) == b""
    assert read(context, pin, offset=len(data) - 1, length=100) == data[-1:]


def blobs(front: Front) -> int:
    """Bytes of blobs that were sent."""
    return sum(record.sent for record in front.requests("GET", "/blobs/"))


# --- files that are blobs -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media_type", "annotations"),
    [
        (f"{CNCF}.raw", {FILEPATH: "a/model.safetensors"}),
        (f"{CNCF}.safetensors", {FILEPATH: "a/model.safetensors"}),
        ("application/vnd.cnai.model.weight.v1.raw", {"org.cnai.model.filepath": "a/model.safetensors"}),
        ("application/vnd.docker.ai.safetensors", {FILEPATH: "a/model.safetensors"}),
        ("application/octet-stream", {TITLE: "a/model.safetensors"}),
        (TAR, {TITLE: "a/model.safetensors"}),
        (f"{TAR}+gzip", {TITLE: "a/model.safetensors"}),
    ],
)
def test_a_file_that_is_a_blob_is_not_downloaded(
    oci: Context, registry: Front, annotations: dict[str, str], media_type: str
) -> None:
    image = artifact([("text/plain", SMALL, {TITLE: "README"}), (media_type, BIG, annotations)])
    pin = resolve(oci, push(registry, image) + "/a/model.safetensors")
    assert blobs(registry) == 0
    name = f"{registry.host}/{registry.prefix}/model"
    assert pin.source == f"oci://{name}@{image.digest}/a/model.safetensors"
    assert (pin.ref, pin.blob, pin.offset) == ("1", None, None)
    check(oci, pin, BIG)
    # A pinned file is asked for by its own digest, and by ranges.
    registry.records.clear()
    read(oci, pin, offset=10, length=20)
    assert blobs(registry) == 20 and registry.requests("GET", "/manifests/") == []


def test_what_oras_pushed(oci: Context, registry: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model.bin").write_bytes(BIG)
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/config.json").write_bytes(SMALL)
    name = f"{registry.host}/{registry.prefix}/pushed"
    client = oras.client.OrasClient(hostname=registry.host, insecure=True)
    client.push(target=f"{name}:v1", files=["model.bin", "dir"]).close()
    check(oci, resolve(oci, f"oci://{name}:v1/model.bin"), BIG)
    check(oci, resolve(oci, f"oci://{name}:v1/dir/config.json"), SMALL)
    client.session.close()


def test_what_docker_calls_a_model(oci: Context, registry: Front) -> None:
    layers: list[Layer] = [
        ("application/vnd.docker.ai.gguf.v3", BIG, {}),
        ("application/vnd.docker.ai.license", b"x", {}),
    ]
    address = push(registry, artifact(layers, "application/vnd.docker.ai.model.config.v0.1+json"))
    check(oci, resolve(oci, f"{address}/model.gguf"), BIG)
    with pytest.raises(NotFound, match="no file model\\.bin") as caught:
        resolve(oci, f"{address}/model.bin")
    assert "LICENSE, model.gguf" in (caught.value.hint or "")


# --- files in tars --------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize(
    ("prefix", "annotations"),
    [
        (f"{CNCF}.tar", {FILEPATH: "a/model.safetensors"}),
        (f"{CNCF}.tar", {FILEPATH: "a"}),
        (f"{KIT}.model.v1.tar", {}),
        (f"{KIT}.modelpart.v1.tar", {}),
    ],
)
def test_a_file_in_a_tar_is_fetched_once(
    oci: Context, registry: Front, notes: Notes, prefix: str, suffix: str, annotations: dict[str, str]
) -> None:
    data = PACKED[suffix](tar(("a/", ""), ("a/README", SMALL), ("./a/model.safetensors", BIG)))
    other = PACKED[suffix](tar(("b/other", b"x" * 1000)))
    image = artifact([(f"{KIT}.docs.v1.tar{suffix}", other, {}), (f"{prefix}{suffix}", data, annotations)])
    address = push(registry, image)
    pin = resolve(oci, f"{address}/a/model.safetensors")
    assert blobs(registry) < len(data) + 100_000
    assert pin.blob == f"sha256:{sha256(data)}" and pin.offset is not None
    assert "fetched once" in notes.lines[0]
    check(oci, pin, BIG)
    if annotations.get(FILEPATH) != "a/model.safetensors":
        check(oci, resolve(oci, f"{address}/a/README"), SMALL)
    # Where the digest is known, finding the place is all there is to do.
    registry.records.clear()
    declared = resolve(oci, f"{address}/a/model.safetensors", sha256=sha256(BIG))
    assert declared == pin
    assert suffix or blobs(registry) < 100_000


def test_a_plain_tar_is_read_by_ranges(oci: Context, registry: Front) -> None:
    data = tar(("first", BIG), ("model", BIG[::-1]))
    pin = resolve(oci, push(registry, artifact([(f"{CNCF}.tar", data, {})])) + "/model")
    registry.records.clear()
    assert read(oci, pin, offset=100, length=50) == BIG[::-1][100:150]
    assert blobs(registry) == 50


def test_tars_that_have_no_such_file(oci: Context, registry: Front) -> None:
    links = tar(("x", "y"), ("dir/", ""))
    address = push(registry, artifact([(f"{KIT}.model.v1.tar", links, {})]))
    for path, word in (("nothing", "no file nothing"), ("x", "is a symlink"), ("dir", "is a directory")):
        with pytest.raises(SourceError, match=word):
            resolve(oci, f"{address}/{path}")


# --- images ---------------------------------------------------------------------------------------------


def image_of(*layers: bytes, suffix: str = "") -> Image:
    """An image of tars, the lowest first."""
    return make_image([(f"{TAR}{suffix}", PACKED[suffix](data)) for data in layers])


@pytest.mark.parametrize("suffix", PACKED)
def test_the_topmost_layer_has_the_file(oci: Context, registry: Front, suffix: str) -> None:
    image = image_of(tar(("opt/model", b"old")), tar(("opt/model", BIG)), tar(("opt/other", SMALL)), suffix=suffix)
    pin = resolve(oci, push(registry, image) + "/opt/model")
    assert pin.blob == image.blobs[2].digest
    check(oci, pin, BIG)
    lowest = f"/blobs/{image.blobs[1].digest}"
    assert registry.requests("GET", lowest) == []


@pytest.mark.parametrize(
    ("upper", "path"),
    [
        ([(".wh.opt", b"")], "opt/model"),
        ([("opt/.wh.model", b"")], "opt/model"),
        ([("opt/.wh..wh..opq", b"")], "opt/model"),
        ([("opt", b"a file")], "opt/model"),
        ([("opt", "nowhere")], "opt/model"),
        ([("opt/x", b"")], "opt"),
        ([("opt/model", "model")], "opt/model"),
        ([("a", "b"), ("b", "a")], "a"),
        ([("a", "../../b/..")], "a"),
    ],
)
def test_what_is_not_there_in_an_image(
    oci: Context, registry: Front, upper: list[tuple[str, bytes | str]], path: str
) -> None:
    address = push(registry, image_of(tar(("opt/model", BIG)), tar(*upper)))
    with pytest.raises(SourceError, match="no file"):
        resolve(oci, f"{address}/{path}")


@pytest.mark.parametrize("suffix", ["", "+gzip"])
@pytest.mark.parametrize(
    "upper",
    [
        [("webui/model", "../opt/model")],
        [("webui/model", "/opt/model")],
        [("webui/model", "/../../opt/./model")],
        [("webui", "opt")],
        [("webui", "/a"), ("a", "b/../opt")],
        [("webui/model", "other"), ("webui/other", "/x/model"), ("x", "opt")],
    ],
)
def test_links_are_followed_within_the_image(
    oci: Context, registry: Front, upper: list[tuple[str, bytes | str]], suffix: str
) -> None:
    image = image_of(tar(("opt/", ""), ("opt/model", BIG)), tar(*upper), suffix=suffix)
    pin = resolve(oci, push(registry, image) + "/webui/model")
    assert pin.files[0].path == "webui/model" and pin.blob == image.blobs[1].digest
    check(oci, pin, BIG)


def test_hard_links_are_names_of_what_was_there(oci: Context, registry: Front) -> None:
    image = image_of(
        tar(("opt/model", BIG)),
        tar(("opt/again", "opt/model"), kind=tarfile.LNKTYPE),
        tar(("opt/model", SMALL), ("self", b"")),
        tar(("self", "self"), kind=tarfile.LNKTYPE),
    )
    address = push(registry, image)
    check(oci, resolve(oci, f"{address}/opt/again"), BIG)
    check(oci, resolve(oci, f"{address}/opt/model"), SMALL)
    with pytest.raises(SourceError, match="no file"):
        resolve(oci, f"{address}/self")


def test_an_index_means_one_of_its_manifests(oci: Context, registry: Front) -> None:
    arm, amd = image_of(tar(("m", b"arm!"))), image_of(tar(("m", b"amd!")))
    for image in (arm, amd):
        push(registry, image, "x")

    def index(*entries: tuple[Image, dict[str, str] | None]) -> str:
        manifests = [
            {"mediaType": i.media_type, "digest": i.digest, "size": len(i.manifest)} | ({"platform": p} if p else {})
            for i, p in entries
        ]
        media_type = "application/vnd.oci.image.index.v1+json"
        data = json.dumps({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}).encode()
        return push(registry, Image(blobs=[], manifest=data, media_type=media_type), "index")

    linux = {"os": "linux", "architecture": "arm64"}
    pin = resolve(oci, index((arm, linux), (amd, {"os": "linux", "architecture": "amd64"})) + "/m")
    assert amd.digest in pin.source
    check(oci, pin, b"amd!")
    check(oci, resolve(oci, index((arm, None), (amd, {"os": "unknown", "architecture": "unknown"})) + "/m"), b"arm!")
    with pytest.raises(SourceError, match="nothing for linux/amd64") as caught:
        resolve(oci, index((arm, linux), (amd, {"os": "windows", "architecture": "amd64"})) + "/m")
    assert arm.digest in (caught.value.cause or "")


# --- pins -----------------------------------------------------------------------------------------------


def test_a_tag_that_moves_moves_no_pin(oci: Context, registry: Front) -> None:
    address = push(registry, image_of(tar(("m", BIG)), suffix="+gzip"))
    pin = resolve(oci, f"{address}/m")
    push(registry, image_of(tar(("m", SMALL)), suffix="+gzip"))
    check(oci, pin, BIG)
    again = resolve(oci, pin.source)
    assert again == replace(pin, ref=None)
    by_both = resolve(oci, pin.source.replace("@", ":1@"))
    assert by_both == pin
    check(oci, resolve(oci, f"{address}/m"), SMALL)


def test_what_is_declared_is_compared(oci: Context, registry: Front) -> None:
    address = push(
        registry, artifact([(f"{CNCF}.raw", SMALL, {FILEPATH: "m"}), (f"{CNCF}.tar", tar(("n", SMALL)), {})])
    )
    for path in "mn":
        assert resolve(oci, f"{address}/{path}", sha256=sha256(SMALL), size=4).files[0].content.size == 4
        with pytest.raises(ContentMismatch):
            resolve(oci, f"{address}/{path}", size=5)
    with pytest.raises(ContentMismatch):
        resolve(oci, f"{address}/m", sha256=sha256(BIG))


@pytest.mark.parametrize(
    "uri",
    [
        *("oci://h.io/r/m", "oci://h.io/r", "oci://h.io", "oci:dir:name", "oci://acme/m:1/x", "oci://h.io/R:1/x"),
        *("oci://h.io/r:1/../x", "oci://h.io/r:1//x", "oci://h.io/r@sha256:abc/x", "oci://h.io/r:1/a\nb", "oci://"),
        *("oci://me:pw@h.io/r:1/x", "oci://h.io/r:-1/x", "oci://h.io//r:1/x", "oci://h.io/r:1@sha512:00/x"),
    ],
)
def test_addresses_that_are_none(oci: Context, uri: str) -> None:
    with pytest.raises(SourceError) as caught:
        resolve(replace(oci, artifact=lambda name: open_artifact(name, client_for=refuse)), uri)
    assert "pw" not in str(caught.value) and caught.value.hint


def refuse(host: str) -> Any:
    raise SourceError("nobody may be asked", hint="none")


def test_one_file_and_nothing_offline(oci: Context, registry: Front) -> None:
    address = push(registry, artifact([(f"{CNCF}.raw", SMALL, {FILEPATH: "m"})]))
    with pytest.raises(SourceError, match="one file"):
        resolve(oci, f"{address}/m", files=("*",))
    pin = resolve(oci, f"{address}/m")
    offline = replace(oci, offline=True)
    with pytest.raises(Unreachable):
        resolve(offline, f"{address}/m")
    with pytest.raises(Unreachable):
        read(offline, pin)
    with pytest.raises(NotFound, match="without a path"):
        resolve(oci, address)
    with pytest.raises(NotFound):
        resolve(oci, address.replace(":1", ":2") + "/m")


def test_pins_that_somebody_edited(oci: Context, registry: Front) -> None:
    pin = resolve(oci, push(registry, image_of(tar(("m", SMALL)))) + "/m")
    with pytest.raises(SourceError, match="no layer"):
        read(oci, replace(pin, blob=f"sha256:{'0' * 64}"))
    with pytest.raises(SourceError, match="names no digest"):
        read(oci, replace(pin, source=pin.source.partition("@")[0] + ":1/m"))
    with pytest.raises(SourceError):
        read(oci, replace(pin, offset=10_000_000))


# --- trouble --------------------------------------------------------------------------------------------


def cut(front: Front, after: int, times: int = 1) -> None:
    """Lets answers with blobs break off."""
    front.rule(
        "GET",
        "/blobs/",
        edit=lambda s, h, b: (s, {**h, "Connection": "close"}, b[:after] if len(b) > after else b),
        times=times,
    )


@pytest.mark.parametrize("suffix", PACKED)
def test_what_breaks_off_goes_on(oci: Context, registry: Front, suffix: str) -> None:
    address = push(registry, image_of(tar(("m", BIG)), suffix=suffix))
    cut(registry, 2_000_000, times=2)
    pin = resolve(oci, f"{address}/m")
    check(oci, pin, BIG)
    registry.records.clear()
    cut(registry, 2_000_000)
    assert read(oci, pin) == BIG
    assert len(registry.requests("GET", "/blobs/")) == 2 and blobs(registry) < len(BIG) + 200_000
    cut(registry, 0, times=20)
    with pytest.raises(Unreachable):
        read(oci, pin)


@pytest.mark.parametrize("suffix", PACKED)
def test_a_registry_that_gives_something_else(oci: Context, registry: Front, suffix: str) -> None:
    """Nothing is recorded that the manifest's digests do not vouch for."""
    good, evil = tar(("m", BIG)), tar(("m", BIG[:-1] + b"!"))
    data = PACKED[suffix](evil)
    image = image_of(good, suffix=suffix)
    address = push(registry, image)
    size = image.blobs[1].size
    registry.rule("GET", "/blobs/", 200, body=data[:size].ljust(size, b"\0"), times=20)
    with pytest.raises((ContentMismatch, SourceError)):
        resolve(oci, f"{address}/m")


@pytest.mark.parametrize("media_type", [f"{TAR}+gzip", f"{KIT}.model.v1.tar+gzip", TAR, f"{TAR}+zstd"])
@pytest.mark.parametrize(
    "data", [b"", b"nonsense" * 1000, gzip.compress(tar(("m", BIG)), 1)[:-1000], tar(("m", BIG))[:9000]]
)
def test_damaged_layers_are_told(oci: Context, registry: Front, media_type: str, data: bytes) -> None:
    address = push(registry, artifact([(media_type, data, {})]))
    with pytest.raises(SourceError):
        resolve(oci, f"{address}/m")


def test_a_bomb_is_given_up(oci: Context, registry: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerbuild.registry.tarstreams._INFLATION_START", 1 << 20)
    monkeypatch.setattr("layerbuild.registry.tarstreams._MOST_INFLATION", 16)
    for prefix in (TAR, f"{KIT}.model.v1.tar"):
        for suffix in ("+gzip", "+zstd"):
            bomb = PACKED[suffix](tar(("x", bytes(64 << 20)), ("m", SMALL)))
            address = push(registry, artifact([(f"{prefix}{suffix}", bomb, {})]))
            with pytest.raises(SourceError, match="makes no sense"):
                resolve(oci, f"{address}/m")


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("size", [2**53 + 1, 2**62, 5000])
def test_a_size_that_cannot_be(oci: Context, registry: Front, size: int, suffix: str) -> None:
    info = tarfile.TarInfo("m")
    info.size = size
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    address = push(registry, artifact([(f"{KIT}.model.v1.tar{suffix}", PACKED[suffix](data), {})]))
    with pytest.raises(SourceError):
        pin = resolve(oci, f"{address}/m", sha256=sha256(SMALL))
        read(oci, pin)


def test_too_many_entries(oci: Context, registry: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerbuild.artifacttar.MOST_ENTRIES", 10)
    monkeypatch.setattr("layerbuild.artifact.MOST_ENTRIES", 10)
    many = tar(*((f"f{i}", b"") for i in range(11)))
    with pytest.raises(SourceError, match="too many entries"):
        resolve(oci, push(registry, image_of(many)) + "/m")
    layers = [tar(*((f"{n}{i}", b"") for i in range(6))) for n in "ab"]
    with pytest.raises(SourceError, match="more than 10 paths"):
        resolve(oci, push(registry, image_of(*layers)) + "/m")


@pytest.mark.parametrize("document", [b"{}", b"[]", b"[" * 100_000, b'{"schemaVersion":2,"layers":[{"digest":1}]}'])
def test_manifests_that_make_no_sense(oci: Context, registry: Front, document: bytes) -> None:
    registry.rule(
        "GET", "/manifests/", 200, body=document, headers={"Content-Type": Image(blobs=[], manifest=b"").media_type}
    )
    with pytest.raises(SourceError):
        resolve(oci, f"oci://{registry.host}/{registry.prefix}/model:1/m")


def test_two_files_of_one_name(oci: Context, registry: Front) -> None:
    layers = [(f"{CNCF}.raw", data, {FILEPATH: "m"}) for data in (b"one", b"two")]
    with pytest.raises(SourceError, match="makes no sense"):
        resolve(oci, push(registry, artifact(layers)) + "/m")


# --- logins ---------------------------------------------------------------------------------------------


def test_private_artifacts_are_read_with_the_logins_of_pushing(
    context: Context, login_registry: Front, tmp_path: Path
) -> None:
    environ = docker_config(tmp_path / "docker", login_registry.host)
    image = artifact([(f"{CNCF}.raw", BIG, {FILEPATH: "m"})])
    destination = open_destination(
        f"{login_registry.host}/{login_registry.prefix}", client_for=Clients(http.Client(), environ)
    )
    for blob in image.blobs:
        destination.put("model", blob, advance=lambda amount: None)
    destination.put_manifest("model", "1", image.media_type, image.manifest)
    address = f"oci://{login_registry.host}/{login_registry.prefix}/model:1/m"
    check(connected(context, environ), resolve(connected(context, environ), address), BIG)
    with pytest.raises(AccessDenied) as caught:
        resolve(connected(context, {"HOME": str(tmp_path)}), address)
    assert caught.value.hint and PASSWORD not in str(caught.value) and USER not in str(caught.value)
    wrong = docker_config(tmp_path / "wrong", login_registry.host, password="not-the-password")
    with pytest.raises(AccessDenied) as caught:
        resolve(connected(context, wrong), address)
    assert "not-the-password" not in str(caught.value)


def test_an_unreachable_registry(oci: Context) -> None:
    with pytest.raises(Unreachable):
        resolve(oci, "oci://127.0.0.1:1/r:1/x")
    assert MemoryBlob(b"").size == 0


def test_a_place_that_ranges_lie_about(oci: Context, registry: Front) -> None:
    """What ranges say of a plain tar is held against the stream that has the blob's digest."""
    honest, lying = tar(("other", BIG), ("m", SMALL)), tar(("m", BIG), ("other", SMALL))
    assert len(honest) == len(lying)
    address = push(registry, artifact([(f"{KIT}.model.v1.tar", honest, {})]))

    def lie(status: int, headers: dict[str, str], body: bytes) -> tuple[int, dict[str, str], bytes]:
        if len(body) == len(honest) or status != 206:
            return status, headers, body
        start = int(headers["Content-Range"].removeprefix("bytes ").partition("-")[0])
        return status, headers, lying[start : start + len(body)]

    registry.rule("GET", "/blobs/", edit=lie, times=99)
    with pytest.raises(SourceError, match="makes no sense"):
        resolve(oci, f"{address}/m")
