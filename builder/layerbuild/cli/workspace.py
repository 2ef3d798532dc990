"""A project as a command line asks for it: where it lies, and how much is shown meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from layerbuild.api.project import Project, load
from layerbuild.cli.display import make_progress


def open_project(options: Mapping[str, Any], *, insecure: Sequence[str] = (), offline: bool = False) -> Project:
    """The project of a command.

    Args:
        options: of the command group: `project`, `quiet`, `verbose`.
        insecure: registries that are spoken to over plain HTTP.
        offline: whether no source may be asked.

    Raises:
        UsageError: there is none.
    """
    progress = make_progress(quiet=bool(options.get("quiet")), verbose=bool(options.get("verbose")))
    return load(options.get("project") or ".", progress=progress, insecure=insecure, offline=offline)
