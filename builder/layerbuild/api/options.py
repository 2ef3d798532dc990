"""What may be asked of `lock`, `build` and `push`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LockOptions:
    """What is wanted of a lock.

    Attributes:
        update: names of layers or bases that are resolved anew.
        update_all: everything is.
        keep_going: what cannot be reached is named in the lock, and the rest is locked.
        inspect: read headers of safetensors files by range.
        facts: fetch the models of which an image must know more than is published.
        repack: names of layers or images of which is forgotten how they were compressed and composed.
    """

    update: Sequence[str] = ()
    update_all: bool = False
    keep_going: bool = False
    inspect: bool = True
    facts: bool = False
    repack: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class MakeOptions:
    """How layers are made.

    Attributes:
        cache_from: images whose layers are taken over, once every byte was held against the pins.
        trust_receipts: they are taken over unread.
        executor: address of a Dask scheduler whose workers make large layers.
        frozen: the lock is left alone; None: it is where the environment says `CI`.
        receipts_out: a file for the lock with what was made.
    """

    cache_from: Sequence[str] = ()
    trust_receipts: bool = False
    executor: str | None = None
    frozen: bool | None = None
    receipts_out: str | None = None
