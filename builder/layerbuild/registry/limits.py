"""What well-known registries do not take, by their hosts, so that nobody finds out after ten gigabytes."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from layerbuild.errors import DestinationError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a registry takes.

    Attributes:
        streams: whether a blob may be sent before its digest is known (PATCH).
        largest: bytes of the largest layer; None where nobody tells.
        chunk: bytes of the longest PATCH; None for any.
        whole: bytes above which a blob should not go in one request; None for any.
    """

    streams: bool = True
    largest: int | None = None
    chunk: int | None = None
    whole: int | None = None


_ECR = Limits(streams=False, largest=52_000 * 1024**2)

KNOWN: tuple[tuple[str, Limits], ...] = (
    ("*.dkr.ecr*.amazonaws.com", _ECR),
    ("*.dkr.ecr*.amazonaws.com.cn", _ECR),
    ("*.dkr-ecr*.on.aws", _ECR),
    ("public.ecr.aws", _ECR),
    ("ecr-public.aws.com", _ECR),
    ("*-docker.pkg.dev", Limits(streams=False)),
    ("gcr.io", Limits(streams=False)),
    ("*.gcr.io", Limits(streams=False)),
    # "10 GB" is read as the most that it can mean: nothing that would be taken is refused here. A request may take
    # about ten minutes. 1 GiB is through by then on a line of 15 Mbit/s; what is larger goes in chunks, each of which
    # costs a round trip, and of which no more than one is ever lost.
    ("ghcr.io", Limits(largest=10 * 1024**3, chunk=4 * 1024**2, whole=1024**3)),
    ("docker.io", Limits(largest=10 * 1024**3)),
)
"""Patterns of hosts, as `reference.normal_host` writes them and without a port; the first that matches counts."""


def limits_of(host: str) -> Limits:
    """What the registry at `host` takes, as far as that is known.

    Args:
        host: as `reference.normal_host` gives it.
    """
    name = host.partition(":")[0]
    return next((limits for pattern, limits in KNOWN if fnmatch.fnmatchcase(name, pattern)), Limits())


def too_large(host: str, title: str, size: int, largest: int) -> DestinationError:
    """The error for a blob of `size` bytes, where `largest` is the limit. `title` names it."""
    return DestinationError(
        f"the registry {host} takes no layer as large as {title}",
        cause=f"it has {size} bytes, and the limit there is {largest}",
        hint="push to another registry, or use a smaller version of that model (fp16, pruned)",
    )
