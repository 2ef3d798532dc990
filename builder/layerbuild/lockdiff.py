"""What moved between two locks, in words: pins, images, and the bytes that a registry would lack. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from layerbuild.lockmodel import PENDING, Lock, LockedImage, LockedLayer, key_of_line
from layerbuild.model import Pin, PinnedFile, Receipt

_SHORT = 12


@dataclass(frozen=True, kw_only=True)
class Change:
    """Something that one lock has and the other has not, or has otherwise.

    Attributes:
        name: of the layer or the image.
        what: `added`, `removed` or `changed`.
        words: what it is, or what became of it; for people.
        push: bytes of layers that no image of the old lock has; of an image only.
        unknown: such layers whose size nobody knows before they are made.
    """

    name: str
    what: str
    words: tuple[str, ...] = ()
    push: int = 0
    unknown: int = 0


@dataclass(frozen=True, kw_only=True)
class LockDiff:
    """Everything that moved. `push` and `unknown` count what several images share once.

    Attributes:
        believed: receipts and facts that say something else than before, of the same layers and files.
    """

    layers: tuple[Change, ...]
    images: tuple[Change, ...]
    believed: tuple[Change, ...]
    push: int
    unknown: int

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        layers = [{"name": c.name, "change": c.what, "words": list(c.words)} for c in self.layers]
        images = [
            {"name": c.name, "change": c.what, "words": list(c.words), "push": c.push, "unknown": c.unknown}
            for c in self.images
        ]
        believed = [{"name": c.name, "change": c.what, "words": list(c.words)} for c in self.believed]
        return {
            **{"layers": layers, "images": images, "believed": believed},
            **{"push": self.push, "unknown": self.unknown},
        }


def diff(old: Lock, new: Lock) -> LockDiff:
    """What the way from `old` to `new` changes.

    A registry is taken to have every image of the old lock. Bases are not counted: a lock does not hold
    their sizes, and they are mounted or copied from where they are.
    """
    sizes = _Sizes(new)
    known = {line.partition("@")[2] for image in old.images.values() for line in image.layers}
    images = tuple(
        _image(name, old.images.get(name), new.images.get(name), known, sizes)
        for name in sorted(old.images.keys() | new.images.keys())
        if old.images.get(name) != new.images.get(name)
    )
    layers = tuple(
        _layer(name, old.layers.get(name), new.layers.get(name))
        for name in sorted(old.layers.keys() | new.layers.keys())
        if old.layers.get(name) != new.layers.get(name)
    )
    lines = {key_of_line(line): line for image in new.images.values() for line in image.layers}
    push, unknown = sizes.sum(line for key, line in lines.items() if key not in known and key != PENDING)
    waiting = sum(1 for image in new.images.values() for line in image.layers if key_of_line(line) == PENDING)
    believed = (*_changed_receipts(old, new), *_changed_facts(old, new))
    return LockDiff(layers=layers, images=images, believed=believed, push=push, unknown=unknown + waiting)


def _changed_receipts(old: Lock, new: Lock) -> Iterator[Change]:
    """Of keys that both have. What an image ships follows from them, and not from its pins alone."""
    for key in sorted(old.receipts.keys() & new.receipts.keys()):
        one, other = old.receipts[key], new.receipts[key]
        words = []
        if one.diff_id != other.diff_id:
            words.append(f"diffID {_digest(one.diff_id)} -> {_digest(other.diff_id)}")
        if one.size != other.size:
            words.append(f"{one.size} -> {other.size} bytes")
        known = {blob.encoding: blob.digest for blob in one.blobs}
        words += [
            f"{blob.encoding}: {_digest(known[blob.encoding])} -> {_digest(blob.digest)}"
            for blob in other.blobs
            if known.get(blob.encoding, blob.digest) != blob.digest
        ]
        if words:
            yield Change(name=f"receipt {key[:16]}", what="changed", words=tuple(words))


def _changed_facts(old: Lock, new: Lock) -> Iterator[Change]:
    """Facts that changed, and verdicts on pickles that are new."""
    for sha256 in sorted(new.files):
        one, other = asdict(old.files[sha256]) if sha256 in old.files else {}, asdict(new.files[sha256])
        words = [
            f"{name}: {str(one.get(name))[:60]} -> {str(value)[:60]}"
            for name, value in other.items()
            if one.get(name) != value and (one.get(name) is not None or name == "pickle")
        ]
        if words:
            yield Change(name=f"file {sha256[:16]}", what="changed", words=tuple(words))


def _digest(digest: str) -> str:
    return digest.partition(":")[2][:_SHORT]


class _Sizes:
    """Bytes of layers as a registry would store them, as far as a lock tells."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._receipts = {key[:16]: receipt for key, receipt in lock.receipts.items()}

    def sum(self, lines: Iterable[str]) -> tuple[int, int]:
        """Bytes of those that are known, and how many are not."""
        found = [self._of(line) for line in lines]
        return sum(size for size in found if size is not None), found.count(None)

    def _of(self, line: str) -> int | None:
        kind, _, rest = line.partition("/")
        receipt = self._receipts.get(key_of_line(line))
        if receipt is not None:
            return _stored(receipt, compressed=kind != "weights")
        layer = self._lock.layers.get(rest.rpartition("@")[0])
        pin = layer.pins.get("model") if layer is not None and kind == "weights" else None
        return pin.files[0].content.size if pin is not None and len(pin.files) == 1 else None


