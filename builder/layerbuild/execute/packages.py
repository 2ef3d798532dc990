"""The pins of Python packages: of each wheel, and of what it was built from where nobody publishes one."""

from __future__ import annotations

from layerbuild.execute.parallel import in_threads
from layerbuild.kinds import requests
from layerbuild.model import Pin, PythonRequest
from layerbuild.sources import Context


def packages(context: Context, request: PythonRequest, what: str) -> dict[str, Pin]:
    """Pins by role of all packages that `request` leads to.

    Raises:
        UsageError: uv is not installed.
        SourceError: they cannot be chosen or had.
    """
    from layerbuild.sources import pylock  # noqa: PLC0415  # most projects have no such layer

    chosen = pylock.choose(context, request, what=what)
    pins = in_threads(lambda one: pylock.pinned(context, one), chosen, parallel=8)
    return {requests.wheel(one.name): pin for one, pin in zip(chosen, pins, strict=True)}
