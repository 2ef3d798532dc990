"""Resolves declarations into a lock. No weights are downloaded, unless nobody publishes a digest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from layerbuild.compose import ComposedImage, compose, parents_in_base
from layerbuild.digests import header_facts
from layerbuild.errors import LayerbuildError, LockError, SourceError, Unreachable
from layerbuild.execute.contents import Contents
from layerbuild.execute.parallel import in_threads
from layerbuild.formats import files_of
from layerbuild.images import ImageDeclaration
from layerbuild.kinds import requests
from layerbuild.kinds.requests import declaration_digest
from layerbuild.lockmodel import Lock, LockedBase, LockedImage, LockedLayer
from layerbuild.model import Content, Directory, Facts, Pin, PinnedFile, PinRequest
from layerbuild.progress import Progress
from layerbuild.schema import Layer, ModelLayer, WebuiLayer
from layerbuild.sources import Context, source_for
from layerbuild.sources.git import GitSource
from layerbuild.store import Store
from layerbuild.webui.changelog import CHANGELOG, ENOUGH, first_release
from layerbuild.webui.flavors import FLAVORS
from layerbuild.webui.modeltypes import is_safetensors
from layerbuild.webui.safetensors import PREFIX, header_length, invalid
from layerbuild.webui.tensors import fault_of_header, fault_of_length

ResolveBase = Callable[[str, str], str]
"""Reference and platform -> digest of the platform's manifest."""

