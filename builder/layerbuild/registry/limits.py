"""What well-known registries do not take, by their hosts, so that nobody finds out after ten gigabytes."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

_GIB = 1024**3


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a registry takes.

    Attributes:
        streams: whether a blob may be sent before its digest is known (a PATCH of any length).
        largest: bytes of the largest layer; None where nobody tells.
    """

    streams: bool = True
    largest: int | None = None


KNOWN: tuple[tuple[str, Limits], ...] = (
    ("*.dkr.ecr*.amazonaws.com", Limits(streams=False, largest=52_000 * 1024**2)),
    ("*.dkr.ecr*.amazonaws.com.cn", Limits(streams=False, largest=52_000 * 1024**2)),
    ("public.ecr.aws", Limits(streams=False, largest=52_000 * 1024**2)),
    ("*-docker.pkg.dev", Limits(streams=False)),
    ("gcr.io", Limits(streams=False)),
    ("*.gcr.io", Limits(streams=False)),
    # Their "10 GB" is read as the larger of what it may mean: what is refused here can be sent nowhere else.
    ("ghcr.io", Limits(streams=False, largest=10 * _GIB)),
    ("docker.io", Limits(largest=10 * _GIB)),
)
"""Patterns of hosts, as `reference.normal_host` writes them and without a port; the first that matches counts."""


def limits_of(host: str) -> Limits:
    """What the registry at `host` takes, as far as that is known.

    Args:
        host: as `reference.normal_host` gives it.
    """
    name = host.partition(":")[0]
    return next((limits for pattern, limits in KNOWN if fnmatch.fnmatchcase(name, pattern)), Limits())
