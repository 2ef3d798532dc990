"""Resolves declarations into a lock."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from layerbuild.compose import ComposedImage, compose, parents_in_base
from layerbuild.errors import LayerbuildError, SourceError, Unreachable
from layerbuild.execute.headers import Headers, models
from layerbuild.execute.parallel import in_threads
from layerbuild.execute.pinning import Pinner, Task
from layerbuild.images import ImageDeclaration
from layerbuild.lockmodel import Lock, LockedBase, LockedImage, LockedIndex, LockedLayer, forgetting
from layerbuild.model import Directory

ResolveBase = Callable[[str, str], str]
"""Reference and platform -> digest of the platform's manifest."""

InspectBase = Callable[[LockedBase, Sequence[str]], Mapping[str, Directory | None]]
"""A base and paths -> the base's directories at those paths, None where it has nothing."""


@dataclass(frozen=True, kw_only=True)
class Locker(Task):
    """Makes the lock of a project from its images and the lock that there was."""

    resolve_base: ResolveBase
    inspect_base: InspectBase

    def run(self) -> Lock:
        """The new lock. What has not changed is taken over as it is.

        Raises:
            SourceError: a source cannot be pinned (without `keep_going`).
            ProjectError: images that cannot be composed.
        """
        layers, failures = Pinner(self).pins()
        facts, invalid_files = Headers(self).facts(layers)
        layers = {name: layer for name, layer in layers.items() if name not in invalid_files}
        bases, base_failures = self._bases()
        failures = {**failures, **invalid_files, **base_failures}
        if failures and not self.options.keep_going:
            raise _combined(failures)
        unlocked = {name: self._reason(error) for name, error in failures.items()}
        usable = [image for image in self.images if _usable(image, layers, bases)]
        used = {content.sha256 for layer in layers.values() for content in models(layer)}
        facts = {sha256: fact for sha256, fact in facts.items() if sha256 in used}
        images = _draft_images(usable, bases, self.old)
        draft = Lock(layers=layers, files=facts, images=images, unlocked=unlocked)
        composed = compose(usable, draft)
        told = self._with_directories(composed, draft)
        return self._finish(composed if told == draft else compose(usable, told), told)

    def _reason(self, error: LayerbuildError) -> str:
        """Why something is unlocked, on one line of the lock, without the paths of this machine."""
        return _one_line(error).replace(f"{self.context.project}/", "").replace(str(self.context.project), ".")

    # --- bases ---------------------------------------------------------------------------------

    def _bases(self) -> tuple[dict[tuple[str, str], str], dict[str, LayerbuildError]]:
        wanted = {(i.recipe.base, i.recipe.platform) for i in self.images if i.recipe.base != "scratch"}
        known: dict[tuple[str, str], str] = {}
        for image in self.old.images.values():
            if image.base is not None and not self.options.updates(
                f"base:{image.base.reference}", image.base.reference
            ):
                known[image.base.reference, image.platform] = image.base.digest
        found = {pair: known[pair] for pair in wanted if pair in known}
        missing = sorted(pair for pair in wanted if pair not in known)
        failures: dict[str, LayerbuildError] = {}
        for pair, result in zip(missing, in_threads(self._try_base, missing), strict=True):
            if isinstance(result, LayerbuildError):
                failures[f"base:{pair[0]}"] = result
            else:
                found[pair] = result
        return found, failures

    def _try_base(self, pair: tuple[str, str]) -> str | LayerbuildError:
        reference, platform = pair
        if self.context.offline and not reference.startswith("oci:"):
            return Unreachable(
                f"the base {reference} is not pinned yet",
                cause="this run is offline",
                hint="run 'layerbuild lock' without --offline",
            )
        try:
            with self.progress.task(f"lock base {reference}"):
                return self.resolve_base(reference, platform)
        except LayerbuildError as error:
            return error

    # --- images --------------------------------------------------------------------------------

    def _with_directories(self, composed: Sequence[ComposedImage], draft: Lock) -> Lock:
        """Looks up directories of bases through which layers pass, each base once for all its images."""
        wanted: dict[str, set[str]] = {}
        bases: dict[str, LockedBase] = {}
        for image in composed:
            base = draft.images[image.name].base
            if base is not None:
                missing = set(parents_in_base(image)) - set(base.directories)
                wanted.setdefault(base.digest, set()).update(missing)
                bases[base.digest] = base
        found = {digest: self.inspect_base(bases[digest], sorted(paths)) for digest, paths in wanted.items() if paths}
        images = dict(draft.images)
        for image in composed:
            base = images[image.name].base
            if base is not None:
                known = {**base.directories, **found.get(base.digest, {})}
                needed = {path: known[path] for path in parents_in_base(image)}
                images[image.name] = replace(images[image.name], base=replace(base, directories=needed))
        return replace(draft, images=images)

    def _finish(self, composed: Sequence[ComposedImage], draft: Lock) -> Lock:
        """Layers of every image by name, and what is still true of the old receipts."""
        images: dict[str, LockedImage] = {}
        for image in composed:
            before = self.old.images.get(image.name)
            lines = tuple(layer.line for layer in image.layers)
            now = replace(draft.images[image.name], layers=lines, buckets=image.buckets)
            if before is not None and replace(before, manifest=None) == now:
                now = replace(now, manifest=before.manifest)
            images[image.name] = now
        keys = {layer.instance.key for image in composed for layer in image.layers if layer.instance}
        receipts = {key: receipt for key, receipt in self.old.receipts.items() if key in keys}
        return replace(draft, images=images, indexes=self._indexes(images), receipts=receipts)

    def _indexes(self, images: Mapping[str, LockedImage]) -> dict[str, LockedIndex]:
        """Of those whose platforms could all be locked. What an index became stays while none of them changes."""
        found: dict[str, LockedIndex] = {}
        declared = {image.index.name: image.index for image in self.images if image.index is not None}
        for name, index in declared.items():
            if not set(index.images) <= images.keys():
                continue
            before = self.old.indexes.get(name)
            same = before is not None and before.platforms == index.platforms
            found[name] = before if same and before is not None else LockedIndex(platforms=index.platforms)
        return forgetting(found, self.old.images, images)


