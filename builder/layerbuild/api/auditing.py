"""`audit`: what a start of an image would still download, hash or wait for. Nothing in it is run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence

from layerbuild.api.elsewhere import found_at
from layerbuild.audit.findings import Report
from layerbuild.audit.view import open_image
from layerbuild.execute.auditing import Auditor, audited
from layerbuild.execute.build import Builder
from layerbuild.images import ImageDeclaration
from layerbuild.locked import checked
from layerbuild.progress import Progress, Silent
from layerbuild.workspace import Workspace


def audit(workspace: Workspace, selected: Sequence[ImageDeclaration]) -> Iterator[Report]:
    """Images of a project, as the lock would make them.

    Raises:
        LayerbuildError: one cannot be looked at; see `Auditor.run`.
    """
    lock = workspace.lock()
    yield from map(auditor(workspace, workspace.builder(lock)).run, checked(workspace.images, selected, lock))


def auditor(workspace: Workspace, builder: Builder) -> Auditor:
    """What audits images of a project."""
    return Auditor(
        builder=builder,
        open_base=workspace.open_base,
        client_for=workspace.clients,
        progress=workspace.progress,
    )


def audit_image(
    reference: str,
    *,
    platform: str | None = None,
    progress: Progress | None = None,
    insecure: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> tuple[Report, ...]:
    """An image of a registry (`HOST/REPOSITORY:TAG`, or with a digest) or of a layout (`oci:DIR:NAME:TAG`).

    Args:
        platform: `os/architecture[/variant]`, of an index; default: all of them.
        progress: where long work says how far it is; default: nowhere.
        insecure: registries that are spoken to over plain HTTP.
        environ: where logins are looked for; default: this process's environment.

    Returns:
        A report for each platform.

    Raises:
        LayerbuildError: it cannot be read.
    """
    environ = os.environ if environ is None else environ
    found = found_at(reference, platform=platform, insecure=insecure, environ=environ)
    progress = progress or Silent()
    opened = (open_image(found.source, digest, client_for=found.clients, progress=progress) for digest in found.digests)
    return tuple(audited(view, blobs) for view, blobs in opened)
