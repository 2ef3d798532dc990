"""Whether a file that Python's pickle loads may be loaded: nothing is executed, and little is read.

Two have to agree. The rules here take only what is known to load tensors (`known.py`), and only files in the
forms that `torch.save` and `pickle.dump` write (`archive.py`), each pickle read to its end (`walk.py`). And
picklescan, which knows what attacks look like, must find nothing in the same bytes: its list is one of what is
forbidden, and so never complete.
"""

from __future__ import annotations

import importlib.metadata
import io
import logging
from typing import BinaryIO

from layerbuild.pickles.archive import pickles
from layerbuild.pickles.known import is_known
from layerbuild.pickles.refusal import NoPickle, Refusal
from layerbuild.pickles.walk import Walk

RULES = 1
"""Revision of the rules here."""

_LISTED = 5
"""Calls that a message names."""


def scanner() -> str:
    """Who says that a file is harmless, with versions."""
    return f"layerbuild rules {RULES}, picklescan {importlib.metadata.version('picklescan')}"


def fault(file: BinaryIO, size: int, *, lenient: bool) -> str | None:
    """Why a file may not be loaded, None if it may.

    Args:
        file: open at any place, and seekable.
        size: of the file, in bytes.
        lenient: a file that cannot be a pickle at all is harmless: `.bin` may be anything.
    """
    try:
        for data, found in pickles(file, size):
            _check(data, found)
    except NoPickle as error:
        return None if lenient else str(error)
    except Refusal as error:
        return str(error)
    return None


def _check(data: bytes, found: Walk) -> None:
    """Refuses one pickle."""
    unknown = sorted(f"{module}.{name}" for module, name in found.calls if not is_known(module, name))
    unknown += sorted(_second_opinion(data) - set(unknown))
    if unknown:
        more = f" and {len(unknown) - _LISTED} more" if len(unknown) > _LISTED else ""
        raise Refusal(f"loading it calls {', '.join(unknown[:_LISTED])}{more}"[:500])


def _second_opinion(data: bytes) -> set[str]:
    """What picklescan calls dangerous."""
    from picklescan.scanner import SafetyLevel, scan_pickle_bytes  # noqa: PLC0415  # only where there is a pickle

    logging.getLogger("picklescan").addHandler(_QUIET)
    # One pickle at a time: between two, it would keep the first one's memo.
    try:
        result = scan_pickle_bytes(io.BytesIO(data), "a pickle", multiple_pickles=False)
    except (ValueError, TypeError, LookupError, AttributeError, OSError) as error:
        raise Refusal(f"picklescan cannot read its pickle ({type(error).__name__})") from None
    return {f"{g.module}.{g.name}" for g in result.globals if g.safety is SafetyLevel.Dangerous}


_QUIET = logging.NullHandler()
"""What it finds is said once, by us."""
