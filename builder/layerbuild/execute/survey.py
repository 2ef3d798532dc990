"""Asks a destination what it has: one question for each blob and repository, many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from layerbuild.destinations import Destination
from layerbuild.execute.contents import in_threads
from layerbuild.lockmodel import Lock, key_of_line
from layerbuild.plan import Want
from layerbuild.store import Store

_PARALLEL = 16
_CANDIDATES = 3


def present(wants: Iterable[Want], destination: Destination) -> dict[str, frozenset[str]]:
    """Digest -> images whose repository has the blob."""
    pairs = [(want.digest, image, want.size) for want in wants if want.digest for image in want.images]
    answers = in_threads(lambda pair: destination.has(pair[1], pair[0], pair[2]), pairs, parallel=_PARALLEL)
    found: dict[str, set[str]] = {}
    for (digest, image, _), there in zip(pairs, answers, strict=True):
        if there:
            found.setdefault(digest, set()).add(image)
    return {digest: frozenset(images) for digest, images in found.items()}


def elsewhere(
    wants: Sequence[Want],
    destination: Destination,
    store: Store,
    bases: Mapping[str, tuple[str, str]],
    lock: Lock,
    there: Mapping[str, frozenset[str]],
) -> dict[str, tuple[str, ...]]:
    """Digest -> repositories of the destination's registry that should have the blob.

    Args:
        bases: digest of a base's layer -> host and repository of that base.
        lock: whose other images are asked for what nobody else is known to have.
        there: what `present` found.
    """
    host = destination.host
    if host is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    unknown: list[Want] = []
    for want in wants:
        digest = want.digest
        if digest is None:
            continue
        own = {destination.full_name(image) for image in want.images}
        names = [name for name in store.pushed_to(host, digest) if name not in own]
        base_host, repository = bases.get(digest, ("", ""))
        if base_host == host:
            names.insert(0, repository)
        if names:
            # A refused mount costs a request: a blob that was deleted everywhere must not cost a hundred.
            found[digest] = tuple(f"/{name}" for name in dict.fromkeys(names))[:_CANDIDATES]
        elif digest not in there:
            unknown.append(want)
    return found | _siblings(unknown, destination, lock)


def _siblings(wants: Sequence[Want], destination: Destination, lock: Lock) -> dict[str, tuple[str, ...]]:
    """Digest -> repositories of the lock's other images that have it. Whether they were ever pushed there
    is not known: they are asked."""
    users: dict[str, list[str]] = {}
    for name, image in lock.images.items():
        for line in image.layers:
            users.setdefault(key_of_line(line), []).append(name)
    pairs = [
        (want.digest or "", name)
        for want in wants
        if want.key is not None
        for name in [n for n in users.get(want.key[:16], ()) if n not in want.images][:_CANDIDATES]
    ]
    answers = in_threads(lambda pair: destination.has(pair[1], pair[0]), pairs, parallel=_PARALLEL)
    found: dict[str, tuple[str, ...]] = {}
    for (digest, name), has in zip(pairs, answers, strict=True):
        if has:
            found[digest] = (*found.get(digest, ()), f"/{destination.full_name(name)}")
    return found
