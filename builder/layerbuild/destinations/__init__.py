"""Where images go: one module per kind of place, and the table that chooses by how it is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.destinations.base import Destination
from layerbuild.errors import UsageError

if TYPE_CHECKING:
    from layerbuild.registry.client import RegistryClient

__all__ = ["Destination", "open_destination"]


def open_destination(
    text: str, *, client_for: Callable[[str], RegistryClient], directory: Path | None = None
) -> Destination:
    """The destination that `text` names. Nothing is made or asked there yet.

    Args:
        text: `oci:DIR`, `archive:FILE`, or `HOST[:PORT][/PREFIX]`.
        client_for: gives the client of a registry, for example `registry.clients.Clients`.
        directory: what a relative DIR or FILE is relative to; the current directory if None.

    Raises:
        UsageError: `text` is none of these.
        DestinationError: DIR holds something else, or FILE is something else.
    """
    if text.startswith("oci:"):
        from layerbuild.destinations.layout import LayoutDestination  # noqa: PLC0415

        return LayoutDestination(text, (directory or Path()) / _path(text, "OCI layouts", "directory"))
    if text.startswith("archive:"):
        from layerbuild.destinations.archive import ArchiveDestination  # noqa: PLC0415

        return ArchiveDestination(text, (directory or Path()) / _path(text, "archives", "file"))
    from layerbuild.destinations.registry import RegistryDestination  # noqa: PLC0415

    host, prefix = _registry(text)
    return RegistryDestination(text, client_for(host), prefix)


def _path(text: str, places: str, noun: str) -> str:
    scheme, _, path = text.partition(":")
    if not path or ":" in path or "\0" in path:
        raise UsageError(
            f"{text!r} is not a destination",
            cause=f"tools that read {places} end the {noun} at the first ':'" if path else f"it has no {noun}",
            hint=f"write {scheme}:{'DIR' if noun == 'directory' else 'FILE.tar'}; "
            "images are put there under their own names and tags",
        )
    return path


def _registry(text: str) -> tuple[str, str]:
    from layerbuild.registry.reference import (  # noqa: PLC0415
        check_repository,
        is_host,
        looks_like_host,
        normal_host,
    )

    host, slash, prefix = text.partition("/")
    hint = "write HOST[:PORT]/PREFIX, for example docker.io/acme or 127.0.0.1:5000/team, or oci:DIR, or archive:FILE"
    if "://" in text:
        raise UsageError(f"{text[:200]!r} is not a destination", cause="a destination has no scheme", hint=hint)
    if not looks_like_host(host) or not is_host(host):
        raise UsageError(f"{text[:200]!r} is not a destination", cause=f"{host[:200]!r} is not a host", hint=hint)
    if slash and prefix:
        check_repository(prefix, where=text)
    return normal_host(host), prefix
