"""Images that are nobody's project: of a registry, or of a layout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerbuild import http
from layerbuild.baseimage import BaseSource, open_base
from layerbuild.errors import UsageError
from layerbuild.registry.clients import Clients

_MOST_PLATFORMS = 32


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """What a reference leads to: digests of manifests, one for each platform, and what reads them."""

    source: BaseSource
    digests: Sequence[str]
    clients: Clients


def found_at(reference: str, *, platform: str | None, insecure: Sequence[str], environ: Mapping[str, str]) -> Elsewhere:
    """The image that a reference names; see `baseimage.open_base`.

    Args:
        platform: `os/architecture[/variant]`, of an index; None for all of them.
        insecure: registries that are spoken to over plain HTTP.
        environ: where logins are looked for.

    Raises:
        UsageError: it is no reference, or an index of no images, or of too many.
        LayerbuildError: it cannot be read.
    """
    clients = Clients(http.Client(), environ, insecure=frozenset(insecure))
    source = open_base(reference, client_for=clients, project=Path.cwd())
    digests = [source.resolve(platform)] if platform else list(dict.fromkeys(source.platforms().values()))
    if not digests:
        raise UsageError(f"{reference} is an index without an image", hint="name an image, or an index of images")
    if len(digests) > _MOST_PLATFORMS:
        raise UsageError(f"{reference} is an index of {len(digests)} images", hint="name one with --platform")
    return Elsewhere(source=source, digests=digests, clients=clients)
