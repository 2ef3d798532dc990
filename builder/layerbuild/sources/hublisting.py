"""What a revision of a repository on the Hub holds, read from the Hub's answers: hostile until it is checked.

Two shapes exist: `siblings` of `/revision/REV?blobs=true`, and the entries of `/tree/REV?recursive=true`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from layerbuild import paths
from layerbuild.errors import SourceError
from layerbuild.model import Content
from layerbuild.sources.base import is_hex, is_size

_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Revision:
    """What a revision holds: every file by its path, nothing left out. `licence` is what its card says, if it does."""

    commit: str
    files: Mapping[str, Content]
    licence: str | None = None


class Listing:
    """The files of a revision as they come in. `what` names it in messages."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._files: dict[str, Content] = {}

    def add(self, path: object, size: object, blob: object, lfs: object, sha256: str) -> None:
        """One file.

        Args:
            lfs: what the Hub says of the large file behind the pointer, None for a regular file.
            sha256: what its digest is called there.

        Raises:
            SourceError: it makes no sense, or the path is unsafe.
        """
        if not isinstance(path, str):
            raise self.nonsense("a file has no name")
        paths.safe_relative(path, origin=f"the listing of {self.what}")
        if path in self._files:
            raise self.nonsense(f"{path!r:.200} is listed twice")
        self._files[path] = self._content(path, size, blob, lfs, sha256)

    def _content(self, path: str, size: object, blob: object, lfs: object, sha256: str) -> Content:
        if lfs is None:
            if isinstance(blob, str) and is_hex(blob, 40) and isinstance(size, int) and is_size(size):
                return Content(git_blob=blob, size=size)
        elif isinstance(lfs, dict):
            digest, size = lfs.get(sha256), lfs.get("size")
            if isinstance(digest, str) and is_hex(digest, 64) and is_size(size):
                return Content(sha256=digest, size=size)
        raise self.nonsense(f"{path!r:.200} has no proper digest and size")

    def complete(self) -> Mapping[str, Content]:
        """All files by their paths.

        Raises:
            SourceError: one is where another needs a directory.
        """
        for path in self._files:
            if above := next((p for p in paths.parents(path) if p in self._files), None):
                raise self.nonsense(f"{above!r:.200} is both a file and a directory")
        return self._files

    def nonsense(self, cause: str) -> SourceError:
        """The error for an answer that makes no sense."""
        return SourceError(
            f"the Hub's answer about {self.what} makes no sense",
            cause=cause,
            hint="check HF_ENDPOINT: it must be a Hub, or a mirror that answers ?blobs=true as the Hub does",
        )


def parse_revision(body: bytes, what: str, revision: str) -> Revision:
    """A revision's commit and its `siblings`: not all of them, or none, where the repository is very large, and
    none where a mirror has dropped what was asked about each.

    Raises:
        SourceError: `body` makes no sense, or is about another commit than the one asked for.
    """
    listing = Listing(what)
    answer = _json(listing, body)
    commit = answer.get("sha") if isinstance(answer, dict) else None
    siblings = answer.get("siblings") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not is_hex(commit, 40) or not isinstance(siblings, list):
        raise listing.nonsense("it names no commit, or no files")
    if is_hex(revision, 40) and commit != revision:
        raise listing.nonsense(f"it speaks of commit {commit}")
    if all(isinstance(item, dict) and set(item) == {"rfilename"} for item in siblings):
        siblings = []
    for item in siblings:
        found: dict[str, Any] = item if isinstance(item, dict) else {}
        listing.add(found.get("rfilename"), found.get("size"), found.get("blobId"), found.get("lfs"), "sha256")
    return Revision(commit=commit, files=listing.complete(), licence=_licence(answer))


def _licence(answer: Mapping[str, Any]) -> str | None:
    """The licence of a repository's card: a name without spaces, as the Hub has them in its tags too."""
    card, tags = answer.get("cardData"), answer.get("tags")
    said = [card.get("license")] if isinstance(card, dict) else []
    said += (
        [tag.removeprefix("license:") for tag in tags if isinstance(tag, str) and tag.startswith("license:")]
        if (isinstance(tags, list))
        else []
    )
    return next((name for name in said if isinstance(name, str) and _LICENCE.fullmatch(name)), None)


def add_page(listing: Listing, body: bytes) -> None:
    """Takes in a page of a tree's entries.

    Raises:
        SourceError: it makes no sense.
    """
    entries = _json(listing, body)
    if not isinstance(entries, list):
        raise listing.nonsense("a page of it is no list")
    for item in entries:
        found: dict[str, Any] = item if isinstance(item, dict) else {}
        if found.get("type") != "directory":
            listing.add(found.get("path"), found.get("size"), found.get("oid"), found.get("lfs"), "oid")


def _json(listing: Listing, body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise listing.nonsense("it is not JSON") from None
