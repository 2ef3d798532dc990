"""Sources of images become bytecode, each once: what came out stays in the store."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from layerbuild.bytecode import LARGEST, Compiled, Compiler, Interpreter, find, too_long
from layerbuild.model import Content, sha256_hex
from layerbuild.progress import Progress
from layerbuild.pyc import setting
from layerbuild.store import Store

_NAMED = 5
"""Files that one note names."""

Source = tuple[str, Content]
"""Absolute path in the image, and what lies there."""

Fetch = Callable[[Sequence[Content]], None]
"""Brings sources here that are not."""


class Bytecode:
    """Compiles sources, and remembers. Safe to share between threads.

    Args:
        read: gives the bytes of a source that was fetched.
    """

    def __init__(self, store: Store, progress: Progress, read: Callable[[Content], Iterator[bytes]]) -> None:
        self._store = store
        self._bytes = read
        self._progress = progress
        self._found: dict[str, Interpreter] = {}
        # One at a time has all cores.
        self._turn = threading.Lock()

    def interpreter(self, python: str) -> Interpreter:
        """The Python that compiles for that version.

        Raises:
            InterpreterMissing: there is none here.
        """
        if python not in self._found:
            self._found[python] = find(python)
        return self._found[python]

    def of(self, python: str, sources: Sequence[Source], fetch: Fetch) -> Mapping[str, Content]:
        """See `kinds.base.Knowledge.bytecode`."""
        made: dict[str, Content | None] = {}
        todo = self._unknown(python, sources, made)
        if todo:
            interpreter = self.interpreter(python)
            with self._turn:
                # Meanwhile somebody else may have come to the same sources.
                todo = self._unknown(python, todo, made)
                fetch([content for _, content in todo])
                made.update(self._compiled(python, interpreter, todo))
        return {path: content for path, _ in sources if (content := made[path]) is not None}

    def _unknown(self, python: str, sources: Sequence[Source], made: dict[str, Content | None]) -> list[Source]:
        """Those that nobody has compiled here; of the others, `made` is told."""
        todo = []
        for path, content in sources:
            sha256 = self._store.sha256_of(content)
            known = self._store.bytecode(sha256, path, setting(python)) if sha256 is not None else None
            if known is None or (known.content is not None and not self._store.has(known.content)):
                todo.append((path, content))
            else:
                made[path] = known.content
        return todo

    def _compiled(self, python: str, interpreter: Interpreter, todo: Sequence[Source]) -> dict[str, Content | None]:
        made: dict[str, Content | None] = {}
        invalid = []
        with (
            self._progress.task(f"compile for Python {python}", sum(c.size or 0 for _, c in todo)) as task,
            Compiler(interpreter) as compiler,
        ):
            sources = ((self._read(path, content), path) for path, content in todo)
            for (path, content), compiled in zip(todo, compiler.compile_all(sources), strict=True):
                made[path] = self._kept(python, path, content, compiled)
                task.advance(content.size or 0)
                if compiled.data is None:
                    invalid.append(path)
        if invalid:
            more = f" and {len(invalid) - _NAMED} more" if len(invalid) > _NAMED else ""
            named = ", ".join(invalid[:_NAMED])
            self._progress.note(f"note: without bytecode, being no source of Python {python}: {named}{more}")
        return made

    def _read(self, path: str, content: Content) -> bytes:
        if (content.size or 0) > LARGEST:
            raise too_long(path, content.size or 0)
        return b"".join(self._bytes(content))

    def _kept(self, python: str, path: str, source: Content, compiled: Compiled) -> Content | None:
        content = None
        if compiled.data is not None:
            expected = Content(size=len(compiled.data), sha256=sha256_hex(compiled.data))
            content = self._store.add([compiled.data], expected, name=f"bytecode of {path}", advance=lambda _: None)
        self._store.put_bytecode(self._store.sha256_of(source) or "", path, setting(python), content)
        return content
