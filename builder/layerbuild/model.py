"""Frozen values that every station passes on, with no behaviour beyond themselves.

Sizes are bytes. Digests are lower-case: plain hex where the field says which algorithm, and
`sha256:<hex>` (OCI image-spec 1.1, descriptor.md, "Digests") where a registry would read them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol

MTIME = 315619200
"""Modification time of every entry, in Unix seconds: 1980-01-02 00:00 UTC, which ZIP archives can
hold in every time zone."""

LARGE = 16 * 1024 * 1024
"""Bytes from which on a model file has a layer of its own."""

TAR_REVISION = 1
"""Revision of the rules by which entries become tar bytes. Part of every key."""


def canonical_json(value: Any) -> str:
    """`value` as JSON that depends on nothing but the value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def sha256_hex(data: bytes) -> str:
    """Lower-case hex sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a file holds, by a name that its bytes give it.

    At least one of `sha256` and `git_blob` is set, except while a file is being looked for.

    Attributes:
        size: in bytes; None only where nobody has told it yet.
        sha256: of the bytes.
        git_blob: SHA-1 of `blob <size>\\0` and the bytes, as git and the Hugging Face Hub name regular files.
    """

    size: int | None
    sha256: str | None = None
    git_blob: str | None = None

    @property
    def id(self) -> str:
        """`sha256:<hex>` where known, else `git:<hex>`."""
        return f"sha256:{self.sha256}" if self.sha256 else f"git:{self.git_blob}"


@dataclass(frozen=True, kw_only=True)
class PinnedFile:
    """One file of a source, as the lock pins it.

    Attributes:
        path: relative to the source, `/`-separated, and safe (`paths.unsafe_reason`).
        content: of the file.
    """

    path: str
    content: Content


@dataclass(frozen=True, kw_only=True)
class Pin:
    """What a source was resolved to.

    Attributes:
        source: the URI with its revision resolved (a 40-hex commit instead of a branch).
        files: every file that the declaration takes from the source, sorted by path. Empty for a
            git tree, whose files stand in the listing.
        revision: the commit, where the source has commits.
        ref: the branch or tag that was asked for, where it was one.
        tree: id of the git tree.
        listing: sha256 of the git tree's listing (`sources.git.listing` says what it holds).
        absent: names proved absent at `revision` (Hugging Face snapshots).
        date: the commit's time in Unix seconds (git).
        version: the release that the tree's own changelog names first (the webui's tree).
        mirrors: other addresses that may give the same bytes, in the order in which they are tried.
        headers: names and values to send to the source's own server, with `${VARIABLE}` for secrets.
        blob: digest of the OCI blob that has the file within a tar; None where a blob is the file.
        offset: bytes of that tar, unpacked, before the file.
        constraints: what versions the build requirements of a wheel may have, where it was built from source; its
            `version` is that of the Python that builds it, and its `date` when these were chosen.
    """

    source: str
    files: tuple[PinnedFile, ...] = ()
    revision: str | None = None
    ref: str | None = None
    tree: str | None = None
    listing: str | None = None
    absent: tuple[str, ...] = ()
    date: int | None = None
    version: str | None = None
    mirrors: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    blob: str | None = None
    offset: int | None = None
    constraints: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Member:
    """Where an OCI artifact or image has a file.

    Attributes:
        content: of the file.
        blob, offset: as in `Pin`.
    """

    content: Content
    blob: str | None = None
    offset: int = 0


