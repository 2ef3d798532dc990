"""Holds an image that was pushed against the lock that it was made from. Nothing is written.

Quick: what its documents say, and whether every blob is there with its size. Deep: every byte of every blob,
own layers against their pins, a base's against its digests.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from layerbuild.baseimage import BaseSource
from layerbuild.compose import ComposedImage, environment, programs
from layerbuild.compress import MEDIA_TYPES, is_family
from layerbuild.errors import LayerbuildError, LockError, NotReproducible, SourceError, Unreachable
from layerbuild.execute.build import Builder
from layerbuild.execute.matching import Pair, Present, Wanted, config_differences, differences, match
from layerbuild.execute.pack import built
from layerbuild.execute.parallel import in_threads
from layerbuild.execute.verification import Verification, VerifiedLayer
from layerbuild.image import KEY_ANNOTATION, BaseImage, config_json
from layerbuild.model import Blob, Descriptor, Receipt
from layerbuild.registry.manifests import annotations_of, config_of, layers_of, read_object
from layerbuild.registry.receiving import Counted
from layerbuild.registry.reference import is_digest
from layerbuild.tarcheck import check_layer, diff_id

_QUESTIONS = 16
_READS = 2
"""Blobs that are asked for, and that are read, at a time."""


@dataclass(kw_only=True)
class Verifier:
    """Looks at one image, once.

    Args:
        source: where it is.
        builder: knows the lock, its receipts and what layers must be.
        deep: read every byte.
        sound: blobs that another one has read, and as what they were found sound; grows.
    """

    source: BaseSource
    builder: Builder
    deep: bool = False
    sound: set[tuple[object, ...]] = field(default_factory=set)
    _bytes_read: int = 0
    _findings: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, digest: str, image: ComposedImage) -> Verification:
        """Everything by which the image with the manifest `digest` is not what the lock makes of `image`.

        Raises:
            LockError: a layer waits for facts that nobody has learnt.
            SourceError: the manifest makes no sense.
            DestinationError, Unreachable: the registry is down, or wants a login.
        """
        if image.pending:
            raise LockError(
                f"the hash cache of {image.name} waits for facts of {len(image.pending)} models",
                hint=f"run 'layerbuild build {image.name}', then verify again",
            )
        base = self.builder.fetch_base(image.base) if image.base else None
        data = self.source.manifest(digest)
        manifest = read_object(data, self.source.reference)
        locked = self.builder.lock.images[image.name].manifest
        if locked not in (None, digest):
            self._findings.append(f"its manifest is {digest}, the lock says {locked}")
        config = self._config(data, manifest)
        pairs, ordered = match(self._wanted(image, base), self._present(manifest, config))
        if not ordered:
            self._findings.append("its layers are in another order than the lock's")
        if config is not None and locked != digest:
            self._compare_config(image, base, config, pairs)
        rows = self._layers(pairs)
        return Verification(
            reference=self.source.reference,
            image=image.name,
            digest=digest,
            deep=self.deep,
            layers=rows,
            findings=tuple(dict.fromkeys(self._findings)),
            notes=() if locked else (f"the lock has no manifest of {image.name} yet: layers and config were compared",),
            bytes_read=self._bytes_read,
        )

    # --- documents -------------------------------------------------------------------------------

    def _config(self, data: bytes, manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
        described = config_of(manifest, self.source.reference)
        absence = self._absence(described)
        if absence is not None:
            self._findings.append(f"its config {described.digest} {absence}")
            return None
        try:
            config = self.source.config(data)
            self._count(len(config))
            return read_object(config, self.source.reference)
        except Unreachable:
            raise
        except SourceError as error:
            self._findings.append(f"its config: {error.brief}")
            return None

    def _present(self, manifest: Mapping[str, Any], config: Mapping[str, Any] | None) -> list[Present]:
        described = layers_of(manifest, self.source.reference)
        rootfs = (config or {}).get("rootfs")
        listed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
        known = [d if isinstance(d, str) and is_digest(d) else None for d in listed] if isinstance(listed, list) else []
        if config is not None and (len(known) != len(described) or None in known):
            self._findings.append(f"its config has no diffID for each of the {len(described)} layers")
        known += [None] * len(described)
        keys = [annotations_of(item).get(KEY_ANNOTATION) for item in manifest["layers"]]
        return [Present(descriptor=d, key=k, diff_id=i) for d, k, i in zip(described, keys, known, strict=False)]

    def _wanted(self, image: ComposedImage, base: BaseImage | None) -> list[Wanted]:
        wanted = []
        diff_ids = (base.config.get("rootfs") or {}).get("diff_ids") or () if base else ()
        for descriptor, known in zip(base.layers if base else (), diff_ids, strict=True):
            title, blobs = f"base layer {descriptor.digest[7:19]}", {descriptor.digest: descriptor.size}
            wanted.append(Wanted(title=title, media_type=descriptor.media_type, blobs=blobs, diff_id=known))
        for layer in image.layers:
            assert layer.instance is not None
            receipt = self._receipt(layer.instance.key)
            wanted.append(
                Wanted(
                    title=layer.title,
                    media_type=MEDIA_TYPES[layer.algorithm],
                    blobs=_blobs(receipt, layer.algorithm),
                    diff_id=receipt.diff_id if receipt else None,
                    layer=layer,
                )
            )
        return wanted

    def _receipt(self, key: str) -> Receipt | None:
        try:
            return self.builder.packer.receipt(key)
        except NotReproducible as error:
            self._findings.append(error.brief)
            return self.builder.lock.receipts.get(key)

    def _compare_config(
        self, image: ComposedImage, base: BaseImage | None, config: Mapping[str, Any], pairs: Sequence[Pair]
    ) -> None:
        """What else the config says than the lock would have it say. Unknown diffIDs are taken as they are."""
        own = [(pair.wanted, pair.present) for pair in pairs if pair.wanted]
        diff_ids = {wanted.key: wanted.diff_id or (present.diff_id if present else None) for wanted, present in own}
        layers = []
        for layer in image.layers:
            assert layer.instance is not None
            receipt = Receipt(key=layer.instance.key, diff_id=diff_ids[layer.instance.key] or "", size=0)
            layers.append(built(layer, receipt, Blob(encoding="none", digest="", size=0)))
        made = config_json(image.declaration.recipe, environment(image), base, layers, programs(image))
        expected = json.loads(made)
        names = config_differences(expected, config)
        if names:
            self._findings.append(f"its config differs from what the lock makes: {', '.join(names)}")

    # --- blobs -----------------------------------------------------------------------------------

    def _layers(self, pairs: Sequence[Pair]) -> tuple[VerifiedLayer, ...]:
        there = [pair.present.descriptor for pair in pairs if pair.present is not None]
        unique = list({descriptor.digest: descriptor for descriptor in there}.values())
        answers = in_threads(self._absence, unique, parallel=_QUESTIONS)
        absences = {descriptor.digest: answer for descriptor, answer in zip(unique, answers, strict=True)}
        looked = in_threads(lambda pair: self._look(pair, absences), pairs, parallel=_READS)
        self._findings += [finding for _, findings in looked for finding in findings]
        return tuple(row for row, _ in looked)

    def _look(self, pair: Pair, absences: Mapping[str, str | None]) -> tuple[VerifiedLayer, list[str]]:
        """A layer's row, and everything that is wrong with it."""
        wanted, present = pair.wanted, pair.present
        findings = list(differences(pair))
        result = "missing" if present is None else "extra" if wanted is None else "different" if findings else "same"
        absence = absences[present.descriptor.digest] if present is not None else None
        if present is not None and absence is not None:
            findings.append(f"the blob {present.descriptor.digest} of {pair.title} {absence}")
            result = "gone"
        elif present is not None and wanted is not None:
            more, word = self._contents(wanted, present)
            result = word if more and result == "same" else result
            findings += more
        descriptor = present.descriptor if present is not None else None
        row = VerifiedLayer(
            title=pair.title,
            digest=descriptor.digest if descriptor else None,
            size=descriptor.size if descriptor else None,
            result=result,
        )
        return row, findings

    def _contents(self, wanted: Wanted, present: Present) -> tuple[list[str], str]:
        """What is wrong with the bytes, and a word for it."""
        if self.deep:
            what = (present.descriptor, present.diff_id, wanted.key, wanted.diff_id)
            found = [] if what in self.sound else self._read(wanted, present)
            if not found:
                self.sound.add(what)
            return found, "different"
        if not wanted.blobs:
            return [f"{wanted.title} has no receipt that names its blob: only --deep can tell"], "no receipt"
        return [], ""

    def _read(self, wanted: Wanted, present: Present) -> list[str]:
        """What every byte of a blob tells."""
        descriptor, title = present.descriptor, wanted.title
        blob = Counted(blob=self.source.blob(descriptor), count=self._count)
        where = f"the blob {descriptor.digest}"
        try:
            tar = None
            if wanted.layer is not None and wanted.layer.instance is not None:
                tar = self.builder.packer.tar(wanted.layer.instance)
        except LayerbuildError as error:
            return [f"{title} was not read, what it must be is not known here: {error.brief}"]
        try:
            with self.builder.progress.task(f"read {title}", tar.size if tar else None) as task:
                if tar is None:
                    found = diff_id(blob, descriptor.media_type, where=where, advance=task.advance)
                else:
                    found = check_layer(blob, descriptor.media_type, tar, where=where, advance=task.advance)
        except Unreachable:
            raise
        except SourceError as error:
            return [f"{title}: {error.brief}"]
        told = {"its config": present.diff_id, "its receipt": wanted.diff_id}
        return [f"{title} unpacks to {found}, {who} says {d}" for who, d in told.items() if d not in (None, found)]

    def _absence(self, descriptor: Descriptor) -> str | None:
        """Why a blob cannot be read; None if it is there with its size."""
        stored = self.source.stored_size(descriptor.digest)
        if stored is None:
            return "is not there"
        return None if stored == descriptor.size else f"has {stored} bytes there, {descriptor.size} are named"

    def _count(self, amount: int) -> None:
        with self._lock:
            self._bytes_read += amount
        self.builder.progress.tally.add("read", amount)


def _blobs(receipt: Receipt | None, algorithm: str) -> dict[str, int]:
    """Sizes of the blobs that a receipt knows a layer as, by digest."""
    if receipt is None:
        return {}
    if algorithm == "none":
        return {receipt.diff_id: receipt.size}
    return {blob.digest: blob.size for blob in receipt.blobs if is_family(blob.encoding, algorithm)}
