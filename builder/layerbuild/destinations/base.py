"""What a place for images can do. Whoever pushes knows no more of it than this."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from layerbuild.model import Readable


@dataclass(frozen=True, kw_only=True)
class Room:
    """What a place takes, as far as that is known.

    Attributes:
        largest: bytes of the largest blob.
        free: bytes that it has room for now.
        unread: compression -> who reads such places, and not that.
    """

    largest: int | None = None
    free: int | None = None
    unread: Mapping[str, str] = field(default_factory=dict)


class Destination(Protocol):
    """Where images go. `repository` is always the name of an image, `a1111-sd15`.

    Every method raises `DestinationError` if the place is down, full, read-only or not what it
    should be, and `LoginRequired` where it asks for a login. All may be called from several threads.
    """

    @property
    def name(self) -> str:
        """As the user wrote it."""

    @property
    def host(self) -> str | None:
        """The registry, as in `Reference.host`; None where it is none. What it has can be mounted."""

    @property
    def ordered(self) -> bool:
        """Whether the order of what is put shows in the result. Then one thing is put at a time."""

    def whole(self) -> AbstractContextManager[None]:
        """Around all that a run puts. Where the place is one file, it appears when the block ends without
        an error, and else nothing does."""

    def room(self) -> Room:
        """What it takes. Nothing goes over a line for it."""

    def check_push(self, repository: str, *, soon: bool) -> None:
        """Finds out whether blobs may be put into a repository. What was found out once is not
        asked again.

        Args:
            soon: one will be put now.
        """

    def full_name(self, repository: str) -> str:
        """The repository as the destination itself names it, its prefix included."""

    def has(self, repository: str, digest: str, size: int | None = None) -> bool:
        """Whether a manifest of `repository` may name the blob `digest` now.

        Args:
            size: bytes that it must have; one of another size is damaged, and counts as absent.
        """

    def mount(self, repository: str, digest: str, candidates: Sequence[str]) -> bool:
        """Makes a blob that is already at this destination known in `repository`.

        Args:
            candidates: where it may be, the likeliest first: names of images at this destination, or,
                with a leading `/`, full names of repositories on the same registry (a base image's).

        Returns:
            Whether it worked. If not, `put` it.
        """

    def put(self, repository: str, blob: Readable, *, advance: Callable[[int], None]) -> None:
        """Stores a blob, checked while it is read.

        Args:
            advance: told of bytes as they go; of a negative number when a try is given up.

        Raises:
            ContentMismatch: the bytes are not what `blob` says. Nothing is stored.
            LayerbuildError: whatever reading `blob` raises.
        """

    def put_unnamed(
        self,
        repository: str,
        size: int,
        open: Callable[[], Iterator[bytes]],
        *,
        title: str,
        advance: Callable[[int], None],
    ) -> str:
        """Stores `size` bytes whose digest is known only when the last has gone; returns `sha256:<hex>`.

        Args:
            open: opens the bytes; called once for every try.
            title: names them in errors.
            advance: told of bytes as they go; of a negative number when a try is given up.

        Raises:
            DigestFirst: the place takes blobs only by their digest. Raised before anything was read, or
                as soon as a registry that is not known for it refuses.
            ContentMismatch: there are more bytes, or fewer. Nothing is stored.
            LayerbuildError: whatever reading raises. Nothing is stored.
        """

    def manifest(self, repository: str, reference: str) -> bytes | None:
        """The image manifest or index that a tag points to now, or that has the digest `reference`, as untrusted
        bytes; None if there is none, or something else."""

    def put_manifest(self, repository: str, tag: str | None, media_type: str, data: bytes) -> None:
        """Stores a manifest or an index, its bytes exactly as given. All that it names must be there.

        Args:
            tag: moved if it exists; None to store the manifest by its digest only.
        """
