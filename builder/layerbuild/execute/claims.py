"""What an image's manifest says that its layers are. Whoever pushed it wrote that: a claim, and no receipt."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from layerbuild import compress
from layerbuild.baseimage import BaseSource
from layerbuild.image import DIFF_ID_ANNOTATION, ENCODING_ANNOTATION, KEY_ANNOTATION
from layerbuild.layering import ComposedLayer
from layerbuild.model import Blob, Descriptor, Receipt
from layerbuild.registry.manifests import annotations_of, layers_of, read_object
from layerbuild.registry.reference import is_digest
from layerbuild.tarcheck import largest_blob

_ENCODING = re.compile(r"(?:zstd|gzip):[0-9]{1,3}:[0-9A-Za-z][0-9A-Za-z.+-]{0,39}")


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A blob, and which layer it is said to be. All but the descriptor's shape is unchecked text.

    Attributes:
        key: of the layer.
        diff_id: as annotated.
        encoding: as annotated; None where it is not.
    """

    key: str
    diff_id: str
    descriptor: Descriptor
    encoding: str | None

    @property
    def algorithm(self) -> str | None:
        """How the blob is compressed, by its media type; None where layerbuild makes no such blob."""
        return next((name for name, kind in compress.MEDIA_TYPES.items() if kind == self.descriptor.media_type), None)

    def fault(self, layer: ComposedLayer, size: int) -> str | None:
        """Why the claim cannot be true of `layer`, whose tar has `size` bytes; None if it may be."""
        if not is_digest(self.diff_id):
            return "it names no diffID"
        if layer.algorithm == "none":
            if self.encoding is not None or self.descriptor.digest != self.diff_id:
                return "an uncompressed layer's digest is its diffID, and this one's is not"
            return None if self.descriptor.size == size else f"it has {self.descriptor.size} bytes, {size} are pinned"
        if self.encoding is None or not _ENCODING.fullmatch(self.encoding):
            return "it does not say what packed it"
        if not compress.is_family(self.encoding, layer.algorithm):
            return f"it was packed as {self.encoding}, and {compress.family(layer.algorithm)} is wanted"
        if not 0 < self.descriptor.size <= largest_blob(size):
            return f"it has {self.descriptor.size} compressed bytes, {size} unpacked ones are pinned"
        return None

    def receipt(self, size: int) -> Receipt:
        """What the claim comes to, once somebody vouches for it. `size`: bytes of the tar."""
        blobs: tuple[Blob, ...] = ()
        if self.encoding is not None:
            blobs = (Blob(encoding=self.encoding, digest=self.descriptor.digest, size=self.descriptor.size),)
        return Receipt(key=self.key, diff_id=self.diff_id, size=size, blobs=blobs)


def read_claims(source: BaseSource, keys: Collection[str]) -> list[Claim]:
    """The claims of an image, or of every image of an index, about layers with one of `keys`; each once.

    Raises:
        NotFound: there is no such image.
        SourceError: what is there makes no sense.
        LayerbuildError: it cannot be read.
    """
    found: dict[Claim, None] = {}
    for digest in source.manifests():
        manifest = read_object(source.manifest(digest), source.reference)
        for item, descriptor in zip(manifest["layers"], layers_of(manifest, source.reference), strict=True):
            notes = annotations_of(item)
            key = notes.get(KEY_ANNOTATION, "")
            if key in keys:
                diff_id, encoding = notes.get(DIFF_ID_ANNOTATION, ""), notes.get(ENCODING_ANNOTATION)
                found[Claim(key=key, diff_id=diff_id, descriptor=descriptor, encoding=encoding)] = None
    return list(found)
