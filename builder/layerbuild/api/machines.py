"""Other machines that make and send layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from layerbuild.errors import UsageError
from layerbuild.execute.build import Builder
from layerbuild.execute.direct import Direct
from layerbuild.execute.team import Team
from layerbuild.workspace import Workspace


@contextmanager
def team_at(
    address: str | None,
    workspace: Workspace,
    builder: Builder,
    *,
    destination: str | None = None,
    direct: Direct | None = None,
) -> Iterator[Team | None]:
    """The machines at an address, for as long as the block runs. None where there is no address.

    Args:
        address: of a Dask scheduler, `tcp://HOST:8786` or `tls://HOST:8786`.
        destination: where layers are sent, as it was written.
        direct: to that destination.

    Raises:
        UsageError: the address is none, or the destination is a directory or a file of this machine.
        ExecutorError: nobody answers there.
    """
    if address is None:
        yield None
        return
    if destination is not None and destination.startswith(("oci:", "archive:")):
        what = "directory" if destination.startswith("oci:") else "file"
        message = f"{destination} is a {what} of this machine: others cannot put layers there"
        raise UsageError(message, hint="leave --executor out, or push to a registry")
    from layerbuild.execute.cluster import connected  # noqa: PLC0415  # Dask loads for a second

    with connected(address) as crew:
        yield Team(
            crew,
            builder.packer,
            builder.lock,
            workspace.progress,
            destination=destination,
            direct=direct,
            insecure=workspace.insecure,
        )
