"""What every source is given in these tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from layerbuild.http import Client
from layerbuild.model import Content
from layerbuild.progress import Silent, Task
from layerbuild.sources.base import Context


@dataclass
class Notes(Silent):
    """Keeps what a user would have been told."""

    lines: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)

    @contextmanager
    def task(self, label: str, total: int | None = None) -> Iterator[Task]:
        self.tasks.append(label)
        with super().task(label, total) as task:
            yield task

    def note(self, text: str) -> None:
        self.lines.append(text)


def hash_file(path: Path) -> Content:
    """As the store does it, without its memory."""
    data = path.read_bytes()
    return Content(size=len(data), sha256=hashlib.sha256(data).hexdigest())


@pytest.fixture
def notes() -> Notes:
    """Progress that remembers."""
    return Notes()


@pytest.fixture
def context(tmp_path: Path, http_client: Client, notes: Notes) -> Context:
    """A context with an empty project and an empty cache, and nothing in its environment but PATH."""
    for name in ("project", "cache"):
        (tmp_path / name).mkdir()
    return Context(
        open_client=lambda: http_client,
        project=tmp_path / "project",
        cache=tmp_path / "cache",
        environ={"PATH": "/usr/local/bin:/usr/bin:/bin"},
        hash_file=hash_file,
        progress=notes,
    )
