"""Progress for programs: one JSON object in each line of standard error, as docs/events.md describes them."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import click

from layerbuild.progress import COUNTED, Silent, Spared, Task

VERSION = 1
"""Of the events. A field that goes, or means something else, is a new version; one more field is not."""

_PACE = 1.0
"""Seconds between two `progress` events of one task, at least."""

_COUNTS = {f"{what}_bytes": "integer" for what in COUNTED}

MEANINGS = {
    "start": "A task begins.",
    "progress": "How far it is.",
    "done": "It is over: `ok` says whether it succeeded.",
    "expect": "Tasks of so many bytes together will come.",
    "skip": "Bytes that need not move: `known` (a receipt), `present` or `mounted` at the destination.",
    "note": "Something to know afterwards.",
    "log": "A request, with `--verbose`.",
    "error": "The run has failed; [see below](#error).",
    "result": "The run has ended, with all that was counted.",
    "interrupted": "Ctrl-C or SIGTERM; what is finished is kept.",
}
"""What each event says."""

EVENTS: dict[str, dict[str, str]] = {
    "start": {"task": "integer", "label": "string", "total_bytes": "integer?"},
    "progress": {"task": "integer", "label": "string", "done_bytes": "integer", "total_bytes": "integer?"},
    "done": {"task": "integer", "label": "string", "done_bytes": "integer", "seconds": "number", "ok": "boolean"},
    "expect": {"bytes": "integer"},
    "skip": {"label": "string", "bytes": "integer", "why": "string"},
    "note": {"message": "string"},
    "log": {"message": "string"},
    "error": {
        "message": "string",
        "where": "string?",
        "cause": "string?",
        "hint": "string?",
        "docs": "string",
        "exit_code": "integer",
        "problems": "array-",
        "failed": "object-",
        "trace": "string-",
    },
    "result": {"exit_code": "integer", "seconds": "number", **_COUNTS},
    "interrupted": {"message": "string", "exit_code": "integer", "seconds": "number", **_COUNTS},
}
"""Fields of each event and their JSON types. `?`: or null. `-`: may be absent."""

_writing = threading.Lock()


def emit(event: str, /, **fields: Any) -> None:
    """Writes one event."""
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    line = json.dumps({"event": event, "version": VERSION, "time": now, **fields})
    with _writing:
        click.echo(line, err=True)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of an event."""

    def described(name: str, fields: dict[str, str]) -> dict[str, Any]:
        properties: dict[str, Any] = {
            "event": {"const": name},
            "version": {"const": VERSION},
            "time": {"type": "string", "format": "date-time"},
        }
        for field, kind in fields.items():
            plain = kind.rstrip("?-")
            properties[field] = {"type": [plain, "null"] if kind.endswith("?") else plain}
        required = [*list(properties)[:3], *(field for field, kind in fields.items() if not kind.endswith("-"))]
        return {"type": "object", "properties": properties, "required": required}

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "layerbuild events",
        "oneOf": [described(name, fields) for name, fields in EVENTS.items()],
    }


class _EventTask:
    def __init__(self, number: int, label: str, total: int | None) -> None:
        self._number = number
        self._label = label
        self._total = total
        self._started = self._told = time.monotonic()
        self._done = 0
        self._lock = threading.Lock()
        emit("start", task=number, label=label, total_bytes=total)

    def advance(self, amount: int) -> None:
        with self._lock:
            self._done += amount
            now = time.monotonic()
            if now - self._told < _PACE:
                return
            self._told = now
            done = self._done
        emit("progress", task=self._number, label=self._label, done_bytes=done, total_bytes=self._total)

    def end(self, *, ok: bool) -> None:
        seconds = round(time.monotonic() - self._started, 3)
        emit("done", task=self._number, label=self._label, done_bytes=self._done, seconds=seconds, ok=ok)


class Events(Silent):
    """Every task, note and skip as an event."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        """See `Progress.task`."""
        task = _EventTask(next(self._numbers), label, total)
        ok = False
        try:
            yield task
            ok = True
        finally:
            task.end(ok=ok)

    def expect(self, amount: int) -> None:
        """See `Progress.expect`."""
        emit("expect", bytes=amount)

    def skip(self, label: str, amount: int, why: Spared) -> None:
        """See `Progress.skip`."""
        super().skip(label, amount, why)
        emit("skip", label=label, bytes=amount, why=why)

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        emit("note", message=text)
