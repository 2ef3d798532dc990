"""Pickles are looked at before a layer that holds them is accepted.

What is found is remembered by the file's sha256. A scan needs the whole file: a pickle is on this machine while
its layer is made, also where nothing is to be kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress

from layerbuild.errors import StoreError, UnsafePickle
from layerbuild.execute.contents import Contents
from layerbuild.formats import Formats
from layerbuild.lockmodel import Lock
from layerbuild.model import Content, Facts
from layerbuild.pickles import fault, scanner

_LENIENT = ", or no pickle"
"""Ends what is said of a `.bin`: something that no `torch.load` takes may still be taken by others, by another name."""


@contextmanager
def screened(contents: Contents, wanted: Iterable[Content], *, tolerant: bool = True) -> Iterator[None]:
    """Whatever of `wanted` must be harmless is, and is on this machine while the block runs.

    Args:
        tolerant: pass over what another image of the run takes as it is.

    Raises:
        UnsafePickle: loading one of them would run code.
        SourceError, StoreError: one of them cannot be had.
    """
    suspects = [content for content in wanted if content.id in contents.formats.pickles]
    passed_over = contents.formats.tolerated if tolerant else frozenset()
    brought = [] if contents.keep else contents.missing(suspects)
    try:
        contents.ensure(suspects)
        for content in suspects:
            with suppress(UnsafePickle) if content.id in passed_over else nullcontext():
                _screen(contents, content)
        yield
    finally:
        # Where sending turned out to need the store, keeping is what is wanted by now.
        for content in () if contents.keep else brought:
            contents.store.discard(contents.store.sha256_of(content) or "")


def unvouched(contents: Contents, wanted: Iterable[Content], lock: Lock) -> list[Content]:
    """Those of `wanted` that must be harmless, and of which neither the lock nor this machine says that they are."""
    found = []
    for content in wanted:
        if content.id in contents.formats.pickles:
            sha256 = contents.store.sha256_of(content) or ""
            told = (lock.files.get(sha256), contents.store.facts(sha256))
            lenient = contents.formats.pickles[content.id].lenient
            if not any(facts is not None and _vouches(facts.pickle, lenient=lenient) for facts in told):
                found.append(content)
    return found


def require_vouched(contents: Contents, formats: Formats, lock: Lock) -> None:
    """To be called of an image whose layers were made for another one too, which takes them as they are.

    Args:
        formats: of this image.

    Raises:
        UnsafePickle: loading one of its files would run code, or nobody found that it would not.
    """
    tolerated = contents.formats.tolerated
    shared = [suspect.content for name, suspect in formats.pickles.items() if name in tolerated]
    with screened(contents, unvouched(contents, shared, lock), tolerant=False):
        pass


def _screen(contents: Contents, content: Content) -> None:
    suspect, sha256 = contents.formats.pickles[content.id], contents.store.sha256_of(content) or ""
    facts = contents.store.facts(sha256)
    if facts is not None and facts.pickle in _verdicts(lenient=suspect.lenient):
        return
    try:
        with contents.store.file(content) as file:
            size = os.fstat(file.fileno()).st_size
            reason = fault(file, size, lenient=suspect.lenient)
    except OSError as error:
        raise StoreError(
            f"{suspect.name} cannot be read",
            cause=error.strerror,
            hint="check who may read it, and run the command again",
        ) from None
    if reason is not None:
        raise UnsafePickle(
            f"{suspect.name} is not taken: loading it may run code of whoever made it",
            cause=f"{reason}; scanned by {scanner()}",
            hint="use a safetensors file instead, or leave it out; if you trust its maker, write 'pickle: allow' into "
            "the recipe, which holds for that recipe's images only",
        )
    contents.store.put_facts(sha256, Facts(size=size, pickle=_verdicts(lenient=suspect.lenient)[-1]))


def _verdicts(*, lenient: bool) -> tuple[str, ...]:
    """What of today's scanner is enough; the last is what it would say itself."""
    return (scanner(), f"{scanner()}{_LENIENT}") if lenient else (scanner(),)


def _vouches(verdict: str | None, *, lenient: bool) -> bool:
    """Whether what some scanner said, maybe an older one, is enough."""
    return bool(verdict) and (lenient or not str(verdict).endswith(_LENIENT))
