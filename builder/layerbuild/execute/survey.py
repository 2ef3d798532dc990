"""Asks a destination what it has: nothing twice, and nothing that it has told already; many at a time."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from layerbuild.destinations import Destination
from layerbuild.errors import LayerbuildError, LoginRequired
from layerbuild.execute.parallel import attempts
from layerbuild.lockmodel import Lock, key_of_line
from layerbuild.plan import Want
from layerbuild.registry.reference import is_digest
from layerbuild.store import Store

PARALLEL = 16
_CANDIDATES = 3
_FEW = 8
"""Repositories that are all asked for a blob; where more of them need it, a mount asks and answers at once."""

_MANIFESTS = 32
"""Of an index that is to be replaced, manifests that are looked at."""

Known = Mapping[str, Collection[str]]
"""Repository -> digests of blobs that it has."""


def named_by(manifest: bytes) -> frozenset[str]:
    """Digests of the blobs that a manifest names: its repository has them, or had refused it
    (distribution-spec 1.1, "Pushing Manifests"). What is no manifest names none."""
    try:
        value = json.loads(manifest)
        described = [value["config"], *value["layers"]]
        return frozenset(str(descriptor["digest"]) for descriptor in described)
    except (ValueError, TypeError, KeyError, RecursionError):
        return frozenset()


def manifests_of(index: bytes) -> tuple[str, ...]:
    """Digests of the manifests that an index names, not very many of them; none if it is no index."""
    try:
        described = json.loads(index)["manifests"][:_MANIFESTS]
        found = [str(descriptor["digest"]) for descriptor in described]
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()
    return tuple(digest for digest in dict.fromkeys(found) if is_digest(digest))


def present(
    wants: Iterable[Want],
    destination: Destination,
    *,
    known: Known | None = None,
    located: Collection[str] = (),
) -> dict[str, frozenset[str]]:
    """Digest -> repositories that have the blob.

    Args:
        known: what need not be asked.
        located: digests of blobs that can be mounted from somewhere: where very many repositories need one
            of them, not all are asked.
    """
    known = known or {}
    wants = [want for want in wants if want.digest]
    found: dict[str, set[str]] = {}
    for want in wants:
        there = {name for name in want.repositories if want.digest in known.get(name, ())}
        if there:
            found[want.digest or ""] = there
    first, rest = [], []
    for want in wants:
        unsure = [name for name in want.repositories if name not in found.get(want.digest or "", ())]
        first += [(want, name) for name in unsure[:_FEW]]
        rest += [(want, name) for name in unsure[_FEW:]]
    _ask(first, destination, found)
    _ask([pair for pair in rest if pair[0].digest not in found and pair[0].digest not in located], destination, found)
    return {digest: frozenset(names) for digest, names in found.items()}


def _ask(pairs: Sequence[tuple[Want, str]], destination: Destination, found: dict[str, set[str]]) -> None:
    """A repository that does not answer counts as one that lacks the blob: sending it there will tell why.

    Who may push need not be allowed to ask: some registries hide what does not exist yet.
    """
    answers = attempts(lambda p: destination.has(p[1], p[0].digest or "", p[0].size), pairs, parallel=PARALLEL)
    failures = [answer for answer in answers if isinstance(answer, LayerbuildError)]
    if failures and len(failures) == len(answers) and not all(isinstance(f, LoginRequired) for f in failures):
        raise failures[0]
    for (want, name), there in zip(pairs, answers, strict=True):
        if there is True:
            found.setdefault(want.digest or "", set()).add(name)


def remembered(
    wants: Iterable[Want], destination: Destination, store: Store, bases: Mapping[str, tuple[str, str]]
) -> dict[str, tuple[str, ...]]:
    """Digest -> repositories of the destination's registry that should have the blob. Nobody is asked.

    Args:
        bases: digest of a base's layer -> host and repository of that base.
    """
    host = destination.host
    if host is None:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    for want in wants:
        if want.digest is None:
            continue
        own = {destination.full_name(name) for name in want.repositories}
        names = [name for name in store.pushed_to(host, want.digest) if name not in own]
        base_host, repository = bases.get(want.digest, ("", ""))
        if base_host == host:
            names.insert(0, repository)
        if names:
            # A refused mount costs a request: a blob that was deleted everywhere must not cost a hundred.
            found[want.digest] = tuple(f"/{name}" for name in dict.fromkeys(names))[:_CANDIDATES]
    return found


def siblings(
    wants: Iterable[Want], destination: Destination, lock: Lock, repositories: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Digest -> repositories of the lock's other images that have it. Whether they were ever pushed there
    is not known: they are asked.

    Args:
        wants: of which nobody knows where they are.
        repositories: image -> where it lands.
    """
    if destination.host is None:
        return {}
    users: dict[str, dict[str, None]] = {}
    for name, image in lock.images.items():
        for line in image.layers:
            users.setdefault(key_of_line(line), {})[repositories.get(name, name)] = None
    pairs = [
        (want.digest or "", name)
        for want in wants
        if want.key is not None
        for name in [n for n in users.get(want.key[:16], ()) if n not in want.repositories][:_CANDIDATES]
    ]
    answers = attempts(lambda pair: destination.has(pair[1], pair[0]), pairs, parallel=PARALLEL)
    found: dict[str, tuple[str, ...]] = {}
    for (digest, name), has in zip(pairs, answers, strict=True):
        if has is True:
            found[digest] = (*found.get(digest, ()), f"/{destination.full_name(name)}")
    return found


def elsewhere(
    wants: Sequence[Want],
    destination: Destination,
    there: Mapping[str, frozenset[str]],
    located: Mapping[str, tuple[str, ...]],
    lock: Lock,
    repositories: Mapping[str, str],
) -> dict[str, tuple[str, ...]]:
    """Where blobs can be mounted from besides the repositories that want them: what is remembered, else what
    the lock's other images have. See `remembered` and `siblings`.

    Args:
        there: what `present` found.
        located: what is remembered.
    """
    lost = [want for want in wants if want.digest and want.digest not in there and want.digest not in located]
    return {**located, **siblings(lost, destination, lock, repositories)}
