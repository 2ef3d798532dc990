"""Workers of a Dask cluster (`distributed`) as a crew. Nothing of Dask is imported before one is asked for.

The scheduler gives each job to one worker, the same job of two clients too. A worker that dies loses
what it was doing, and that is given to another one. Certificates for `tls://`, time-outs and the number
of deaths that a task survives are Dask's own configuration (https://docs.dask.org/en/stable/configuration.html).
"""

from __future__ import annotations

import asyncio
import logging
import pkgutil
import struct
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerbuild import __version__
from layerbuild.errors import ExecutorError, LayerbuildError, UsageError
from layerbuild.execute.job import Done, Failed, Sealed, work

if TYPE_CHECKING:
    from distributed import Client

_CONNECT = 30.0
"""Seconds in which a scheduler must answer."""

_PATIENCE = 300.0
"""Seconds to wait where there is no worker: a node for one is started in this time."""

_GOODBYE = 2.0
"""Seconds for telling the scheduler that nobody waits any more. It finds out by itself, too."""


class Cluster:
    """A scheduler and its workers (`errand.Crew`)."""

    def __init__(self, client: Client, address: str) -> None:
        import dask  # noqa: PLC0415
        from dask.utils import parse_timedelta  # noqa: PLC0415

        self.name = address
        # The scheduler's limit under this name is for each task. Here it is read in the client's configuration.
        told = dask.config.get("distributed.scheduler.no-workers-timeout", None)
        self.patience = _PATIENCE if told is None else float(parse_timedelta(told, default="s"))
        self._client = client
        self._executor: Executor = client.get_executor(pure=True)

    def submit(self, job: Sealed) -> Future[Done | Failed]:
        """See `Crew`."""
        if self._client.status in ("running", "connecting"):
            return self._executor.submit(work, job)
        lost: Future[Done | Failed] = Future()
        lost.cancel()
        return lost

    def count(self) -> int | None:
        """See `Crew`."""
        if self._client.status != "running":
            return None
        try:
            return len(self._client.nthreads())
        except (OSError, asyncio.TimeoutError):
            return None

    def explain(self, error: BaseException) -> LayerbuildError | None:
        """See `Crew`."""
        from distributed import KilledWorker  # noqa: PLC0415

        if isinstance(error, KilledWorker):
            return ExecutorError(
                f"every worker of {self.name} that was given the layer died",
                cause=f"{error.allowed_failures + 1} did, one after the other",
                hint="see the logs of the workers: is it their memory, their disk, or their node that went away? "
                "Dask's distributed.scheduler.allowed-failures is how many deaths a task survives",
            )
        if type(error).__name__ == "NoValidWorkerError":
            return ExecutorError(f"{self.name} has no worker for the layer", hint="start some, and run it again")
        return None


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """The cluster whose scheduler listens there. What is not finished at the end is dropped by the scheduler.

    Raises:
        UsageError: it is no address of a scheduler, or Dask is not installed.
        ExecutorError: nobody answers there as a scheduler does, or workers have another layerbuild or none.
    """
    scheme, _, place = address.partition("://")
    if scheme not in ("tcp", "tls") or not place:
        hint = "write tcp://HOST:8786, the address of a Dask scheduler, or tls:// with certificates in Dask's settings"
        raise UsageError(f"{address!r} is no executor", hint=hint)
    try:
        import distributed  # noqa: PLC0415
    except ImportError:
        message = "other machines are reached through Dask, which is not installed"
        raise UsageError(message, hint="pip install 'layerbuild[dask]'") from None
    _quiet()
    try:
        asyncio.run(_greet(address))
        client = distributed.Client(address, timeout=_CONNECT, set_as_default=False, name="layerbuild")
    except (ValueError, TypeError) as error:
        # Of the address, or of the certificates that tls:// needs: neither holds a secret.
        hint = "write tcp://HOST:8786; tls:// needs distributed.comm.tls in Dask's settings"
        raise UsageError(f"{address!r} is no executor", cause=str(error)[:200], hint=hint) from None
    except (OSError, asyncio.TimeoutError, EOFError, ImportError, MemoryError, struct.error) as error:
        raise ExecutorError(
            f"no Dask scheduler answers at {address}",
            cause=str(error)[:200] or type(error).__name__,
            hint="check the address, the network, and that the scheduler's Dask is about as new as the one here",
        ) from None
    try:
        _compare_versions(client, address)
        yield Cluster(client, address)
    finally:
        client.close(timeout=_GOODBYE)


async def _greet(address: str) -> None:
    """Only a scheduler knows how to answer this. A client would wait for the answer without end."""
    from distributed.comm import connect  # noqa: PLC0415
    from distributed.security import Security  # noqa: PLC0415

    settings = Security().get_connection_args("client")
    comm = await asyncio.wait_for(connect(address, timeout=_CONNECT, **settings), _CONNECT)
    await comm.close()


def _compare_versions(client: Client, address: str) -> None:
    """A worker that cannot import a task's modules does not fail: it dies, with what others have it do."""
    found = client.run(pkgutil.resolve_name, "layerbuild:__version__", on_error="return")
    others = sorted({version if isinstance(version, str) else "none" for version in found.values()} - {__version__})
    if others:
        unfit = [worker for worker, version in found.items() if version != __version__]
        raise ExecutorError(
            f"{len(unfit)} of {len(found)} workers of {address} cannot run layerbuild's tasks",
            cause=f"this machine has layerbuild {__version__}, {', '.join(unfit[:3])} has {' or '.join(others[:3])}",
            hint=f"install layerbuild {__version__} there, for the workers and for the scheduler",
        )


def _quiet() -> None:
    """Dask's own log repeats with tracebacks what is said here in words, unless somebody wants to read it."""
    import dask  # noqa: PLC0415

    if not dask.config.get("logging", None):
        for name in ("distributed", "distributed.client", "tornado.application", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
