"""`--digest-file FILE`: what a run pushed, for the next program."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from layerbuild.destinations.files import explained, unfinished, write
from layerbuild.errors import UsageError
from layerbuild.execute.report import PushedImage


def lines(image: PushedImage) -> list[str]:
    """`REFERENCE@sha256:HEX` for each name that it has now."""
    return [f"{reference}@{image.digest}" for reference in image.references]


@contextlib.contextmanager
def written(name: str | None) -> Iterator[list[str]]:
    """A list whose lines are in the file when the block ends, also by an error: a file of an earlier run
    would tell of other images. It is replaced in one step.

    Args:
        name: of the file; None to write nothing.

    Raises:
        UsageError: it is something else than a file.
        DestinationError: it cannot be written. Told before the block runs, where that can be known.
    """
    found: list[str] = []
    if name is None:
        yield found
        return
    # a link stays one: what it leads to is replaced
    path = Path(name).resolve()
    if path.exists() and not path.is_file():
        raise UsageError(f"{name} is not a file", hint="name a file after --digest-file: a new one, or one to replace")
    what = f"the digest file {name}"
    with contextlib.ExitStack() as stack:
        with explained(what):
            stream, keep = stack.enter_context(unfinished(path.parent))
        try:
            yield found
        finally:
            with explained(what):
                write(stream, "".join(f"{line}\n" for line in found).encode())
                keep(path)
