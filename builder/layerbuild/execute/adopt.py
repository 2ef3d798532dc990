"""Takes over layers that somebody pushed: as receipts, once the blob was read and found to be the layer.

An image's annotations are believed only where the user named the image, and then only after every byte
was held against the pins; or unread, where the user says that the registry is to be trusted. A claim that
fails costs time: the layer is made from its source as if nobody had claimed anything.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from layerbuild import compress
from layerbuild.baseimage import BaseSource
from layerbuild.digests import measure
from layerbuild.errors import LayerbuildError, SourceError, Unreachable
from layerbuild.execute.claims import Claim, read_claims
from layerbuild.execute.pack import Packer
from layerbuild.execute.parallel import in_threads
from layerbuild.layering import ComposedLayer, LayerId
from layerbuild.progress import Progress
from layerbuild.registry.receiving import Counted
from layerbuild.tarcheck import check_layer, drain
from layerbuild.tarstream import TarStream

_PARALLEL = 2
"""Layers that are read at a time: each feeds two digests, and there are few cores."""


@dataclass(frozen=True, kw_only=True)
class AdoptedLayer:
    """A layer that needs not be made. `trusted` means that nobody looked at its bytes."""

    title: str
    key: str
    digest: str
    size: int
    reference: str
    trusted: bool


@dataclass(frozen=True, kw_only=True)
class RefusedClaim:
    """A claim that was not believed, and why."""

    title: str
    key: str
    digest: str
    reference: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Adopted:
    """What came of it. `bytes_read` are those of blobs."""

    adopted: tuple[AdoptedLayer, ...]
    refused: tuple[RefusedClaim, ...]
    bytes_read: int

    @property
    def trusted(self) -> tuple[AdoptedLayer, ...]:
        """Those that were adopted unread."""
        return tuple(layer for layer in self.adopted if layer.trusted)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "adopted": [{**_named(a), "size": a.size, "trusted": a.trusted} for a in self.adopted],
            "refused": [{**_named(r), "reason": r.reason} for r in self.refused],
            "read_bytes": self.bytes_read,
        }


@dataclass(kw_only=True)
class Adopter:
    """Adopts layers from images that the user names.

    Args:
        open_image: a reference as the user wrote it -> the image.
        packer: whose receipts come first, and whose store takes the new ones.
        trust: believe claims whose shape is right, without reading blobs.
    """

    open_image: Callable[[str], BaseSource]
    packer: Packer
    progress: Progress
    trust: bool = False
    _bytes_read: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def adopt(self, references: Sequence[str], layers: Sequence[ComposedLayer]) -> Adopted:
        """Put a receipt into the store for every one of `layers` that has none, and that an image has.

        Where a registry has what is known already, it is remembered as a place to mount from.

        Args:
            references: tried in their order; the first good claim of a layer counts.
            layers: those whose facts are pending are passed over.

        Raises:
            NotFound: a reference names nothing.
            DestinationError, Unreachable: a registry is down, or wants a login.
            SourceError: what a reference names is no image.
            NotReproducible: the lock and the store contradict each other.
        """
        by_id = {layer.id: layer for layer in layers if layer.instance}
        outcomes: list[AdoptedLayer | RefusedClaim] = []
        for reference in references:
            source = self.open_image(reference)
            claims = read_claims(source, {key for key, _ in by_id})
            found: dict[LayerId, list[Claim]] = {}
            for claim in claims:
                if (identity := (claim.key, claim.algorithm or "")) in by_id:
                    found.setdefault(identity, []).append(claim)
            jobs = [partial(self._take, source, by_id[identity], found[identity]) for identity in found]
            outcomes += [outcome for outcome in in_threads(lambda job: job(), jobs, parallel=_PARALLEL) if outcome]
        return Adopted(
            adopted=tuple(o for o in outcomes if isinstance(o, AdoptedLayer)),
            refused=tuple(o for o in outcomes if isinstance(o, RefusedClaim)),
            bytes_read=self._bytes_read,
        )

    def _take(
        self, source: BaseSource, layer: ComposedLayer, claims: Sequence[Claim]
    ) -> AdoptedLayer | RefusedClaim | None:
        """What comes of the claims that one image has about one layer. None if there was nothing to do."""
        assert layer.instance is not None
        claim, receipt, known = claims[0], self.packer.receipt(layer.instance.key), self.packer.known(layer)
        if receipt is not None and any(c.diff_id != receipt.diff_id for c in claims):
            return self._refuse(source, layer, claim, f"the receipt that is known here says {receipt.diff_id}")
        if known is not None:
            if known.blob.digest in {c.descriptor.digest for c in claims}:
                self._remember(source, known.blob.digest)
            return None
        if len(claims) > 1:
            return self._refuse(source, layer, claim, "the image calls more than one blob this layer")
        try:
            tar = self.packer.tar(layer.instance)
        except LayerbuildError as error:
            return self._refuse(source, layer, claim, f"what it must be is not known here: {error.brief}")
        objection = self._objection(source, layer, claim, tar)
        if objection is not None:
            return self._refuse(source, layer, claim, objection)
        self.packer.contents.store.put_receipt(claim.receipt(tar.size))
        self._remember(source, claim.descriptor.digest)
        return AdoptedLayer(
            title=layer.title,
            key=claim.key,
            digest=claim.descriptor.digest,
            size=claim.descriptor.size,
            reference=source.reference,
            trusted=self.trust,
        )

    def _objection(self, source: BaseSource, layer: ComposedLayer, claim: Claim, tar: TarStream) -> str | None:
        """Why the claim is not to be believed; None if it is true, or trusted."""
        fault = claim.fault(layer, tar.size) or _absence(source, claim)
        if fault is not None or self.trust:
            return fault
        try:
            return self._read(source, layer, claim, tar)
        except Unreachable:
            raise
        except SourceError as error:
            return error.brief

    def _read(self, source: BaseSource, layer: ComposedLayer, claim: Claim, tar: TarStream) -> str | None:
        """Hold every byte of the blob against the pins.

        Raises:
            SourceError: it is another layer, damaged, or not there.
        """
        blob = Counted(blob=source.blob(claim.descriptor), count=self._count)
        again: list[tuple[str, int]] = []

        def repack(chunks: Iterator[bytes]) -> None:
            again.append(measure(compress.compress(chunks, layer.algorithm, tar.size)))

        same_packer = claim.encoding == compress.encoding(layer.algorithm)
        with self.progress.task(f"check {layer.title}", tar.size) as task:
            found = check_layer(
                blob,
                claim.descriptor.media_type,
                tar,
                where=f"the blob {claim.descriptor.digest}",
                advance=task.advance,
                use=repack if same_packer else drain,
            )
        if found != claim.diff_id:
            return f"its diffID is {found}"
        if again and again[0] != (claim.descriptor.digest, claim.descriptor.size):
            # Whoever makes this layer would get another blob for the same encoding, and stop there.
            return f"{claim.encoding} makes another blob of it"
        return None

    def _refuse(self, source: BaseSource, layer: ComposedLayer, claim: Claim, reason: str) -> RefusedClaim:
        self.progress.note(f"warning: {source.reference} does not hold {layer.title}, as it says: {reason}")
        return RefusedClaim(
            title=layer.title,
            key=claim.key,
            digest=claim.descriptor.digest,
            reference=source.reference,
            reason=reason,
        )

    def _remember(self, source: BaseSource, digest: str) -> None:
        if source.host is not None and source.repository is not None:
            self.packer.contents.store.remember_push(source.host, source.repository, digest)

    def _count(self, amount: int) -> None:
        with self._lock:
            self._bytes_read += amount
        self.progress.tally.add("read", amount)


def _absence(source: BaseSource, claim: Claim) -> str | None:
    """Why the blob cannot be read; None if it is there."""
    stored = source.stored_size(claim.descriptor.digest)
    if stored is None:
        return "its blob is not there"
    return None if stored == claim.descriptor.size else f"its blob has {stored} bytes there"


def _named(outcome: AdoptedLayer | RefusedClaim) -> dict[str, Any]:
    return {"layer": outcome.title, "key": outcome.key, "digest": outcome.digest, "from": outcome.reference}
