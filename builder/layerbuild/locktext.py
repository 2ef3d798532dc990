"""`lockfile.yaml`: read with suspicion, written so that a change is a small diff.

Every section is a map in a fixed order, one line per thing that can change by itself, LF, no
aliases, no time of writing, no machine paths. Writing is atomic.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from layerbuild import wholefile
from layerbuild.errors import LockError
from layerbuild.lockmodel import VERSION, Lock, LockedImage, LockedIndex, LockedLayer
from layerbuild.lockparse import RESTORE, parse
from layerbuild.model import Directory, Facts, Pin, Receipt

T = TypeVar("T")

_HEAD = """\
# Written by layerbuild: pins, facts and receipts. Review it like code; change declarations instead.
"""


class _Flow(dict[str, Any]):
    """A mapping that is written on one line."""


class _FlowList(list[Any]):
    """A list that is written on one line."""


_Base: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_Base):  # type: ignore[misc]
    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.add_representer(_Flow, lambda d, v: d.represent_mapping("tag:yaml.org,2002:map", v.items(), flow_style=True))
_Dumper.add_representer(_FlowList, lambda d, v: d.represent_sequence("tag:yaml.org,2002:seq", v, flow_style=True))


def dump(lock: Lock) -> str:
    """The lock's text."""
    sections = (
        _section("layers", lock.layers, _layer),
        _section("files", lock.files, _facts),
        _section("receipts", lock.receipts, _receipt),
        _section("images", lock.images, _image),
        # Most projects have none: their locks stay as they were before there were any.
        _section("indexes", lock.indexes, _index) if lock.indexes else (),
        _section("unlocked", lock.unlocked, lambda reason: reason),
    )
    return "".join((_HEAD, _yaml({"version": VERSION}), *(piece for section in sections for piece in section)))


_PIECE = 200
"""Items that are written at a time: YAML nodes take twenty times the room of their text."""


def _section(name: str, items: Mapping[str, T], written: Callable[[T], Any]) -> Iterator[str]:
    """The lines of a section, in pieces."""
    names = sorted(items)
    for start in range(0, len(names) or 1, _PIECE):
        text = _yaml({name: {key: written(items[key]) for key in names[start : start + _PIECE]}})
        yield text if start == 0 else text.partition("\n")[2]


def _yaml(value: Any) -> str:
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=2**31 - 1, default_flow_style=False
    )
    return text


def _some(**fields: Any) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value not in (None, (), [], {})}


def _layer(layer: LockedLayer) -> dict[str, Any]:
    return {"declaration": layer.declaration, "pins": {role: _pin(pin) for role, pin in sorted(layer.pins.items())}}


def _pin(pin: Pin) -> dict[str, Any]:
    files = [
        _Flow(path=f.path, **_some(size=f.content.size, sha256=f.content.sha256, git_blob=f.content.git_blob))
        for f in pin.files
    ]
    return {
        "source": pin.source,
        **_some(revision=pin.revision, ref=pin.ref, tree=pin.tree, listing=pin.listing, files=files),
        **_some(absent=_FlowList(sorted(pin.absent)), date=pin.date, version=pin.version),
        **_some(mirrors=list(pin.mirrors), headers=dict(pin.headers), blob=pin.blob, offset=pin.offset),
        **_some(constraints=list(pin.constraints)),
    }


def _facts(facts: Facts) -> dict[str, Any]:
    fields = _some(
        size=facts.size,
        git_blob=facts.git_blob,
        header_size=facts.header_size,
        header_sha256=facts.header_sha256,
        addnet=facts.addnet,
        architecture=facts.architecture,
        pickle=facts.pickle,
        metadata=facts.metadata,
    )
    if facts.safetensors is not None:
        fields["safetensors"] = facts.safetensors
    return _Flow(fields) if facts.safetensors is None else fields


def _receipt(receipt: Receipt) -> dict[str, Any]:
    blobs = [_Flow(encoding=b.encoding, digest=b.digest, size=b.size) for b in receipt.blobs]
    return {"diff_id": receipt.diff_id, "size": receipt.size, **_some(blobs=blobs)}


def _image(image: LockedImage) -> dict[str, Any]:
    fields: dict[str, Any] = {"platform": image.platform, "settings": image.settings}
    if image.base is not None:
        base: dict[str, Any] = {"reference": image.base.reference, "digest": image.base.digest}
        if image.base.directories:
            base["directories"] = {path: _directory(d) for path, d in sorted(image.base.directories.items())}
        fields["base"] = base
    if image.buckets is not None:
        fields["buckets"] = _Flow(threshold=image.buckets.threshold, bits=image.buckets.bits)
    fields["layers"] = list(image.layers)
    return {**fields, **_some(manifest=image.manifest)}


def _index(index: LockedIndex) -> dict[str, Any]:
    return {"platforms": _FlowList(index.platforms), **_some(digest=index.digest)}


def _directory(directory: Directory | None) -> Any:
    return None if directory is None else f"{directory.mode:04o} {directory.uid}:{directory.gid}"


def read(path: Path) -> Lock | None:
    """The lock at `path`, None where there is none.

    Raises:
        LockError: it cannot be read; see `parse`.
    """
    text = read_text(path)
    return None if text is None else parse(text, path.name)


def read_text(path: Path) -> str | None:
    """The text of the lock at `path`, its lines ended by LF; None where there is none.

    Raises:
        LockError: it cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise LockError(f"{path.name} cannot be read", cause=str(error), hint=RESTORE) from None


def write(path: Path, lock: Lock) -> bool:
    """Write the lock atomically. Returns whether a byte changed; if none did, nothing is written."""
    data = dump(lock).encode()
    with contextlib.suppress(OSError):
        if path.read_bytes() == data:
            return False
    try:
        wholefile.write(path, data)
    except OSError as error:
        raise LockError(
            f"{path.name} cannot be written",
            cause=error.strerror,
            hint="make room, or make its directory writable; the lock that was there is untouched",
        ) from None
    return True
