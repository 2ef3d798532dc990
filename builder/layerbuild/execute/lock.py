"""Resolves declarations into a lock. No weights are downloaded, unless nobody publishes a digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from layerbuild.compose import ComposedImage, compose, parents_in_base
from layerbuild.digests import header_facts
from layerbuild.errors import LayerbuildError, SourceError, Unreachable
from layerbuild.execute.contents import Contents
from layerbuild.execute.derive import MOST, derived, too_many, unfound
from layerbuild.execute.parallel import in_threads
from layerbuild.images import ImageDeclaration
from layerbuild.kinds import requests
from layerbuild.kinds.requests import complete, declaration_digest, with_mirrors
from layerbuild.lockmerge import merge_facts
from layerbuild.lockmodel import Lock, LockedBase, LockedImage, LockedIndex, LockedLayer, forgetting
from layerbuild.model import Directory, Facts, Pin, PinnedFile, PinRequest
from layerbuild.progress import Progress
from layerbuild.schema import Layer, ModelLayer, WebuiLayer
from layerbuild.sources import Context, source_for
from layerbuild.sources.git import GitSource
from layerbuild.store import Store
from layerbuild.webui.changelog import CHANGELOG, ENOUGH, first_release
from layerbuild.webui.flavors import FLAVORS
from layerbuild.webui.safetensors import PREFIX, header_length

_PARALLEL = 8
"""Sources that are asked at a time: short questions, of which most of the time goes into waiting."""

_FIRST_READ = 256 * 1024
"""Bytes of a model that are asked for first: the headers of most Loras and of SD 1.5 end within them."""

ResolveBase = Callable[[str, str], str]
"""Reference and platform -> digest of the platform's manifest."""

InspectBase = Callable[[LockedBase, Sequence[str]], Mapping[str, Directory | None]]
"""A base and paths -> the base's directories at those paths, None where it has nothing."""


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


