"""A layer as a task for another machine: what it is told, what it does, and what it answers.

A job holds what the lock says and nothing else. Tokens, logins and the place of the store are the
worker's own: no secret travels in either direction.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from layerbuild import __version__
from layerbuild.destinations import Destination
from layerbuild.errors import ExecutorError, LayerbuildError, unforeseen
from layerbuild.execute import survey
from layerbuild.execute.carrier import Carrier
from layerbuild.execute.direct import Direct
from layerbuild.execute.moves import Moves
from layerbuild.execute.pack import Packer
from layerbuild.execute.station import Station
from layerbuild.formats import Formats
from layerbuild.image import BuiltLayer
from layerbuild.layering import ComposedLayer
from layerbuild.lockmodel import Lock
from layerbuild.model import Content, Facts, Receipt, canonical_json, sha256_hex
from layerbuild.plan import Want, transfers
from layerbuild.progress import Silent


@dataclass(frozen=True, kw_only=True)
class Sealed:
    """A job on its way. Only a worker of the same version opens it.

    Attributes:
        identity: the same for jobs that give the same layer in the same place, whoever asks.
    """

    version: str
    identity: str
    data: bytes = field(repr=False)

    def __dask_tokenize__(self) -> tuple[str, str]:
        """By this, Dask finds that two clients want the same."""
        return self.version, self.identity


@dataclass(frozen=True, kw_only=True)
class Job:
    """A layer to make, where that was never done; to send, where a destination lacks it; and to learn from.

    Attributes:
        lock: the part that the layer needs: pins and facts of its contents, and its receipt if there is one.
        size: bytes of the layer.
        destination: as the user wrote it; None where nothing is sent.
        repositories: that need the layer there. It is brought into one of them.
        keep: contents stay in the worker's store.
        insecure: registries that are spoken to over plain HTTP.
        wanted: sha256 of contents whose facts somebody waits for.
        formats: what contents must be.
    """

    layer: ComposedLayer
    lock: Lock
    size: int
    destination: str | None = None
    repositories: tuple[str, ...] = ()
    keep: bool = True
    insecure: tuple[str, ...] = ()
    wanted: frozenset[str] = frozenset()
    formats: Formats = field(default_factory=Formats)

    @property
    def identity(self) -> str:
        """64 hex digits. What things are called, and which of a registry's repositories come first, is not in it."""
        pins = [pin for layer in self.lock.layers.values() for pin in layer.pins.values()]
        files = [(pin, file) for pin in pins for file in pin.files]
        value = {
            "layer": self.layer.id,
            "receipts": sorted(receipt.diff_id for receipt in self.lock.receipts.values()),
            "sources": sorted((pin.source, pin.revision or "", f.path, f.content.id) for pin, f in files),
            "destination": self.destination,
            "keep": self.keep,
            "insecure": sorted(self.insecure),
            "wanted": sorted(self.wanted),
            "formats": self.formats.identity,
        }
        return sha256_hex(canonical_json(value).encode())

    def sealed(self) -> Sealed:
        """The job as it travels."""
        return Sealed(version=__version__, identity=self.identity, data=pickle.dumps(self))


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of a job.

    Attributes:
        facts: by sha256, of the layer's contents.
        documents: safetensors headers that those facts name.
        repository: that has the layer now; None where there is no destination.
        sent: bytes that went there; 0 if it had them.
        where: the worker's host.
        seconds: that it took.
        notes: what a user should know.
    """

    receipt: Receipt
    facts: Mapping[str, Facts]
    documents: tuple[bytes, ...]
    repository: str | None
    sent: int
    where: str
    seconds: float
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Failed:
    """Why nothing came of a job. As a value: an exception would be shown with its traceback in the worker's log."""

    error: LayerbuildError


