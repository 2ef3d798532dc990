"""Small makers of values for the tests of the pure modules."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from layerbuild.errors import Problem, ProjectError
from layerbuild.images import ImageDeclaration, expand
from layerbuild.kinds import hashcache, links
from layerbuild.model import Content, Facts, Instance, Pin, Target, canonical_json
from layerbuild.project import load
from layerbuild.webui.hashcache import PlacedModel
from layerbuild.webui.safetensors import PREFIX, header_length, metadata_of
from layerbuild.wheels.inspection import Wheel

SHA = {letter: letter * 64 for letter in "abcdef"}
"""Stand-ins for sha256 digests: `SHA["a"]` is 64 times `a`."""

COMMIT = "82a973c04367123ae98bd9abdf80d9eda9b910e2"
"""Release 1.10.1 of the webui."""


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def git_blob(data: bytes) -> str:
    """git's name for the bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def hash_cache_of(
    models: Sequence[PlacedModel],
    facts: Mapping[str, Facts],
    target: Target,
    extensions: Mapping[str, Pin] | None = None,
) -> Instance | None:
    """The hash cache of an image that holds `models`."""
    known = [hashcache.remembered(model, facts.get(model.content.sha256 or ""), target) for model in models]
    return hashcache.hash_cache(known, target, "i", extensions or {})


def links_of(places: Mapping[str, str], target: Target) -> Instance:
    """The links layer of an image: absolute paths to weights by sha256."""
    return links.links({path: links.link(path, digest) for path, digest in places.items()}, target, "i")


def facts_of(data: bytes) -> Facts:
    """What a file's bytes tell, computed the plain way."""
    length = header_length(data[:PREFIX])
    header = data[PREFIX : PREFIX + length] if length is not None and length <= len(data) - PREFIX else b""
    metadata = metadata_of(header) if header else None
    if metadata is None:
        return Facts(size=len(data), safetensors=False)
    return Facts(
        size=len(data),
        safetensors=True,
        header_size=len(header),
        header_sha256=sha256(header),
        metadata=canonical_json(metadata),
        addnet=sha256(data[PREFIX + len(header) :]),
    )


class Known:
    """A `Knowledge` of sizes by content id, and of documents that it is given."""

    def __init__(
        self,
        sizes: Mapping[str, int] | None = None,
        documents: tuple[bytes, ...] = (),
        wheels: Mapping[str, Wheel] | None = None,
    ) -> None:
        self.sizes = dict(sizes or {})
        self.wheels = dict(wheels or {})
        self.documents = {sha256(document): document for document in documents}

    def size(self, content: Content) -> int | None:
        """From the table."""
        return self.sizes.get(content.id)

    def document(self, digest: str) -> bytes:
        """From the documents."""
        return self.documents[digest]

    def wheel(self, digest: str) -> Wheel:
        """From the wheels."""
        return self.wheels[digest]

    def bytecode(
        self, python: str, sources: Sequence[tuple[str, Content]], *, listing: str | None = None
    ) -> Mapping[str, Content]:
        """Of each source whose size is known: so much, and called by its path."""
        return {
            path: Content(size=content.size, sha256=sha256(f"{python} {path}".encode()))
            for path, content in sources
            if content.size
        }


def reader(contents: Mapping[str, bytes]) -> Any:
    """An `OpenContent` over bytes by content id, in uneven chunks."""

    def read(content: Content, offset: int) -> Iterator[bytes]:
        data = contents[content.id][offset:]
        for start in range(0, len(data), 7):
            yield data[start : start + 7]

    return read


def write_project(root: Path, files: Mapping[str, str]) -> Path:
    """A project directory: file name -> text. `recipes/` and `layers/` always exist."""
    for directory in ("layers", "recipes"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def images_of(root: Path, files: Mapping[str, str]) -> tuple[ImageDeclaration, ...]:
    """The images of a project made of `files`."""
    return expand(load(write_project(root, files)))


def problems_of(root: Path, files: Mapping[str, str]) -> list[Problem]:
    """What is wrong with a project made of `files`; an empty list if nothing is."""
    try:
        images_of(root, files)
    except ProjectError as error:
        return list(error.problems)
    return []
