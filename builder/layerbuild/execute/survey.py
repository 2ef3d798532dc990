"""Asks a destination what it has: one question for each blob and repository, many at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from layerbuild.destinations import Destination
from layerbuild.execute.contents import in_threads
from layerbuild.plan import Want
from layerbuild.store import Store

_PARALLEL = 16


def present(wants: Iterable[Want], destination: Destination) -> dict[str, frozenset[str]]:
    """Digest -> images whose repository has the blob."""
    pairs = [(want.digest, image) for want in wants if want.digest for image in want.images]
    answers = in_threads(lambda pair: destination.has(pair[1], pair[0]), pairs, parallel=_PARALLEL)
    found: dict[str, set[str]] = {}
    for (digest, image), there in zip(pairs, answers, strict=True):
        if there:
            found.setdefault(digest, set()).add(image)
    return {digest: frozenset(images) for digest, images in found.items()}


def elsewhere(
    wants: Sequence[Want], destination: Destination, store: Store, bases: Mapping[str, tuple[str, str]]
) -> dict[str, tuple[str, ...]]:
    """Digest -> repositories of the destination's registry that should have the blob.

    Args:
        bases: digest of a base's layer -> host and repository of that base.
    """
    host = destination.host
    if host is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
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
            found[digest] = tuple(f"/{name}" for name in dict.fromkeys(names))[:3]
    return found
