"""Instances become layers: each is described, streamed once through its digests, and remembered.

No tar is ever written. Contents are fetched, checked and hashed in the pass that makes the layer; with an
outlet, that pass sends it too. A weights layer leaves nothing behind but its receipt; a compressed
layer leaves its blob in the store.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

from layerbuild import compress, kinds
from layerbuild.digests import CHUNK, feed
from layerbuild.errors import Damaged, DigestFirst, NotReproducible
from layerbuild.execute.contents import Contents
from layerbuild.execute.screening import screened, unvouched
from layerbuild.image import BuiltLayer
from layerbuild.kinds import gittree
from layerbuild.layering import ComposedLayer
from layerbuild.lockmodel import Lock
from layerbuild.model import LARGE, Blob, Instance, Receipt
from layerbuild.progress import Progress
from layerbuild.tarstream import TarStream

_MEMORY = threading.BoundedSemaphore(2)
"""Passes over large files at a time: each holds a few buffers, and there are few cores."""

_COMPRESSING = threading.BoundedSemaphore(1)
"""Compressors at a time: zstd holds 80 MiB for a large layer, and has a thread of its own besides."""

_COMPILED = (
    "another patch release of that Python may have compiled it: have it made by the one that the receipt is of, and "
    "name that under 'python', like '3.10.13'"
)

Keep = Callable[[Iterable[bytes]], tuple[str, int]]
"""Takes the chunks of a blob to the end; returns its digest and its size in bytes."""


class Outlet(Protocol):
    """Leads layers where they are needed while they are made."""

    def alone(self, layer: ComposedLayer) -> AbstractContextManager[None]:
        """Holds a layer against every other process of this machine that would send it to the same place."""

    def __call__(self, layer: ComposedLayer, size: int, opened: Callable[[], Iterator[bytes]], /) -> str:
        """Sends a layer of `size` bytes; gives its digest.

        Raises:
            DigestFirst: that must be known before.
        """


@dataclass(frozen=True, kw_only=True)
class LayerTar:
    """An uncompressed layer that can be read from any offset (`model.Readable`)."""

    tar: TarStream
    contents: Contents
    digest: str

    @property
    def size(self) -> int:
        """Bytes of the tar."""
        return self.tar.size

    def open(self, offset: int = 0) -> Iterator[bytes]:
        """The tar's bytes. Its contents are fetched if they are not here."""
        self.contents.ensure_small(self.tar.contents)
        return self.tar.read(self.contents.open, offset)

    def recheck(self) -> None:
        """Find out which content is to blame for a tar that is not what it was.

        Raises:
            Damaged: one is; the store has forgotten it.
        """
        for content in self.tar.contents:
            if self.contents.store.has(content):
                for _ in self.contents.verified(content):
                    pass


@dataclass(frozen=True, kw_only=True)
class StoredBlob:
    """A compressed layer, or another small blob, in the store (`model.Readable`)."""

    contents: Contents
    digest: str
    size: int

    def open(self, offset: int = 0) -> Iterator[bytes]:
        """The blob's bytes."""
        return self.contents.store.open_blob(self.digest, offset)

    def recheck(self) -> None:
        """Have the store forget the blob if it is damaged.

        Raises:
            Damaged: it is.
        """
        for _ in self.open():
            pass