class _Notes(Silent):
    """Keeps what a user should know until somebody can be told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        self.texts.append(text)


def work(sealed: Sealed) -> Done | Failed:
    """Does a job, on a worker. Never raises."""
    where = socket.gethostname()
    if sealed.version != __version__:
        message = f"the worker on {where} has layerbuild {__version__}, this machine has {sealed.version}"
        return Failed(error=ExecutorError(message, hint="install the same version on both"))
    try:
        worker = _Worker(pickle.loads(sealed.data))  # noqa: S301  # whoever hands out tasks runs code here anyway
        with contextlib.closing(worker.station.store):
            return worker.run(where)
    except LayerbuildError as error:
        return Failed(error=_at(error, where))
    except Exception as error:
        return Failed(error=_at(unforeseen(error), where))


def _at(error: LayerbuildError, where: str) -> LayerbuildError:
    """The error as it may travel. Dask's pickling takes tracebacks and causes along, and they may hold anything."""
    error.__traceback__ = error.__cause__ = error.__context__ = None
    error.cause = f"{error.cause}; on {where}" if error.cause else f"it happened on {where}"
    return error


class _Worker:
    """Does one job with the means of the machine that it runs on."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.notes = _Notes()
        self.station = Station(Path.cwd(), self.notes, os.environ, insecure=job.insecure)

    def run(self, where: str) -> Done:
        started = time.monotonic()
        job, store = self.job, self.station.store
        assert job.layer.instance is not None
        contents = self.station.contents(job.lock, keep=job.keep)
        contents.wanted, contents.formats = job.wanted, job.formats
        packer = Packer(contents, job.lock, self.notes)
        repository, sent = None, 0
        if job.destination is None:
            made = packer.build(job.layer)
        else:
            made, repository, sent = self._bring(packer, self.station.destination(job.destination))
        inside = packer.tar(job.layer.instance).contents
        for content in inside:
            if content.sha256 in job.wanted:
                contents.learn(content)
        facts = self._facts(inside)
        return Done(
            receipt=Receipt(key=made.key, diff_id=made.diff_id, size=made.size),
            facts=facts,
            documents=tuple(store.document(header.sha256 or "") for header in _headers(facts) if store.has(header)),
            repository=repository,
            sent=sent,
            where=where,
            seconds=time.monotonic() - started,
            notes=tuple(self.notes.texts),
        )

    def _bring(self, packer: Packer, destination: Destination) -> tuple[BuiltLayer, str, int]:
        """The layer, made on its way if it was never made; the repository that has it, and bytes that went there."""
        job, store = self.job, self.station.store
        direct = Direct(destination, store, self.notes)
        direct.need(job.layer.id, job.repositories)
        packer.outlet = direct
        made = packer.build(job.layer)
        digest, size = made.blob.digest, made.blob.size
        if digest in direct.places:
            return made, direct.places[digest], direct.sent[digest]
        want = Want(digest=digest, size=size, title=made.title, repositories=job.repositories, key=made.key)
        located = survey.remembered([want], destination, store, {})
        present = survey.present([want], destination, located=located)
        if there := sorted(present.get(digest, ())):
            return made, there[0], 0
        moves = Moves()
        (transfer,) = transfers([want], present, located)
        carrier = Carrier(destination, store, self.notes)
        repository = carrier.arrive(transfer, lambda: packer.readable(job.layer, made), moves)
        if repository is None:
            raise moves.failure(job.repositories[0], want)
        return made, repository, moves.uploaded

    def _facts(self, contents: Iterable[Content]) -> dict[str, Facts]:
        found = {content.sha256: self.station.store.facts(content.sha256) for content in contents if content.sha256}
        return {sha256: facts for sha256, facts in found.items() if facts is not None}


def _headers(facts: Mapping[str, Facts]) -> list[Content]:
    """Those whose metadata was too long for the facts themselves."""
    long = [f for f in facts.values() if f.safetensors and f.metadata is None and f.header_sha256]
    return [Content(size=f.header_size, sha256=f.header_sha256) for f in long]
