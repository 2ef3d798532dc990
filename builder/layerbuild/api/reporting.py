"""`report`: a project as one picture. Nothing is fetched, unless registries may be asked for bases."""

from __future__ import annotations

from collections.abc import Sequence

from layerbuild.api.auditing import auditor
from layerbuild.execute.reporting import Reporter
from layerbuild.images import ImageDeclaration
from layerbuild.locked import checked
from layerbuild.report.values import Report
from layerbuild.workspace import Workspace


def report(workspace: Workspace, selected: Sequence[ImageDeclaration], *, online: bool, audits: bool) -> Report:
    """What the lock and this machine know of images.

    Args:
        online: ask registries for bases that are not known here.
        audits: say what each image's cold start would still do.

    Raises:
        LayerbuildError: a declaration or the lock is wrong.
    """
    lock = workspace.lock()
    builder = workspace.builder(lock)
    reporter = Reporter(
        builder=builder,
        auditor=auditor(workspace, builder),
        base_at_hand=workspace.base_at_hand,
        progress=workspace.progress,
        online=online,
        audits=audits,
    )
    return reporter.run(checked(workspace.images, selected, lock), workspace.root.name)