class Packer:
    """Makes layers, and finds those that were made before.

    Args:
        lock: whose receipts are believed first; then the store's.

    Attributes:
        outlet: takes large uncompressed layers while they are made.
    """

    def __init__(self, contents: Contents, lock: Lock, progress: Progress) -> None:
        self.contents = contents
        self.outlet: Outlet | None = None
        self._lock = lock
        self._progress = progress

    def receipt(self, key: str) -> Receipt | None:
        """What a key became, by the lock and the store together.

        Raises:
            NotReproducible: they disagree.
        """
        locked, stored = self._lock.receipts.get(key), self.contents.store.receipt(key)
        if locked is None or stored is None:
            return locked or stored
        if locked.diff_id != stored.diff_id:
            raise NotReproducible(
                f"the lock says that layer {key[:16]} is {locked.diff_id}, this machine made {stored.diff_id} of it",
                hint="find out who is wrong with 'layerbuild build' in an empty store (LAYERBUILD_STORE=DIR)",
            )
        known = {blob.encoding for blob in locked.blobs}
        return replace(locked, blobs=(*locked.blobs, *(b for b in stored.blobs if b.encoding not in known)))

    def known(self, layer: ComposedLayer) -> BuiltLayer | None:
        """The layer as it was made before, if its digest as a blob is known."""
        receipt = self.receipt(layer.instance.key) if layer.instance else None
        blob = receipt and known_blob(receipt, layer.algorithm)
        return built(layer, receipt, blob) if receipt and blob else None

    def build(self, layer: ComposedLayer) -> BuiltLayer:
        """The layer, made if it is not known yet.

        Raises:
            NotReproducible: it came out different from its receipt.
            UnsafePickle: loading a content would run code, and it was not allowed.
            SourceError: a content cannot be had.
        """
        made = self.known(layer)
        if made is None:
            with self._alone(layer):
                made = self.known(layer)
                if made is None:
                    return self.make(layer)
        self._vouch(layer)
        return made

    def _alone(self, layer: ComposedLayer) -> AbstractContextManager[None]:
        outlet = self.outlet if layer.algorithm == "none" else None
        return outlet.alone(layer) if outlet is not None else nullcontext()

    def _vouch(self, layer: ComposedLayer) -> None:
        """A receipt vouches for no pickle: it may be of a recipe that allowed every one."""
        assert layer.instance is not None
        pickles = self.contents.formats.pickles
        if not pickles or layer.instance.kind == gittree.KIND:
            return
        inside = self.tar(layer.instance).contents
        with screened(self.contents, unvouched(self.contents, inside, self._lock)):
            pass

    def make(self, layer: ComposedLayer) -> BuiltLayer:
        """Pack the layer, compare it with its receipt, and remember it."""
        return self.remember(layer, self.derive(layer, keep=self.contents.store.add_blob))

    def remember(self, layer: ComposedLayer, receipt: Receipt) -> BuiltLayer:
        """Keep the receipt of a layer that was just made, here or on a machine that works for this one.

        Raises:
            NotReproducible: another receipt contradicts it.
        """
        made = known_blob(receipt, layer.algorithm)
        assert made is not None
        self._compare(receipt, layer)
        if receipt.blobs:
            self._compare_blob(made, layer)
        self.contents.store.put_receipt(receipt)
        return built(layer, receipt, made)

    def derive(self, layer: ComposedLayer, *, keep: Keep) -> Receipt:
        """What the layer's contents make: compared with no receipt, and not remembered. What was damaged here is
        had anew.

        Args:
            keep: what becomes of a compressed layer's blob.

        Raises:
            SourceError: a content cannot be had.
        """
        try:
            return self._derive(layer, keep)
        except Damaged as error:
            self._progress.note(f"{error.message}: making it anew")
            return self._derive(layer, keep)

    def _derive(self, layer: ComposedLayer, keep: Keep) -> Receipt:
        assert layer.instance is not None
        instance = layer.instance
        tar = self.tar(instance)
        self._prepare(instance, tar)
        blobs: tuple[Blob, ...] = ()
        # Whoever waits for the compressor keeps no model waiting.
        turn = nullcontext() if layer.algorithm == "none" else _COMPRESSING
        with screened(self.contents, tar.contents), turn, _MEMORY:
            diff_id = self._send(layer, tar) if self._goes_out(layer, tar) else None
            if diff_id is None:
                diff_id, blobs = self._pack(layer, tar, keep)
        return Receipt(key=instance.key, diff_id=diff_id, size=tar.size, blobs=blobs)

    def _pack(self, layer: ComposedLayer, tar: TarStream, keep: Keep) -> tuple[str, tuple[Blob, ...]]:
        """The layer's diffID; and its compressed blob, if it has one."""
        blobs: tuple[Blob, ...] = ()
        with self._progress.task(f"pack {layer.label} ({layer.kind})", tar.size) as task:
            digest = hashlib.sha256()
            chunks = feed(tar.read(self.contents.verified), [digest], threads=tar.size > CHUNK)
            counted = _counted(chunks, task.advance)
            if layer.algorithm == "none":
                for _ in counted:
                    pass
            else:
                found, size = keep(compress.compress(counted, layer.algorithm, tar.size))
                blobs = (Blob(encoding=compress.encoding(layer.algorithm), digest=found, size=size),)
        return f"sha256:{digest.hexdigest()}", blobs

    def _goes_out(self, layer: ComposedLayer, tar: TarStream) -> bool:
        return self.outlet is not None and layer.algorithm == "none" and tar.size >= LARGE

    def _send(self, layer: ComposedLayer, tar: TarStream) -> str | None:
        """The layer's diffID, once it has gone where it is needed; None if only its digest opens the door."""
        assert self.outlet is not None
        tries = 0

        def opened() -> Iterator[bytes]:
            nonlocal tries
            tries += 1
            if tries > 1 and self.contents.keep:
                # The line is bad: what comes now should not have to come a third time.
                self.contents.ensure(tar.contents)
            return tar.read(self.contents.verified)

        try:
            return self.outlet(layer, tar.size, opened)
        except DigestFirst as error:
            self.outlet = None
            if not self.contents.keep:
                self.contents.keep = True
                self._progress.note(f"{error.message}: model files go through the store first")
            return None

    def tar(self, instance: Instance) -> TarStream:
        """The layer's tar as a description. Documents are fetched, contents are not."""
        for document in kinds.documents(instance):
            self.contents.document(document)
        return TarStream(kinds.describe(instance, self.contents))

    def readable(self, layer: ComposedLayer, made: BuiltLayer) -> LayerTar | StoredBlob:
        """The layer's blob, to be sent somewhere. A compressed one that is not here is packed again.

        Raises:
            NotReproducible: this machine's compressor does not make the blob that is asked for.
        """
        assert layer.instance is not None
        if layer.algorithm == "none":
            return LayerTar(tar=self.tar(layer.instance), contents=self.contents, digest=made.blob.digest)
        if self.contents.store.blob_path(made.blob.digest) is None:
            self.make(layer)
        if self.contents.store.blob_path(made.blob.digest) is None:
            raise NotReproducible(
                f"the blob {made.blob.digest} of layer {layer.label} is neither here nor at the destination",
                cause=f"{made.blob.encoding} packed it, this machine has {compress.encoding(layer.algorithm)}",
                hint=f"install that version, or take a new blob with 'layerbuild lock --repack {layer.label}'",
            )
        return StoredBlob(contents=self.contents, digest=made.blob.digest, size=made.blob.size)

    def _prepare(self, instance: Instance, tar: TarStream) -> None:
        """Fetches what is better fetched many at a time."""
        if instance.kind == gittree.KIND:
            for listing in kinds.documents(instance):
                self.contents.ensure_tree(listing, tar.contents)
        self.contents.ensure_small(tar.contents)

    def _compare(self, receipt: Receipt, layer: ComposedLayer) -> None:
        before = self.receipt(receipt.key)
        if before is not None and before.diff_id != receipt.diff_id:
            raise NotReproducible(
                f"not reproducible: layer {layer.title} is now {receipt.diff_id}",
                cause=f"its receipt says {before.diff_id}",
                hint=_COMPILED
                if layer.instance is not None and kinds.is_compiled(layer.instance)
                else "the lock was edited by hand, or this is a defect in layerbuild: please report it",
            )

    def _compare_blob(self, blob: Blob, layer: ComposedLayer) -> None:
        assert layer.instance is not None
        before = self.receipt(layer.instance.key)
        for other in before.blobs if before else ():
            if other.encoding == blob.encoding and other.digest != blob.digest:
                raise NotReproducible(
                    f"not reproducible: {blob.encoding} gave {blob.digest} for layer {layer.label}",
                    cause=f"its receipt says {other.digest}",
                    hint=f"if the compressor was built differently here: 'layerbuild lock --repack {layer.label}'",
                )


def known_blob(receipt: Receipt, algorithm: str) -> Blob | None:
    """The blob that a receipt knows for `algorithm`, whatever library version made it."""
    if algorithm == "none":
        return Blob(encoding="none", digest=receipt.diff_id, size=receipt.size)
    return next((blob for blob in receipt.blobs if compress.is_family(blob.encoding, algorithm)), None)


def built(layer: ComposedLayer, receipt: Receipt, blob: Blob) -> BuiltLayer:
    """A composed layer and what it became."""
    return BuiltLayer(
        key=receipt.key,
        title=layer.title,
        diff_id=receipt.diff_id,
        size=receipt.size,
        algorithm=layer.algorithm,
        blob=blob,
    )


def _counted(chunks: Iterator[bytes], advance: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in chunks:
        advance(len(chunk))
        yield chunk
