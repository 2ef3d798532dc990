"""What a push has moved so far, and what could not be moved. Told by many threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from layerbuild.errors import LayerbuildError
from layerbuild.execute.build import BuiltImage
from layerbuild.plan import Want


class Moves:
    """Bytes that went, and failures by repository and blob."""

    def __init__(self) -> None:
        self._sent: dict[str, int] = {}
        self._mounted: dict[str, int] = {}
        self._failures: dict[tuple[str, str], LayerbuildError] = {}
        self._lock = threading.Lock()

    @property
    def uploaded(self) -> int:
        """Bytes that were sent, again where they had to be."""
        return sum(self._sent.values())

    @property
    def mounted(self) -> int:
        """Bytes of blobs that did not have to be sent."""
        return sum(size for digest, size in self._mounted.items() if not self._sent.get(digest))

    def count(self, want: Want, sent: int) -> None:
        """A blob is in one more repository; `sent` bytes of it went there, 0 if it was mounted."""
        digest = want.digest or ""
        with self._lock:
            self._sent[digest] = self._sent.get(digest, 0) + sent
            self._mounted[digest] = want.size or 0

    def fail(self, repository: str, want: Want, error: LayerbuildError) -> None:
        """A blob cannot be put into a repository."""
        with self._lock:
            self._failures[repository, want.digest or ""] = error

    def failure(self, repository: str, want: Want) -> LayerbuildError:
        """Why not."""
        return self._failures[repository, want.digest or ""]

    def left(self, want: Want, repositories: Iterable[str]) -> tuple[str, ...]:
        """Those that a blob can still be put into."""
        return tuple(name for name in repositories if (name, want.digest or "") not in self._failures)

    def check(self, image: BuiltImage) -> None:
        """Raise what kept a blob from where the image needs it."""
        if not self._failures:
            return
        for digest in (*image.blobs, image.config_descriptor.digest):
            if (image.repository, digest) in self._failures:
                raise self._failures[image.repository, digest]
