"""Two locks become one: the sides of a merge, or what another machine has recorded. Pure.

Entries that only one lock has are taken; of those that both have, what agrees. What does not is a
clash that a person must settle, unless the declarations settle it: a pin of what nobody declares
any more gives way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TypeVar

from layerbuild.errors import LockError
from layerbuild.lockmodel import PENDING, Lock, LockedImage, LockedIndex, LockedLayer, key_of_line
from layerbuild.model import Blob, Facts, Receipt

T = TypeVar("T")

_MARKER = re.compile(r"^(?:<{7}|\|{7}|={7}|>{7})", re.MULTILINE)
_STEPS = {
    ("both", "<" * 7): "ours",
    ("ours", "|" * 7): "base",
    ("ours", "=" * 7): "theirs",
    ("base", "=" * 7): "theirs",
    ("theirs", ">" * 7): "both",
}
"""Where a line is, and the marker that comes: where the lines after it are."""


def conflicted(text: str) -> bool:
    """Whether a merge has left its conflict markers in a text (git-merge(1), "How conflicts are presented")."""
    return _MARKER.search(text) is not None


def sides(text: str) -> tuple[str, str]:
    """A conflicted text as each side of the merge has it.

    Raises:
        LockError: the markers do not belong together.
    """
    found: dict[str, list[str]] = {"ours": [], "theirs": [], "base": []}
    place = "both"
    for line in text.splitlines(keepends=True):
        if _MARKER.match(line):
            place = _STEPS.get((place, line[:7]), "nowhere")
        else:
            for side in ("ours", "theirs") if place == "both" else (place,):
                found.setdefault(side, []).append(line)
    if place != "both" or "nowhere" in found:
        raise LockError(
            "the conflict markers in the lock do not belong together",
            hint="take either side (git checkout --ours lockfile.yaml), and run 'layerbuild lock'",
        )
    return "".join(found["ours"]), "".join(found["theirs"])


@dataclass(frozen=True, kw_only=True)
class Clash:
    """Something that two locks say differently.

    Attributes:
        entry: for people: `layers.sd15`, `base docker.io/acme/base:1`.
        name: what `lock --update` would resolve anew; None where only an editor helps.
        ours, theirs: in short, what each says.
    """

    entry: str
    name: str | None
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.entry}: {self.ours} here, {self.theirs} there"


@dataclass(frozen=True, kw_only=True)
class Merged:
    """One lock of two. Where they clash it says what ours does."""

    lock: Lock
    clashes: tuple[Clash, ...]


def merge(ours: Lock, theirs: Lock, declared: Mapping[str, str]) -> Merged:
    """One lock of the two sides of a merge. No image keeps a manifest that the sides do not agree on.

    Args:
        declared: by pin key, the digest of what the project asks for now.

    Raises:
        LockError: the two know different facts of one content.
    """
    clashes: list[Clash] = []
    layers = _union(ours.layers, theirs.layers, lambda name, a, b: _layer(name, a, b, declared.get(name), clashes))
    bases = _bases(ours, theirs, clashes)
    images = _union(ours.images, theirs.images, lambda _, a, b: _image(a, b))
    merged = replace(
        ours,
        layers=layers,
        files=_union(ours.files, theirs.files, _facts),
        receipts=_union(ours.receipts, theirs.receipts, lambda _, a, b: _receipt(a, b, clashes)),
        images={name: _on(image, bases) for name, image in images.items()},
        indexes=_union(ours.indexes, theirs.indexes, lambda _, a, b: a if a == b else replace(a, digest=None)),
        unlocked={**theirs.unlocked, **ours.unlocked},
    )
    return Merged(lock=merged, clashes=tuple(clashes))


def record(lock: Lock, recorded: Lock) -> Lock:
    """`lock` with the receipts, facts and manifests that another machine has recorded for it. Pins never move.

    Raises:
        LockError: it was recorded for other images, or the two contradict each other.
    """
    for name, image in recorded.images.items():
        if name not in lock.images or not _stands_for(image, lock.images[name]):
            raise LockError(
                f"what is to be recorded is of another lock: image {name} is not the one here",
                hint="build it again from this lock, with --receipts-out",
            )
    clashes: list[Clash] = []
    files = {sha256: _facts(sha256, facts, recorded.files.get(sha256, facts)) for sha256, facts in lock.files.items()}
    images = {name: _recorded(name, image, recorded.images.get(name), clashes) for name, image in lock.images.items()}
    used = {key_of_line(line) for image in images.values() for line in image.layers}
    made = {key: receipt for key, receipt in recorded.receipts.items() if key[:16] in used}
    receipts = _union(lock.receipts, made, lambda _, a, b: _receipt(a, b, clashes))
    indexes = {name: _index(name, index, recorded.indexes.get(name), clashes) for name, index in lock.indexes.items()}
    if clashes:
        raise LockError(
            "what is to be recorded contradicts the lock:\n" + "\n".join(f"  {clash}" for clash in clashes),
            hint="one of the two machines made something else: 'layerbuild build --check' tells which",
        )
    return replace(lock, files=files, receipts=receipts, images=images, indexes=indexes)


def merge_facts(sha256: str, one: Facts | None, other: Facts | None) -> Facts | None:
    """What both know of a content together.

    Raises:
        LockError: they contradict each other: content does not change under one sha256.
    """
    if one is None or other is None:
        return one or other
    return _facts(sha256, one, other)


def _facts(sha256: str, one: Facts, other: Facts) -> Facts:
    merged = {}
    for item in fields(Facts):
        a, b = getattr(one, item.name), getattr(other, item.name)
        if item.name == "pickle":
            # Scanners change; what they look at does not.
            a = b = max(filter(None, (a, b)), default=None)
        if a is not None and b is not None and a != b:
            raise LockError(
                f"two different facts about {sha256[:16]}: {item.name} is {str(a)[:80]} and {str(b)[:80]}",
                cause="the lock was edited by hand, or a server sent another header than the file has",
                hint=f"remove the entry {sha256} from the 'files' of the lock, and run 'layerbuild lock'",
            )
        merged[item.name] = a if a is not None else b
    return Facts(**merged)


def _union(ours: Mapping[str, T], theirs: Mapping[str, T], both: Callable[[str, T, T], T]) -> dict[str, T]:
    found = {**theirs, **ours}
    for name in ours.keys() & theirs.keys():
        if ours[name] != theirs[name]:
            found[name] = both(name, ours[name], theirs[name])
    return found


def _layer(
    name: str, ours: LockedLayer, theirs: LockedLayer, declared: str | None, clashes: list[Clash]
) -> LockedLayer:
    fits = [layer for layer in (ours, theirs) if layer.declaration == declared]
    if len(fits) == 1:
        return fits[0]
    # Where neither fits, both are resolved anew.
    if fits:
        clashes.append(Clash(entry=f"layers.{name}", name=name, ours=_pins(ours, theirs), theirs=_pins(theirs, ours)))
    return ours


def _pins(layer: LockedLayer, other: LockedLayer) -> str:
    """The first pin that the other has not, in short."""
    for role, pin in sorted(layer.pins.items()):
        if pin != other.pins.get(role):
            digests = [file.content.id for file in pin.files if file not in other.pins.get(role, pin).files]
            return pin.source if pin.revision or not digests else f"{pin.source} with {digests[0][:19]}"
    return "fewer pins"


def _receipt(ours: Receipt, theirs: Receipt, clashes: list[Clash]) -> Receipt:
    if (ours.diff_id, ours.size) != (theirs.diff_id, theirs.size):
        clash = Clash(entry=f"receipts.{ours.key[:16]}", name=None, ours=ours.diff_id[:19], theirs=theirs.diff_id[:19])
        clashes.append(clash)
        return ours
    by_encoding: dict[str, Blob] = {}
    for blob in (*ours.blobs, *theirs.blobs):
        known = by_encoding.setdefault(blob.encoding, blob)
        if known != blob:
            entry = f"receipts.{ours.key[:16]}, {blob.encoding}"
            clashes.append(Clash(entry=entry, name=None, ours=known.digest[:19], theirs=blob.digest[:19]))
    return replace(ours, blobs=tuple(by_encoding[encoding] for encoding in sorted(by_encoding)))


def _image(ours: LockedImage, theirs: LockedImage) -> LockedImage:
    """Only the order of layers matters here, and that a manifest is not believed: what is in an image follows
    from its declaration and the pins."""
    lines = dict.fromkeys((*ours.layers, *theirs.layers))
    same = replace(ours, manifest=None) == replace(theirs, manifest=None) and None in (ours.manifest, theirs.manifest)
    manifest = ours.manifest or theirs.manifest if same else None
    return replace(ours, layers=tuple(lines), manifest=manifest)


_Bases = Mapping[tuple[str, str], str]
"""Reference and platform -> digest."""


def _bases(ours: Lock, theirs: Lock, clashes: list[Clash]) -> _Bases:
    """What each base is pinned to."""
    here, there = (
        {(i.base.reference, i.platform): i.base.digest for i in lock.images.values() if i.base}
        for lock in (ours, theirs)
    )
    for reference, platform in sorted(here.keys() & there.keys()):
        pair = here[reference, platform], there[reference, platform]
        if pair[0] != pair[1]:
            entry = f"base {reference} for {platform}"
            clashes.append(Clash(entry=entry, name=reference, ours=pair[0][:19], theirs=pair[1][:19]))
    return {**there, **here}


def _on(image: LockedImage, bases: _Bases) -> LockedImage:
    if image.base is None:
        return image
    digest = bases[image.base.reference, image.platform]
    if digest == image.base.digest:
        return image
    return replace(image, base=replace(image.base, digest=digest, directories={}), manifest=None)


def _stands_for(recorded: LockedImage, ours: LockedImage) -> bool:
    """Whether an image was built from what ours says. What was pending here may be known there."""
    same = (recorded.base, recorded.settings, recorded.platform) == (ours.base, ours.settings, ours.platform)
    return (
        same
        and len(recorded.layers) == len(ours.layers)
        and all(
            a == b or (key_of_line(b) == PENDING and a.rpartition("@")[0] == b.rpartition("@")[0])
            for a, b in zip(recorded.layers, ours.layers, strict=True)
        )
    )


def _recorded(name: str, ours: LockedImage, theirs: LockedImage | None, clashes: list[Clash]) -> LockedImage:
    if theirs is None or theirs.manifest is None:
        return ours
    if ours.manifest is not None and ours.layers == theirs.layers and ours.manifest != theirs.manifest:
        clash = Clash(entry=f"images.{name}", name=None, ours=ours.manifest[:19], theirs=theirs.manifest[:19])
        clashes.append(clash)
    return replace(ours, layers=theirs.layers, manifest=theirs.manifest)


def _index(name: str, ours: LockedIndex, theirs: LockedIndex | None, clashes: list[Clash]) -> LockedIndex:
    if theirs is None or theirs.digest is None or theirs.platforms != ours.platforms:
        return ours
    if ours.digest not in (None, theirs.digest):
        here, there = (ours.digest or "")[:19], theirs.digest[:19]
        clashes.append(Clash(entry=f"indexes.{name}", name=None, ours=here, theirs=there))
    return theirs
