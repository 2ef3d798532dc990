"""Finds out before the first byte moves what a push would fail of, and says all of it together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from layerbuild import kinds
from layerbuild.compose import ComposedImage
from layerbuild.compress import MEDIA_TYPES
from layerbuild.destinations import Destination
from layerbuild.errors import DestinationError, LayerbuildError
from layerbuild.execute import survey
from layerbuild.execute.build import Builder, distinct, too_many_layers
from layerbuild.execute.parallel import attempts
from layerbuild.image import BaseImage, BuiltLayer
from layerbuild.layering import ComposedLayer
from layerbuild.model import Descriptor
from layerbuild.plan import Finding, Transfer, Want, transfers
from layerbuild.registry.limits import too_large

_GIB = 1 << 30

Users = Callable[[Want], Iterable[str]]
"""Images that need a blob."""


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """Checks of one destination.

    Attributes:
        repositories: image of the project -> where it lands.
    """

    destination: Destination
    repositories: Mapping[str, str]

    def moves(self, todo: Sequence[Transfer], users: Users, *, soon: bool) -> list[Finding]:
        """What would fail of these transfers: layers that are too large, a full disk, repositories that we may
        not push to.

        Args:
            soon: they begin at once.

        Raises:
            DestinationDown: there is no destination.
        """
        todo = [transfer for transfer in todo if transfer.action != "present"]
        found = [*self._too_large(todo, users), *self._no_room(todo, users)]
        return [*found, *self._no_rights(todo, users, soon=soon)]

    def _too_large(self, todo: Sequence[Transfer], users: Users) -> Iterable[Finding]:
        largest = self.destination.room().largest
        for transfer in todo:
            want = transfer.want
            # What has no candidates to be mounted from has to be sent.
            if largest is not None and transfer.action == "upload" and want.exact and (want.size or 0) > largest:
                error = too_large(self.destination.host or "", want.title, want.size or 0, largest)
                yield Finding(images=self._concerned(transfer, users), error=error)

    def _no_room(self, todo: Sequence[Transfer], users: Users) -> Iterable[Finding]:
        free = self.destination.room().free
        sizes = {t.want.digest or id(t.want): t.want.size or 0 for t in todo if t.want.exact}
        needed = sum(sizes.values())
        if free is not None and needed > free:
            error = DestinationError(
                f"{self.destination.name} has no room for what is to be written",
                cause=f"that is {_size(needed)} at least, and {_size(free)} are free there",
                hint="free some space, name a place on another disk, or push fewer images",
            )
            yield Finding(images=self._all(todo, users), error=error)

    def _no_rights(self, todo: Sequence[Transfer], users: Users, *, soon: bool) -> Iterable[Finding]:
        wanting = list(dict.fromkeys(name for transfer in todo for name in transfer.missing))
        check = self.destination.check_push
        results = attempts(lambda name: check(name, soon=soon), wanting, parallel=survey.PARALLEL)
        for name, result in zip(wanting, results, strict=True):
            if isinstance(result, LayerbuildError):
                here = [transfer for transfer in todo if name in transfer.missing]
                images = (image for image in self._all(here, users) if self.repositories[image] == name)
                yield Finding(images=tuple(images), error=result)

    def _concerned(self, transfer: Transfer, users: Users) -> tuple[str, ...]:
        return tuple(name for name in users(transfer.want) if self.repositories[name] in transfer.missing)

    def _all(self, todo: Iterable[Transfer], users: Users) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for transfer in todo for name in self._concerned(transfer, users)))


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """What can be told before layers are made, of images of which some were never made.

    Of images of which everything is known a push finds out when it has asked what is there: nothing is asked twice.

    Attributes:
        note: is told what will not fail, and may not be what somebody wants.
    """

    builder: Builder
    preflight: Preflight
    note: Callable[[str], None]

    def __call__(self, composed: Sequence[ComposedImage]) -> dict[str, LayerbuildError]:
        """What would fail, by image.

        Raises:
            DestinationDown: there is no destination.
        """
        bases = {image.base.digest: image.base for image in composed if image.base}
        fetched = dict(zip(bases, attempts(self.builder.fetch_base, list(bases.values())), strict=True))
        found = [finding for image in composed for finding in of_base(image, fetched)]
        warning = unread(composed, self.preflight.destination)
        if warning is not None:
            self.note(f"note: {warning}")
        refused = refusals(found)
        rest = [image for image in composed if image.name not in refused]
        return refusals([*found, *self._of_layers(rest, fetched)])

    def _of_layers(
        self, composed: Sequence[ComposedImage], bases: Mapping[str, BaseImage | LayerbuildError]
    ) -> list[Finding]:
        layers = distinct(composed)
        results = attempts(self.builder.packer.known, list(layers.values()), parallel=1)
        known = dict(zip(layers, results, strict=True))
        begun = [
            image
            for image in composed
            if self._unlearnt(image) or any(layer.instance and known[layer.id] is None for layer in image.layers)
        ]
        users: dict[int, list[str]] = {}
        wants: dict[object, Want] = {}

        def need(identity: object, image: ComposedImage, make: Callable[[], Want]) -> None:
            want = wants[identity] if identity in wants else wants.setdefault(identity, make())
            users.setdefault(id(want), []).append(image.name)

        for image in begun:
            for layer in image.layers:
                if layer.instance is None:
                    need((image.name, layer.label), image, lambda one=layer: _want_of_pending(one))  # type: ignore[misc]
                else:
                    made = known[layer.id]
                    need(layer.id, image, lambda one=layer, made=made: self._want(one, made))  # type: ignore[misc]
            base = bases[image.base.digest] if image.base else None
            for below in base.layers if isinstance(base, BaseImage) else ():
                need(below.digest, image, lambda below=below: _want_of_base(below))  # type: ignore[misc]
        return self._asked([(want, users[id(want)]) for want in wants.values()])

    def _unlearnt(self, image: ComposedImage) -> bool:
        """Whether a model has to be had for what is in it."""
        learnt = self.builder.contents.learnt
        return any(m.content.sha256 in image.pending and not learnt(m.content) for m in image.models)

    def _asked(self, needed: Sequence[tuple[Want, Sequence[str]]]) -> list[Finding]:
        """The findings about blobs and the images that need each."""
        destination, repositories = self.preflight.destination, self.preflight.repositories
        room = destination.room()
        users: dict[int, Sequence[str]] = {}
        wants = []
        for want, names in needed:
            # A registry is asked only where its answer decides; all else it is asked later, and once.
            if want.digest and destination.host is not None and (want.size or 0) <= (room.largest or want.size or 0):
                continue
            placed = want.at(dict.fromkeys(repositories[name] for name in names))
            users[id(placed)] = names
            wants.append(placed)
        present = survey.present(wants, destination)
        return self.preflight.moves(transfers(wants, present, {}), lambda want: users[id(want)], soon=True)

    def _want(self, layer: ComposedLayer, made: BuiltLayer | LayerbuildError | None) -> Want:
        assert layer.instance is not None
        size, digest = None, None
        if isinstance(made, BuiltLayer):
            digest, size = made.blob.digest, made.blob.size
        elif made is None and layer.algorithm == "none" and not kinds.documents(layer.instance):
            size = self.builder.packer.tar(layer.instance).size
        return Want(digest=digest, size=size, title=layer.title, repositories=(), exact=size is not None)


def _want_of_pending(layer: ComposedLayer) -> Want:
    return Want(digest=None, size=None, title=layer.title, repositories=(), exact=False)


def _want_of_base(below: Descriptor) -> Want:
    return Want(digest=below.digest, size=below.size, title=f"base layer {below.digest[7:19]}", repositories=())


def of_base(image: ComposedImage, bases: Mapping[str, BaseImage | LayerbuildError]) -> list[Finding]:
    """What is wrong with an image and its base together.

    Args:
        bases: by digest; what could not be had stands as its error.
    """
    base = bases[image.base.digest] if image.base else None
    if isinstance(base, LayerbuildError):
        return [Finding(images=(image.name,), error=base)]
    try:
        below = len(base.layers) if base else 0
    except LayerbuildError as error:  # layers that cannot be passed on
        return [Finding(images=(image.name,), error=error)]
    many = too_many_layers(image, below)
    return [Finding(images=(image.name,), error=many)] if many is not None else []


def unread(composed: Iterable[ComposedImage], destination: Destination) -> str | None:
    """A warning about layers that some of those who read such a place cannot read."""
    unread = destination.room().unread
    used = {layer.algorithm for image in composed for layer in image.layers}
    for algorithm in MEDIA_TYPES:
        if algorithm in used and algorithm in unread:
            return (
                f"{unread[algorithm]} cannot read layers that are compressed with {algorithm}: "
                "for those say 'compression: gzip' in the recipe"
            )
    return None


def refusals(findings: Sequence[Finding]) -> dict[str, LayerbuildError]:
    """What stands for all findings about an image, by image. Images with the same findings share it."""
    of_image: dict[str, list[LayerbuildError]] = {}
    for finding in findings:
        for name in finding.images:
            of_image.setdefault(name, []).append(finding.error)
    combined: dict[tuple[int, ...], LayerbuildError] = {}
    result = {}
    for name, errors in of_image.items():
        identity = tuple(dict.fromkeys(id(error) for error in errors))
        if identity not in combined:
            combined[identity] = _together(list(dict.fromkeys(errors)))
        result[name] = combined[identity]
    return result


def _together(errors: Sequence[LayerbuildError]) -> LayerbuildError:
    first, *others = errors
    if not others:
        return first
    hints = dict.fromkeys(error.hint for error in errors if error.hint)
    return DestinationError(
        "; ".join(error.message for error in errors),
        cause="; ".join(dict.fromkeys(error.cause for error in errors if error.cause)) or None,
        hint="; ".join(hints) or None,
    )


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB else f"{count} bytes"
