"""The pins of Python packages: of each wheel, and of what it was built from where nobody publishes one."""

from __future__ import annotations

import time
from datetime import datetime, timezone

from layerbuild.execute.parallel import in_threads
from layerbuild.kinds import requests
from layerbuild.model import Pin, PythonRequest
from layerbuild.sources import Context


def packages(context: Context, request: PythonRequest, what: str) -> dict[str, Pin]:
    """Pins by role of all packages that `request` leads to. What has no wheel is built, if that is allowed.

    Raises:
        UsageError: uv is not installed.
        BytecodeError: a wheel must be built, and no Python of its version is here.
        SourceError: they cannot be chosen, had or built.
    """
    from layerbuild.sources import pylock  # noqa: PLC0415  # most projects have no such layer
    from layerbuild.sources.built import BuiltSource  # noqa: PLC0415

    date = _moment(request.exclude_newer)

    def pinned(chosen: pylock.Chosen) -> Pin:
        pin = pylock.pinned(context, chosen)
        if chosen.is_wheel:
            return pin
        context.progress.note(f"{what}: {chosen.name} has no wheel: built from {pin.files[0].path}")
        builder = BuiltSource(context)
        return builder.build(pin, python=request.python, constraints=request.constraints, date=date)

    chosen = pylock.choose(context, request, what=what)
    pins = in_threads(pinned, chosen)
    return {requests.wheel(one.name): pin for one, pin in zip(chosen, pins, strict=True)}


def _moment(text: str | None) -> int:
    """Unix seconds of RFC 3339; of a date, its end, as uv takes it. Now, where nothing is said."""
    if text is None:
        return int(time.time())
    day = len(text) == len("2026-01-31")
    moment = datetime.fromisoformat(f"{text}T23:59:59+00:00" if day else text.replace("Z", "+00:00"))
    return int(moment.astimezone(timezone.utc).timestamp())
