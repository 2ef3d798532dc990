"""Where a thing comes from that a person saw somewhere: a digest in a log, a hash in the webui, a path. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerbuild.compose import ComposedImage
from layerbuild.errors import UsageError
from layerbuild.lockmodel import Lock
from layerbuild.model import Pin, PinnedFile
from layerbuild.provenance import Place, Provenance
from layerbuild.similar import did_you_mean

_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{6,64})")
_MOST_NAMED = 12


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A thing, and everything that leads to it.

    Attributes:
        what: for people: `file`, `diffID`, `commit`, ...
        id: in full, as far as a lock has it.
        places: of the images that have it, at least one.
        whole: whether it is an image itself, and `places` all that is in it.
    """

    what: str
    id: str
    places: tuple[Place, ...]
    whole: bool = False

    @property
    def declarations(self) -> list[dict[str, Any]]:
        """Declarations that lead to it: name, file, line."""
        uses = {p.use.pin_key: p.use for p in self.places if p.use}
        return [{"name": u.name, "file": u.document.file, "line": u.document.line(u.path)} for u in uses.values()]

    @property
    def sources(self) -> list[dict[str, Any]]:
        """Pins that lead to it, each once, with their files."""
        found: dict[str, dict[str, Any]] = {}
        for place in self.places:
            if place.pin is None:
                continue
            pinned = found.setdefault(place.pin.source, _source(place.pin))
            file = _file(place.file) if place.file else None
            pinned["files"] += [file] if file is not None and file not in pinned["files"] else []
        return list(found.values())

    @property
    def layers(self) -> dict[str, Place]:
        """A place in each layer that has it, by what the lock calls the layer."""
        return {p.layer.line: p for p in self.places if p.layer}

    @property
    def images(self) -> list[dict[str, Any]]:
        """Images that have it, with their recipes and, unless the answer is an image, its paths there."""
        found: dict[str, dict[str, Any]] = {}
        for place in self.places:
            own = {"name": place.image.name, "recipe": place.image.document.file, "paths": []}
            entry = found.setdefault(place.image.name, own)
            entry["paths"] += [] if self.whole else [p for p in place.paths if p not in entry["paths"]]
        return list(found.values())


def _source(pin: Pin) -> dict[str, Any]:
    return {"source": pin.source, "revision": pin.revision, "ref": pin.ref, "tree": pin.tree, "files": []}


def _file(file: PinnedFile) -> dict[str, Any]:
    content = file.content
    return {"path": file.path, "size": content.size, "sha256": content.sha256, "git_blob": content.git_blob}


