"""A project, for programs: what the commands do, as functions of values."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.api.options import LockOptions, MakeOptions
from layerbuild.images import ImageDeclaration
from layerbuild.locked import checked
from layerbuild.progress import Progress, Silent
from layerbuild.workspace import Workspace

# Each method imports what it needs: a command that plans need not load what pushes.
if TYPE_CHECKING:
    from layerbuild.api.locking import LockCheck, LockOutcome
    from layerbuild.api.making import BuildOutcome, PushOutcome
    from layerbuild.api.merging import TakenOver
    from layerbuild.audit.findings import Report
    from layerbuild.execute.rebuild import RemadeLayer
    from layerbuild.plan import Plan
    from layerbuild.report.values import Report as ProjectReport

Images = Sequence[str] | Sequence[ImageDeclaration] | None
"""Which images: names or globs (one may stand alone), those that `Project.select` found, or None for all. An empty
sequence is none."""


class Project:
    """A project and this machine. Safe to use from one thread at a time; nothing is read before it is needed.

    Every method raises a `LayerbuildError` that says what failed, why, and what to do.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    @property
    def root(self) -> Path:
        """The directory that holds `recipes/`."""
        return self.workspace.root

    def select(
        self, patterns: Sequence[str] = (), *, labels: Sequence[str] = (), changed_since: str | None = None
    ) -> tuple[ImageDeclaration, ...]:
        """Images by name or glob (default: all), label (`KEY` or `KEY=GLOB`) and git revision.

        Raises:
            UsageError: nothing matches, or there is no such revision. That nothing changed is no error.
            DriftError: what changed is asked of a lock that does not stand for the declarations.
        """
        patterns = [patterns] if isinstance(patterns, str) else patterns
        return self.workspace.select(patterns, labels=labels, changed_since=changed_since)

    def lock(self, options: LockOptions | None = None) -> LockOutcome:
        """Pin every source in `lockfile.yaml`."""
        from layerbuild.api import locking  # noqa: PLC0415

        return locking.relock(self.workspace, options or LockOptions())

    def check_lock(self) -> LockCheck:
        """Whether the lock stands for the declarations. Changes nothing."""
        from layerbuild.api import locking  # noqa: PLC0415

        return locking.check(self.workspace)

    def record(self, path: str | os.PathLike[str]) -> TakenOver:
        """Take receipts over from a file that `receipts_out` wrote, maybe on another machine."""
        from layerbuild.api import merging  # noqa: PLC0415

        return merging.take_over(self.workspace, Path(path))

    def plan(self, images: Images = None, *, to: str | None = None) -> Plan:
        """What building and pushing would do, in bytes. Nothing moves.

        Args:
            to: a destination, which is asked what it has; see `push`.
        """
        from layerbuild.execute.planning import Planner  # noqa: PLC0415

        lock = self.workspace.lock()
        composed = checked(self.workspace.images, self._chosen(images), lock)
        destination = self.workspace.destination(to) if to else None
        builder = self.workspace.builder(lock)
        planner = Planner(builder=builder, store=self.workspace.store, open_base=self.workspace.open_base)
        return planner.run(composed, destination)

    def build(self, images: Images = None, options: MakeOptions | None = None) -> BuildOutcome:
        """Make every layer that has no receipt yet, and record what was made."""
        from layerbuild.api import making  # noqa: PLC0415

        return making.build(self.workspace, self._chosen(images), options or MakeOptions())

    def rebuild(self, images: Images = None) -> tuple[RemadeLayer, ...]:
        """Make every layer again, and compare it with its receipts. Nothing is recorded."""
        from layerbuild.api import making  # noqa: PLC0415

        return making.remake(self.workspace, self._chosen(images))

    def push(
        self,
        destination: str,
        images: Images = None,
        options: MakeOptions | None = None,
        *,
        store: bool = True,
        must_mount: bool = False,
    ) -> PushOutcome:
        """Send images to a registry (`HOST[:PORT]/PREFIX`), a layout (`oci:DIR`) or an archive (`archive:FILE`).

        Args:
            store: keep models that are fetched in the store; else they pass through memory.
            must_mount: fail where the registry does not mount a blob that it has elsewhere.
        """
        from layerbuild.api import making  # noqa: PLC0415

        selected, options = self._chosen(images), options or MakeOptions()
        return making.push(self.workspace, destination, selected, options, store=store, must_mount=must_mount)

    def audit(self, images: Images = None) -> tuple[Report, ...]:
        """What a start of images would still download, hash or wait for, as the lock would make them."""
        from layerbuild.api import auditing  # noqa: PLC0415

        return tuple(auditing.audit(self.workspace, self._chosen(images)))

    def report(self, images: Images = None, *, online: bool = False, audits: bool = True) -> ProjectReport:
        """Images against layers, what is shared, and what a node pulls, by what the lock and this machine know.

        Args:
            online: ask registries for bases that are not known here.
            audits: say what each image's cold start would still do.
        """
        from layerbuild.api import reporting  # noqa: PLC0415

        return reporting.report(self.workspace, self._chosen(images), online=online, audits=audits)

    def _chosen(self, images: Images) -> Sequence[ImageDeclaration]:
        if images is None:
            return self.workspace.select(())
        # A text is a sequence of texts, to Python and to type checkers.
        images = [images] if isinstance(images, str) else images
        names = [image for image in images if isinstance(image, str)]
        found = [image for image in images if isinstance(image, ImageDeclaration)]
        return [*found, *(self.workspace.select(names) if names else ())]


def load(
    path: str | os.PathLike[str] = ".",
    *,
    progress: Progress | None = None,
    insecure: Sequence[str] = (),
    offline: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Project:
    """The project that `path` lies in: the nearest directory upwards that holds `recipes/`.

    Args:
        progress: where long work says how far it is; default: nowhere.
        insecure: registries that are spoken to over plain HTTP.
        offline: whether no source may be asked.
        environ: where tokens, logins and the store's place are looked for; default: this process's environment.

    Raises:
        UsageError: there is none.
    """
    environ = os.environ if environ is None else environ
    return Project(Workspace(path, progress or Silent(), environ, insecure=insecure, offline=offline))
