"""What an image will hold that nobody has made yet, as an audit of the project has to know it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from layerbuild import pyc
from layerbuild.errors import LayerbuildError
from layerbuild.execute.contents import Contents
from layerbuild.model import Content, sha256_hex
from layerbuild.wheels.inspection import Wheel


class Foreseen:
    """A `kinds.base.Knowledge` for which nothing is fetched or compiled: of bytecode it gives the beginning."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._heads: dict[str, bytes] = {}

    def size(self, content: Content) -> int | None:
        """See `Contents.size`."""
        return self._contents.size(content)

    def document(self, sha256: str) -> bytes:
        """See `Contents.document`."""
        return self._contents.document(sha256)

    def wheel(self, sha256: str) -> Wheel:
        """See `Contents.wheel`.

        Raises:
            LayerbuildError: nobody has looked into it here.
        """
        if not self._contents.at_hand([sha256]):
            raise LayerbuildError(
                f"what is in the wheel {sha256[:16]} is not known on this machine", hint="run 'layerbuild build' first"
            )
        return self._contents.wheel(sha256)

    def bytecode(
        self, python: str, sources: Sequence[tuple[str, Content]], *, listing: str | None = None
    ) -> Mapping[str, Content]:
        """How it will begin, for every source: whether each is a valid one shows when they are compiled."""
        del listing
        head = pyc.head(python).ljust(pyc.HEAD, b"\0")
        content = Content(size=len(head), sha256=sha256_hex(head))
        self._heads[content.id] = head
        return dict.fromkeys((path for path, _ in sources), content)

    def read(self, content: Content, offset: int, length: int) -> bytes | None:
        """A few bytes of a content; None where they are not to be had cheaply."""
        if content.id in self._heads:
            return self._heads[content.id][offset : offset + length]
        # Files of a git tree are in no hurry: only building fetches them.
        if content.sha256 is None and not self._contents.store.has(content):
            return None
        try:
            return self._contents.read_range(content, offset, length)
        except LayerbuildError:
            return None