def _usable(image: ImageDeclaration, layers: Mapping[str, LockedLayer], bases: Mapping[tuple[str, str], str]) -> bool:
    based = image.recipe.base == "scratch" or (image.recipe.base, image.recipe.platform) in bases
    return based and all(use.pin_key in layers for use in image.uses)


def _draft_images(
    images: Sequence[ImageDeclaration], bases: Mapping[tuple[str, str], str], old: Lock
) -> dict[str, LockedImage]:
    """Images with their bases and the order of the old lock, before their layers are known."""
    draft = {}
    for image in images:
        recipe, before = image.recipe, old.images.get(image.name)
        base = None
        if recipe.base != "scratch":
            digest = bases[recipe.base, recipe.platform]
            same = before is not None and before.base is not None and before.base.digest == digest
            directories = before.base.directories if same and before is not None and before.base is not None else {}
            base = LockedBase(reference=recipe.base, digest=digest, directories=directories)
        draft[image.name] = LockedImage(
            platform=recipe.platform,
            settings=image.settings,
            base=base,
            layers=before.layers if before else (),
            buckets=before.buckets if before else None,
        )
    return draft


def _one_line(error: LayerbuildError) -> str:
    """What failed and why, on one line."""
    return " ".join(": ".join(part for part in (error.message, error.cause) if part).split())


def _combined(failures: Mapping[str, LayerbuildError]) -> LayerbuildError:
    """One error for all failures, of the kind of the first."""
    first = next(iter(failures.values()))
    if len(failures) == 1:
        name = next(iter(failures))
        return type(first)(f"{name} cannot be locked: {first.message}", cause=first.cause, hint=first.hint)
    lines = "\n".join(
        f"  {name}: {_one_line(e)}{f' (try: {e.hint})' if e.hint else ''}" for name, e in failures.items()
    )
    return SourceError(
        f"{len(failures)} sources cannot be locked:\n{lines}",
        hint="mend these, or lock the others with --keep-going, which names these under 'unlocked'",
    )
