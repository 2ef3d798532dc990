"""Sends images: each blob once, then configs, manifests and indexes, tags last.

A tag never points at a manifest whose blobs are not all there, nor at an index that lacks a platform.
Interrupted at any moment, what arrived stays and the next run continues with the rest. One image that
fails does not stop the others; where it is one platform of several, these stay as they were there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
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
from layerbuild.execute.releases import Release, releases
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
        found = releases(built.images)
        images = [image for release in found for image in release.images]
        done, known = self._existing(found)
        blobs = Blobs(images, self.packer, self.open_base)
        wants = blobs.wants()
        located = survey.remembered(wants, self.destination, self.store, blobs.base_origins)
        present = survey.present(wants, self.destination, known=known, located=located)
        elsewhere = survey.elsewhere(wants, self.destination, present, located, self.lock, self.repositories)
        todo = transfers(wants, present, elsewhere)
        refused = self._refused(todo, blobs)
        if refused:
            # What is left is planned again, of what is known already.
            found = releases(image for image in images if image.composed.name not in refused)
            images = [image for release in found for image in release.images]
            blobs = Blobs(images, self.packer, self.open_base)
            todo = transfers(blobs.wants(), present, elsewhere)
        unmoved = [t.want for t in todo if t.action == "present" and t.want.digest not in self.sent]
        configs = [config_of(image) for image in images]
        unmoved += [want for want in configs if want.digest in known[want.repositories[0]]]
        for want in unmoved:
            self.progress.skip(want.title, want.size or 0, "present")
        self.progress.expect(sum(transfer.want.size or 0 for transfer in todo if transfer.action == "upload"))
        moves = Moves()
        self._move([transfer for transfer in todo if transfer.action != "present"], blobs, moves)
        unfinished = self._finish_all([release for release in found if release.name not in done], known, blobs, moves)
        return Report(
            images=tuple(self._pushed(release) for release in found if release.name not in unfinished),
            failed={**built.failed, **refused, **unfinished},
            uploaded=sum(self.sent.values()) + moves.uploaded,
            mounted=moves.mounted,
            present=sum(want.size or 0 for want in unmoved),
        )

    def _refused(self, todo: Sequence[Transfer], blobs: Blobs) -> dict[str, LayerbuildError]:
        """What would fail, by image, before a byte of a blob goes there."""
        preflight = Preflight(destination=self.destination, repositories=self.repositories)
        return refusals(preflight.moves(todo, blobs.users, soon=True))

    def _existing(self, found: Sequence[Release]) -> tuple[set[str], dict[str, set[str]]]:
        """Names of what is there under all its tags, and what each repository has, by the manifests there.

        One question for each tag, and where it points at another index than it should, one for each of that
        one's manifests. A registry's only: a look into a directory costs nothing.
        """
        known: dict[str, set[str]] = {release.repository: set() for release in found}
        if self.destination.host is None:
            return set(), known
        pairs = [(release, tag) for release in found for tag in release.tags]

        def look(pair: tuple[Release, str]) -> str | None:
            release, tag = pair
            data = self.destination.manifest(release.repository, tag)
            if data is None:
                return None
            digest = f"sha256:{sha256_hex(data)}"
            # Updating a set is one step, whoever else does it at the same time.
            known[release.repository].update(survey.named_by(data))
            if digest == release.digest:
                known[release.repository].update(*(_named(image) for image in release.images))
            else:
                for manifest in survey.manifests_of(data):
                    known[release.repository].update(self._named_there(release.repository, manifest))
            return digest

        answers = attempts(look, pairs, parallel=survey.PARALLEL)
        stale = {release.name for (release, _), digest in zip(pairs, answers, strict=True) if digest != release.digest}
        return {release.name for release in found} - stale, known

    def _named_there(self, repository: str, digest: str) -> set[str]:
        """What a repository has, by one of its manifests; that one included."""
        data = self.destination.manifest(repository, digest)
        return set() if data is None else {digest, *survey.named_by(data)}

    def _move(self, todo: Sequence[Transfer], blobs: Blobs, moves: Moves) -> None:
        mover = Mover(carrier=self._carrier, blobs=blobs, moves=moves, team=self.team, ordered=self.destination.ordered)
        mover.move(todo)

    # --- manifests -------------------------------------------------------------------------------

    def _finish_all(
        self, found: Sequence[Release], known: survey.Known, blobs: Blobs, moves: Moves
    ) -> dict[str, LayerbuildError]:
        """Configs, manifests and tags; what failed, by name."""
        label = f"push the manifests of {len(found)} images" if len(found) > 1 else "push the manifest"
        at_once = 1 if self.destination.ordered else SMALL_AT_ONCE
        with self.progress.task(label):
            results = attempts(lambda r: self._finish(r, known, blobs, moves), found, parallel=at_once)
        pairs = zip(found, results, strict=True)
        return {release.name: result for release, result in pairs if isinstance(result, LayerbuildError)}

    def _finish(self, release: Release, known: survey.Known, blobs: Blobs, moves: Moves) -> None:
        for image in release.images:
            moves.check(image)
        for image in release.images:
            if image.config_descriptor.digest not in known[image.repository]:
                self._put_config(image, moves)
                moves.check(image)
        try:
            self._tag(release, known[release.repository])
        except BlobUnknown:
            for image in release.images:
                self._send_again(image, blobs, moves)
            self._tag(release, ())

    def _tag(self, release: Release, known: Collection[str]) -> None:
        """Write manifests and tags. An index comes after all that it names."""
        if release.index is not None:
            for image in release.images:
                if image.digest not in known:
                    self.destination.put_manifest(release.repository, None, MANIFEST, image.manifest)
        for tag in release.tags:
            self.destination.put_manifest(release.repository, tag, release.media_type, release.data)

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

    def _pushed(self, release: Release) -> PushedImage:
        where = self.destination.name.rstrip("/")
        separator = ":" if self.destination.host is None else "/"
        references = tuple(f"{where}{separator}{release.repository}:{tag}" for tag in release.tags)
        platforms = {} if release.index is None else {image.platform: image.digest for image in release.images}
        return PushedImage(name=release.name, digest=release.digest, references=references, platforms=platforms)


def _named(image: BuiltImage) -> set[str]:
    """Digests of a manifest and of all that it names."""
    return {*image.blobs, image.config_descriptor.digest, image.digest}
