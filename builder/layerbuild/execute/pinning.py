"""What every source of a project means now: pins. No weights are downloaded, unless nobody publishes a digest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from layerbuild.errors import LayerbuildError, SourceError
from layerbuild.execute.derive import MOST, derived, too_many, unfound
from layerbuild.execute.packages import packages
from layerbuild.execute.parallel import in_threads
from layerbuild.images import ImageDeclaration
from layerbuild.kinds import requests
from layerbuild.kinds.requests import complete, contradiction, declaration_digest, with_mirrors
from layerbuild.lockmodel import Lock, LockedLayer
from layerbuild.model import Pin, PinnedFile, PinRequest
from layerbuild.progress import Progress
from layerbuild.schema import Layer, ModelLayer, WebuiLayer
from layerbuild.sources import Context, source_for
from layerbuild.sources.base import counted
from layerbuild.sources.git import GitSource
from layerbuild.store import Store
from layerbuild.webui.changelog import CHANGELOG, ENOUGH, first_release
from layerbuild.webui.flavors import FLAVORS

PARALLEL = 8
"""Sources that are asked at a time: short questions, of which most of the time goes into waiting."""

_Wanted = tuple[str, str, PinRequest, Layer]
"""Pin key, role, what is asked for the role, and the declaration."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `layerbuild lock` was asked to do.

    Attributes:
        inspect: read the headers of safetensors files by range. Without, their facts are learnt when the
            files are fetched.
    """

    update: frozenset[str] = frozenset()
    update_all: bool = False
    keep_going: bool = False
    inspect: bool = True

    def updates(self, *names: str) -> bool:
        """Whether what goes by these names is to be pinned anew."""
        return self.update_all or bool(self.update.intersection(names))


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be locked, with the lock that there was and the means of this machine."""

    images: Sequence[ImageDeclaration]
    old: Lock
    store: Store
    context: Context
    progress: Progress
    options: Options = field(default_factory=Options)


def _answers(asked: Mapping[str, PinRequest], old: LockedLayer) -> bool:
    """Whether pins of the old lock are still what is asked for."""
    same = old.declaration == declaration_digest(asked) and complete(asked, old.pins)
    return same and not any(contradiction(asked[role], old.pins[role]) for role in asked if role in old.pins)


@dataclass(frozen=True)
class Pinner:
    """Asks the sources of a project."""

    task: Task

    def pins(self) -> tuple[dict[str, LockedLayer], dict[str, LayerbuildError]]:
        """The pins of every layer, taken over where its declaration asks the same; and what has failed, by layer."""
        uses = {use.pin_key: use for image in self.task.images for use in image.uses}
        kept: dict[str, LockedLayer] = {}
        wanted: list[_Wanted] = []
        for pin_key, use in sorted(uses.items()):
            asked = requests.requests(use.layer)
            old = self.task.old.layers.get(pin_key)
            if old is not None and _answers(asked, old) and not self.task.options.updates(pin_key, use.name):
                kept[pin_key] = replace(old, pins=with_mirrors(use.layer, old.pins))
            else:
                wanted += [(pin_key, role, request, use.layer) for role, request in asked.items()]
                kept[pin_key] = LockedLayer(declaration=declaration_digest(asked), pins={})
        failures = self._pin(wanted, kept)
        return {name: layer for name, layer in kept.items() if name not in failures}, failures

    def _pin(self, wanted: list[_Wanted], kept: dict[str, LockedLayer]) -> dict[str, LayerbuildError]:
        """Adds pins to `kept`: those that are wanted, and those that they lead to in turn."""
        failures: dict[str, LayerbuildError] = {}
        layers = {pin_key: layer for pin_key, _, _, layer in wanted}
        while wanted:
            results = in_threads(self._try_pin, wanted, parallel=PARALLEL)
            found = list(zip(wanted, results, strict=True))
            wanted = []
            for (pin_key, role, _, layer), result in found:
                if isinstance(result, LayerbuildError):
                    failures.setdefault(pin_key, result)
                    continue
                pins, further = result
                locked = kept[pin_key] = replace(kept[pin_key], pins={**kept[pin_key].pins, **pins})
                if further and len(locked.pins) + len(further) > MOST:
                    failures.setdefault(pin_key, too_many(pins[role]))
                elif pin_key not in failures:
                    wanted += [(pin_key, r, request, layer) for r, request in further.items()]
        for pin_key, layer in layers.items():
            if pin_key not in failures and (error := unfound(layer, kept[pin_key].pins)):
                failures[pin_key] = error
        return failures

    def _try_pin(self, item: _Wanted) -> tuple[dict[str, Pin], dict[str, PinRequest]] | LayerbuildError:
        """Pins by role, and what they lead to."""
        pin_key, role, request, layer = item
        try:
            with self.task.progress.task(f"lock {pin_key}"):
                if request.python is not None:
                    return packages(self.task.context, request.python, pin_key), {}
                pin = source_for(request.uri, self.task.context).resolve(request)
                if isinstance(layer, ModelLayer):
                    return {role: self._with_sha256(pin_key, pin)}, {}
                if not isinstance(layer, WebuiLayer):
                    return {role: pin}, {}
                if role == requests.WEBUI and FLAVORS[layer.flavor].changelog:
                    pin = self._with_version(pin)
                return {role: pin}, derived(self.task.context, layer, role, request, pin)
        except SourceError as error:
            return error

    def _with_version(self, pin: Pin) -> Pin:
        """The webui's release by the first heading of its own changelog."""
        text = GitSource(self.task.context).read_text(pin, CHANGELOG, limit=ENOUGH)
        return replace(pin, version=first_release(text)) if text is not None else pin

    def _with_sha256(self, pin_key: str, pin: Pin) -> Pin:
        """A model's path is made of its sha256. Where the source has only git's name for a (small) file,
        it is fetched once."""
        return replace(pin, files=tuple(self._named(pin_key, pin, file) for file in pin.files))

    def _named(self, pin_key: str, pin: Pin, file: PinnedFile) -> PinnedFile:
        content = file.content
        if content.sha256 is not None:
            return file
        self.task.progress.note(f"{pin_key}: no sha256 is published for {file.path}: fetched once")
        chunks = counted(source_for(pin.source, self.task.context).open(pin, file), self.task.progress.tally)
        with self.task.progress.task(f"fetch {pin_key} {file.path}", content.size) as task:
            taken = self.task.store.add(chunks, content, name=file.path, advance=task.advance, scan_header=True)
        return PinnedFile(path=file.path, content=taken)