class Index:
    """All that can be asked about some images.

    Args:
        images: in which it is looked for.
    """

    def __init__(self, images: Sequence[ComposedImage], lock: Lock) -> None:
        self._images = images
        self._lock = lock
        self._provenance = Provenance(lock)
        self._places = [place for image in images for place in self._provenance.places(image)]

    def find(self, text: str) -> list[Answer]:
        """What `text` means: an absolute path, the beginning of a digest, or a name.

        Raises:
            UsageError: it means nothing here, or the beginning of several digests.
        """
        if text.startswith("/"):
            found = self._path(posixpath.normpath(text))
        else:
            digest = _DIGEST.fullmatch(text.lower())
            found = (self._digest(digest[1]) if digest else []) or self._name(text)
        if not found:
            raise UsageError(
                f"nothing in the project is called {text[:100]!r}",
                cause="it is no path, no digest, and no name of a declaration, model, layer or image of the lock",
                hint=f"see 'layerbuild ls layers' and 'layerbuild ls models'{did_you_mean(text, self._all_names())}",
            )
        return found

    # --- digests -----------------------------------------------------------------------------------

    def _digest(self, beginning: str) -> list[Answer]:
        found: dict[str, tuple[str, bool, list[Place]]] = {}
        for what, name, places, whole in (*self._of_places(), *self._of_images()):
            if name.startswith(beginning):
                found.setdefault(name, (what, whole, []))[2].extend(places)
        if len(found) > 1:
            listed = "\n".join(f"  {name} ({what})" for name, (what, _, _) in sorted(found.items())[:_MOST_NAMED])
            more = f"\n  ... and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
            raise UsageError(
                f"{beginning!r} is the beginning of several digests:\n{listed}{more}", hint="give more of its digits"
            )
        return [
            # One place may tell a digest twice: as a layer, and as its diffID.
            Answer(what=what, id=name, places=tuple({id(p): p for p in places}.values()), whole=whole)
            for name, (what, whole, places) in found.items()
        ]

    def _of_places(self) -> Iterator[tuple[str, str, list[Place], bool]]:
        for place in self._places:
            for what, name in (*_of_pin(place), *self._of_content(place), *self._of_layer(place)):
                if name:
                    yield what, name.removeprefix("sha256:"), [place], False

    def _of_content(self, place: Place) -> Iterator[tuple[str, str | None]]:
        content = place.file.content if place.file else None
        if content is None:
            return
        yield "file", content.sha256
        yield "file, as git names it", content.git_blob
        facts = self._lock.files.get(content.sha256 or "")
        if facts is not None:
            yield "file without its header, as the webui hashes Loras", facts.addnet
            yield "header of a safetensors file", facts.header_sha256

    def _of_layer(self, place: Place) -> Iterator[tuple[str, str | None]]:
        if place.layer is None or place.layer.instance is None:
            return
        yield "key of a layer", place.layer.instance.key
        receipt = self._lock.receipts.get(place.layer.instance.key)
        if receipt is not None:
            plain = place.layer.algorithm == "none"
            yield "layer" if plain else "diffID of a layer", receipt.diff_id
            for blob in receipt.blobs:
                yield f"layer, packed by {blob.encoding}", blob.digest

    def _of_images(self) -> Iterator[tuple[str, str, list[Place], bool]]:
        for image in self._images:
            locked = self._lock.images.get(image.name)
            named = {
                "manifest of an image": locked.manifest if locked else None,
                "manifest of a base": image.base.digest if image.base else None,
            }
            index = self._lock.indexes.get(image.title)
            named["index of an image for several platforms"] = index.digest if index else None
            for what, digest in named.items():
                if digest:
                    yield what, digest.removeprefix("sha256:"), self._in(image.name), True

    def _in(self, image: str) -> list[Place]:
        return [place for place in self._places if place.image.name == image]

    # --- paths and names -----------------------------------------------------------------------------

    def _path(self, path: str) -> list[Answer]:
        """By the path of a file or link; else by the tree in whose directory it would lie."""
        exact: list[Place] = []
        below: dict[str, list[Place]] = {}
        for place in self._places:
            if path in place.paths or self._holds(place, path):
                exact.append(place)
            for directory in self._provenance.directory(place.layer):
                if path == directory or path.startswith(f"{directory}/"):
                    below.setdefault(directory, []).append(place)
        if exact:
            return [Answer(what="path", id=path, places=tuple(exact))]
        if not below:
            return []
        nearest = max(below, key=len)
        return [Answer(what=f"path in the tree at {nearest}", id=path, places=tuple(below[nearest]))]

    def _holds(self, place: Place, path: str) -> bool:
        """Whether the path is one of the layer's own that no link leads to by another name: a weights file, a blob."""
        if place.layer is None:
            return False
        contents = (place.file.content.sha256, place.file.content.git_blob) if place.file else (None,)
        return any(p == path and content in contents for p, content in self._provenance.names(place.layer))

    def _name(self, text: str) -> list[Answer]:
        found: list[Answer] = []
        for what, matches in _NAMES.items():
            places = tuple(place for place in self._places if matches(place, text))
            # A model is mostly called as its declaration is: that says it all.
            if places and not (what == "file" and found):
                found.append(Answer(what=what, id=text, places=places, whole=what == "image"))
        return found

    def _all_names(self) -> Iterable[str]:
        for place in self._places:
            yield from (place.image.title, *([place.use.name] if place.use else ()))
            if place.file is not None:
                yield posixpath.basename(place.file.path)


def _of_pin(place: Place) -> Iterator[tuple[str, str | None]]:
    if place.pin is not None:
        yield "commit", place.pin.revision
        yield "git tree", place.pin.tree


def _called(place: Place, text: str) -> bool:
    """Whether a pinned file is called so where it comes from or where it lies, with its suffix or without."""
    if place.file is None:
        return False
    names = [posixpath.basename(path) for path in (place.file.path, *place.paths)]
    return text in names or text in [posixpath.splitext(name)[0] for name in names]


_NAMES: Mapping[str, Callable[[Place, str], bool]] = {
    "declaration": lambda place, text: place.use is not None and text in (place.use.name, place.use.pin_key),
    "file": _called,
    "layer": lambda place, text: place.layer is not None and place.layer.title == text,
    "image": lambda place, text: text in (place.image.name, place.image.title),
}
"""What can be meant by a name, and how it is told."""
