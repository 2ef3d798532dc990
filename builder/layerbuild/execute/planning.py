"""Gathers what a plan needs to know: receipts, the store, the destination. Moves nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from layerbuild.baseimage import BaseSource
from layerbuild.compose import ComposedImage
from layerbuild.destinations import Destination
from layerbuild.errors import LayerbuildError
from layerbuild.execute import survey
from layerbuild.execute.build import Builder
from layerbuild.execute.parallel import attempts
from layerbuild.execute.preflight import Preflight, of_base, unread
from layerbuild.image import BaseImage
from layerbuild.kinds import is_compiled, python
from layerbuild.layering import ComposedLayer
from layerbuild.model import Content
from layerbuild.plan import Finding, Plan, PlannedLayer, Want, transfers
from layerbuild.store import Store


@dataclass(kw_only=True)
class Planner:
    """Makes the plan of composed images."""

    builder: Builder
    store: Store
    open_base: Callable[[str], BaseSource]

    def run(self, images: Sequence[ComposedImage], destination: Destination | None) -> Plan:
        """The plan for `images`, and what `destination` has of it, if one is given.

        Raises:
            DestinationError: the destination cannot be asked.
            NotReproducible: the lock and the store contradict each other.
        """
        layers: dict[tuple[str, str], tuple[ComposedLayer, list[str]]] = {}
        for image in images:
            for layer in image.layers:
                identity = layer.instance.key if layer.instance else f"{layer.label} of {image.name}"
                layers.setdefault((identity, layer.algorithm), (layer, []))[1].append(image.name)
        planned = [self._layer(layer, tuple(names)) for layer, names in layers.values()]
        below = self._fetched(images)
        findings = [finding for image in images for finding in of_base(image, below)]
        bases, origins = self._bases(images, below)
        done, notes = [*bases, *planned], []
        if destination:
            done, more = self._at(destination, done, origins)
            findings += more
            notes = [text] if (text := unread(images, destination)) else []
        return Plan(
            images=tuple(image.name for image in images),
            destination=destination.name if destination else None,
            layers=tuple(done),
            findings=tuple(findings),
            notes=tuple(notes),
        )

    def _layer(self, layer: ComposedLayer, names: tuple[str, ...]) -> PlannedLayer:
        packer = self.builder.packer
        made = packer.known(layer)
        if made is not None:
            return PlannedLayer(
                title=layer.title,
                key=made.key,
                digest=made.blob.digest,
                size=made.blob.size,
                images=names,
                known=True,
                fetch=0,
                pack=0,
            )
        fetch, pack = self._cost(layer)
        key = layer.instance.key if layer.instance else None
        return PlannedLayer(
            title=layer.title,
            key=key,
            digest=None,
            size=pack,
            images=names,
            known=False,
            fetch=fetch,
            pack=pack,
            exact=layer.algorithm == "none",
        )

    def _cost(self, layer: ComposedLayer) -> tuple[int | None, int | None]:
        """Bytes to fetch and to pack, None where a size or a listing is not known on this machine."""
        if layer.instance is None:
            return None, None
        contents = self.builder.contents
        if layer.instance.kind == python.KIND:
            found = python.wheels(layer.instance)
            if is_compiled(layer.instance) or not contents.at_hand(found):
                # To say more, they would have to be fetched and compiled.
                missing = contents.missing(Content(size=None, sha256=sha256) for sha256 in found)
                return sum(contents.size(content) or 0 for content in missing), None
        try:
            tar = self.builder.packer.tar(layer.instance)
        except LayerbuildError:
            return None, None
        missing = contents.missing(tar.contents)
        return sum(content.size or 0 for content in missing), tar.size

    def _fetched(self, images: Sequence[ComposedImage]) -> dict[str, BaseImage | LayerbuildError]:
        bases = {image.base.digest: image.base for image in images if image.base}
        return dict(zip(bases, attempts(self.builder.fetch_base, list(bases.values())), strict=True))

    def _bases(
        self, images: Sequence[ComposedImage], below: Mapping[str, BaseImage | LayerbuildError]
    ) -> tuple[list[PlannedLayer], dict[str, tuple[str, str]]]:
        users: dict[str, tuple[PlannedLayer, list[str]]] = {}
        origins: dict[str, tuple[str, str]] = {}
        for image in images:
            if image.base is None or of_base(image, below):
                continue
            source, base = self.open_base(image.base.reference), below[image.base.digest]
            for descriptor in base.layers if isinstance(base, BaseImage) else ():
                planned = PlannedLayer(
                    title=f"base layer {descriptor.digest[7:19]}",
                    key=None,
                    digest=descriptor.digest,
                    size=descriptor.size,
                    images=(),
                    known=True,
                    fetch=0,
                    pack=0,
                    base=True,
                )
                users.setdefault(descriptor.digest, (planned, []))[1].append(image.name)
                if source.host is not None and source.repository is not None:
                    origins.setdefault(descriptor.digest, (source.host, source.repository))
        return [replace(planned, images=tuple(dict.fromkeys(names))) for planned, names in users.values()], origins

    def _at(
        self,
        destination: Destination,
        layers: Sequence[PlannedLayer],
        origins: dict[str, tuple[str, str]],
    ) -> tuple[list[PlannedLayer], list[Finding]]:
        repositories = self.builder.repositories
        wants = [
            Want(
                digest=p.digest,
                size=p.size,
                title=p.title,
                repositories=tuple(dict.fromkeys(repositories[name] for name in p.images)),
                key=p.key,
                base=p.base,
                exact=p.exact,
            )
            for p in layers
        ]
        users = {id(want): p.images for p, want in zip(layers, wants, strict=True)}
        known = [want for want in wants if want.digest]
        located = survey.remembered(known, destination, self.store, origins)
        present = survey.present(known, destination, located=located)
        elsewhere = survey.elsewhere(known, destination, present, located, self.builder.lock, repositories)
        moves = transfers(wants, present, elsewhere)
        actions = {id(move.want): move.action for move in moves}
        preflight = Preflight(destination=destination, repositories=repositories)
        found = preflight.moves(moves, lambda want: users[id(want)], soon=False)
        return [replace(p, action=actions[id(want)]) for p, want in zip(layers, wants, strict=True)], found
