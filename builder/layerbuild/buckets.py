"""Images with more models than layer slots: the smaller files share layers. Pure.

A file goes into one of 2^bits buckets by the leading bits of its sha256, so that a new model changes
at most one of them. Threshold and bits stand in the lock, and are kept for as long as they fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SLOTS = 64
"""Weights layers in an image: half of what runtimes take, the rest is for the base and the software."""

LARGEST = 4 * 1024**3
"""Bytes in a bucket: one thread unpacks a layer, and one new model moves the whole bucket."""

_TRIED_BITS = (4, 5, 3, 2, 1, 0)
"""Many small buckets first: they move less when a model is added; then what else may fit."""


@dataclass(frozen=True, kw_only=True)
class Buckets:
    """Files below `threshold` bytes lie in 2^`bits` shared layers.

    Attributes:
        threshold: in bytes; larger files have layers of their own.
        bits: how many leading bits of a file's sha256 choose its layer.
    """

    threshold: int
    bits: int


def choose(sizes: Mapping[str, int | None], kept: Buckets | None) -> Buckets:
    """How the weights of an image share layers, where there are more of them than slots.

    Args:
        sizes: sha256 -> bytes; a file of unknown size has a layer of its own.
        kept: what the lock says, used for as long as it fits.

    Raises:
        ValueError: nothing fits.
    """
    if kept is not None and _fits(sizes, kept):
        return kept
    known = sorted((size for size in sizes.values() if size is not None), reverse=True)
    for bits in _TRIED_BITS:
        own = SLOTS - 2**bits - (len(sizes) - len(known))
        if 0 <= own < len(known):
            # The largest file that must share, plus one: whatever is larger stays alone.
            found = Buckets(threshold=known[own] + 1, bits=bits)
            if _fits(sizes, found):
                return found
    raise ValueError(f"{len(sizes)} model files do not fit into {SLOTS} layers of at most {LARGEST} bytes")


def groups(sizes: Mapping[str, int | None], buckets: Buckets) -> dict[str, list[str]]:
    """Files by bucket, `0f` for example; a file alone stands under its own sha256."""
    found: dict[str, list[str]] = {}
    for sha256, size in sizes.items():
        shares = size is not None and size < buckets.threshold
        name = f"{int(sha256[:8], 16) >> (32 - buckets.bits):02x}" if shares else sha256
        found.setdefault(name, []).append(sha256)
    return {name: sorted(files) for name, files in sorted(found.items())}


def _fits(sizes: Mapping[str, int | None], buckets: Buckets) -> bool:
    made = groups(sizes, buckets)
    alone = sum(1 for name in made if len(name) == 64)
    # Empty buckets count: the next model may fill one.
    return alone + 2**buckets.bits <= SLOTS and all(
        sum(sizes[sha256] or 0 for sha256 in files) <= LARGEST for name, files in made.items() if len(name) != 64
    )
