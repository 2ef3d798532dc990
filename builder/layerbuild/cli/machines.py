"""What `--executor` does, for the commands that have it."""

from __future__ import annotations

import click

from layerbuild.cli.workspace import Workspace
from layerbuild.errors import UsageError
from layerbuild.execute.build import Builder
from layerbuild.execute.direct import Direct
from layerbuild.execute.team import Team


def team_at(
    address: str | None,
    workspace: Workspace,
    builder: Builder,
    *,
    destination: str | None = None,
    direct: Direct | None = None,
) -> Team | None:
    """The machines that `--executor` names, until the command ends. None where it names none.

    Args:
        destination: of the command, as it was written.
        direct: to that destination.

    Raises:
        UsageError: it names nothing that could be one, or the destination is a directory of this machine.
        ExecutorError: nobody answers there.
    """
    if address is None:
        return None
    if destination is not None and destination.startswith("oci:"):
        message = f"{destination} is a directory of this machine: others cannot put layers there"
        raise UsageError(message, hint="leave --executor out, or push to a registry")
    from layerbuild.execute.cluster import connected  # noqa: PLC0415  # Dask loads for a second

    return Team(
        click.get_current_context().with_resource(connected(address)),
        builder.packer,
        builder.lock,
        workspace.progress,
        destination=destination,
        direct=direct,
        insecure=workspace.insecure,
    )
