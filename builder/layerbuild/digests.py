"""One pass over bytes, as many digests as are wanted, each in a thread of its own.

hashlib gives up the GIL on large buffers, so a second digest costs nothing where there is a second
core. Buffers are bounded: a slow digest holds the reader back instead of filling memory.
"""

from __future__ import annotations

import hashlib
import json
import queue
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Protocol

from layerbuild.model import Facts, canonical_json, sha256_hex
from layerbuild.webui.architecture import architecture
from layerbuild.webui.safetensors import PREFIX, header_length, metadata_of
from layerbuild.webui.tensors import fault_of_header, fault_of_length

CHUNK = 2 * 1024 * 1024
"""Bytes handed to the digests at a time: with small ones the hand-over costs more than it wins. With larger ones, the
four layers that go through a process at once do not fit into 100 MB."""

_DEPTH = 2
INLINE_METADATA = 4096
"""Bytes of metadata up to which the lock holds it."""


class Digester(Protocol):
    """Something that is fed every byte once, in order."""

    def update(self, data: bytes, /) -> None:
        """The next bytes."""


class GitBlob:
    """git's name of a blob: SHA-1 over `blob <size>\\0` and the content (git's object format)."""

    def __init__(self, size: int) -> None:
        self._hash = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def update(self, data: bytes | memoryview, /) -> None:
        self._hash.update(data)

    def hexdigest(self) -> str:
        """40 hex digits."""
        return self._hash.hexdigest()


class SafetensorsScan:
    """Learns a safetensors file's header and the digest of what follows it.

    Args:
        addnet: compute that digest; it costs as much as the sha256 of the whole file.
    """

    def __init__(self, *, addnet: bool = True) -> None:
        self._head: bytearray | None = bytearray()
        self._prefix = b""
        self._rest = hashlib.sha256() if addnet else None
        self.header: bytes | None = None

    def update(self, data: bytes, /) -> None:
        """The next bytes."""
        if self._head is None:
            if self.header is not None and self._rest is not None:
                self._rest.update(data)
            return
        self._head += data
        self._prefix = bytes(self._head[:PREFIX])
        if len(self._prefix) < PREFIX:
            return
        length = header_length(self._prefix)
        if length is None:
            self._head = None
        elif len(self._head) >= PREFIX + length:
            self.header = bytes(self._head[PREFIX : PREFIX + length])
            if self._rest is not None:
                self._rest.update(memoryview(self._head)[PREFIX + length :])
            self._head = None

    def fault(self, size: int) -> str | None:
        """Why the file is no valid safetensors file, None if it is one; once every byte of its `size` was seen."""
        if self.header is None:
            return fault_of_length(self._prefix, size)
        return fault_of_header(self.header, size)

    def facts(self, size: int, git_blob: str | None = None) -> Facts:
        """What was learnt, once every byte of the file's `size` was seen."""
        if self.header is None:
            return Facts(size=size, git_blob=git_blob, safetensors=False)
        facts = replace(header_facts(self.header, size), git_blob=git_blob)
        addnet = self._rest.hexdigest() if self._rest is not None and facts.safetensors else None
        return replace(facts, addnet=addnet)


def header_facts(header: bytes, size: int) -> Facts:
    """Facts that follow from the header alone. Long metadata stays in a document of its own.

    Args:
        header: the JSON, without the 8 bytes before it.
        size: of the whole file, in bytes.
    """
    if fault_of_header(header, size) is not None:
        return Facts(size=size, safetensors=False)
    text = canonical_json(metadata_of(header))
    return Facts(
        size=size,
        safetensors=True,
        header_size=len(header),
        header_sha256=sha256_hex(header),
        metadata=text if len(text) <= INLINE_METADATA else None,
        architecture=architecture(json.loads(header)),
    )


def measure(chunks: Iterable[bytes]) -> tuple[str, int]:
    """Digest, `sha256:<hex>`, and size in bytes of a blob that nobody keeps."""
    whole, size = hashlib.sha256(), 0
    for chunk in chunks:
        whole.update(chunk)
        size += len(chunk)
    return f"sha256:{whole.hexdigest()}", size


def feed(chunks: Iterable[bytes], digesters: Sequence[Digester], *, threads: bool = True) -> Iterator[bytes]:
    """Passes `chunks` on, and every byte to every digester. Used to the end, all have seen everything.

    Args:
        threads: one for each digester; else the caller's thread does the work, which is right for
            small files and for the only digest of a pass.
    """
    if not threads:
        for chunk in chunks:
            for digester in digesters:
                digester.update(chunk)
            yield chunk
        return
    with _Threads(digesters) as running:
        for chunk in chunks:
            running.put(chunk)
            yield chunk


class _Threads:
    """One thread for each digester, fed through short queues."""

    def __init__(self, digesters: Sequence[Digester]) -> None:
        self._queues: list[queue.Queue[bytes | None]] = [queue.Queue(_DEPTH) for _ in digesters]
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._work, args=pair, daemon=True)
            for pair in zip(digesters, self._queues, strict=True)
        ]

    def _work(self, digester: Digester, source: queue.Queue[bytes | None]) -> None:
        while (chunk := source.get()) is not None:
            if self._failures:
                continue
            try:
                digester.update(chunk)
            except BaseException as error:
                # Whatever it is belongs to the thread that waits; a worker that died would leave it waiting for ever.
                self._failures.append(error)

    def put(self, chunk: bytes) -> None:
        if self._failures:
            raise self._failures[0]
        for waiting in self._queues:
            waiting.put(chunk)

    def __enter__(self) -> _Threads:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for waiting in self._queues:
            waiting.put(None)
        for thread in self._threads:
            thread.join()
        if error is None and self._failures:
            raise self._failures[0]
