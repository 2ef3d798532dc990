"""Registry clients by host. Cheap to import: what a client needs is loaded with the first one."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from layerbuild.registry.reference import normal_host

if TYPE_CHECKING:
    from layerbuild import http
    from layerbuild.registry.client import RegistryClient
    from layerbuild.registry.manners import Memory
    from layerbuild.registry.sessions import Sessions


class Clients:
    """Registry clients by host, each made once. Safe to share between threads.

    Args:
        client: for everything that goes over the wire.
        environ: where logins are looked for.
        insecure: hosts, with their ports, that are spoken to over plain HTTP.
        sessions: remembers uploads for other processes; None remembers none.
        memory: of what registries take; None for none.
    """

    def __init__(
        self,
        client: http.Client,
        environ: Mapping[str, str],
        *,
        insecure: Collection[str] = frozenset(),
        sessions: Sessions | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._client = client
        self._environ = environ
        self._insecure = frozenset(normal_host(host) for host in insecure)
        self._sessions = sessions
        self._memory = memory
        self._lock = threading.Lock()
        self._made: dict[str, RegistryClient] = {}

    def __call__(self, host: str) -> RegistryClient:
        """The client for `host`."""
        from layerbuild.registry.client import RegistryClient  # noqa: PLC0415  # loads oras

        host = normal_host(host)
        with self._lock:
            if host not in self._made:
                self._made[host] = RegistryClient(
                    host,
                    client=self._client,
                    environ=self._environ,
                    insecure=host in self._insecure,
                    sessions=self._sessions,
                    memory=self._memory,
                )
            return self._made[host]
