"""Claims of images: their shape, what is read of them, and when they become receipts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from execute.conftest import Works, no_base
from fixtures.forgery import Forged, push_index
from fixtures.project import safetensors
from fixtures.registry import Front
from layerbuild import compress, http
from layerbuild.baseimage import BaseSource, open_base
from layerbuild.destinations.layout import LayoutDestination
from layerbuild.destinations.layoutdir import blob_path
from layerbuild.errors import DestinationError, NotFound, SourceError
from layerbuild.execute.adopt import Adopted, Adopter
from layerbuild.execute.build import Builder, distinct
from layerbuild.execute.claims import Claim
from layerbuild.execute.push import Pusher
from layerbuild.layering import ComposedLayer
from layerbuild.lockmodel import Lock
from layerbuild.model import Descriptor, Receipt
from layerbuild.progress import Silent
from layerbuild.registry.clients import Clients
from layerbuild.tarcheck import largest_blob

_A, _B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"
_LAYERS = (
    "sd: {kind: model, type: checkpoint, source: file:sd.safetensors}\n"
    "t: {kind: files, files: {/opt/x: {content: hello}, /opt/y: file:y}}\n"
)
_RECIPE = "name: one\nwebui: {root: /w}\nlayers: [sd, t]\ntags: [v1]\n"
_ZSTD = compress.encoding("zstd")


class Notes(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def note(self, text: str) -> None:
        self.told.append(text)


class Scene:
    """A project whose image lies in a layout, and machines that have made nothing of it."""

    def __init__(self, works: Works, fresh: Callable[[str], Works], directory: Path) -> None:
        works.write("sd.safetensors", safetensors(2000, {"a": "b"}))
        works.write("y", b"y" * 100)
        self.directory = directory
        self.images = works.images(_LAYERS, _RECIPE)
        self.lock: Lock = works.lock(self.images)
        self.notes = Notes()
        self._fresh = fresh
        builder = works.builder(self.images, self.lock)
        built = builder.run(self.images)
        self.built = built.all()
        Pusher(
            destination=LayoutDestination("oci:good", directory / "good"),
            packer=builder.packer,
            store=works.store,
            lock=self.lock,
            progress=Silent(),
            open_base=no_base,
            repositories=builder.repositories,
        ).run(built)
        self.honest = Forged.of(directory / "good", "one:v1")

    def machine(self, name: str = "fresh", lock: Lock | None = None) -> Builder:
        """A builder with a store of its own."""
        return self._fresh(name).builder(self.images, lock or self.lock)

    def layers(self, builder: Builder) -> list[ComposedLayer]:
        return list(distinct(builder.compose(self.images)).values())

    def open(self, reference: str) -> BaseSource:
        clients = Clients(http.Client(http.Policy(retries=1, backoff=0.001)), {})
        return open_base(reference, client_for=clients, project=self.directory)

    def adopt(self, builder: Builder, *references: str, trust: bool = False) -> Adopted:
        adopter = Adopter(open_image=self.open, packer=builder.packer, progress=self.notes, trust=trust)
        return adopter.adopt(references or ("oci:evil:one:v1",), self.layers(builder))

    def forge(self, forged: Forged, name: str = "evil") -> str:
        forged.push(f"oci:{name}", "one", "v1", directory=self.directory)
        return f"oci:{name}:one:v1"

    def refused(self, forged: Forged, *, trust: bool = False) -> dict[str, str]:
        """Titles and reasons, where a fresh machine is shown the image. Nothing else may become of it."""
        builder = self.machine()
        adopted = self.adopt(builder, self.forge(forged), trust=trust)
        for refused in adopted.refused:
            assert builder.contents.store.receipt(refused.key) is None
        assert {f"warning: {r.reference} does not hold {r.title}, as it says: {r.reason}" for r in adopted.refused} == {
            *self.notes.told
        }
        assert len(adopted.adopted) + len(adopted.refused) <= 4
        return {refused.title: refused.reason for refused in adopted.refused}


@pytest.fixture
def scene(works: Works, new_works: Callable[[str], Works], tmp_path: Path) -> Scene:
    return Scene(works, new_works, tmp_path)


class TestShape:
    SIZE = 10_240

    def _claim(self, media_type: str = compress.MEDIA_TYPES["zstd"], **changes: Any) -> Claim:
        plain = media_type == compress.MEDIA_TYPES["none"]
        digest, size = changes.pop("digest", _A if plain else _B), changes.pop("size", self.SIZE if plain else 100)
        return Claim(
            key="0" * 64,
            diff_id=changes.pop("diff_id", _A),
            descriptor=Descriptor(media_type=media_type, digest=digest, size=size),
            encoding=changes.pop("encoding", None if plain else _ZSTD),
        )

    def _fault(self, scene_layer: str, **changes: Any) -> str | None:
        algorithm: Any = "none" if scene_layer == "plain" else "zstd"
        layer = ComposedLayer(instance=None, rank=0, kind="files", label="x", algorithm=algorithm)
        return self._claim(compress.MEDIA_TYPES[algorithm], **changes).fault(layer, self.SIZE)

    def test_right_ones(self) -> None:
        assert self._fault("plain") is None and self._fault("zstd") is None
        assert self._fault("zstd", encoding="zstd:9:0.0.1-rc1+x") is None
        assert self._fault("zstd", size=largest_blob(self.SIZE)) is None
        assert self._claim().receipt(7) == Receipt(
            key="0" * 64, diff_id=_A, size=7, blobs=(replace(self._claim().receipt(7).blobs[0], encoding=_ZSTD),)
        )
        assert self._claim(compress.MEDIA_TYPES["none"]).receipt(7).blobs == ()

    @pytest.mark.parametrize("kind", ["plain", "zstd"])
    @pytest.mark.parametrize("diff_id", ["", "sha256:1", _A.upper(), "sha512:" + "a" * 64, _A + "\n"])
    def test_digests_that_are_none(self, kind: str, diff_id: str) -> None:
        assert self._fault(kind, diff_id=diff_id) == "it names no diffID"

    @pytest.mark.parametrize("changes", [{"digest": _B}, {"encoding": "none"}, {"encoding": _ZSTD}])
    def test_plain_layers(self, changes: dict[str, Any]) -> None:
        assert "its diffID" in (self._fault("plain", **changes) or "")

    @pytest.mark.parametrize("size", [0, SIZE - 1, SIZE + 1])
    def test_sizes_of_plain_layers(self, size: int) -> None:
        assert f"{self.SIZE} are pinned" in (self._fault("plain", size=size) or "")

    @pytest.mark.parametrize(
        "encoding",
        [None, "", "none", "zstd", "zstd:9", "zstd:9:", "zstd:9:1.5.7\n", "zstd:9:1 5", "xz:9:1", "zstd:9:" + "1" * 41],
    )
    def test_encodings_that_are_none(self, encoding: str | None) -> None:
        assert self._fault("zstd", encoding=encoding) == "it does not say what packed it"

    @pytest.mark.parametrize("encoding", ["zstd:3:1.5.7", "gzip:9:1.3.1", "zstd:99:1.5.7"])
    def test_encodings_of_another_family(self, encoding: str) -> None:
        assert "is wanted" in (self._fault("zstd", encoding=encoding) or "")

    @pytest.mark.parametrize("size", [0, largest_blob(SIZE) + 1, 2**60])
    def test_sizes_of_compressed_layers(self, size: int) -> None:
        assert "are pinned" in (self._fault("zstd", size=size) or "")


def test_an_honest_image_is_adopted_and_needs_no_source(scene: Scene, works: Works) -> None:
    builder = scene.machine()
    adopted = scene.adopt(builder, "oci:good:one:v1")
    sizes = {made.title: made.blob.size for _, made in scene.built[0].layers}
    assert {a.title: a.size for a in adopted.adopted} == sizes and not adopted.refused and not adopted.trusted
    assert adopted.bytes_read == sum(sizes.values())
    (works.root / "sd.safetensors").unlink()
    (works.root / "y").unlink()
    assert builder.run(scene.images).all()[0].manifest == scene.built[0].manifest


def test_what_packed_a_blob_must_be_true(scene: Scene) -> None:
    tar = scene.honest.tar("files t")
    other = zstandard.ZstdCompressor(level=1).compress(tar)
    # Unpacks to the right tar, and is not what this encoding makes: whoever makes the layer would stumble over it.
    forged = scene.honest.swapped("files t", other)
    assert scene.refused(forged) == {"files t": f"{_ZSTD} makes another blob of it"}
    # Of another version nobody here can say; the tar is right, and that is what was checked.
    builder = scene.machine("another")
    old = forged.annotated("files t", encoding="zstd:9:0.0.1")
    assert scene.adopt(builder, scene.forge(old, "old")).refused == ()
    receipt = builder.contents.store.receipt(scene.honest.key("files t"))
    assert receipt is not None and [b.encoding for b in receipt.blobs] == ["zstd:9:0.0.1"]


@pytest.mark.parametrize("trust", [False, True])
def test_diff_id_that_is_another_layers(scene: Scene, trust: bool) -> None:
    forged = scene.honest.annotated("files t", diff_id=_A).annotated("weights sd", diff_id=_A)
    reasons = scene.refused(forged, trust=trust)
    assert "uncompressed" in reasons["weights sd"]
    # A compressed layer's is not to be seen without reading it: that is what trust is.
    assert ("files t" in reasons) is not trust
    assert trust or reasons["files t"].startswith("its diffID is sha256:")


def test_keys_exchanged(scene: Scene) -> None:
    files, links = scene.honest.key("files t"), scene.honest.key("links one")
    forged = scene.honest.annotated("files t", key=links).annotated("links one", key=files)
    assert set(scene.refused(forged)) == {"files t", "links one"}


def test_an_image_that_calls_two_blobs_one_layer(scene: Scene) -> None:
    tar = scene.honest.tar("weights sd")
    assert scene.refused(scene.honest.more("weights sd", tar[:-1] + b"x")) == {
        "weights sd": "the image calls more than one blob this layer"
    }


@pytest.mark.parametrize("trust", [False, True])
def test_blobs_that_are_gone_or_damaged(scene: Scene, trust: bool) -> None:
    scene.forge(scene.honest)

    def path(title: str) -> Path:
        return blob_path(scene.directory / "evil", scene.honest.layers[scene.honest.at(title)]["digest"])

    path("files t").unlink()
    path("links one").write_bytes(path("links one").read_bytes() + b"x")
    path("weights sd").write_bytes(path("weights sd").read_bytes()[:-1] + b"x")
    adopted = scene.adopt(scene.machine(), trust=trust)
    reasons = {r.title: r.reason for r in adopted.refused}
    assert reasons.pop("files t") == "its blob is not there"
    assert "bytes there" in reasons.pop("links one")
    assert trust or "is not what the lock pins (its end is another" in reasons.pop("weights sd")
    assert reasons == {}


def test_blob_that_a_registry_lost_is_a_claim_that_fails(scene: Scene, registry: Front) -> None:
    scene.honest.push(f"{registry.host}/{registry.prefix}", "one", "v1")
    digest = scene.honest.layers[scene.honest.at("files t")]["digest"]
    registry.rule("GET", f"/blobs/{digest}", 404, times=9)
    adopted = scene.adopt(scene.machine(), f"{registry.host}/{registry.prefix}/one:v1")
    assert [r.title for r in adopted.refused] == ["files t"] and "does not exist" in adopted.refused[0].reason
    registry.rule("HEAD", f"/blobs/{digest}", 404)
    adopted = scene.adopt(scene.machine("another"), f"{registry.host}/{registry.prefix}/one:v1")
    assert [r.reason for r in adopted.refused] == ["its blob is not there"]
    assert len(adopted.adopted) == 3


def test_registry_that_breaks_down_is_an_error(scene: Scene, registry: Front) -> None:
    scene.honest.push(f"{registry.host}/{registry.prefix}", "one", "v1")
    reference = f"{registry.host}/{registry.prefix}/one:v1"
    registry.rule("GET", "/blobs/", 503, times=99)
    with pytest.raises(DestinationError, match="refuses to read"):
        scene.adopt(scene.machine(), reference)
    registry.rules.clear()
    registry.rule("HEAD", "/blobs/", 401, times=99)
    with pytest.raises(DestinationError, match="does not allow"):
        scene.adopt(scene.machine("third"), reference)
    registry.close()
    with pytest.raises(DestinationError, match="cannot be reached"):
        scene.adopt(scene.machine("another"), reference)


def test_what_is_adopted_is_mounted_from_there(scene: Scene, registry: Front) -> None:
    scene.honest.push(f"{registry.host}/{registry.prefix}", "one", "v1")
    reference = f"{registry.host}/{registry.prefix}/one:v1"
    digests = {layer["digest"] for layer in scene.honest.layers}
    builder = scene.machine()
    assert len(scene.adopt(builder, reference).adopted) == 4
    repository = [f"{registry.prefix}/one"]
    assert {d for d in digests if builder.contents.store.pushed_to(registry.host, d) == repository} == digests
    # Also of what has a receipt already, and then without a byte.
    knows = scene.machine("knows", lock=builder.record(builder.run(scene.images).all()))
    registry.records.clear()
    assert scene.adopt(knows, reference) == Adopted(adopted=(), refused=(), bytes_read=0)
    assert {d for d in digests if knows.contents.store.pushed_to(registry.host, d) == repository} == digests
    assert registry.requests("GET", "/blobs/") == []


def test_every_image_of_an_index_is_asked(scene: Scene) -> None:
    parts = [scene.honest.without(title) for title in ("weights sd", "files t")]
    push_index("oci:many", "one", "v1", parts, directory=scene.directory)
    assert len(scene.adopt(scene.machine(), "oci:many:one:v1").adopted) == 4
    # Images of one index that contradict each other have no say.
    tar = scene.honest.tar("weights sd")
    evil = scene.honest.evil("weights sd", tar[:-1] + b"x")
    push_index("oci:both", "one", "v1", [scene.honest, evil], directory=scene.directory)
    adopted = scene.adopt(scene.machine("another"), "oci:both:one:v1")
    assert [r.title for r in adopted.refused] == ["weights sd"] and len(adopted.adopted) == 3


def test_layers_that_nobody_wants_are_not_read(scene: Scene) -> None:
    tar = scene.honest.tar("files t")
    stranger = scene.honest.more("files t", tar)
    layers = [*stranger.layers[:-1], {**stranger.layers[-1], "annotations": {"dev.layerbuild.key": "f" * 64}}]
    odd = [{**layer, "annotations": value} for layer, value in zip(layers, (None, "x", 7, {"a": 1}), strict=False)]
    adopted = scene.adopt(scene.machine(), scene.forge(replace(stranger, layers=(*odd, *layers[4:]))))
    assert adopted == Adopted(adopted=(), refused=(), bytes_read=0)


def test_layer_whose_description_is_not_to_be_had(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = scene.machine()

    def tar(_instance: object) -> object:
        raise SourceError("the listing is gone", cause="so is its server")

    monkeypatch.setattr(builder.packer, "tar", tar)
    adopted = scene.adopt(builder, "oci:good:one:v1")
    assert adopted.adopted == () and len(adopted.refused) == 4
    assert adopted.refused[0].reason == "what it must be is not known here: the listing is gone (so is its server)"


def test_what_is_no_image(scene: Scene) -> None:
    with pytest.raises(NotFound):
        scene.adopt(scene.machine(), "oci:good:two:v1")
    broken = replace(scene.honest, config=b"[]")
    (scene.directory / "good" / "index.json").write_text('{"schemaVersion": 2, "manifests": []}')
    with pytest.raises(NotFound):
        scene.adopt(scene.machine("another"), "oci:good:one:v1")
    # A config that makes no sense is nobody's business here: layers are all that is asked for.
    assert len(scene.adopt(scene.machine("third"), scene.forge(broken)).adopted) == 4


def test_json(scene: Scene) -> None:
    forged = scene.honest.evil("weights sd", scene.honest.tar("weights sd")[:-1] + b"x")
    adopted = scene.adopt(scene.machine(), scene.forge(forged))
    found = json.loads(json.dumps(adopted.as_json()))
    assert {a["trusted"] for a in found["adopted"]} == {False} and len(found["adopted"]) == 3
    (refused,) = found["refused"]
    assert set(refused) == {"layer", "key", "digest", "from", "reason"} and refused["from"] == "oci:evil:one:v1"
