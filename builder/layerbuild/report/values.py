"""What a report says, as values. Sizes are bytes as a registry stores them; None is what nobody knows yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layerbuild.audit.findings import Finding, printable
from layerbuild.audit.findings import Report as Audit

FORMAT = 1
"""Of the JSON: it grows by new keys, and changes only with another number."""

_MOST_PATHS = 5
"""Of a finding: `layerbuild audit` lists the others."""


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What is known of a layer as a registry has it.

    Attributes:
        digest: of the blob.
        diff_id: digest of its tar.
    """

    digest: str | None = None
    diff_id: str | None = None
    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class ReportedLayer:
    """A layer, whoever has it.

    Attributes:
        titles: what images call it.
        kind: of layer, or `base`.
        key: None of a base's layer, and while facts are pending.
    """

    titles: tuple[str, ...]
    kind: str
    key: str | None
    stored: Stored

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "titles": [printable(title) for title in self.titles],
            "kind": self.kind,
            "key": self.key,
            "digest": self.stored.digest,
            "diff_id": self.stored.diff_id,
            "size": self.stored.size,
        }


@dataclass(frozen=True, kw_only=True)
class NotAudited:
    """Why nobody can say what an image's cold start does, and what would change that."""

    reason: str
    hint: str | None = None


@dataclass(frozen=True, kw_only=True)
class ReportedImage:
    """An image.

    Attributes:
        base: reference of its base; None from scratch.
        base_known: whether the base's own layers are among `layers`. Otherwise one layer of unknown size stands for
            all of them.
        layers: the lowest first, by their place in `Report.layers`.
        manifest: digest; None until it was composed once.
    """

    name: str
    platform: str
    base: str | None
    base_known: bool
    layers: tuple[int, ...]
    manifest: str | None
    audit: Audit | NotAudited


@dataclass(frozen=True, kw_only=True)
class ReportedModel:
    """A model as images have it.

    Attributes:
        name: what the webui calls it.
        layer: the declaration's name.
        source: as it is pinned.
        images: by their place in `Report.images`.
    """

    name: str
    type: str
    layer: str
    licence: str | None
    source: str
    sha256: str | None
    size: int | None
    images: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "name": printable(self.name),
            "type": self.type,
            "layer": self.layer,
            "licence": printable(self.licence) if self.licence else None,
            "source": printable(self.source),
            "sha256": self.sha256,
            "size": self.size,
            "images": list(self.images),
        }


@dataclass(frozen=True, kw_only=True)
class Note:
    """Something that the report does not know, and the command that would tell."""

    text: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Report:
    """All of it.

    Attributes:
        lock: `sha256:<hex>` of the lock's canonical text, so that a page tells which lock it is of.
        stored: bytes of all layers, each once.
        separate: bytes of all images, if none shared anything with another.
        shared: bytes of layers that several images have, each once.
        unknown: layers whose size is not known, and counts as nothing in these sums.
    """

    project: str
    lock: str
    images: tuple[ReportedImage, ...]
    layers: tuple[ReportedLayer, ...]
    models: tuple[ReportedModel, ...]
    notes: tuple[Note, ...]
    stored: int
    separate: int
    shared: int
    unknown: int

    def as_json(self) -> dict[str, Any]:
        """For programs, and for the page. Findings that several images have are listed once."""
        findings: dict[Finding, int] = {}
        images = [_image(image, findings) for image in self.images]
        return {
            "format": FORMAT,
            "project": printable(self.project),
            "lock": self.lock,
            "totals": {
                "stored": self.stored,
                "separate": self.separate,
                "shared": self.shared,
                "unknown_layers": self.unknown,
            },
            "images": images,
            "layers": [layer.as_json() for layer in self.layers],
            "models": [model.as_json() for model in self.models],
            "findings": [_finding(finding) for finding in findings],
            "notes": [{"text": printable(note.text), "command": printable(note.command)} for note in self.notes],
        }


def _image(image: ReportedImage, findings: dict[Finding, int]) -> dict[str, Any]:
    return {
        "name": printable(image.name),
        "platform": image.platform,
        "base": printable(image.base) if image.base else None,
        "base_known": image.base_known,
        "manifest": image.manifest,
        "layers": list(image.layers),
        "audit": _audit(image.audit, findings),
    }


def _audit(audit: Audit | NotAudited, findings: dict[Finding, int]) -> dict[str, Any]:
    """Of an image that was audited: its findings by their place in the list that `findings` grows to."""
    if isinstance(audit, NotAudited):
        hint = printable(audit.hint) if audit.hint else None
        return {"state": "unknown", "reason": printable(audit.reason), "hint": hint}
    said: Mapping[str, Any] = audit.as_json()
    return {
        "state": "clean" if audit.clean else "findings",
        "webui": audit.webui,
        "findings": [findings.setdefault(finding, len(findings)) for finding in audit.findings],
        "total": said["total"],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    said = finding.as_json()
    return {**said, "paths": said["paths"][:_MOST_PATHS], "more_paths": max(0, len(finding.paths) - _MOST_PATHS)}
