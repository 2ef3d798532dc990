"""Layers go to a destination while they are made for the first time: source -> hash -> destination."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

from layerbuild.compose import ComposedImage
from layerbuild.destinations import Destination
from layerbuild.errors import DestinationDown, DestinationError, DigestFirst
from layerbuild.layering import ComposedLayer, LayerId
from layerbuild.progress import Progress
from layerbuild.store import Store


class Direct:
    """An outlet (`pack.Outlet`) that leads to the first image that needs a layer; others mount it from there.

    Attributes:
        sent: digest -> bytes.
        places: digest -> the repository that has it now.
    """

    def __init__(self, destination: Destination, store: Store, progress: Progress) -> None:
        self.sent: dict[str, int] = {}
        self.places: dict[str, str] = {}
        self._destination = destination
        self._store = store
        self._progress = progress
        self._repositories: dict[LayerId, dict[str, None]] = {}
        self._lock = threading.Lock()

    def outlet(self, images: Iterable[ComposedImage]) -> Direct:
        """Itself, knowing which images need what."""
        for image in images:
            for layer in image.layers:
                if layer.instance is not None:
                    self.need(layer.id, [image.repository])
        return self

    def need(self, layer: LayerId, repositories: Iterable[str]) -> None:
        """These need the layer too."""
        self._repositories.setdefault(layer, {}).update(dict.fromkeys(repositories))

    def repositories(self, layer: LayerId) -> tuple[str, ...]:
        """Where it is needed."""
        return tuple(self._repositories.get(layer, ()))

    def arrived(self, digest: str, repository: str, sent: int) -> None:
        """A blob is in a repository now; `sent` bytes of it went there, 0 if it was there already."""
        with self._lock:
            self.places[digest] = repository
            if sent:
                self.sent[digest] = sent
                self._progress.tally.add("sent", sent)
        if self._destination.host is not None:
            self._store.remember_push(self._destination.host, self._destination.full_name(repository), digest)

    def alone(self, layer: ComposedLayer) -> AbstractContextManager[None]:
        """See `pack.Outlet`."""
        assert layer.instance is not None
        place = self._destination.host or self._destination.name
        note = f"{layer.title}: waiting for another run to send it"
        return self._store.locked_layer(layer.instance.key, place, lambda: self._progress.note(note))

    def __call__(self, layer: ComposedLayer, size: int, opened: Callable[[], Iterator[bytes]]) -> str:
        """Sends a layer of `size` bytes; gives its digest.

        Raises:
            DigestFirst: the destination must know that before.
            DestinationError: no repository that needs it takes it.
            LayerbuildError: whatever reading raises.
        """
        failure: DestinationError | None = None
        for repository in self._repositories[layer.id]:
            try:
                with self._progress.task(f"push {layer.title}", size) as task:
                    digest = self._destination.put_unnamed(
                        repository, size, opened, title=layer.title, advance=task.advance
                    )
            except (DigestFirst, DestinationDown):
                raise
            except DestinationError as error:
                failure = failure or error
                continue
            self.arrived(digest, repository, size)
            return digest
        assert failure is not None
        raise failure
