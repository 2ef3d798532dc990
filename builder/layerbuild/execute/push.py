"""Sends images: each blob once, then configs and manifests, tags last.

A tag never points at a manifest whose blobs are not all there. Interrupted at any moment, what
arrived stays and the next run continues with the rest. One image that fails does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from layerbuild.baseimage import BaseSource
from layerbuild.destinations import Destination
from layerbuild.errors import BlobUnknown, LayerbuildError
from layerbuild.execute import survey
from layerbuild.execute.blobs import Blobs, config_of, read_config
from layerbuild.execute.build import Built, BuiltImage
from layerbuild.execute.carrier import Carrier
from layerbuild.execute.mover import SMALL_AT_ONCE, Mover
from layerbuild.execute.moves import Moves
from layerbuild.execute.pack import Packer
from layerbuild.execute.parallel import attempts
from layerbuild.execute.preflight import Preflight, refusals
from layerbuild.execute.report import PushedImage, Report
from layerbuild.image import MANIFEST
from layerbuild.lockmodel import Lock
from layerbuild.model import sha256_hex
from layerbuild.plan import Transfer, Want, transfers
from layerbuild.progress import Progress
from layerbuild.store import Store

if TYPE_CHECKING:
    from layerbuild.execute.team import Team


@dataclass(kw_only=True)
class Pusher:
    """Pushes built images to one destination.

    Attributes:
        repositories: image of the project -> where it lands.
        sent: digest -> bytes of what has gone there already in this run.
        team: sends large layers from elsewhere.
        must_mount: whether a blob that another repository of the registry should have is not to be uploaded.
    """

    destination: Destination
    packer: Packer
    store: Store
    lock: Lock
    progress: Progress
    open_base: Callable[[str], BaseSource]
    repositories: Mapping[str, str]
    sent: Mapping[str, int] = field(default_factory=dict)
    team: Team | None = None
    must_mount: bool = False

    def __post_init__(self) -> None:
        self._carrier = Carrier(self.destination, self.store, self.progress, must_mount=self.must_mount)

    def run(self, built: Built) -> Report:
        """Send what the destination lacks of the images that could be built.

        Raises:
            DestinationDown: there is no destination.
        """
        with self.destination.whole():
            return self._run(built)

    def _run(self, built: Built) -> Report:
        done, known = self._existing(built.images)
        blobs = Blobs(built.images, self.packer, self.open_base)
        wants = blobs.wants()
        located = survey.remembered(wants, self.destination, self.store, blobs.base_origins)
        present = survey.present(wants, self.destination, known=known, located=located)
        elsewhere = survey.elsewhere(wants, self.destination, present, located, self.lock, self.repositories)
        todo = transfers(wants, present, elsewhere)
        refused = self._refused(todo, blobs)
        if refused:
            # What is left is planned again, of what is known already.
            blobs = Blobs([i for i in built.images if i.composed.name not in refused], self.packer, self.open_base)
            todo = transfers(blobs.wants(), present, elsewhere)
        unmoved = [t.want for t in todo if t.action == "present" and t.want.digest not in self.sent]
        configs = [config_of(image) for image in built.images]
        unmoved += [want for want in configs if want.digest in known[want.repositories[0]]]
        moves = Moves()
        self._move([transfer for transfer in todo if transfer.action != "present"], blobs, moves)
        rest = [image for image in built.images if image.composed.name not in done | refused.keys()]
        failed = {**built.failed, **refused, **self._finish_all(rest, known, blobs, moves)}
        return Report(
            images=tuple(self._pushed(image) for image in built.images if image.composed.name not in failed),
            failed=failed,
            uploaded=sum(self.sent.values()) + moves.uploaded,
            mounted=moves.mounted,
            present=sum(want.size or 0 for want in unmoved),
        )

    def _refused(self, todo: Sequence[Transfer], blobs: Blobs) -> dict[str, LayerbuildError]:
        """What would fail, by image, before a byte of a blob goes there."""
        preflight = Preflight(destination=self.destination, repositories=self.repositories)
        return refusals(preflight.moves(todo, blobs.users, soon=True))

    def _existing(self, images: Sequence[BuiltImage]) -> tuple[set[str], dict[str, set[str]]]:
        """Images that are there under all their tags, and what each repository has, by the manifests there.

        One question for each image. A registry's only: a look into a directory costs nothing.
        """
        known: dict[str, set[str]] = {image.repository: set() for image in images}
        if self.destination.host is None:
            return set(), known
        pairs = [(image, tag) for image in images for tag in image.tags]

        def look(pair: tuple[BuiltImage, str]) -> str | None:
            data = self.destination.manifest(pair[0].repository, pair[1])
            if data is None:
                return None
            # Updating a set is one step, whoever else does it at the same time.
            known[pair[0].repository].update(survey.named_by(data))
            return f"sha256:{sha256_hex(data)}"

        found = attempts(look, pairs, parallel=survey.PARALLEL)
        stale = {image.composed.name for (image, _), digest in zip(pairs, found, strict=True) if digest != image.digest}
        return {image.composed.name for image in images} - stale, known

    def _move(self, todo: Sequence[Transfer], blobs: Blobs, moves: Moves) -> None:
        mover = Mover(carrier=self._carrier, blobs=blobs, moves=moves, team=self.team, ordered=self.destination.ordered)
        mover.move(todo)

    # --- manifests -------------------------------------------------------------------------------

    def _finish_all(
        self, images: Sequence[BuiltImage], known: survey.Known, blobs: Blobs, moves: Moves
    ) -> dict[str, LayerbuildError]:
        """Configs, manifests and tags; what failed, by image."""
        label = f"push the manifests of {len(images)} images" if len(images) > 1 else "push the manifest"
        at_once = 1 if self.destination.ordered else SMALL_AT_ONCE
        with self.progress.task(label):
            results = attempts(lambda i: self._finish(i, known, blobs, moves), images, parallel=at_once)
        pairs = zip(images, results, strict=True)
        return {image.composed.name: result for image, result in pairs if isinstance(result, LayerbuildError)}

    def _finish(self, image: BuiltImage, known: survey.Known, blobs: Blobs, moves: Moves) -> None:
        moves.check(image)
        config = config_of(image)
        if config.digest not in known[image.repository]:
            self._put_config(image, moves)
            moves.check(image)
        try:
            self._tag(image)
        except BlobUnknown:
            self._send_again(image, blobs, moves)
            self._tag(image)

    def _tag(self, image: BuiltImage) -> None:
        for tag in image.tags:
            self.destination.put_manifest(image.repository, tag, MANIFEST, image.manifest)

    def _put_config(self, image: BuiltImage, moves: Moves) -> None:
        want = config_of(image)
        located = survey.remembered([want], self.destination, self.store, {})
        candidates = located.get(want.digest or "", ())
        transfer = Transfer(want=want, action="upload", missing=want.repositories, candidates=candidates)
        self._carrier.place(transfer, image.repository, lambda: read_config(image), moves)

    def _send_again(self, image: BuiltImage, blobs: Blobs, moves: Moves) -> None:
        """What the registry said it had has gone, by garbage collection maybe: every blob is asked for anew."""
        wanted = [want for want in blobs.wants() if want.digest in image.blobs]
        lost = [want for want in wanted if not self._has(image, want)]
        missing = (image.repository,)
        self._move([Transfer(want=want, action="upload", missing=missing) for want in lost], blobs, moves)
        if not self._has(image, config_of(image)):
            self._put_config(image, moves)
        moves.check(image)

    def _has(self, image: BuiltImage, want: Want) -> bool:
        return self.destination.has(image.repository, want.digest or "", want.size)

    def _pushed(self, image: BuiltImage) -> PushedImage:
        where = self.destination.name.rstrip("/")
        separator = ":" if self.destination.host is None else "/"
        references = tuple(f"{where}{separator}{image.repository}:{tag}" for tag in image.tags)
        return PushedImage(name=image.composed.name, digest=image.digest, references=references)
