"""Layers in a smaller form. What compressed them is part of a blob's identity.

zstd's bytes are the same for every number of threads and chunk size if there is at least one worker
thread and the size is declared; they change with the library's version, and gzip's with zlib's.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

_ZSTD_LEVEL = 9
_GZIP_LEVEL = 9
_GZIP_HEADER_BITS = 31
"""zlib's way of asking for a gzip wrapper with the largest window; its header has no time and no name."""

MEDIA_TYPES = {
    "none": "application/vnd.oci.image.layer.v1.tar",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
}
"""OCI image-spec 1.1, layer.md."""


def family(algorithm: str) -> str:
    """Algorithm and level: blobs of one family differ only by the library's version."""
    return {"none": "none", "zstd": f"zstd:{_ZSTD_LEVEL}", "gzip": f"gzip:{_GZIP_LEVEL}"}[algorithm]


def encoding(algorithm: str) -> str:
    """What this machine would make: the family, and the library's version."""
    if algorithm == "zstd":
        import zstandard  # noqa: PLC0415  # only packing needs it

        return f"{family(algorithm)}:{'.'.join(str(part) for part in zstandard.ZSTD_VERSION)}"
    if algorithm == "gzip":
        return f"{family(algorithm)}:{zlib.ZLIB_RUNTIME_VERSION}"
    return "none"


def is_family(encoding_name: str, algorithm: str) -> bool:
    """Whether a blob's encoding is of the family that `algorithm` would make here."""
    return encoding_name == "none" if algorithm == "none" else encoding_name.startswith(f"{family(algorithm)}:")


def compress(chunks: Iterable[bytes], algorithm: str, size: int) -> Iterator[bytes]:
    """`chunks`, of `size` bytes together, compressed."""
    if algorithm == "zstd":
        return _zstd(chunks, size)
    if algorithm == "gzip":
        return _gzip(chunks)
    return iter(chunks)


def _zstd(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    import zstandard  # noqa: PLC0415  # only packing needs it

    stream = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, threads=1).compressobj(size=size)
    for chunk in chunks:
        if piece := stream.compress(chunk):
            yield piece
    yield stream.flush()


def _gzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    stream = zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_HEADER_BITS)
    for chunk in chunks:
        if piece := stream.compress(chunk):
            yield piece
    yield stream.flush()
