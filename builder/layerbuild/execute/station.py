"""One machine's means: its store, its HTTP client, its logins, its sources. A command has one, and so has a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from layerbuild.artifact import Artifact, open_artifact
from layerbuild.destinations import Destination, open_destination
from layerbuild.execute.contents import Contents
from layerbuild.lockmodel import Lock
from layerbuild.model import Content
from layerbuild.progress import Progress
from layerbuild.registry.clients import Clients
from layerbuild.sources import Context
from layerbuild.store import Store
from layerbuild.store.uploads import UploadSessions
from layerbuild.storepath import store_path

if TYPE_CHECKING:
    from layerbuild import http


class Station:
    """Parts are made when they are first used.

    Args:
        root: what relative `file:` sources are relative to.
        progress: where long work says how far it is.
        environ: where the store's place, tokens and logins are looked for.
        insecure: registries that are spoken to over plain HTTP.
        offline: whether no source may be asked.
    """

    def __init__(
        self,
        root: Path,
        progress: Progress,
        environ: Mapping[str, str],
        *,
        insecure: Sequence[str] = (),
        offline: bool = False,
    ) -> None:
        self.root = root
        self.progress = progress
        self.environ = environ
        self.insecure = tuple(insecure)
        self._offline = offline

    @cached_property
    def store(self) -> Store:
        """This machine's cache.

        Raises:
            StoreError: it cannot be used.
        """
        return self.open_store()

    def open_store(self) -> Store:
        """This machine's cache, opened anew. Raises as `store`."""
        return Store(store_path(self.environ))

    @cached_property
    def client(self) -> http.Client:
        """The HTTP client."""
        from layerbuild import http  # noqa: PLC0415  # what is at hand needs none

        return http.Client()

    @cached_property
    def clients(self) -> Clients:
        """Registry clients by host. What they are sending, and what registries take, is remembered in the store."""

        def waiting(digest: str) -> None:
            self.progress.note(f"waiting for another layerbuild that sends {digest[:19]}")

        sessions = UploadSessions(self.store, waiting=waiting)
        insecure = frozenset(self.insecure)
        return Clients(self.client, self.environ, insecure=insecure, sessions=sessions, memory=self.store)

    @cached_property
    def context(self) -> Context:
        """What sources are given."""
        return Context(
            open_client=lambda: self.client,
            project=self.root,
            cache=self.store.root,
            environ=self.environ,
            hash_file=self._hash_file,
            keep=self._keep,
            keep_built=self._keep_built,
            present=self.store.present,
            progress=self.progress,
            offline=self._offline,
            artifact=lambda reference: self.artifact(reference),  # noqa: PLW0108  # made when asked for
        )

    @cached_property
    def artifact(self) -> Callable[[str], Artifact]:
        """Opens OCI artifacts. Files of one artifact share what was learnt of it."""
        return lru_cache(maxsize=8)(partial(open_artifact, client_for=self.clients))

    def _hash_file(self, path: Path) -> Content:
        with self.progress.task(f"read {path.name}", path.stat().st_size) as task:
            return self.store.hash_local(path, task.advance)

    def _keep(self, chunks: Iterable[bytes], name: str) -> Content:
        # The address it came from need not end as the file does that it is for.
        return self.store.add(chunks, Content(size=None), name=name, advance=lambda _: None, scan_header=True)

    def _keep_built(self, chunks: Iterable[bytes], name: str) -> Content:
        content = self._keep(chunks, name)
        self.store.remember_built(content.sha256 or "")
        return content

    def contents(self, lock: Lock, *, keep: bool = True) -> Contents:
        """Contents by digest.

        Args:
            keep: what is fetched stays in the store.
        """
        return Contents(self.store, self.context, lock, self.progress, keep=keep)

    def destination(self, text: str) -> Destination:
        """Where images go. A relative directory is relative to where the process runs.

        Raises:
            UsageError: it is no destination.
        """
        return open_destination(text, client_for=self.clients, directory=Path.cwd())