def _stored(receipt: Receipt, *, compressed: bool) -> int | None:
    if not compressed:
        return receipt.size
    return min((blob.size for blob in receipt.blobs), default=None)


# --- images ------------------------------------------------------------------------------------------


def _image(name: str, old: LockedImage | None, new: LockedImage | None, known: set[str], sizes: _Sizes) -> Change:
    if new is None:
        return Change(name=name, what="removed")
    lacking = [line for line in new.layers if line.partition("@")[2] not in known]
    push, unknown = sizes.sum(line for line in lacking if key_of_line(line) != PENDING)
    unknown += sum(1 for line in lacking if key_of_line(line) == PENDING)
    if old is None:
        return Change(name=name, what="added", words=(f"{len(new.layers)} layers",), push=push, unknown=unknown)
    return Change(name=name, what="changed", words=_image_words(old, new), push=push, unknown=unknown)


def _image_words(old: LockedImage, new: LockedImage) -> tuple[str, ...]:
    words = []
    if old.base != new.base:
        before, after = (f"{i.base.reference} {i.base.digest[7:19]}" if i.base else "scratch" for i in (old, new))
        words.append(f"base {before} -> {after}" if before != after else "other directories of the base")
    if old.platform != new.platform:
        words.append(f"platform {old.platform} -> {new.platform}")
    if old.settings != new.settings:
        words.append("settings (config, compression or annotations)")
    words += _line_words(old, new)
    if not words and old.layers != new.layers:
        words.append("order of layers")
    if not words:
        words.append("manifest recorded" if old.manifest is None else "composed otherwise")
    return tuple(words)


def _line_words(old: LockedImage, new: LockedImage) -> list[str]:
    """`~ title` for a layer that both have under one name, `+ title`, `- title`."""
    before, after = (dict(_named(line) for line in image.layers) for image in (old, new))
    # A layer whose key is only known now is no other one.
    changed = [t for t in after if t in before and after[t] != before[t] and PENDING not in (after[t], before[t])]
    added, removed = [t for t in after if t not in before], [t for t in before if t not in after]
    return [*(f"~ {t}" for t in changed), *(f"+ {t}" for t in added), *(f"- {t}" for t in removed)]


def _named(line: str) -> tuple[str, str]:
    title, _, key = line.rpartition("@")
    return title, key


# --- layers ------------------------------------------------------------------------------------------


def _layer(name: str, old: LockedLayer | None, new: LockedLayer | None) -> Change:
    if new is None:
        return Change(name=name, what="removed")
    if old is None:
        return Change(name=name, what="added", words=tuple(_is(role, pin) for role, pin in sorted(new.pins.items())))
    words: list[str] = []
    for role in sorted(old.pins.keys() | new.pins.keys()):
        before, after = old.pins.get(role), new.pins.get(role)
        if before == after:
            continue
        if before is not None and after is not None:
            words += [f"{_role(role)}{text}" for text in _became(before, after)]
        else:
            words.append(f"+ {_is(role, after)}" if after is not None else f"- {role}")
    return Change(name=name, what="changed", words=tuple(words or ["declared otherwise, pinned as before"]))


def _role(role: str) -> str:
    """What a line begins with where a layer has several pins."""
    return "" if role in ("model", "snapshot", "webui") else f"{role}: "


def _is(role: str, pin: Pin) -> str:
    release = f" ({pin.version})" if pin.version else ""
    return f"{_role(role)}{pin.source}{release}"


def _became(old: Pin, new: Pin) -> list[str]:
    words = []
    if old.version != new.version and old.version and new.version:
        words.append(f"{old.version} -> {new.version}")
    places = [pin.source.replace(f"@{pin.revision}", "") if pin.revision else pin.source for pin in (old, new)]
    if places[0] != places[1]:
        words.append(f"{places[0]} -> {places[1]}")
    if old.revision != new.revision:
        words.append(f"commit {(old.revision or 'none')[:_SHORT]} -> {(new.revision or 'none')[:_SHORT]}")
    if old.ref != new.ref:
        words.append(f"by {old.ref or 'its commit'} -> {new.ref or 'its commit'}")
    words += _files(old, new)
    if old.absent != new.absent:
        words.append("other names proved absent")
    for name in ("tree", "listing", "mirrors", "headers", "blob", "offset"):
        if old.revision == new.revision and getattr(old, name) != getattr(new, name):
            words.append(f"another {name}" if name in ("tree", "listing", "blob", "offset") else f"other {name}")
    return words or ["the pin says more of the same"]


def _files(old: Pin, new: Pin) -> list[str]:
    before, after = ({file.path: file for file in pin.files} for pin in (old, new))
    if len(before) == len(after) == 1:
        (one,), (other,) = before.values(), after.values()
        same = one.content.id == other.content.id
        renamed = [f"{one.path} -> {other.path}"] if one.path != other.path else []
        if old.revision != new.revision and same:
            return [*renamed, "the same file"]
        return renamed if same else [*renamed, f"content {_content(one)} -> {_content(other)}"]
    changed = [path for path in after if path in before and after[path].content.id != before[path].content.id]
    counts = {
        "changed": len(changed),
        "added": len(after.keys() - before.keys()),
        "gone": len(before.keys() - after.keys()),
    }
    return [f"{count} files {word}" for word, count in counts.items() if count]


def _content(file: PinnedFile) -> str:
    return file.content.id.partition(":")[2][:_SHORT]
