"""What must move, and what it costs, before anything does. Pure.

A push is a list of transfers, one for each blob: nothing where every image has it, a mount where the
registry has it elsewhere, one upload and mounts where it has not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from layerbuild.errors import LayerbuildError

Action = Literal["present", "mount", "upload"]


@dataclass(frozen=True, kw_only=True)
class Want:
    """A blob that images need at a destination.

    Attributes:
        digest: `sha256:<hex>`; None while the layer was never made.
        size: bytes; of the tar where the blob is not known yet; None where not even that is.
        title: for people.
        repositories: of the images that need it.
        key: of the layer, None for a base's layer.
        base: whether it comes from a base.
        exact: whether `size` is the blob's own: a layer that was never compressed has another.
    """

    digest: str | None
    size: int | None
    title: str
    repositories: tuple[str, ...]
    key: str | None = None
    base: bool = False
    exact: bool = True

    def at(self, repositories: Iterable[str]) -> Want:
        """The same, needed there."""
        return replace(self, repositories=tuple(repositories))


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What happens to one blob.

    Attributes:
        missing: repositories that lack it, the first of them receives an upload.
        candidates: repositories to mount from, the likeliest first.
    """

    want: Want
    action: Action
    missing: tuple[str, ...]
    candidates: tuple[str, ...] = ()


def transfers(
    wants: Iterable[Want],
    present: Mapping[str, frozenset[str]],
    elsewhere: Mapping[str, tuple[str, ...]],
) -> tuple[Transfer, ...]:
    """One transfer for each want, uploads first and the largest of them first.

    Args:
        present: digest -> repositories that have the blob.
        elsewhere: digest -> further repositories of the registry that should have it.
    """
    found = []
    for want in wants:
        there = present.get(want.digest or "", frozenset())
        missing = tuple(name for name in want.repositories if name not in there)
        candidates = (*sorted(there), *elsewhere.get(want.digest or "", ()))
        action: Action = "present" if not missing else "mount" if candidates else "upload"
        found.append(Transfer(want=want, action=action, missing=missing, candidates=candidates))
    return tuple(sorted(found, key=lambda t: (t.action != "upload", -(t.want.size or 0), t.want.digest or "")))


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that a push would fail of.

    Attributes:
        images: that would.
        error: what to say of it.
    """

    images: tuple[str, ...]
    error: LayerbuildError

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "images": list(self.images),
            "message": self.error.message,
            "cause": self.error.cause,
            "hint": self.error.hint,
        }


@dataclass(frozen=True, kw_only=True)
class PlannedLayer:
    """A layer, and what is to be done before it can be used anywhere.

    Attributes:
        known: whether a receipt says what it becomes: then nothing is packed.
        fetch: bytes that must come from a source; None where a size is not known.
        pack: bytes of the tar that are read and hashed; None where a size is not known.
        action: at the destination; None without one.
        exact: see `Want`.
    """

    title: str
    key: str | None
    digest: str | None
    size: int | None
    images: tuple[str, ...]
    known: bool
    fetch: int | None
    pack: int | None
    action: Action | None = None
    base: bool = False
    exact: bool = True

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "layer": self.title,
            "key": self.key,
            "digest": self.digest,
            "size": self.size,
            "images": list(self.images),
            "known": self.known,
            "fetch_bytes": self.fetch,
            "pack_bytes": self.pack,
            "action": self.action,
            "base": self.base,
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A bill: every layer once, and sums.

    Attributes:
        findings: what the push would fail of.
        notes: what it would not fail of, and is worth knowing.
    """

    images: tuple[str, ...]
    destination: str | None
    layers: tuple[PlannedLayer, ...]
    findings: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    def sum(self, field: Literal["fetch", "pack"]) -> int:
        """Bytes to fetch or to pack, as far as sizes are known."""
        return sum(getattr(layer, field) or 0 for layer in self.layers)

    def moved(self, action: Action) -> int:
        """Bytes of the layers with that action at the destination."""
        return sum(layer.size or 0 for layer in self.layers if layer.action == action)

    @property
    def unknown(self) -> int:
        """Layers whose cost nobody can tell yet."""
        return sum(1 for layer in self.layers if layer.size is None)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        actions = {f"{a}_bytes": self.moved(a) for a in ("present", "mount", "upload")} if self.destination else {}
        return {
            "images": list(self.images),
            "destination": self.destination,
            "layers": [layer.as_json() for layer in self.layers],
            "findings": [finding.as_json() for finding in self.findings],
            "notes": list(self.notes),
            "totals": {"fetch_bytes": self.sum("fetch"), "pack_bytes": self.sum("pack"), **actions},
        }