@dataclass(frozen=True, kw_only=True)
class PythonRequest:
    """What a declaration asks of indexes of Python packages.

    Attributes:
        requirements, constraints: as pip writes them (PEP 508).
        tree: git source of a tree that has a file of further requirements; None without.
        file: that file's path in the tree.
        tree_mirrors: other addresses of the tree's repository. They move no pin.
        indexes: addresses that are asked before the usual index.
        index_strategy: which of the indexes that have a package counts (uv's `--index-strategy`).
        exclude_newer: time after which nothing counts as published; None for now.
        python: version that the packages are for, `3.X`.
        platform: that they are for (uv's `--python-platform`).
        build: names of packages that may be built from source.
    """

    requirements: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    tree: str | None = None
    file: str | None = None
    tree_mirrors: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()
    index_strategy: str = "first-index"
    exclude_newer: str | None = None
    python: str
    platform: str
    build: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PinRequest:
    """What a declaration asks of a source.

    Attributes:
        uri: the source, rendered.
        sha256, size: what the declaration says of a single file, if anything.
        files: names or globs of a snapshot or directory, `!` excludes; None means all.
        absent: names to prove absent at the pinned commit (Hugging Face).
        mirrors: other addresses of the same bytes, tried in order. They move no pin.
        headers: names and values to send, with `${VARIABLE}` for secrets (HTTP). They move no pin.
        submodules: paths or globs of submodules that are pinned as well (git).
        lfs_pointers: paths or globs of Git LFS pointers that may stay pointers (git).
        repositories: whether the checkouts that a webui's tree names are pinned as well (git).
        python: packages to choose; each becomes a pin of its own.
    """

    uri: str
    sha256: str | None = None
    size: int | None = None
    files: tuple[str, ...] | None = None
    absent: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    submodules: tuple[str, ...] = ()
    lfs_pointers: tuple[str, ...] = ()
    repositories: bool = False
    python: PythonRequest | None = None


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was learnt from a file's content. None means pending: nobody has looked yet.

    Attributes:
        size: of the whole file, in bytes.
        git_blob: git's name for the same bytes, where it was computed.
        safetensors: whether the file begins with a valid safetensors header.
        header_size: bytes of that header, without the 8 that hold its length.
        header_sha256: of those bytes.
        metadata: canonical JSON of the header's `__metadata__`; None where it is pending or was
            too long for the lock (then `header_sha256` names the document that holds it).
        addnet: sha256 of everything after the header, the webui's `hashes-addnet`.
        architecture: see `webui.architecture`; None also where it is none of those.
        pickle: who found that loading the file as a pickle runs nothing (`pickles.scanner`).
    """

    size: int
    git_blob: str | None = None
    safetensors: bool | None = None
    header_size: int | None = None
    header_sha256: str | None = None
    metadata: str | None = None
    addnet: str | None = None
    architecture: str | None = None
    pickle: str | None = None


@dataclass(frozen=True, kw_only=True)
class Directory:
    """A directory that the base has, and whose attributes a layer must repeat."""

    path: str
    mode: int
    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where an image wants things. A weights layer takes none of it.

    Attributes:
        root, data_dir, models_dir, embeddings_dir: the webui's directories; absolute.
        type_dirs: types of models, and the directory that a flag of the webui gives each of them.
        checkpoint: path that `--ckpt` names; None without the flag.
        cache_file: path of the hash cache, where `SD_WEBUI_CACHE_FILE` names it.
        flavor: key of `webui.flavors.FLAVORS`.
        version: the webui's release as a tuple, None where nobody says (then the newest rules hold).
        bytecode: version of Python for which sources are compiled; None where they are not.
        directories: directories of the base whose attributes a layer that passes through them repeats.
    """

    root: str = "/stable-diffusion-webui"
    data_dir: str = "/stable-diffusion-webui"
    models_dir: str = "/stable-diffusion-webui/models"
    embeddings_dir: str = "/stable-diffusion-webui/embeddings"
    type_dirs: tuple[tuple[str, str], ...] = ()
    checkpoint: str | None = None
    cache_file: str | None = None
    flavor: str = "a1111"
    version: tuple[int, ...] | None = None
    hf_home: str = "/opt/huggingface"
    uid: int = 0
    gid: int = 0
    bytecode: str | None = None
    directories: tuple[Directory, ...] = ()


EntryType = Literal["file", "directory", "symlink"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One path in a layer. `path` is absolute without its leading slash, e.g. `opt/weights`.

    A file has either `content` (bytes that lie elsewhere) or `data` (bytes that were made here,
    small). A symlink has `target`.
    """

    path: str
    type: EntryType
    mode: int
    uid: int = 0
    gid: int = 0
    content: Content | None = None
    data: bytes | None = None
    target: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Instance:
    """One layer of one image, shared by every image whose instance is equal: whose key is the same.

    Attributes:
        kind: name in `layerbuild.kinds.KINDS`.
        revision: that kind's revision number.
        parts: canonical JSON of the pins, facts and target fields that the kind uses, in pieces: what
            instances have in common, they share.
        label: for people; not part of the identity.
    """

    kind: str
    revision: int
    parts: tuple[str, ...]
    label: str

    @property
    def inputs(self) -> str:
        """The canonical JSON as one text."""
        return "".join(self.parts)

    @cached_property
    def key(self) -> str:
        """64 hex digits: sha256 over kind, revision, inputs and the tar rules' revision."""
        # Canonical JSON of all four, without taking the inputs apart.
        rest = canonical_json({"kind": self.kind, "revision": self.revision, "tar": TAR_REVISION})
        return sha256_hex(f'{{"inputs":{self.inputs},{rest[1:]}'.encode())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Instance) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@dataclass(frozen=True, kw_only=True)
class Blob:
    """A layer as a registry stores it.

    Attributes:
        encoding: `none`, or algorithm, level and library version: `zstd:3:1.5.7`, `gzip:6:1.2.13`.
        digest: of the blob, as a registry calls it.
        size: of the blob, in bytes.
    """

    encoding: str
    digest: str
    size: int


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What a key became.

    Attributes:
        key: of the layer.
        diff_id: digest of its tar.
        size: of the tar, in bytes.
        blobs: that it is known as. The uncompressed one follows from `diff_id` and `size` and is never listed.
    """

    key: str
    diff_id: str
    size: int
    blobs: tuple[Blob, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Descriptor:
    """OCI image-spec 1.1, descriptor.md."""

    media_type: str
    digest: str
    size: int
    annotations: tuple[tuple[str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The JSON object of the specification, keys in its order."""
        value: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": self.size}
        if self.annotations:
            value["annotations"] = dict(self.annotations)
        return value


class Readable(Protocol):
    """Bytes with a known digest and size that can be read from any offset, more than once.

    `open(offset)` yields non-empty chunks from byte `offset` to the end. It raises a
    `LayerbuildError` if the bytes cannot be had, and `ContentMismatch` if they are not what they
    should be (checked only on a read from offset 0 to the end).
    """

    @property
    def digest(self) -> str:
        """`sha256:<hex>`."""

    @property
    def size(self) -> int:
        """Bytes."""

    def open(self, offset: int = 0) -> Iterator[bytes]:
        """Chunks from `offset` on."""
