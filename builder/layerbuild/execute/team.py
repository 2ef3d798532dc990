"""Says which layers other machines make, send or read, and takes home what they learn.

What is small or compressed, or comes from files of this machine, stays here: it is done at the same
time, by the same functions as without other machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from layerbuild import kinds
from layerbuild.errors import ExecutorError, LayerbuildError
from layerbuild.execute.direct import Direct
from layerbuild.execute.errand import SAME_VERSION, Crew, Errand, Outcome
from layerbuild.execute.job import Done, Job
from layerbuild.execute.origins import Origin
from layerbuild.execute.pack import Packer
from layerbuild.execute.parallel import Away, R, T
from layerbuild.image import BuiltLayer
from layerbuild.layering import ComposedLayer
from layerbuild.lockmodel import Lock, LockedLayer
from layerbuild.model import LARGE, Content, Pin
from layerbuild.progress import Progress
from layerbuild.sources import is_local
from layerbuild.tarstream import TarStream


class Team:
    """What a command has others do.

    Args:
        packer: of this machine; its store takes receipts and facts.
        lock: that jobs take their part of.
        destination: as the user wrote it; None where nothing is sent.
        direct: knows which repositories need what there, and is told what arrives.
        insecure: registries that are spoken to over plain HTTP.
    """

    def __init__(
        self,
        crew: Crew,
        packer: Packer,
        lock: Lock,
        progress: Progress,
        *,
        destination: str | None = None,
        direct: Direct | None = None,
        insecure: Sequence[str] = (),
    ) -> None:
        self._crew = crew
        self._packer = packer
        self._contents = packer.contents
        self._lock = lock
        self._progress = progress
        self._destination = destination
        self._direct = direct
        self._insecure = tuple(insecure)

    # --- what others do ----------------------------------------------------------------------------

    def making(self) -> Away[ComposedLayer, BuiltLayer]:
        """Makes layers that nobody has a receipt for, and sends them where they are needed."""

        def job(layer: ComposedLayer) -> Job | None:
            found = self._job(layer)
            if found is None or found.lock.receipts:
                return None
            needed = self._direct.repositories(layer.id) if self._direct is not None else ()
            return replace(found, destination=self._destination, repositories=needed) if needed else found

        def taken(layer: ComposedLayer, outcome: Outcome) -> BuiltLayer:
            done, made = _done(outcome), self._packer.known(layer)
            assert made is not None
            if self._direct is not None and done.repository is not None:
                self._direct.arrived(made.blob.digest, done.repository, done.sent)
            return made

        return self._errand(job, taken)

    def learning(self, layers: Iterable[ComposedLayer]) -> Away[Content, None]:
        """Reads models whose facts are pending.

        Args:
            layers: that hold them.
        """
        holders = {content.sha256: layer for layer in layers if (tar := self._tar(layer)) for content in tar.contents}

        def job(content: Content) -> Job | None:
            layer = holders.get(content.sha256)
            return self._job(layer) if layer is not None and not self._contents.learnt(content) else None

        def taken(_: Content, outcome: Outcome) -> None:
            _done(outcome)

        return self._errand(job, taken)

    def sending(
        self,
        wanted: Callable[[T], tuple[ComposedLayer, Sequence[str]] | None],
        taken: Callable[[T, Outcome], R],
    ) -> Away[T, R]:
        """Sends layers whose receipt is known.

        Args:
            wanted: the layer that an item is about, and the repositories that lack it; None where it is none.
            taken: what comes of an item.
        """

        def job(item: T) -> Job | None:
            layer, repositories = wanted(item) or (None, ())
            found = self._job(layer) if layer is not None else None
            return found and replace(found, destination=self._destination, repositories=tuple(repositories))

        return self._errand(job, taken)

    def _errand(self, job: Callable[[T], Job | None], taken: Callable[[T, Outcome], R]) -> Away[T, R]:
        return Errand(crew=self._crew, progress=self._progress, job=job, home=self._home, taken=taken)

    # --- jobs ----------------------------------------------------------------------------------------

    def _tar(self, layer: ComposedLayer) -> TarStream | None:
        """The tar of a layer that others can make; None where they cannot, or need not."""
        if layer.instance is None or layer.algorithm != "none" or kinds.documents(layer.instance):
            return None
        try:
            tar = self._packer.tar(layer.instance)
            origins = [self._contents.origin(content) for content in tar.contents]
        except LayerbuildError:
            # Whoever makes it here will say what is wrong.
            return None
        local = any(is_local(origin.pin.source) for origin in origins)
        return None if local or tar.size < LARGE else tar

    def _job(self, layer: ComposedLayer) -> Job | None:
        tar = self._tar(layer)
        if tar is None or layer.instance is None:
            return None
        try:
            receipt = self._packer.receipt(layer.instance.key)
        except LayerbuildError:
            return None
        names = {content.sha256 or "" for content in tar.contents}
        part = Lock(
            layers=_pinned(self._contents.origin(content) for content in tar.contents),
            files={name: self._lock.files[name] for name in sorted(names) if name in self._lock.files},
            receipts={receipt.key: receipt} if receipt is not None else {},
        )
        return Job(
            layer=layer,
            lock=part,
            size=tar.size,
            keep=self._contents.keep,
            insecure=self._insecure,
            wanted=self._contents.wanted & names,
            formats=self._contents.formats.of(tar.contents),
        )

    def _home(self, job: Job, done: Done) -> None:
        """Take what a job has made into this machine's memory.

        Raises:
            NotReproducible: it contradicts what is known here.
            ExecutorError: it is something else.
        """
        assert job.layer.instance is not None
        if (done.receipt.key, done.receipt.size) != (job.layer.instance.key, job.size):
            raise ExecutorError(
                f"{done.where} was asked for {job.layer.title}, and answered with another layer", hint=SAME_VERSION
            )
        if not job.wanted <= done.facts.keys():
            raise ExecutorError(
                f"{done.where} was asked what is in {job.layer.title}, and did not say", hint=SAME_VERSION
            )
        self._packer.remember(job.layer, done.receipt)
        for sha256, facts in done.facts.items():
            self._contents.store.put_facts(sha256, facts)
        for document in done.documents:
            self._contents.store.add_document(document)


def _done(outcome: Outcome) -> Done:
    if isinstance(outcome, LayerbuildError):
        raise outcome
    return outcome


def _pinned(origins: Iterable[Origin]) -> dict[str, LockedLayer]:
    """The part of a lock that says where these come from."""
    pins: dict[str, dict[str, Pin]] = {}
    for origin in origins:
        of_name = pins.setdefault(origin.name, {})
        of_name[str(len(of_name))] = replace(origin.pin, files=(origin.file,))
    return {name: LockedLayer(declaration="", pins=found) for name, found in pins.items()}
