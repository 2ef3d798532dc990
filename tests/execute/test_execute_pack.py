"""Layers from instances: compared with their receipts, and made anew only where that is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from builders import sha256
from execute.conftest import Works
from fixtures.hub import Hub
from fixtures.project import BIG, safetensors
from layerbuild import compress
from layerbuild.errors import Damaged, LockError, NotReproducible, ProjectError, SourceError
from layerbuild.execute.build import Builder, BuiltImage, parse_base
from layerbuild.images import ImageDeclaration
from layerbuild.layering import ComposedLayer
from layerbuild.lockmodel import Lock, LockedBase
from layerbuild.model import Blob, Content, Receipt, canonical_json

_OTHER = f"sha256:{'f' * 64}"
_BIG = safetensors(BIG, {"a": "b"}, seed=5)
_LAYERS = "c: {kind: huggingface, source: hf://acme/sd@main}\nt: {kind: files, files: {/opt/x: {content: hello}}}\n"


class Scene:
    """An image with one weights layer from a Hub and compressed layers beside it."""

    def __init__(self, works: Works, hub: Hub) -> None:
        works.environ["HF_ENDPOINT"] = hub.endpoint
        self.images: tuple[ImageDeclaration, ...] = works.images(_LAYERS, "name: one\nlayers: [c, t]\n")
        self.lock = works.lock(self.images)

    def build(self, works: Works, lock: Lock | None = None) -> tuple[Builder, BuiltImage]:
        builder = works.builder(self.images, lock or self.lock)
        return builder, builder.run(self.images).all()[0]


@pytest.fixture
def scene(works: Works, hub: Hub) -> Scene:
    hub.add("acme/sd", lfs={"sd.safetensors": _BIG}, files={"config.json": b"{}"})
    return Scene(works, hub)


@pytest.fixture
def fresh(new_works: Callable[[str], Works], hub: Hub) -> Works:
    made = new_works("fresh")
    made.environ["HF_ENDPOINT"] = hub.endpoint
    return made


def _layer(image: BuiltImage, kind: str) -> ComposedLayer:
    return next(layer for layer, _ in image.layers if layer.kind == kind)


def _recorded(builder: Builder, image: BuiltImage, key: str, **changes: Any) -> Lock:
    """The lock after a build, with one receipt changed."""
    lock = builder.record([image])
    return replace(lock, receipts={**lock.receipts, key: replace(lock.receipts[key], **changes)})


def _key(layer: ComposedLayer) -> str:
    assert layer.instance is not None
    return layer.instance.key


@pytest.mark.parametrize("kind", ["weights", "files"])
def test_receipt_that_the_layer_does_not_keep(works: Works, fresh: Works, scene: Scene, kind: str) -> None:
    builder, image = scene.build(works)
    layer = _layer(image, kind)
    wrong = _recorded(builder, image, _key(layer), diff_id=_OTHER)
    # The store knows better, and says so before anything is read.
    with pytest.raises(NotReproducible, match="this machine made"):
        scene.build(works, wrong)
    # Who never made it finds out when it is made.
    packer = fresh.builder(scene.images, wrong).packer
    with pytest.raises(NotReproducible, match="not reproducible: layer") as caught:
        packer.make(layer)
    assert _OTHER in (caught.value.cause or "")
    assert fresh.store.receipt(_key(layer)) is None


def test_stores_receipt_is_wrong(works: Works, scene: Scene) -> None:
    _, image = scene.build(works)
    layer = _layer(image, "weights")
    works.store.put_receipt(Receipt(key=_key(layer), diff_id=_OTHER, size=1))
    with pytest.raises(NotReproducible, match="not reproducible"):
        works.builder(scene.images, scene.lock).packer.make(layer)


def test_same_compressor_gives_another_blob(works: Works, fresh: Works, scene: Scene) -> None:
    builder, image = scene.build(works)
    layer = _layer(image, "files")
    blob = Blob(encoding=compress.encoding("zstd"), digest=_OTHER, size=1)
    wrong = _recorded(builder, image, _key(layer), blobs=(blob,))
    with pytest.raises(NotReproducible, match="not reproducible: zstd") as caught:
        fresh.builder(scene.images, wrong).packer.make(layer)
    assert "lock --repack t" in (caught.value.hint or "")


def test_blob_of_another_version_is_used_and_cannot_be_made_here(works: Works, fresh: Works, scene: Scene) -> None:
    builder, image = scene.build(works)
    layer = _layer(image, "files")
    old = Blob(encoding=f"{compress.family('zstd')}:0.0.1", digest=_OTHER, size=7)
    lock = _recorded(builder, image, _key(layer), blobs=(old,))
    again, built = scene.build(fresh, replace(lock, images=scene.lock.images))
    made = next(made for candidate, made in built.layers if candidate is _layer(built, "files"))
    assert made.blob == old
    # No byte was needed for that; to send it where it is not, it would have to be made.
    with pytest.raises(NotReproducible, match="neither here nor at the destination") as caught:
        again.packer.readable(layer, made)
    assert "0.0.1" in (caught.value.cause or "") and "lock --repack t" in (caught.value.hint or "")
    # What --repack does: the lock and the store forget, and the next build packs with what is here.
    fresh.store.forget_blobs(_key(layer)[:16])
    repacked = replace(lock, images=scene.lock.images, receipts={})
    _, built = scene.build(fresh, repacked)
    made = next(made for candidate, made in built.layers if candidate is _layer(built, "files"))
    assert made.blob.encoding == compress.encoding("zstd")
    assert b"".join(again.packer.readable(layer, made).open())


def test_uncompressed_layer_needs_no_blob(works: Works, scene: Scene) -> None:
    builder, image = scene.build(works)
    made = next(made for layer, made in image.layers if layer.kind == "weights")
    tar = b"".join(builder.packer.readable(_layer(image, "weights"), made).open())
    assert f"sha256:{sha256(tar)}" == made.diff_id == made.blob.digest and len(tar) == made.size
    assert b"".join(builder.packer.readable(_layer(image, "weights"), made).open(1000)) == tar[1000:]


@pytest.mark.parametrize("damage", ["flipped", "short"])
def test_damaged_large_file_is_found_and_healed(works: Works, scene: Scene, damage: str) -> None:
    builder, image = scene.build(works)
    layer = _layer(image, "weights")
    path = works.store._disk.file(sha256(_BIG))
    path.write_bytes(_BIG[:-1] if damage == "short" else _BIG[:-1] + bytes([_BIG[-1] ^ 1]))
    with pytest.raises(Damaged, match="damaged on this machine"):
        list(builder.contents.verified(Content(size=len(_BIG), sha256=sha256(_BIG))))
    assert not path.exists()
    path.write_bytes(_BIG[:-1] if damage == "short" else _BIG[:-1] + bytes([_BIG[-1] ^ 1]))
    made = builder.packer.make(layer)
    assert path.read_bytes() == _BIG
    assert made.diff_id == next(m for candidate, m in image.layers if candidate is layer).diff_id


def test_size_that_somebody_wrote_into_the_lock(new_works: Callable[[str], Works]) -> None:
    works = new_works("first")
    works.write("a.bin", b"four")
    images = works.images("f: {kind: files, files: {/opt/a: file:a.bin}}\n", "name: one\nlayers: [f]\n")
    lock = works.lock(images)
    pin = lock.layers["f"].pins["/opt/a"]
    wrong = replace(pin, files=(replace(pin.files[0], content=replace(pin.files[0].content, size=3)),))
    edited = replace(lock, layers={"f": replace(lock.layers["f"], pins={"/opt/a": wrong})})
    with pytest.raises(LockError, match="has 4 bytes, the lock says 3"):
        works.builder(images, edited).run(images).all()
    assert works.store.receipt(_key(works.builder(images, lock).run(images).all()[0].layers[0][0])) is not None


def test_record_adds_and_changes_nothing_else(works: Works, scene: Scene) -> None:
    builder, image = scene.build(works)
    after = builder.record([image])
    assert (after.layers, after.unlocked) == (scene.lock.layers, scene.lock.unlocked)
    assert after.images["one"].manifest == image.digest
    assert {made.key for _, made in image.layers} == set(after.receipts)
    weights = after.receipts[_key(_layer(image, "weights"))]
    assert weights.blobs == ()
    # With that lock, nothing is read again, and nothing changes.
    again, same = scene.build(works, after)
    assert same.manifest == image.manifest and again.record([same]) == after


class TestBase:
    BASE = LockedBase(reference="x.io/b:1", digest=_OTHER)
    LAYER: ClassVar = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": _OTHER, "size": 1}

    def _parse(self, config: Any, layers: int = 1) -> object:
        manifest = {"schemaVersion": 2, "layers": [self.LAYER] * layers}
        data = config if isinstance(config, bytes) else canonical_json(config).encode()
        return parse_base(self.BASE, canonical_json(manifest).encode(), data)

    def test_usable(self) -> None:
        rootfs = {"type": "layers", "diff_ids": [_OTHER]}
        assert self._parse({"rootfs": rootfs, "config": None, "history": None})
        assert self._parse({}, layers=0)
        assert self._parse({"rootfs": rootfs, "config": {"Env": None, "Labels": None}, "history": [{}]})

    @pytest.mark.parametrize(
        "config",
        [
            b"no json",
            b"[]",
            {},
            {"rootfs": {"diff_ids": []}},
            {"rootfs": {"diff_ids": [_OTHER, _OTHER]}},
            {"rootfs": {"diff_ids": [1]}},
            {"rootfs": [_OTHER]},
            {"config": []},
            *(
                {"rootfs": {"diff_ids": [_OTHER]}, **more}
                for more in (
                    {"config": "text"},
                    {"config": {"Env": "A=b"}},
                    {"config": {"Env": [1]}},
                    {"config": {"Volumes": ["/a"]}},
                    {"config": {"Labels": "x"}},
                    {"history": 7},
                    {"history": ["ADD"]},
                    {"config": {"User": "\ud800"}},
                    {"config": {"User": float("nan")}},
                )
            ),
        ],
        ids=repr,
    )
    def test_hostile(self, config: Any) -> None:
        with pytest.raises(SourceError, match=r"x\.io/b:1 makes no sense"):
            self._parse(config)

    def test_layers_of_base_and_image_together(self, works: Works) -> None:
        names = [f"f{number}" for number in range(10)]
        layers = "".join(f"{name}: {{kind: files, files: {{/opt/{name}: {{content: x}}}}}}\n" for name in names)
        images = works.images(layers, f"name: one\nlayers: [{', '.join(names)}]\n")
        lock = works.lock(images)
        locked = replace(lock.images["one"], base=None)
        builder = works.builder(images, replace(lock, images={"one": locked}))
        built = builder.run(images).all()[0]
        base = parse_base(
            self.BASE,
            canonical_json({"layers": [self.LAYER] * 118}).encode(),
            canonical_json({"rootfs": {"diff_ids": [_OTHER] * 118}}).encode(),
        )
        composed = replace(built.composed, base=self.BASE)
        made = {(_key(layer), layer.algorithm): made for layer, made in built.layers}
        with pytest.raises(ProjectError, match="image one has 128 layers, its base's included"):
            builder._image(composed, made, {_OTHER: base}, {})
        builder._image(replace(composed, layers=composed.layers[1:]), made, {_OTHER: base}, {})