InspectBase = Callable[[LockedBase, Sequence[str]], Mapping[str, Directory | None]]
"""A base and paths -> the base's directories at those paths, None where it has nothing."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `layerbuild lock` was asked to do."""

    update: frozenset[str] = frozenset()
    update_all: bool = False
    keep_going: bool = False


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
        facts, invalid_files = self._facts(layers)
        layers = {name: layer for name, layer in layers.items() if name not in invalid_files}
        bases, base_failures = self._bases()
        failures = {**failures, **invalid_files, **base_failures}
        if failures and not self.options.keep_going:
            raise _combined(failures)
        unlocked = {name: self._reason(error) for name, error in failures.items()}
        usable = [image for image in self.images if _usable(image, layers, bases)]
        used = {content.sha256 for layer in layers.values() for content in _models(layer)}
        facts = {sha256: fact for sha256, fact in facts.items() if sha256 in used}
        images = _draft_images(usable, bases, self.old)
        draft = Lock(layers=layers, files=facts, images=images, unlocked=unlocked)
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
        wanted: list[tuple[str, str, PinRequest, Layer]] = []
        for pin_key, use in sorted(uses.items()):
            asked = requests.requests(use.layer)
            old = self.old.layers.get(pin_key)
            same = old is not None and old.declaration == declaration_digest(asked) and set(old.pins) == set(asked)
            if old is not None and same and not self._updates(pin_key, use.name):
                kept[pin_key] = old
            else:
                wanted += [(pin_key, role, request, use.layer) for role, request in asked.items()]
                kept[pin_key] = LockedLayer(declaration=declaration_digest(asked), pins={})
        results = in_threads(self._try_pin, wanted, parallel=8)
        failures: dict[str, LayerbuildError] = {}
        for (pin_key, role, _, _), result in zip(wanted, results, strict=True):
            if isinstance(result, LayerbuildError):
                failures.setdefault(pin_key, result)
            else:
                locked = kept[pin_key]
                kept[pin_key] = replace(locked, pins={**locked.pins, role: result})
        return {name: layer for name, layer in kept.items() if name not in failures}, failures

    def _updates(self, pin_key: str, name: str) -> bool:
        return self.options.update_all or bool({pin_key, name} & self.options.update)

    def _try_pin(self, item: tuple[str, str, PinRequest, Layer]) -> Pin | LayerbuildError:
        pin_key, role, request, layer = item
        try:
            with self.progress.task(f"lock {pin_key}"):
                pin = source_for(request.uri, self.context).resolve(request)
                if isinstance(layer, ModelLayer):
                    return self._with_sha256(pin_key, pin)
                if role == requests.WEBUI and isinstance(layer, WebuiLayer) and FLAVORS[layer.flavor].changelog:
                    return self._with_version(pin)
                return pin
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

    def _facts(self, layers: Mapping[str, LockedLayer]) -> tuple[dict[str, Facts], dict[str, LayerbuildError]]:
        """Facts of every model file: from the old lock, the store, and safetensors headers read by range. And, by
        layer, what is called safetensors and is none."""
        contents = Contents(self.store, self.context, Lock(layers=layers), self.progress)
        files = {c.sha256: c for layer in layers.values() for c in _models(layer) if c.sha256 is not None}
        known = {sha256: merge_facts(sha256, self.old.files.get(sha256), self.store.facts(sha256)) for sha256 in files}
        named = self._safetensors(layers)
        unread = [files[sha256] for sha256 in named if (facts := known[sha256]) is None or not facts.safetensors]
        faults: dict[str, str] = {}
        if not self.context.offline:
            read = in_threads(lambda content: self._read_header(contents, content), unread)
            for content, (facts, fault) in zip(unread, read, strict=True):
                sha256 = content.sha256 or ""
                known[sha256] = merge_facts(sha256, known[sha256], facts)
                if fault is not None:
                    faults[sha256] = fault
        for sha256, content in files.items():
            if known[sha256] is None and content.size is not None:
                known[sha256] = Facts(size=content.size)
        found = {sha256: facts for sha256, facts in known.items() if facts is not None}
        return found, {
            pin_key: invalid(name, faults.get(sha256))
            for sha256, users in named.items()
            for pin_key, name in users
            if sha256 in found and found[sha256].safetensors is False
        }

    def _safetensors(self, layers: Mapping[str, LockedLayer]) -> dict[str, list[tuple[str, str]]]:
        """sha256 of models that some name calls safetensors -> the layers that hold them, and that name."""
        named: dict[str, list[tuple[str, str]]] = {}
        for pin_key, use in {use.pin_key: use for image in self.images for use in image.uses}.items():
            if pin_key in layers and isinstance(use.layer, ModelLayer):
                for name, content in files_of(use.layer, layers[pin_key].pins):
                    if is_safetensors(name) and content.sha256 is not None:
                        named.setdefault(content.sha256, []).append((pin_key, name))
        return named

    def _read_header(self, contents: Contents, content: Content) -> tuple[Facts | None, str | None]:
        """What the header says, if the source gives it; and why it is none. It is a claim until the whole file was
        seen: whoever sees it compares."""
        if content.size is None:
            return None, None
        try:
            prefix = contents.read_range(content, 0, PREFIX)
            fault = fault_of_length(prefix, content.size)
            if fault is not None:
                return Facts(size=content.size, safetensors=False), fault
            length = header_length(prefix) or 0
            header = contents.read_range(content, PREFIX, length)
        except SourceError:
            return None, None
        if len(header) < length:
            return None, None
        facts = header_facts(header, content.size)
        if facts.safetensors and facts.metadata is None:
            self.store.add_document(header)
        return facts, fault_of_header(header, content.size)

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
        return replace(draft, images=images, receipts=receipts)


def merge_facts(sha256: str, one: Facts | None, other: Facts | None) -> Facts | None:
    """What both know of a content together.

    Raises:
        LockError: they contradict each other: content does not change under one sha256.
    """
    if one is None or other is None:
        return one or other
    merged = {}
    for item in fields(Facts):
        a, b = getattr(one, item.name), getattr(other, item.name)
        # Scanners change; what they look at does not.
        if a is not None and b is not None and a != b and item.name != "pickle":
            raise LockError(
                f"two different facts about {sha256[:16]}: {item.name} is {str(a)[:80]} and {str(b)[:80]}",
                cause="the lock was edited by hand, or a server sent another header than the file has",
                hint=f"remove the entry {sha256} from the 'files' of the lock, and run 'layerbuild lock'",
            )
        merged[item.name] = a if a is not None else b
    return Facts(**merged)


def _models(layer: LockedLayer) -> Iterator[Content]:
    """Every model and sidecar that a layer pins."""
    for role, pin in layer.pins.items():
        if role == requests.MODEL or role.startswith(requests.sidecar("")):
            yield from (file.content for file in pin.files)


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