@dataclass(frozen=True, kw_only=True)
class Locker:
    """Makes the lock of a project from its images and the lock that there was."""

    images: Sequence[ImageDeclaration]
    old: Lock
    store: Store
    context: Context
    progress: Progress
    resolve_base: ResolveBase
    inspect_base: InspectBase
    options: Options = field(default_factory=Options)

    def run(self) -> Lock:
        """The new lock. What has not changed is taken over as it is.

        Raises:
            SourceError: a source cannot be pinned (without `keep_going`).
            ProjectError: images that cannot be composed.
        """
        layers, failures = self._layers()
        bases, base_failures = self._bases()
        failures = {**failures, **base_failures}
        if failures and not self.options.keep_going:
            raise _combined(failures)
        unlocked = {name: self._reason(error) for name, error in failures.items()}
        usable = [image for image in self.images if _usable(image, layers, bases)]
        draft = Lock(layers=layers, images=_draft_images(usable, bases, self.old), unlocked=unlocked)
        draft = replace(draft, files=self._facts(draft))
        composed = compose(usable, draft)
        told = self._with_directories(composed, draft)
        return self._finish(composed if told == draft else compose(usable, told), told)

    def _reason(self, error: LayerbuildError) -> str:
        """Why something is unlocked, on one line of the lock, without the paths of this machine."""
        return _one_line(error).replace(f"{self.context.project}/", "").replace(str(self.context.project), ".")

    # --- pins ----------------------------------------------------------------------------------

    def _layers(self) -> tuple[dict[str, LockedLayer], dict[str, LayerbuildError]]:
        uses = {use.pin_key: use for image in self.images for use in image.uses}
        kept: dict[str, LockedLayer] = {}
        wanted: list[_Wanted] = []
        for pin_key, use in sorted(uses.items()):
            asked = requests.requests(use.layer)
            old = self.old.layers.get(pin_key)
            same = old is not None and old.declaration == declaration_digest(asked) and complete(asked, old.pins)
            if old is not None and same and not self._updates(pin_key, use.name):
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
            results = in_threads(self._try_pin, wanted, parallel=_PARALLEL)
            found = list(zip(wanted, results, strict=True))
            wanted = []
            for (pin_key, role, _, layer), result in found:
                if isinstance(result, LayerbuildError):
                    failures.setdefault(pin_key, result)
                    continue
                pin, further = result
                locked = kept[pin_key] = replace(kept[pin_key], pins={**kept[pin_key].pins, role: pin})
                if further and len(locked.pins) + len(further) > MOST:
                    failures.setdefault(pin_key, too_many(pin))
                elif pin_key not in failures:
                    wanted += [(pin_key, r, request, layer) for r, request in further.items()]
        for pin_key, layer in layers.items():
            if pin_key not in failures and (error := unfound(layer, kept[pin_key].pins)):
                failures[pin_key] = error
        return failures

    def _updates(self, pin_key: str, name: str) -> bool:
        return self.options.update_all or bool({pin_key, name} & self.options.update)

    def _try_pin(self, item: _Wanted) -> tuple[Pin, dict[str, PinRequest]] | LayerbuildError:
        """A pin, and what it leads to."""
        pin_key, role, request, layer = item
        try:
            with self.progress.task(f"lock {pin_key}"):
                pin = source_for(request.uri, self.context).resolve(request)
                if isinstance(layer, ModelLayer):
                    return self._with_sha256(pin_key, pin), {}
                if not isinstance(layer, WebuiLayer):
                    return pin, {}
                if role == requests.WEBUI and FLAVORS[layer.flavor].changelog:
                    pin = self._with_version(pin)
                return pin, derived(self.context, layer, role, request, pin)
        except SourceError as error:
            return error

    def _with_version(self, pin: Pin) -> Pin:
        """The webui's release by the first heading of its own changelog."""
        text = GitSource(self.context).read_text(pin, CHANGELOG, limit=ENOUGH)
        return replace(pin, version=first_release(text)) if text is not None else pin

    def _with_sha256(self, pin_key: str, pin: Pin) -> Pin:
        """A model's path is made of its sha256. Where the source has only git's name for a (small) file,
        it is fetched once."""
        files = []
        for file in pin.files:
            content = file.content
            if content.sha256 is None:
                self.progress.note(f"{pin_key}: no sha256 is published for {file.path}: fetched once")
                chunks = source_for(pin.source, self.context).open(pin, file)
                with self.progress.task(f"fetch {pin_key} {file.path}", content.size) as task:
                    content = self.store.add(chunks, content, name=file.path, advance=task.advance, scan_header=True)
            files.append(PinnedFile(path=file.path, content=content))
        return replace(pin, files=tuple(files))

    # --- bases ---------------------------------------------------------------------------------

    def _bases(self) -> tuple[dict[tuple[str, str], str], dict[str, LayerbuildError]]:
        wanted = {(i.recipe.base, i.recipe.platform) for i in self.images if i.recipe.base != "scratch"}
        known: dict[tuple[str, str], str] = {}
        for image in self.old.images.values():
            if image.base is not None and not self._updates(f"base:{image.base.reference}", image.base.reference):
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
            return Unreachable(f"the base {reference} is not pinned yet", cause="this run is offline")
        try:
            with self.progress.task(f"lock base {reference}"):
                return self.resolve_base(reference, platform)
        except LayerbuildError as error:
            return error

    # --- facts ---------------------------------------------------------------------------------

    def _facts(self, draft: Lock) -> dict[str, Facts]:
        """Facts of every model file: from the old lock, the store, and safetensors headers read by range."""
        contents = Contents(self.store, self.context, draft, self.progress)
        named = {
            file.content.sha256: file
            for layer in draft.layers.values()
            for role, pin in layer.pins.items()
            if role == requests.MODEL or role.startswith(requests.sidecar(""))
            for file in pin.files
            if file.content.sha256 is not None
        }
        known = {sha256: merge_facts(sha256, self.old.files.get(sha256), self.store.facts(sha256)) for sha256 in named}
        unread = [
            file
            for sha256, file in named.items()
            if file.path.lower().endswith(".safetensors")
            and ((facts := known[sha256]) is None or facts.safetensors is None)
        ]
        if self.options.inspect and not self.context.offline:
            found = in_threads(lambda f: self._read_header(contents, f), unread, parallel=_PARALLEL)
            for file, facts in zip(unread, found, strict=True):
                sha256 = file.content.sha256 or ""
                known[sha256] = merge_facts(sha256, known[sha256], facts)
        for sha256, file in named.items():
            if known[sha256] is None and file.content.size is not None:
                known[sha256] = Facts(size=file.content.size)
        return {sha256: facts for sha256, facts in known.items() if facts is not None}

    def _read_header(self, contents: Contents, file: PinnedFile) -> Facts | None:
        """What the header says, if the source gives it: one read, or two where it is long. It is a claim
        until the whole file was seen: whoever sees it compares."""
        content = file.content
        if content.size is None:
            return None
        try:
            start = contents.read_range(content, 0, min(_FIRST_READ, content.size))
            length = header_length(start)
            if length is None or length > content.size - PREFIX:
                return Facts(size=content.size, safetensors=False)
            header = start[PREFIX : PREFIX + length]
            if len(header) < length:
                header += contents.read_range(content, len(start), length - len(header))
        except SourceError:
            return None
        facts = header_facts(header if len(header) == length else b"", content.size)
        if facts.safetensors and facts.metadata is None:
            self.store.add_document(header)
        return facts

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
        hint="or lock the others with --keep-going; these are then named under 'unlocked'",
    )
